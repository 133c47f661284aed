//! What the tests with real filesystems share: their tools, mounts, the command.
#![allow(dead_code, reason = "each module uses a part of it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::lab::machine::{SYS_ADMIN, has_capability, left_out};

/// Whether these tools are here and, for `mount`, the right to use it. If not, the test is left out, which fails where
/// `SNAPCOW_REQUIRE` is 1 and it could be had.
#[track_caller]
pub fn ready(tools: &[&str]) -> bool {
    let path = search_path();
    let is_there = |tool: &&&str| path.split(':').any(|folder| Path::new(folder).join(tool).exists());
    let missing: Vec<&str> = tools.iter().filter(|tool| !is_there(tool)).copied().collect();
    if !missing.is_empty() {
        left_out(&format!("the tools {missing:?}"), true);
        return false;
    }
    if tools.contains(&"mount") && !(has_capability(SYS_ADMIN) && Path::new("/dev/loop-control").exists()) {
        left_out("mounting", has_capability(SYS_ADMIN));
        return false;
    }
    true
}

fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Runs a command line; its words have no spaces.
pub fn try_run(line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", search_path()).env("LC_ALL", "C");
    command.output().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The same; what it prints.
#[track_caller]
pub fn run(line: &str) -> String {
    let out = try_run(line);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Runs a tool on a file, with these lines on its standard input.
#[track_caller]
pub fn feed(tool: &str, file: &Path, lines: &str) {
    let words: Vec<&str> = tool.split_whitespace().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(file).env("PATH", search_path()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{tool}: {error}"));
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{tool}: {lines}");
}

/// Our own command; what it tells a person.
#[track_caller]
pub fn snapcow(line: &str) -> String {
    let out = try_run(&format!("{} {line}", env!("CARGO_BIN_EXE_snapcow")));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{line}: {text}");
    text
}

/// A mount that ends with it.
pub struct Mounted(pub PathBuf);

impl Mounted {
    #[track_caller]
    pub fn new(image: &Path, on: &Path, options: &str) -> Self {
        fs::create_dir_all(on).unwrap();
        run(&format!("mount -o loop,{options} {} {}", image.display(), on.display()));
        Self(on.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A search of this machine for files may be inside.
        for _ in 0..50 {
            if try_run(&format!("umount {}", self.0.display())).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("could not unmount {}", self.0.display());
    }
}
