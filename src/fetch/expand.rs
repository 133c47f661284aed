//! A qcow2 image as the raw disk that its guest sees.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{Landing, sparsely};
use crate::convert::{Cancel, Counters, Phase};
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::ReadAt;
use crate::read::{GuestImage, Input};
use crate::sink::{Part, SparseFile};

/// Guest bytes that a thread decodes at once: the largest cluster, so that none is decoded twice.
const PIECE_BYTES: u64 = 2 << 20;
/// Pieces that a thread may be ahead of what was written.
const AHEAD: usize = 2;

/// What a thread found: bytes, or zeros.
enum Piece {
    Data(Vec<u8>),
    Zeros(u64),
}

/// Decodes all of an image in `threads` threads and lands it in order; gives its virtual size, in bytes. Holds at most
/// four pieces of 2 MiB for each thread.
///
/// # Errors
/// As [`GuestImage::open`] and [`crate::read::GuestReader::read`]; what the landing says.
pub fn expand(
    input: Input,
    threads: usize,
    landing: &mut dyn Landing,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<u64> {
    let image = GuestImage::open(input)?;
    let size = image.virtual_size();
    counters.enter(Phase::Deliver);
    Counters::add(&counters.image_bytes, size);
    let threads = threads.max(1) as u64;
    std::thread::scope(|scope| {
        let pieces: Vec<Receiver<Result<Piece>>> = (0..threads)
            .map(|thread| {
                let (to, pieces) = sync_channel(AHEAD);
                let image = &image;
                scope.spawn(move || decode(image, thread, threads, &to));
                pieces
            })
            .collect();
        let mut at = 0;
        // Dropping the receivers, also by an error, ends the threads.
        for thread in pieces.iter().cycle() {
            if at >= size {
                break;
            }
            cancel.check(Stage::Sink)?;
            let piece = thread.recv().map_err(|_| {
                Error::new(Stage::Source, Kind::Other, "a decoding thread panicked")
                    .advise("please report this")
            })??;
            let len = match &piece {
                Piece::Data(bytes) => bytes.len() as u64,
                Piece::Zeros(len) => *len,
            };
            match piece {
                Piece::Data(bytes) => landing.data(&bytes)?,
                Piece::Zeros(len) => landing.zeros(len)?,
            }
            at += len;
        }
        Ok::<_, Error>(())
    })?;
    Ok(size)
}

/// Every so-manieth piece of the disk.
fn decode(image: &GuestImage, first: u64, step: u64, to: &SyncSender<Result<Piece>>) {
    let size = image.virtual_size();
    let mut reader = image.reader();
    let mut start = first.saturating_mul(PIECE_BYTES);
    while start < size {
        let end = size.min(start + PIECE_BYTES);
        let piece = reader.extent(start, end).and_then(|extent| {
            if extent.is_zero && extent.end >= end {
                return Ok(Piece::Zeros(end - start));
            }
            let mut bytes = vec![0; (end - start) as usize];
            reader.read(&mut bytes, start)?;
            Ok(Piece::Data(bytes))
        });
        let failed = piece.is_err();
        if to.send(piece).is_err() || failed {
            return;
        }
        start = start.saturating_add(PIECE_BYTES * step);
    }
}

/// Lands in a sparse file.
pub struct FileLanding<'a> {
    sink: &'a mut SparseFile,
    counters: &'a Counters,
}

impl<'a> FileLanding<'a> {
    /// A file that is empty; of the counters `sink_bytes` is how far it came.
    pub fn new(sink: &'a mut SparseFile, counters: &'a Counters) -> Self {
        Self { sink, counters }
    }
}

impl Landing for FileLanding<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        sparsely(
            bytes,
            |run, is_data| {
                if is_data { self.sink.put(run) } else { self.sink.put_zeros(run.len() as u64) }
            },
        )?;
        Counters::add(&self.counters.sink_bytes, bytes.len() as u64);
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        self.sink.put_zeros(count)?;
        Counters::add(&self.counters.sink_bytes, count);
        Ok(())
    }
}

/// What was fetched, as an image that can be read.
pub fn part_as_input(part: &Part) -> Input {
    let name = part.path().display().to_string();
    let bytes = PartBytes { file: part.file(), name: name.clone() };
    Input { bytes: Arc::new(bytes), len: part.len(), name }
}

#[derive(Debug)]
struct PartBytes {
    file: Arc<File>,
    name: String,
}

impl ReadAt for PartBytes {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| {
            let what = format!("read {} bytes at offset {offset} of `{}`", bytes.len(), self.name);
            Error::new(Stage::Source, Kind::Local, what).because(error)
        })
    }
}
