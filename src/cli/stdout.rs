//! Standard output as a target. A thread of its own writes to it, so that a reader that takes nothing
//! keeps no signal waiting: the run ends, and the thread with the process.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use async_channel::{Receiver, Sender, bounded};
use snapcow::convert::{Cancel, Guard};

/// See the module's text.
pub struct Stdout {
    parts: Sender<Vec<u8>>,
    written: Receiver<std::io::Result<usize>>,
    _guard: Guard,
}

impl Stdout {
    pub fn new(cancel: &Cancel) -> std::io::Result<Self> {
        // Without the line buffer of the standard library: lines mean nothing in an image.
        let mut file = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let (parts, orders) = bounded::<Vec<u8>>(1);
        let (reports, written) = bounded(1);
        std::thread::Builder::new().name("stdout".into()).spawn(move || {
            while let Ok(part) = orders.recv_blocking() {
                if reports.send_blocking(file.write_all(&part).map(|()| part.len())).is_err() {
                    break;
                }
            }
        })?;
        let wake = written.clone();
        let guard = cancel.on_trigger(move || {
            wake.close();
        });
        Ok(Self { parts, written, _guard: guard })
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let ended = || std::io::Error::other("the run was ended");
        self.parts.send_blocking(bytes.to_vec()).map_err(|_| ended())?;
        self.written.recv_blocking().map_err(|_| ended())?
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
