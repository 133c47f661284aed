//! A strict reader of qcow2. Takes any file by byte ranges ([`ReadAt`]), gives what is wrong with it
//! ([`check()`]), or what its guest reads ([`GuestImage`]). Has no I/O of its own, and shares no code with the
//! writer but the layout of an entry.
//!
//! No byte of the file is believed. Memory is bounded: by [`CheckOptions::memory_bytes`] for a check, and for
//! a guest by the L1 table (QEMU's limit, 32 MiB) and a few clusters. Loops are bounded: a check reads each
//! table of the file once, whatever names it and how often.
#![forbid(unsafe_code)]

mod check;
mod decode;
mod describe;
mod file;
mod finding;
mod guest;
mod image;
mod walk;

use std::sync::Arc;

pub use check::{CheckOptions, ImageFacts, Report, check};
pub use decode::Decoder;
pub use describe::{DESCRIBED_BYTES, Description, describe};
pub use finding::{Class, Finding, Findings, Severity};
pub use guest::{Extent, GuestImage, GuestReader};
pub use walk::{Storage, Stretch, Walk};

use crate::flow::ReadAt;

/// A file to be read: its bytes, how many there are, and what messages call it.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where the bytes are.
    pub bytes: Arc<dyn ReadAt>,
    /// How many bytes there are.
    pub len: u64,
    /// Its name for messages.
    pub name: String,
}
