//! What the tests with real partition tables and volume groups share.

mod tables;
pub mod volumes;
mod whole;

use std::fs::File;
use std::path::Path;

use snapcow::free::Limits;

pub use crate::tools::{FileDisk, Loop, Random, ready, run, run_with, text as path_text};

pub const LIMITS: Limits = Limits { memory_bytes: 256 << 20 };
pub const MIB: u64 = 1 << 20;

/// A sparse file.
pub fn image(path: &Path, len: u64) {
    File::create(path).unwrap().set_len(len).unwrap();
}

/// Copies the whole of a file to a place of another one, holes left out.
pub fn put(from: &Path, to: &Path, at: u64) {
    let (from, to) = (path_text(from), path_text(to));
    let seek = format!("seek={at}");
    run_with(
        &[
            "dd",
            &format!("if={from}"),
            &format!("of={to}"),
            &seek,
            "oflag=seek_bytes",
            "bs=1M",
            "conv=notrunc,sparse",
        ],
        "",
    );
}

/// The numbers that follow `"name":` in JSON of a kind that is known.
pub fn json_numbers(json: &str, name: &str) -> Vec<u64> {
    let mark = format!("\"{name}\":");
    json.split(&mark)
        .skip(1)
        .map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
        .collect()
}
