//! Runs the command and watches it: exit code, both outputs, peak memory, bytes written to disks.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use super::Lab;
use super::machine::{SYS_PTRACE, has_capability, left_out};

/// Longer than any run here takes: a run that hangs is to fail the test, not to stop all tests.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often a running command is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub peak_rss_bytes: u64,
    /// `write_bytes` of `/proc/PID/io` at the very end.
    pub disk_write_bytes: u64,
    pub wall: Duration,
}

impl Ran {
    /// Everything went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        self
    }

    /// Failed with this code and one sentence that has all these words.
    #[track_caller]
    pub fn refuses(self, code: i32, words: &[&str]) -> Self {
        let ran = self.exits(code);
        let sentence = ran.stderr.lines().last().unwrap_or_default();
        assert!(sentence.starts_with("snapcow: "), "{}", ran.stderr);
        for word in words {
            assert!(sentence.contains(word), "no «{word}» in: {sentence}");
        }
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// The ID that stands on standard output, alone.
    #[track_caller]
    pub fn image_id(&self) -> String {
        let text = std::str::from_utf8(&self.stdout).unwrap();
        let id = text.strip_suffix('\n').unwrap_or_else(|| panic!("no newline in {text:?}"));
        assert!(id.len() == 36 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-'), "{text:?}");
        id.to_owned()
    }
}

/// A run under way.
pub struct Running {
    child: Child,
    begin: Instant,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: JoinHandle<()>,
    said: Arc<Mutex<Vec<u8>>>,
}

/// `snapcow` and these words, with no login in its environment.
pub fn snapcow<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OS_") {
            command.env_remove(name);
        }
    }
    // No clouds.yaml of the person who runs the tests.
    command.env("OS_CLIENT_CONFIG_FILE", "/nonexistent/clouds.yaml").env("XDG_CONFIG_HOME", "/nonexistent");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same, logged in to a cloud of the lab.
pub fn snapcow_in<S: AsRef<std::ffi::OsStr>>(
    lab: &Lab,
    cloud: &str,
    words: impl IntoIterator<Item = S>,
) -> Command {
    logged_in(lab, cloud, snapcow(words))
}

/// `snapcow convert`, with no login in its environment.
pub fn convert<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let words = words.into_iter().map(|word| word.as_ref().to_owned());
    snapcow(std::iter::once("convert".into()).chain(words))
}

/// The same, logged in to a cloud of the lab.
pub fn convert_in<S: AsRef<std::ffi::OsStr>>(
    lab: &Lab,
    cloud: &str,
    words: impl IntoIterator<Item = S>,
) -> Command {
    logged_in(lab, cloud, convert(words))
}

fn logged_in(lab: &Lab, cloud: &str, mut command: Command) -> Command {
    let file = std::fs::canonicalize(lab.folder.join("clouds.yaml")).unwrap();
    command.env("OS_CLIENT_CONFIG_FILE", file).env("OS_CLOUD", cloud);
    command
}

/// Starts it; unless its standard output was sent elsewhere, that is collected.
pub fn start(command: &mut Command) -> Running {
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let (mut pipe, to) = (child.stderr.take().unwrap(), Arc::clone(&said));
    let stderr = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut buffer) {
            to.lock().unwrap().extend_from_slice(&buffer[..len]);
        }
    });
    let stdout = child.stdout.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            bytes
        })
    });
    Running { child, begin, stdout, stderr, said }
}

pub fn run(command: &mut Command) -> Ran {
    start(command).finish()
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for a line of `--progress json` that fits.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        loop {
            let text = String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned();
            let mut lines =
                text.split_inclusive('\n').filter(|line| line.starts_with('{') && line.ends_with('\n'));
            if lines.any(|line| fits(&serde_json::from_str(line).unwrap())) {
                return;
            }
            assert!(!self.has_ended(), "ended before {what}: {text}");
            assert!(begin.elapsed() < PATIENCE, "never came to {what}: {text}");
            std::thread::sleep(GLANCE);
        }
    }

    pub fn has_ended(&self) -> bool {
        // The process stays a zombie, so that its last figures can still be read.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), options).unwrap().is_some()
    }

    pub fn finish(mut self) -> Ran {
        let folder = format!("/proc/{}", self.child.id());
        let mut peak_rss_bytes = 0;
        while !self.has_ended() {
            peak_rss_bytes =
                figure(&format!("{folder}/status"), "VmHWM:").map_or(0, |kib| kib << 10).max(peak_rss_bytes);
            if self.begin.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("still running: {}", String::from_utf8_lossy(&self.said.lock().unwrap()));
            }
            std::thread::sleep(GLANCE);
        }
        let disk_write_bytes = figure(&format!("{folder}/io"), "write_bytes:").unwrap_or_else(|| {
            // A process that keeps secrets shows this to those alone who may look into any process.
            left_out("the bytes written to disks, of /proc/PID/io", has_capability(SYS_PTRACE));
            0
        });
        let wall = self.begin.elapsed();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.stderr.join().unwrap();
        let stdout = self.stdout.map(|thread| thread.join().unwrap()).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned();
        Ran { code, stdout, stderr, peak_rss_bytes, disk_write_bytes, wall }
    }
}

fn figure(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
