//! The direct route: one pass, data clusters to their place at once, then the tables, the header last.
//!
//! Clusters that stay plain and lie one behind the other are written from where they were read; only what
//! is packed byte by byte is copied together first. Where the file system can share blocks between files,
//! they are not written at all.

use std::fs::File;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::counters::{Counters, Phase, Timed};
use super::pipeline::Engine;
use super::receipt::{Receipt, RouteTaken};
use super::{Job, new_map, survey, virtual_size};
use crate::encode::Compression;
use crate::error::{Result, Stage};
use crate::flow::{Encoded, EncodedChunk, Form};
use crate::place::{Layout, Order, Placed, Placer, write_tables};
use crate::sink::FileSink;
use crate::units::{ClusterSize, HostOffset};

/// Converts into a file.
pub(super) fn direct(engine: &Engine, job: &Job, file: FileSink, receipt: &mut Receipt) -> Result<()> {
    let cs = job.geometry.cluster_size;
    receipt.written_by = Some(file.method());
    let mut map = new_map(job);
    let mut placer = Placer::new(cs, Layout::head_last_data_start(cs));
    // What is shared is as the source has it.
    let is_as_it_is = job.compression == Compression::None && job.free.is_none();
    let shared = job.source.file().filter(|from| is_as_it_is && file.can_share(from, cs));
    if shared.is_some() {
        receipt.written_by = Some("sharing blocks with the source");
    }
    let mut out =
        Out { file, shared, cluster_size: cs, source_len: job.source.facts().len, counters: &job.counters };
    let pass = survey(engine, job, false, &mut map, &mut |chunk| {
        let mut run = None;
        for encoded in chunk.encoded() {
            // What has to wait for its place must outlive the chunk.
            let kept = placer.would_hold(encoded.form).then(|| Bytes::copy_from_slice(encoded.stored));
            placer.push(encoded.cluster, encoded.form, kept, &mut |placed: Placed<Option<Bytes>>| {
                match placed.payload {
                    None if placed.form == Form::Plain => out.plain(placed.host, &encoded, chunk, &mut run),
                    payload => {
                        out.run(chunk, run.take())?;
                        out.put(placed.host, payload.as_deref().unwrap_or(encoded.stored))
                    }
                }
            })?;
        }
        out.run(chunk, run)
    })?;
    placer.flush(&mut |placed| out.put(placed.host, placed.payload.as_deref().unwrap_or_default()))?;
    receipt.surveyed(&pass, &map, job)?;
    let layout = Layout::new(job.geometry, Order::HeadLast, virtual_size(&pass), &map)?;
    write_tables(&layout, &map, &mut |offset, part| out.put(offset, &part))?;
    job.counters.enter(Phase::Settle);
    engine.cancel.check(Stage::Sink)?;
    out.file.commit(layout.file_len)?;
    receipt.delivered(RouteTaken::Direct, &layout, None);
    Ok(())
}

/// Plain clusters that lie one behind the other, in the chunk's buffer and in the file.
struct Run {
    guest: u64,
    host: u64,
    range: Range<usize>,
}

struct Out<'a> {
    file: FileSink,
    /// The source, where its blocks can be shared.
    shared: Option<&'a File>,
    cluster_size: ClusterSize,
    source_len: Option<u64>,
    counters: &'a Counters,
}

impl Out<'_> {
    /// Adds a plain cluster of the chunk to the run, or begins another one.
    fn plain(
        &mut self,
        host: HostOffset,
        encoded: &Encoded<'_>,
        chunk: &EncodedChunk,
        run: &mut Option<Run>,
    ) -> Result<()> {
        let range = encoded.at..encoded.at + encoded.stored.len();
        let guest = self.cluster_size.start_of(encoded.cluster).0;
        if let Some(run) = run {
            let len = run.range.len() as u64;
            // What is adjacent in memory need not be so on the disk: zeros between have been left out.
            let in_guest = self.shared.is_none() || run.guest + len == guest;
            if run.range.end == range.start && run.host + len == host.0 && in_guest {
                run.range.end = range.end;
                return Ok(());
            }
        }
        let before = run.replace(Run { guest, host: host.0, range });
        self.run(chunk, before)
    }

    fn run(&mut self, chunk: &EncodedChunk, run: Option<Run>) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        let Some(slice) = chunk.plain(run.range) else { return Ok(()) };
        let done = match self.shared {
            Some(from) => self.share(from, run.guest, run.host, slice.len() as u64)?,
            None => 0,
        };
        let (host, rest) = (HostOffset(run.host + done), slice.behind(done as usize));
        self.timed(rest.len(), |file| file.put_slice(host, rest))
    }

    /// Shares whole clusters; the last one of the disk may end within a block.
    fn share(&mut self, from: &File, guest: u64, host: u64, len: u64) -> Result<u64> {
        let there = self.source_len.unwrap_or(0).saturating_sub(guest).min(len);
        let whole = there - self.cluster_size.offset_in(there);
        let done = self.file.share(from, guest, HostOffset(host), whole)?;
        Counters::add(&self.counters.shared_bytes, done);
        Ok(done - self.cluster_size.offset_in(done))
    }

    fn put(&mut self, offset: HostOffset, bytes: &[u8]) -> Result<()> {
        self.timed(bytes.len(), |file| file.put_at(offset, bytes))
    }

    fn timed(&mut self, len: usize, write: impl FnOnce(&mut FileSink) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        Counters::add(&self.counters.sink_bytes, len as u64);
        let result = write(&mut self.file);
        self.counters.spent(Timed::Sink, begin.elapsed());
        result
    }
}
