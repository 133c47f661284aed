//! A terminal of our own: a pseudo-terminal of which the test holds the other end.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

pub struct Pty {
    controller: OwnedFd,
    // Held, so that the terminal lives until the test has what the command wrote.
    terminal: OwnedFd,
}

impl Pty {
    pub fn new(columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
        let pty = Self { controller, terminal };
        pty.resize(columns);
        pty
    }

    pub fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).unwrap();
    }

    /// The end that a command gets.
    pub fn terminal(&self) -> Stdio {
        self.terminal.try_clone().unwrap().into()
    }

    /// Collects what is written, until the last terminal end is closed.
    pub fn reader(&self) -> JoinHandle<Vec<u8>> {
        let mut controller = File::from(self.controller.try_clone().unwrap());
        std::thread::spawn(move || {
            let (mut all, mut part) = (Vec::new(), [0; 4096]);
            // The end is EIO on Linux.
            while let Ok(len @ 1..) = controller.read(&mut part) {
                all.extend_from_slice(&part[..len]);
            }
            all
        })
    }
}

/// Without what sets colours.
pub fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        match &piece[end..=end] {
            "m" => plain.push_str(&piece[end + 1..]),
            _ => plain.push_str(&format!("\x1b[{piece}")),
        }
    }
    plain
}

/// All lines that were ever drawn, one after the other.
pub fn drawn(text: &str) -> Vec<String> {
    let mut text = without_colours(text);
    for above in 1..9 {
        text = text.replace(&format!("\r\x1b[{above}A\x1b[J"), "\n");
    }
    let text = text.replace("\r\x1b[J", "\n").replace("\r\n", "\n");
    assert!(!text.contains(['\r', '\x1b']), "{text:?}");
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
