//! Services that repeat what they were told, send what commands a terminal, or never end; and a crash with secrets in
//! memory. Needs no lab.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use snapcow::embedded::{EmbeddedGlance, EmbeddedOptions, Faults, ImageSpec, SeedHash, VmImage};

use crate::lab::command::{Ran, convert, run};
use crate::lab::machine::left_out;

const TOKEN: &str = "gAAAAABo-Token_Of_A_Test-0123456789abcdef";
const PASSWORD: &str = "correct horse/battery+staple";
/// So much of a secret's beginning must not be told either.
const TELLING: usize = 8;

/// Answers every request by a function of it, for as long as the test program runs.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let request = request(&mut stream);
            // Whoever hangs up on us is right.
            let _ = stream.write_all(&answer(&request));
        }
    });
    url
}

/// Head and body of a request.
fn request(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_ascii_lowercase();
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if text.len() >= end + 4 + len.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut piece) {
            Ok(len @ 1..) => bytes.extend_from_slice(&piece[..len]),
            _ => return text,
        }
    }
}

fn reply(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// `snapcow convert` with a token for this Glance, saying all it can.
fn with_token(url: &str, token: &str, words: &[&str]) -> Command {
    let mut command = convert(words);
    command.env("OS_TOKEN", token).env("OS_ENDPOINT", url).args(["-vvv", "--progress", "json"]);
    command
}

/// Everything that a run has told anybody.
fn told(ran: &Ran, report: &std::path::Path) -> String {
    let report = std::fs::read_to_string(report).unwrap();
    format!("{}{}{report}", ran.stderr, String::from_utf8_lossy(&ran.stdout))
}

#[test]
fn a_token_that_a_service_repeats_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    for before in [0, 380, 395, 5000] {
        for kind in ["403 Forbidden", "400 Bad Request", "200 OK"] {
            let url = server(move |request| {
                let text = format!("{}{request}", "x".repeat(before));
                let page = format!("<html><body><h1>no</h1>{}</body></html>", text.replace("\r\n", "<br/>"));
                let json = json!({"message": text, "images": text}).to_string();
                reply(kind, if before == 395 { &json } else { &page })
            });
            let words = ["glance:x", "-", "--report", report.to_str().unwrap()];
            let ran = run(&mut with_token(&url, TOKEN, &words));
            assert_ne!(ran.code, 0);
            let told = told(&ran, &report);
            assert!(!told.contains(&TOKEN[..TELLING]), "{kind}, {before}: {told}");
        }
    }
}

#[test]
fn a_password_that_keystone_repeats_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    for status in ["401 Unauthorized", "400 Bad Request", "201 Created", "404 Not Found"] {
        let url = server(move |request| {
            let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            reply(status, &json!({"error": {"message": format!("bad login: {body}")}}).to_string())
        });
        let mut command = convert(["glance:x", "-", "-vvv", "--report", report.to_str().unwrap()]);
        command.env("OS_AUTH_URL", format!("{url}/v3")).env("OS_USERNAME", "u").env("OS_PASSWORD", PASSWORD);
        command.env("OS_PROJECT_NAME", "p");
        let ran = run(&mut command);
        assert!([4, 5].contains(&ran.code), "{}", ran.stderr);
        let told = told(&ran, &report);
        assert!(!told.contains(&PASSWORD[..TELLING]), "{status}: {told}");
    }
}

#[test]
fn no_secret_can_be_put_on_the_command_line() {
    for option in
        ["--os-password", "--os-token", "--password", "--token", "--os-application-credential-secret"]
    {
        run(&mut convert(["a", "b", option, PASSWORD])).exits(2);
    }
}

/// A name, a property and a tag as somebody would write them who wants to own the reader's terminal.
const EVIL: &str = "evil\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}txt<script>alert(1)</script>";

fn glance_with_an_evil_image() -> EmbeddedGlance {
    let faults = Faults { forbidden_properties: vec![format!("k{EVIL}")], ..Faults::default() };
    let glance = EmbeddedGlance::start(EmbeddedOptions { faults, ..EmbeddedOptions::default() }).unwrap();
    let (disk, hashes) = VmImage::demo();
    let mut attributes = serde_json::Map::new();
    attributes.insert(format!("k{EVIL}"), json!(EVIL));
    attributes.insert("tags".into(), json!([EVIL]));
    glance.seed(ImageSpec {
        name: EVIL.into(),
        attributes,
        hash: SeedHash::Known(hashes),
        data: std::sync::Arc::new(disk),
    });
    glance
}

#[track_caller]
fn commands_no_terminal(text: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(bad), "{text:?}");
}

#[test]
fn what_a_service_says_does_not_command_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let glance = glance_with_an_evil_image();
    let source = format!("glance:{EVIL}");
    let go = |more: &[&str]| {
        let words = [&[source.as_str(), "glance:made", "--report", report.to_str().unwrap()], more].concat();
        run(&mut with_token(glance.endpoint(), &glance.token(), &words))
    };
    let plan = go(&["--dry-run"]).ok();
    commands_no_terminal(std::str::from_utf8(&plan.stdout).unwrap());
    let ran = go(&[]).ok();
    let told = told(&ran, &report);
    commands_no_terminal(&told);
    assert!(told.contains("left out") && told.contains("evil"), "{told}");
    let parsed: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(parsed["source_identity"]["name"], EVIL, "the report has it as it is, escaped");
    assert_eq!(parsed["dropped_properties"], json!([format!("k{EVIL}")]));
    // The copy has what the original has.
    let made = glance.images().into_iter().find(|image| image["name"] == "made").unwrap();
    assert_eq!(made["tags"], json!([EVIL]));
    for (status, text) in [
        ("409 \u{1b}[2J", EVIL),
        ("403 No", EVIL),
        ("503 Busy", EVIL),
        ("200 OK", "{\"images\": \"\u{1b}\"}"),
    ] {
        let url = server(move |_| reply(status, text));
        let ran = run(&mut with_token(&url, TOKEN, &["glance:x", "-", "--retries", "1"]));
        assert_ne!(ran.code, 0);
        commands_no_terminal(&ran.stderr);
    }
}

#[test]
fn heads_and_json_without_end_are_given_up() {
    let endless: [fn(&mut TcpStream) -> std::io::Result<()>; 4] = [
        |stream| loop {
            stream.write_all(b"X-Header: nothing of interest, again and again\r\n")?;
        },
        |stream| loop {
            stream.write_all(&[b'x'; 4096])?;
        },
        |stream| {
            stream.write_all(b"Connection: close\r\n\r\n{\"images\": [")?;
            loop {
                stream.write_all(b"{\"id\": \"a\", \"status\": \"active\"}, ")?;
            }
        },
        |stream| {
            stream.write_all(b"Connection: close\r\n\r\n{\"images\": ")?;
            stream.write_all("[".repeat(1 << 20).as_bytes())
        },
    ];
    // Some are tried again, with pauses: all at once.
    std::thread::scope(|scope| {
        for (number, endless) in endless.into_iter().enumerate() {
            scope.spawn(move || is_given_up(number, endless));
        }
    });
}

fn is_given_up(number: usize, endless: fn(&mut TcpStream) -> std::io::Result<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").and_then(|()| endless(&mut stream));
        }
    });
    let begin = Instant::now();
    let ran = run(&mut with_token(&url, TOKEN, &["glance:x", "-"]));
    assert!([5, 3].contains(&ran.code), "{number}: {} {}", ran.code, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{number}: {}", ran.stderr);
    assert!(ran.peak_rss_bytes < 128 << 20, "{number}: {} bytes", ran.peak_rss_bytes);
    assert!(begin.elapsed() < Duration::from_secs(60), "{number}");
}

#[test]
fn any_certificate_is_taken_only_loudly() {
    let url = server(|_| reply("404 Not Found", "no"));
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let words = ["glance:x", "-", "--report", report.to_str().unwrap()];
    for (more, loud) in [(&["--insecure", "--quiet"][..], true), (&["--quiet"], false)] {
        let mut command = convert(words);
        let ran = run(command.env("OS_TOKEN", TOKEN).env("OS_ENDPOINT", &url).args(more));
        assert_eq!(ran.stderr.contains("WARNING: any certificate"), loud, "{}", ran.stderr);
        let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["insecure"], loud);
    }
}

/// Ends a command by a signal that makes a core dump; whether there was one.
fn dumps_core(command: &mut Command, when: impl FnOnce()) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    when();
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status:?}");
    status.core_dumped() || std::fs::read_dir(folder.path()).unwrap().count() > 0
}

/// Whether the kernel would write core files into the folder of a process: they may also go to a program, to a folder
/// of their own, or be forbidden.
fn may_dump_core() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let pattern = read("/proc/sys/kernel/core_pattern");
    let limits = read("/proc/self/limits");
    let hard =
        limits.lines().find_map(|line| line.strip_prefix("Max core file size")?.split_whitespace().nth(1));
    !pattern.trim().is_empty()
        && !pattern.starts_with(['|', '@', '/'])
        && hard.is_some_and(|hard| hard != "0")
}

#[test]
fn a_crash_leaves_no_secret_in_a_core_dump() {
    let wait = || std::thread::sleep(Duration::from_millis(300));
    if !dumps_core(Command::new("sleep").arg("60"), wait) {
        left_out("a core dump, of any process", may_dump_core());
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut held = None;
    let dumped = dumps_core(&mut with_token(&url, TOKEN, &["glance:x", "-"]), || {
        // Held without an answer: the token has been sent.
        let (mut stream, _) = listener.accept().unwrap();
        assert!(request(&mut stream).contains(TOKEN));
        held = Some(stream);
    });
    drop(held);
    assert!(!dumped, "the token is in a core dump");
}
