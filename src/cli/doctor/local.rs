//! What this machine can do.

use std::path::{Path, PathBuf};

use snapcow::convert::machine_facts;
use snapcow::error::{Kind, Stage};
use snapcow::units::Human;

use super::super::prepare::default_spool_dir;
use super::super::versions::versions;
use super::{Checks, Level};

/// What a conversion takes by default, in bytes: `--memory`, and some for code and map.
const MEMORY_BYTES: u64 = 320 << 20;
/// A spool with less free space than this will not hold the clusters of many images, in bytes.
const SPOOL_BYTES: u64 = 4 << 30;
/// What programs take for their way out.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Looks at the machine.
pub fn look(checks: &mut Checks, spool_dir: Option<&Path>) {
    program(checks);
    let dir = spool_dir.map_or_else(default_spool_dir, Path::to_owned);
    let facts = machine_facts(&dir);
    processors(checks, facts.cores);
    memory(checks, facts.memory_bytes);
    spool(checks, &dir, facts.spool_free_bytes, facts.spool_is_memory);
    io_uring(checks);
    environment(checks);
}

fn program(checks: &mut Checks) {
    let versions = versions();
    let text = |name: &str| versions[name].as_str().unwrap_or("unknown").to_owned();
    let libraries = versions["libraries"].as_object();
    let named: Vec<String> = libraries
        .into_iter()
        .flatten()
        .filter(|(name, _)| matches!(name.as_str(), "libdeflater" | "zlib-rs" | "zstd-sys" | "isal-sys"))
        .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("")))
        .collect();
    let line = format!("snapcow {} with {}; {}", text("snapcow"), named.join(", "), text("kernel"));
    if versions["optimised"] == true {
        checks.add("program", Level::Ok, line);
    } else {
        let advice = "build it with cargo build --release, or tools/release";
        checks.advise("program", Level::Warning, format!("{line}; built without optimisation: slow"), advice);
    }
    let kernel = text("zero_kernel");
    if kernel == "portable" {
        let line =
            "zeros are looked for without SIMD: this processor has no AVX2, or the program no kernel for it";
        checks.add("zero scan", Level::Note, line);
    } else {
        checks.add("zero scan", Level::Ok, format!("by {kernel}"));
    }
    if cfg!(feature = "isal-sys") {
        checks.add("codecs", Level::Ok, "zlib by ISA-L with --level fast");
    } else {
        let line =
            "without ISA-L: --level fast is no faster than the default (a build with --features isal has it)";
        checks.add("codecs", Level::Note, line);
    }
}

fn processors(checks: &mut Checks, cores: usize) {
    match cores {
        1 => checks.advise(
            "processors",
            Level::Note,
            "one core: hashing the source and encoding take turns, the run takes as long as both",
            "another machine, or --verify-source off where nobody needs the proof",
        ),
        2..=64 => checks.add("processors", Level::Ok, format!("{cores} cores")),
        _ => checks.add(
            "processors",
            Level::Note,
            format!("{cores} cores; --memory 256MiB serves about 40 threads, more memory serves more"),
        ),
    }
}

fn memory(checks: &mut Checks, bytes: u64) {
    if bytes == u64::MAX {
        checks.add("memory", Level::Note, "how much is there cannot be told (/proc/meminfo is not readable)");
    } else if bytes >= MEMORY_BYTES {
        checks.add("memory", Level::Ok, format!("{} to be had, control groups included", Human(bytes)));
    } else {
        let line =
            format!("{} to be had, control groups included; a run takes 256 MiB by default", Human(bytes));
        checks.advise("memory", Level::Warning, line, "give a smaller --memory, 64MiB or more");
    }
}

fn spool(checks: &mut Checks, dir: &Path, free: Option<u64>, is_memory: bool) {
    let shown = dir.display();
    if let Err(error) = tempfile::tempfile_in(dir) {
        checks.advise(
            "spool",
            Level::Problem(Stage::Spool, Kind::Local),
            format!("no file can be made in {shown}: {error}"),
            "name another folder by --spool-dir or $TMPDIR, or give --spool-disk 0",
        );
        return;
    }
    let Some(free) = free else {
        return checks.add("spool", Level::Note, format!("how much is free in {shown} cannot be told"));
    };
    if is_memory {
        let line = format!(
            "{shown} lies in memory (tmpfs): by default nothing is kept there, what --memory does not hold is read again"
        );
        checks.advise("spool", Level::Note, line, "name a folder on a disk by --spool-dir");
    } else if free < SPOOL_BYTES {
        let line = format!(
            "{} free in {shown}: larger images do not fit, and the source is read again in part",
            Human(free)
        );
        checks.advise("spool", Level::Note, line, "more --memory, or a larger disk by --spool-dir");
    } else {
        checks.add("spool", Level::Ok, format!("{} free in {shown}", Human(free)));
    }
}

fn io_uring(checks: &mut Checks) {
    match snapcow::sink::check_uring() {
        Ok(()) => checks.add("io_uring", Level::Ok, "files are written by it"),
        Err(error) => checks.add(
            "io_uring",
            Level::Note,
            format!("not permitted here ({error}): files are written by threads, at a little more CPU time"),
        ),
    }
}

/// Variables that change the way of every connection.
fn environment(checks: &mut Checks) {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let proxies: Vec<&str> = PROXY_VARIABLES.into_iter().filter(set).collect();
    // Only names: an address may hold a password.
    match proxies.as_slice() {
        [] => checks.add("proxy", Level::Ok, "none in the environment"),
        names => checks.add(
            "proxy",
            Level::Note,
            format!(
                "{} set: all but loopback goes that way; a proxy that keeps whole uploads back makes runs longer",
                names.join(", ")
            ),
        ),
    }
    let files = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter(set);
    for name in files {
        let path = PathBuf::from(std::env::var_os(name).unwrap_or_default());
        if !path.exists() {
            let line = format!("{name} names {}, which is not there", path.display());
            checks.advise("ca files", Level::Warning, line, "correct it, or unset it");
        } else {
            checks.add("ca files", Level::Note, format!("{name} names {}", path.display()));
        }
    }
}
