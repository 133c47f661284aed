//! Pass 2: the finished image from byte 0 on, out of map, spool and, where clusters are missing, a
//! second read of the source.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::counters::Counters;
use super::pipeline::{Engine, Order};
use super::reserve::Reserve;
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::Access;
use crate::flow::{EncodedChunk, Form, Room};
use crate::map::{DataIter, ImageMap};
use crate::place::{Layout, PART_BYTES, Placed, Placer, write_tables};
use crate::sink::InOrder;
use crate::source::Wanted;
use crate::spool::Spool;
use crate::units::ClusterIndex;

/// Runs of zeros up to this long are read along with the data around them, in bytes: a request of
/// its own would cost more, and the list of runs stays short.
const COALESCE_BYTES: u64 = 1 << 20;

/// Everything that the image is made of; can be written out as often as asked.
pub(super) struct Output<'a> {
    pub(super) engine: &'a Engine,
    pub(super) map: &'a ImageMap,
    pub(super) spool: &'a Spool,
    pub(super) layout: &'a Layout,
    /// Guest bytes a second that the survey reached.
    pub(super) source_rate: f64,
    /// Most that a sink may be asked to hold back, in bytes.
    pub(super) hold_back_max: u64,
}

impl Output<'_> {
    /// Writes the whole image in order.
    pub(super) fn write(&self, sink: &mut dyn InOrder) -> Result<()> {
        let mut data = self.map.data();
        let end = self.spool.first_held().map_or(u64::MAX, |first| first.0);
        let runs = self.missing(end);
        let rereads = !runs.is_empty();
        if rereads {
            // Nothing is to leave before the second read delivers, so that it cannot keep an open
            // upload waiting.
            sink.hold_back(u64::MAX);
        }
        let room = sink.room();
        let mut parts = Parts::new(sink, self.engine);
        write_tables(self.layout, self.map, &mut |offset, part| {
            debug_assert_eq!(offset.0, parts.at);
            parts.send(part)
        })?;
        let mut placer = Placer::new(self.layout.geometry.cluster_size, self.layout.data.offset);
        if rereads {
            self.reread(runs, room, &mut data, &mut placer, &mut parts)?;
        }
        parts.sink.hold_back(0);
        for record in self.spool.read() {
            let (cluster, stored) = record?;
            let form = self.expect(&mut data, cluster, stored.len())?;
            placer.push(cluster, form, stored, &mut |placed| parts.place(placed))?;
            self.engine.cancel.check(Stage::Sink)?;
        }
        placer.flush(&mut |placed| parts.place(placed))?;
        if data.next().is_some() {
            return Err(Error::new(Stage::Spool, Kind::Other, "the spool ended before the image did"));
        }
        parts.finish(self.layout.file_len)
    }

    /// Runs of clusters to read again: all data below `end`, with short runs of zeros between.
    fn missing(&self, end: u64) -> Vec<Range<u64>> {
        let gap_max = COALESCE_BYTES / self.map.cluster_size().bytes();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for run in self.map.data_runs().take_while(|run| run.start < end) {
            match runs.last_mut() {
                Some(last) if run.start - last.end <= gap_max => last.end = run.end.min(end),
                _ => runs.push(run.start..run.end.min(end)),
            }
        }
        runs
    }

    /// The form of the next data cluster, which must be this one with this length.
    fn expect(&self, data: &mut DataIter<'_>, cluster: ClusterIndex, len: usize) -> Result<Form> {
        match data.next() {
            Some((next, entry)) if next == cluster && entry.stored_len as usize == len => {
                Ok(Form::of(entry.stored_len, self.map.cluster_size()))
            }
            _ => Err(Error::new(
                Stage::Spool,
                Kind::Other,
                format!("cluster {} does not come where the map has it", cluster.0),
            )),
        }
    }

    fn reread(
        &self,
        runs: Vec<Range<u64>>,
        room: Option<Room>,
        data: &mut DataIter<'_>,
        placer: &mut Placer<Bytes>,
        parts: &mut Parts<'_>,
    ) -> Result<()> {
        let (first, last) = (runs.first().map_or(0, |run| run.start), runs.last().map_or(0, |run| run.end));
        let facts = self.engine.source.facts();
        let waits = facts.is_remote && facts.access == Access::Sequential;
        let mut reserve = waits.then(|| Reserve::new(self.map, &runs, self.source_rate, self.hold_back_max));
        let order = Order {
            wanted: Wanted::Runs(Arc::new(runs)),
            hash: None,
            with_crc: true,
            resume: room.filter(|_| facts.is_remote),
        };
        let cs = self.map.cluster_size();
        self.engine.run(order, &mut |chunk| {
            Counters::add(&self.engine.counters.reread_bytes, chunk.clusters * cs.bytes());
            self.check_zeros(chunk, last)?;
            for encoded in chunk.encoded().take_while(|encoded| encoded.cluster.0 < last) {
                let same = data.next().is_some_and(|(cluster, entry)| {
                    cluster == encoded.cluster
                        && entry.guest_crc == encoded.guest_crc
                        && entry.stored_len == encoded.form.stored_len(cs)
                });
                if !same {
                    return Err(self.changed(encoded.cluster));
                }
                let stored = Bytes::copy_from_slice(encoded.stored);
                placer.push(encoded.cluster, encoded.form, stored, &mut |placed| parts.place(placed))?;
            }
            parts.flush()?;
            if let Some(reserve) = &mut reserve {
                let seen = ClusterIndex(chunk.first.0 + chunk.clusters);
                // Zeros before the first data: nothing has been delivered, so nothing leaves yet.
                if seen.0 > first {
                    parts.sink.hold_back(reserve.at(seen));
                }
            }
            Ok(())
        })?;
        let behind = data.clone().next().map_or(u64::MAX, |(cluster, _)| cluster.0);
        if behind < last {
            return Err(self.changed(ClusterIndex(behind)));
        }
        Ok(())
    }

    /// Every cluster of the chunk that the map has as data must have come as data again; that they
    /// come in order is checked one by one.
    fn check_zeros(&self, chunk: &EncodedChunk, last: u64) -> Result<()> {
        let end = (chunk.first.0 + chunk.clusters).min(last);
        let now = chunk.encoded().filter(|encoded| encoded.cluster.0 < end).count();
        let before = (chunk.first.0..end).filter(|&cluster| self.map.is_data(ClusterIndex(cluster))).count();
        if now == before { Ok(()) } else { Err(self.changed(chunk.first)) }
    }

    fn changed(&self, cluster: ClusterIndex) -> Error {
        let offset = self.map.cluster_size().start_of(cluster).0;
        let name = &self.engine.source.facts().name;
        let what = format!("{name} changed between the passes, at or behind guest offset {offset}");
        Error::new(Stage::Source, Kind::SourceChanged, what)
            .advise("make sure that nobody writes to it, and run this again")
    }
}

/// Puts placed clusters into parts of a good size, with zeros in the gaps between them.
struct Parts<'a> {
    sink: &'a mut dyn InOrder,
    engine: &'a Engine,
    at: u64,
    buffer: BytesMut,
}

impl<'a> Parts<'a> {
    fn new(sink: &'a mut dyn InOrder, engine: &'a Engine) -> Self {
        Self { sink, engine, at: 0, buffer: BytesMut::new() }
    }

    fn place(&mut self, placed: Placed<Bytes>) -> Result<()> {
        self.fill_to(placed.host.0)?;
        self.append(&placed.payload)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min(PART_BYTES / 4 - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            self.at += take as u64;
            bytes = &bytes[take..];
            if self.buffer.len() == PART_BYTES / 4 {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn fill_to(&mut self, offset: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < offset {
            let take = (offset - self.at).min(ZEROS.len() as u64) as usize;
            self.append(&ZEROS[..take])?;
        }
        Ok(())
    }

    fn send(&mut self, part: Bytes) -> Result<()> {
        self.at += part.len() as u64;
        self.hand_on(part)
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = self.buffer.split().freeze();
        self.hand_on(part)
    }

    fn hand_on(&mut self, part: Bytes) -> Result<()> {
        let counters = &self.engine.counters;
        Counters::add(&counters.sink_bytes, part.len() as u64);
        let begin = std::time::Instant::now();
        let result = self.sink.put(part);
        counters.spent(super::counters::Timed::Sink, begin.elapsed());
        result
    }

    fn finish(mut self, file_len: u64) -> Result<()> {
        self.fill_to(file_len)?;
        self.flush()?;
        if self.at == file_len {
            return Ok(());
        }
        let what = format!("{} bytes were written where {file_len} were planned", self.at);
        Err(Error::new(Stage::Place, Kind::Other, what).advise("please report this"))
    }
}
