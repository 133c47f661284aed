//! What a package carries beside the program: manual pages and completions.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{run, said, snapcow};

/// Whether a program is there; CI installs groff and bash, and takes the other shells where they are.
fn has(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = asked.is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not here");
    }
    found
}

fn pages(folder: &std::path::Path) -> Vec<PathBuf> {
    let output = run(&mut snapcow(["man", folder.to_str().unwrap()]));
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

#[test]
fn manual_pages_are_well_formed_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(&folder.path().join("man1"));
    assert!(pages.len() >= 8, "{pages:?}");
    let main = run(&mut snapcow(["man"])).stdout;
    assert_eq!(main, std::fs::read(folder.path().join("man1/snapcow.1")).unwrap());
    assert!(has("groff") || std::env::var("SNAPCOW_REQUIRE").as_deref() != Ok("1"), "groff is wanted");
    if !has("groff") {
        return;
    }
    for page in &pages {
        let output = run(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-cbou"]).arg(page));
        assert_eq!(said(&output), "", "{}", page.display());
        let text = String::from_utf8(output.stdout).unwrap();
        let name = page.file_stem().unwrap().to_str().unwrap();
        assert!(text.contains(&name.to_uppercase()) && text.contains("SEE ALSO"), "{text}");
        if page.extension().unwrap() == "1" {
            for words in ["SYNOPSIS", "OPTIONS", "EXIT STATUS", "--config", "wrong usage"] {
                assert!(text.contains(words), "{name} without {words}: {text}");
            }
        }
    }
    // A language other than the one of the pages is no reason to find nothing.
    if has("mandoc") {
        let output = run(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).args(&pages));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn completions_are_understood_by_their_shells() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&mut snapcow(["completions", shell]));
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}: {}", said(&output));
        let path = folder.path().join(shell);
        std::fs::write(&path, output.stdout).unwrap();
        if ["bash", "zsh", "fish"].contains(&shell) && has(shell) {
            let output = run(Command::new(shell).arg("-n").arg(&path));
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", said(&output));
        }
    }
    // As bash calls it when somebody presses the tabulator key.
    let script = "source \"$1\"; COMP_WORDS=(${2}); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); \
                  _snapcow snapcow \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; echo \"${COMPREPLY[@]}\"";
    for (line, expected) in [
        ("snapcow conv", "convert"),
        ("snapcow convert --spool-di", "--spool-dir --spool-disk"),
        ("snapcow convert --compression zs", "zstd"),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"]).arg(folder.path().join("bash")).arg(line);
        let output = run(&mut bash);
        let mut words: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().split_whitespace().collect();
        words.sort_unstable();
        assert_eq!(words.join(" "), expected, "{line}: {}", said(&output));
    }
}
