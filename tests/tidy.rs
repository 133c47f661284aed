//! The boundaries of the house, held by a test: who may import whom, where `unsafe` may stand, what
//! touches no I/O, and how long things may get.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that import at most each other: numbers, errors and the values between the stages.
const LEAVES: [&str; 10] =
    ["units", "error", "flow", "facts", "buffers", "hash", "map", "retry", "markup", "holes"];

/// What each folder or file below `src` may import besides itself and, unless it is a leaf, the
/// leaves. `cli → bench → convert → stages → {qcow2, openstack} → leaves`; stages never import each other.
const IMPORTS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("error", &[]),
    ("facts", &[]),
    ("buffers", &[]),
    ("hash", &[]),
    ("retry", &[]),
    ("faults", &[]),
    ("markup", &[]),
    ("free", &[]),
    ("holes", &["units"]),
    ("map", &["units"]),
    ("flow", &["buffers", "error", "hash", "units"]),
    ("qcow2", &[]),
    ("openstack", &[]),
    ("source", &[]),
    ("source/glance", &["openstack"]),
    ("scan", &[]),
    ("encode", &["qcow2"]),
    ("place", &["qcow2"]),
    ("plan", &["qcow2"]),
    ("spool", &[]),
    ("sink", &[]),
    ("state", &[]),
    ("sink/glance", &["openstack"]),
    ("read", &["qcow2"]),
    ("extents", &["read", "source"]),
    ("verify", &["read", "scan", "source", "free"]),
    ("convert", &["source", "scan", "encode", "place", "plan", "qcow2", "spool", "sink", "state", "free"]),
    ("convert/glance", &["sink", "openstack"]),
    ("fetch", &["convert", "source", "scan", "sink", "read"]),
    ("embedded", &[]),
    (
        "bench",
        &["convert", "source", "scan", "encode", "place", "plan", "sink", "qcow2", "openstack", "embedded"],
    ),
    (
        "cli",
        &[
            "convert",
            "source",
            "scan",
            "encode",
            "place",
            "plan",
            "sink",
            "read",
            "extents",
            "verify",
            "fetch",
            "free",
            "state",
            "qcow2",
            "openstack",
            "embedded",
            "bench",
        ],
    ),
];

/// The only leaves that these two may import: they stand for the world outside.
const NARROW: &[(&str, &[&str])] = &[("qcow2", &["units", "error"]), ("embedded", &["units", "error"])];

/// Files that may say `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("src/buffers.rs", "aligned buffers: advice to the kernel about memory of our own"),
    ("src/scan/zero/avx2.rs", "SIMD: one call behind the run-time check, and unaligned loads"),
    ("src/encode/isal.rs", "ISA-L is a C library without a safe binding that reuses its buffers"),
    ("fuzz/src/free/memory.rs", "an allocator that counts: what it is for is unsafe by its trait"),
    ("src/sink/writer/uring.rs", "io_uring: buffers are lent to the kernel until it answers"),
];

/// What pure arithmetic has no use for.
const IO: [&str; 6] = ["std::fs", "std::io", "std::net", "std::thread", "std::process", "tokio"];

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;

/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[("tests/openstack_client.rs", "a flat table of cases that share one lab")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository, as paths from its root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_empty() || path.extension().is_some_and(|own| own == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<PathBuf> {
    ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || path.iter().any(|part| part == "tests")
}

/// The lines of a file up to its own tests, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = read(path);
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect()
}

/// The name under which a file of `src` stands in the tables: the longest that fits.
fn room_of(path: &Path) -> String {
    let inner = path.strip_prefix("src").unwrap().with_extension("");
    let name = inner.to_string_lossy().replace('\\', "/");
    let fits = |room: &&str| name == **room || name.starts_with(&format!("{room}/"));
    let known = IMPORTS.iter().map(|(room, _)| *room).filter(fits).max_by_key(|room| room.len());
    known.unwrap_or_else(|| panic!("{}: a new room needs a line in IMPORTS", path.display())).to_owned()
}

/// The names that follow `crate::` or `snapcow::`, groups in braces included.
fn imported(code: &str) -> Vec<String> {
    let ident =
        |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for prefix in ["crate::", "snapcow::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                names.push(ident(rest));
                continue;
            };
            let mut depth = 0;
            let mut begins = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    c if begins && c.is_alphabetic() => {
                        names.push(ident(&group[at..]));
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
    }
    names
}

fn complain(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn folders_import_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for path in files("src", "rs").into_iter().filter(|path| !is_test_file(path)) {
        if path == Path::new("src/lib.rs") || path == Path::new("src/main.rs") {
            continue;
        }
        let room = room_of(&path);
        let own = room.split('/').next().unwrap();
        let (_, allowed) = IMPORTS.iter().find(|(name, _)| *name == room).unwrap();
        let leaves = match NARROW.iter().find(|(name, _)| *name == own) {
            Some((_, narrow)) => narrow,
            None if LEAVES.contains(&own) => &[][..],
            None => &LEAVES[..],
        };
        for name in imported(&code(&path).join("\n")) {
            // What begins with a capital is re-exported at the root; nothing inside goes that way.
            let fine = name == own || leaves.contains(&name.as_str()) || allowed.contains(&name.as_str());
            if !fine {
                wrong.push(format!("{} imports {name}", path.display()));
            }
        }
    }
    complain("imports against the current (tests/tidy.rs, IMPORTS)", &wrong);
}

#[test]
fn the_import_scan_sees_what_it_should() {
    let code = "use crate::{plan::{Plan, Route}, units};\nlet x = crate::map::f();\nuse snapcow::sink::A;";
    assert_eq!(imported(code), ["plan", "units", "map", "sink"]);
}

#[test]
fn format_and_plan_touch_no_io() {
    let mut wrong = Vec::new();
    // The readers of free space run on threads of their own where a disk streams by: that file starts them.
    let has_threads = |path: &PathBuf| path == Path::new("src/free/disk/crew.rs");
    let folders = ["src/qcow2", "src/plan", "src/read", "src/free"];
    for path in folders
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .filter(|path| !has_threads(path) && !is_test_file(path))
    {
        for (number, line) in code(&path).iter().enumerate() {
            if let Some(io) = IO.iter().find(|io| line.contains(**io)) {
                wrong.push(format!("{}:{}: {io}", path.display(), number + 1));
            }
        }
    }
    complain("pure arithmetic that is not", &wrong);
}

#[test]
fn unsafe_stands_only_where_it_is_listed_and_says_why() {
    let mut wrong = Vec::new();
    for path in rust_files().into_iter().filter(|path| path.file_name().unwrap() != "tidy.rs") {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        let listed = UNSAFE.iter().any(|(listed, why)| Path::new(listed) == path && !why.is_empty());
        for (number, line) in code(&path).iter().enumerate() {
            let blocks =
                line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            if !listed && (blocks || line.contains("allow(unsafe_code)")) {
                wrong.push(format!("{}:{}: not in the list", path.display(), number + 1));
            }
            let explained =
                lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("SAFETY:"));
            if line.contains("unsafe {") && !explained {
                wrong.push(format!("{}:{}: no SAFETY comment", path.display(), number + 1));
            }
        }
    }
    complain("unsafe code (tests/tidy.rs, UNSAFE)", &wrong);
}

#[test]
fn every_folder_says_what_it_is() {
    let stages =
        ["source", "scan", "encode", "place", "sink", "plan", "spool", "qcow2", "read", "verify", "free"];
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let text = read(&path);
        let doc: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if doc.is_empty() {
            wrong.push(format!("{}: does not begin with //!", path.display()));
        }
        let is_stage = stages.iter().any(|stage| path == Path::new("src").join(stage).join("mod.rs"));
        if is_stage && !(doc.contains("Takes") && doc.contains("gives")) {
            wrong.push(format!("{}: does not tell what it takes and gives", path.display()));
        }
    }
    // Files of tests inside `src` are read by those who read the code that they test.
    wrong.retain(|line| !line.contains("tests"));
    complain("files without a word about themselves", &wrong);
}

#[test]
fn functions_and_files_stay_readable() {
    let mut wrong = Vec::new();
    for path in rust_files() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        let listed = LONG.iter().any(|(listed, why)| Path::new(listed) == path && !why.is_empty());
        if lines.len() > FILE_LINES_MAX && !listed {
            wrong.push(format!("{}: {} lines", path.display(), lines.len()));
        }
        for (number, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let words: Vec<&str> = trimmed
                .split(' ')
                .take_while(|word| !word.contains('(') || word.starts_with("pub("))
                .collect();
            if !words.contains(&"fn") || trimmed.starts_with("//") || trimmed.ends_with(';') {
                continue;
            }
            // rustfmt puts the closing brace where the function's first line begins.
            let end = format!("{}}}", &line[..line.len() - trimmed.len()]);
            let len = lines[number..].iter().position(|line| *line == end).unwrap_or(0) + 1;
            if len > FUNCTION_LINES_MAX {
                wrong.push(format!("{}:{}: a function of {len} lines", path.display(), number + 1));
            }
        }
    }
    complain("longer than one can hold in one's head", &wrong);
}

#[test]
fn no_leftovers() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("db", "g!(")];
    let mut paths = rust_files();
    paths.extend(
        files("tools", "").into_iter().filter(|path| path.extension().is_none_or(|own| own != "pyc")),
    );
    paths.extend(["Cargo.toml", "CHANGELOG.md", "README.md"].map(PathBuf::from));
    let mut wrong = Vec::new();
    for path in paths.into_iter().filter(|path| root().join(path).exists()) {
        for (number, line) in read(&path).lines().enumerate() {
            let at = format!("{}:{}", path.display(), number + 1);
            if line.contains('\t') || line.ends_with(' ') {
                wrong.push(format!("{at}: a tab, or white space at the end"));
            }
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                wrong.push(format!("{at}: {mark}"));
            }
        }
    }
    complain("leftovers", &wrong);
}

#[test]
fn every_test_program_is_run() {
    let script = fs::read_to_string(root().join("tools/test")).unwrap();
    let forgotten: Vec<String> = fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !script.contains(&format!("--test {name}")))
        .collect();
    complain("not run by tools/test", &forgotten);
}

#[test]
fn the_changelog_knows_this_version() {
    let text = read(Path::new("CHANGELOG.md"));
    let current = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(
        text.contains("## [Unreleased]") || text.contains(&current),
        "CHANGELOG.md has no section for today"
    );
}
