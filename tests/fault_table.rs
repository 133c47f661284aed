//! The list of faults keeps its word: every test that it names is there and is a test, the README shows it as it is.
//! SNAPCOW_WRITE=1 writes the README's table anew.

use std::fs;
use std::path::{Path, PathBuf};

use snapcow::faults::{TABLE, markdown};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a file has a test of that name.
fn has_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}()");
    lines.iter().enumerate().any(|(number, line)| {
        line.starts_with(&head) && lines[..number].iter().rev().take(3).any(|line| *line == "#[test]")
    })
}

#[test]
fn every_fault_has_a_test_that_is_there() {
    let missing: Vec<&str> = TABLE
        .iter()
        .filter(|row| {
            let (file, name) = row.test.split_once("::").unwrap();
            !has_test(Path::new(file), name)
        })
        .map(|row| row.test)
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
    assert!(has_test(Path::new("tests/fault_table.rs"), "every_fault_has_a_test_that_is_there"));
    assert!(!has_test(Path::new("tests/fault_table.rs"), "root"));
}

#[test]
fn no_fault_is_there_twice_and_every_cell_says_something() {
    for (number, row) in TABLE.iter().enumerate() {
        let cells = [row.fault, row.sees, row.left, row.test];
        assert!(cells.iter().all(|cell| !cell.is_empty() && !cell.contains('|')), "{row:?}");
        assert!(TABLE[..number].iter().all(|other| other.fault != row.fault), "{row:?}");
    }
}

#[test]
fn the_readme_shows_the_list_as_it_is() {
    const BEGIN: &str = "<!-- faults:begin -->\n";
    const END: &str = "<!-- faults:end -->";
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has no faults:begin");
    let (shown, after) = rest.split_once(END).expect("README.md has no faults:end");
    if shown == markdown() {
        return;
    }
    if std::env::var("SNAPCOW_WRITE").as_deref() == Ok("1") {
        fs::write(path, format!("{before}{BEGIN}{}{END}{after}", markdown())).unwrap();
        return;
    }
    panic!("README.md shows another table: SNAPCOW_WRITE=1 cargo test --test fault_table");
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn nothing_that_decides_looks_at_the_wall_clock() {
    // Where it is only shown: the embedded Glance's records, what a benchmark or a report says of itself, ages in a list,
    // how far a cloud's clock is from ours, the date in a new image's name.
    const SHOWN: [&str; 6] = [
        "src/embedded/",
        "src/bench/",
        "src/cli/report.rs",
        "src/cli/list/",
        "src/openstack/health.rs",
        "src/cli/snapshot/look.rs",
    ];
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let mut looks = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let looked = ["SystemTime", "UNIX_EPOCH", "Utc::now", "Local::now", "ClockId::Realtime"];
        if looked.iter().any(|clock| text.contains(clock))
            && !SHOWN.iter().any(|shown| name.starts_with(shown))
        {
            looks.push(name);
        }
    }
    assert!(looks.is_empty(), "these look at the wall clock, which may jump: {looks:?}");
}
