//! Faults of this machine that the command meets: a target that takes nothing, a limit on memory, a clock that jumps.
#![cfg(all(feature = "cli", feature = "embedded"))]

#[path = "faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
#[path = "lab/machine.rs"]
mod machine;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use bench::{Bench, MIB};
use machine::{SETUID, SYS_ADMIN, has_capability, left_out};
use serde_json::Value;
use snapcow::embedded::{Answer, Fault, Faults, Route};

fn convert(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    command.arg("convert").args(words).stdin(Stdio::null());
    command
}

#[track_caller]
fn refuses(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no «{word}» in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Bytes that do not get smaller.
fn noise(path: &Path, len: u64) {
    let mut state = 7u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    })
    .flat_map(|word| [word[0], word[1], word[2], word[3]])
    .take(len as usize)
    .collect();
    std::fs::write(path, bytes).unwrap();
}

/// A file system in memory that nobody may write to.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(answer) if answer.status.success() => Some(Self(folder)),
            other => {
                left_out(&format!("a read-only tmpfs: {other:?}"), has_capability(SYS_ADMIN));
                None
            }
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The command as somebody whom permissions concern: root goes where it likes.
fn convert_as_somebody(folder: &Path, words: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return convert(words);
    }
    // Nobody else may go where root keeps its builds.
    let program = folder.join("snapcow");
    std::fs::copy(env!("CARGO_BIN_EXE_snapcow"), &program).unwrap();
    let mut command = Command::new(program);
    command.uid(65534).arg("convert").args(words).stdin(Stdio::null());
    command
}

/// As `sudo -u` and containers have it: HOME is somebody else's.
#[test]
fn a_home_that_may_not_be_entered_has_no_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, home) = (folder.path().join("raw"), folder.path().join("home"));
    let defaults = home.join(".config/snapcow/config.toml");
    noise(&raw, 1 << 20);
    std::fs::create_dir_all(defaults.parent().unwrap()).unwrap();
    std::fs::write(&defaults, "level = \"no such\"\n").unwrap();
    let target = folder.path().join("image.qcow2");
    let run = |home_mode, file_mode| {
        allow(&home, home_mode);
        allow(&defaults, file_mode);
        let words = ["--force", raw.to_str().unwrap(), target.to_str().unwrap()];
        let output = convert_as_somebody(folder.path(), &words)
            .env("HOME", &home)
            .env_remove("XDG_CONFIG_HOME")
            .output();
        allow(&home, 0o700);
        output
    };
    allow(folder.path(), 0o777);
    allow(&raw, 0o644);
    match run(0o000, 0o644) {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return left_out(&format!("to be somebody else: {error}"), has_capability(SETUID)),
    }
    // A file in sight is meant for this user, and not passed over.
    refuses(&run(0o755, 0o000).unwrap(), 2, &["read the defaults", "Permission denied", "--no-config"]);
}

#[test]
fn a_read_only_target_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, closed) = (folder.path().join("raw"), folder.path().join("closed"));
    noise(&raw, 1 << 20);
    std::fs::create_dir(&closed).unwrap();
    for (path, mode) in [(folder.path(), 0o755), (raw.as_path(), 0o644), (closed.as_path(), 0o555)] {
        allow(path, mode);
    }
    let target = closed.join("image.qcow2");
    let words = [raw.to_str().unwrap(), target.to_str().unwrap()];
    match convert_as_somebody(folder.path(), &words).output() {
        Ok(output) => refuses(&output, 7, &["Permission denied", "image.qcow2"]),
        Err(error) => left_out(&format!("to be somebody else: {error}"), has_capability(SETUID)),
    }
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);

    let Some(mounted) = ReadOnly::new() else { return };
    let target = mounted.0.path().join("image.qcow2");
    let output = convert(&[words[0], target.to_str().unwrap()]).output().unwrap();
    refuses(&output, 7, &["Read-only file system", "image.qcow2"]);
}

#[test]
fn a_full_standard_output_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    noise(&raw, 5 << 20);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let words = [raw.to_str().unwrap(), "-", "--spool-dir", folder.path().to_str().unwrap()];
    let output = convert(&words).stdout(full).output().unwrap();
    refuses(&output, 7, &["sink: ", "standard output", "No space left"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_limit_on_file_sizes_is_a_full_disk() {
    // In memory and on disk it is written in different ways.
    for place in ["/dev/shm", "/var/tmp"] {
        let folder = tempfile::tempdir_in(place).unwrap();
        let (raw, target) = (folder.path().join("raw"), folder.path().join("image.qcow2"));
        noise(&raw, 8 << 20);
        let mut command = Command::new("sh");
        // 2 MiB, or 4 MiB where the shell counts in KiB.
        command.args(["-c", "ulimit -f 4096 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_snapcow"), "convert"]);
        let output = command.args([&raw, &target]).stdin(Stdio::null()).output().unwrap();
        refuses(&output, 7, &["File too large", "host offset", "ulimit -f"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

/// A control group with a limit on memory, of whichever version this machine has.
struct Limited(PathBuf);

/// Whether such a group can be made: by root, in a hierarchy that counts memory and may be written to.
fn may_limit_memory() -> bool {
    let writable = |path: &str| {
        rustix::fs::statvfs(path)
            .is_ok_and(|stat| !stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    };
    let version_1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    let delegated = std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap_or_default();
    let version_2 = delegated.split_whitespace().any(|controller| controller == "memory");
    rustix::process::geteuid().is_root()
        && (version_1 && writable("/sys/fs/cgroup/memory") || version_2 && writable("/sys/fs/cgroup"))
}

impl Limited {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("snapcow-test-{}", std::process::id());
        for (root, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let folder = Path::new(root).join(&name);
            if std::fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self(folder);
            // Where no hierarchy is mounted, this is an ordinary folder.
            let is_group = group.0.join("cgroup.procs").exists();
            if is_group && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        left_out("a control group with a limit on memory", may_limit_memory());
        None
    }

    /// The command in the group.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ > \"$0/cgroup.procs\" && exec \"$@\"").arg(&self.0);
        command.arg(env!("CARGO_BIN_EXE_snapcow")).arg("convert").args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_memory_limit_is_seen_before_a_byte_moves() {
    let Some(group) = Limited::new(192 << 20) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (raw, target) = (folder.path().join("raw"), folder.path().join("image.qcow2"));
    File::create(&raw).unwrap().set_len(2 << 40).unwrap();
    let words = [raw.to_str().unwrap(), target.to_str().unwrap()];
    refuses(&group.run(&words), 7, &["more than half of the memory", "--cluster-size"]);
    assert!(!target.exists());
    let larger = group.run(&[&words[..], &["--cluster-size", "2M", "--memory", "64MiB"]].concat());
    assert!(larger.status.success(), "{}", String::from_utf8_lossy(&larger.stderr));
}

/// Stands before the C library: the wall clock is a day ahead and a day behind by turns, at every look. The monotonic
/// clock is left alone.
const JUMPING_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int looks;
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += __sync_fetch_and_add(&looks, 1) % 2 ? -86400 : 86400;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The library of that source, or `None` where there is no C compiler.
fn jumping_clock(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, JUMPING_CLOCK).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output();
    match made {
        Ok(answer) if answer.status.success() => Some(library),
        other => {
            left_out(&format!("a clock that jumps: {other:?}"), true);
            None
        }
    }
}

/// The wall clock did jump under the run that wrote this report.
#[track_caller]
fn has_jumped(report: &Path) {
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let started = report["started_unix_seconds"].as_u64().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(started.abs_diff(now) > 80_000, "it began at {started}, and now is {now}");
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(clock) = jumping_clock(folder.path()) else { return };
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (raw, plain, jumped, report) = (path("raw"), path("plain"), path("jumped"), path("report.json"));
    noise(Path::new(&raw), 5 * MIB + 777);
    assert!(convert(&[&raw, &plain]).output().unwrap().status.success());
    let words = [raw.as_str(), &jumped, "--report", &report];
    let output = convert(&words).env("LD_PRELOAD", &clock).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    has_jumped(Path::new(&report));
    assert!(std::fs::read(plain).unwrap() == std::fs::read(jumped).unwrap());

    // Through a Glance, with tries and pauses.
    let mut faults = Faults::default();
    for route in [Route::List, Route::Create, Route::Download, Route::Upload] {
        faults.answers.push((Some(route), Fault::first(1, Answer::status(503))));
    }
    let bench = Bench::new(bench::with(faults), bench::Noise::full(12 * MIB));
    let words = ["glance:snapshot", "glance:compact", "--report", &report];
    let mut command = convert(&words);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OS_")) {
        command.env_remove(name);
    }
    command.env("OS_TOKEN", bench.glance.token()).env("OS_ENDPOINT", bench.glance.endpoint());
    let output = command.env("LD_PRELOAD", &clock).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    has_jumped(Path::new(&report));
    bench.prove(String::from_utf8(output.stdout).unwrap().trim());
    assert!(bench.glance.records().iter().filter(|record| record.status == Some(503)).count() >= 4);
}
