//! The bytes of header and tables, streamed: nothing is held but the L2 tables that a held-back
//! plain cluster keeps open, and one part.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::error::Result;
use crate::flow::Form;
use crate::map::ImageMap;
use crate::place::layout::{Layout, Order, Region};
use crate::place::placer::{Placed, Placer};
use crate::qcow2::entry::{L1Entry, L2Entry, entries_per_l2};
use crate::qcow2::{Compat, CompressionType, Header};
use crate::units::{ClusterIndex, HostOffset};

/// Largest part that is handed on, in bytes.
pub const PART_BYTES: usize = 1 << 20;

/// Hands out all bytes of a file that are not data, in rising order of their offsets, except that
/// with [`Order::HeadLast`] the header comes last.
///
/// Parts are at most [`PART_BYTES`] long; parts of one region follow each other without a gap.
///
/// # Errors
/// Only what `out` returns.
pub fn write_tables(
    layout: &Layout,
    map: &ImageMap,
    out: &mut dyn FnMut(HostOffset, Bytes) -> Result<()>,
) -> Result<()> {
    match layout.order {
        Order::HeadFirst => {
            write_header(layout, out)?;
            write_refcount_table(layout, out)?;
            write_refcount_blocks(layout, map, out)?;
            write_l1(layout, map, out)?;
            write_l2(layout, map, out)
        }
        Order::HeadLast => {
            write_l2(layout, map, out)?;
            write_l1(layout, map, out)?;
            write_refcount_blocks(layout, map, out)?;
            write_refcount_table(layout, out)?;
            write_header(layout, out)
        }
    }
}

type Out<'a> = &'a mut dyn FnMut(HostOffset, Bytes) -> Result<()>;

/// Collects the bytes of one region into parts and pads it to whole clusters.
struct RegionWriter<'a> {
    next: u64,
    end: u64,
    buffer: BytesMut,
    out: Out<'a>,
}

impl<'a> RegionWriter<'a> {
    fn new(region: Region, layout: &Layout, out: Out<'a>) -> Self {
        let end = region.offset.0 + region.clusters * layout.geometry.cluster_size.bytes();
        Self { next: region.offset.0, end, buffer: BytesMut::new(), out }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min(PART_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.buffer.len() == PART_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    fn put_zeros(&mut self, mut count: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let take = count.min(ZEROS.len() as u64);
            self.put(&ZEROS[..take as usize])?;
            count -= take;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let part = self.buffer.split().freeze();
        let offset = HostOffset(self.next);
        self.next += part.len() as u64;
        (self.out)(offset, part)
    }

    fn finish(mut self) -> Result<()> {
        let written = self.next + self.buffer.len() as u64;
        debug_assert!(written <= self.end, "a region holds what the layout gave it");
        self.put_zeros(self.end - written)?;
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

fn write_header(layout: &Layout, out: Out<'_>) -> Result<()> {
    let region = Region { offset: HostOffset(0), clusters: 1 };
    let header = Header {
        compat: layout.geometry.compat,
        cluster_size: layout.geometry.cluster_size,
        virtual_size: layout.virtual_size,
        l1_entries: layout.l1_entries as u32,
        l1_offset: layout.l1.offset,
        refcount_table_offset: layout.refcount_table.offset,
        refcount_table_clusters: layout.refcount_table.clusters as u32,
        compression: match layout.geometry.compat {
            Compat::V0_10 => CompressionType::Zlib,
            Compat::V1_1 => layout.geometry.compression,
        },
    };
    let mut writer = RegionWriter::new(region, layout, out);
    writer.put(&header.to_bytes())?;
    writer.finish()
}

fn write_refcount_table(layout: &Layout, out: Out<'_>) -> Result<()> {
    let cs = layout.geometry.cluster_size.bytes();
    let mut writer = RegionWriter::new(layout.refcount_table, layout, out);
    for block in 0..layout.refcount_blocks.clusters {
        writer.put(&(layout.refcount_blocks.offset.0 + block * cs).to_be_bytes())?;
    }
    writer.finish()
}

/// A refcount for every host cluster: one for header and tables, and for data the number of
/// clusters that touch it.
fn write_refcount_blocks(layout: &Layout, map: &ImageMap, out: Out<'_>) -> Result<()> {
    let total = layout.host_clusters();
    let data_first = layout.data.offset.0 >> layout.geometry.cluster_size.bits();
    let data_end = data_first + layout.data.clusters;
    let mut writer = RegionWriter::new(layout.refcount_blocks, layout, out);
    put_ones(&mut writer, data_first)?;
    put_data_refcounts(&mut writer, layout, map, data_first)?;
    put_ones(&mut writer, total - data_end)?;
    writer.finish()
}

fn put_ones(writer: &mut RegionWriter<'_>, count: u64) -> Result<()> {
    (0..count).try_for_each(|_| writer.put(&1u16.to_be_bytes()))
}

fn put_data_refcounts(
    writer: &mut RegionWriter<'_>,
    layout: &Layout,
    map: &ImageMap,
    first: u64,
) -> Result<()> {
    let cs = layout.geometry.cluster_size;
    let mut current = first;
    let mut count = 0u16;
    let mut touch = |host_cluster: u64, writer: &mut RegionWriter<'_>| -> Result<()> {
        while current < host_cluster {
            writer.put(&count.to_be_bytes())?;
            (current, count) = (current + 1, 0);
        }
        count += 1;
        Ok(())
    };
    for_each_placed(layout, map, &mut |placed| {
        let len = match placed.form {
            Form::Plain => cs.bytes(),
            Form::Compressed(len) => u64::from(len),
        };
        let last = (placed.host.0 + len - 1) >> cs.bits();
        (placed.host.0 >> cs.bits()..=last).try_for_each(|host_cluster| touch(host_cluster, writer))
    })?;
    // The last data cluster's own count; `touch` writes a count only when the next one begins.
    if layout.data.clusters > 0 { touch(first + layout.data.clusters, writer) } else { Ok(()) }
}

fn write_l1(layout: &Layout, map: &ImageMap, out: Out<'_>) -> Result<()> {
    let cs = layout.geometry.cluster_size;
    let mut writer = RegionWriter::new(layout.l1, layout, out);
    let mut next_entry = 0;
    let mut table = layout.l2.offset.0;
    for (cluster, _) in map.data() {
        let entry = cluster.0 / entries_per_l2(cs);
        if entry < next_entry {
            continue;
        }
        writer.put_zeros((entry - next_entry) * 8)?;
        writer.put(&L1Entry::table(HostOffset(table)).0.to_be_bytes())?;
        table += cs.bytes();
        next_entry = entry + 1;
    }
    writer.finish()
}

fn write_l2(layout: &Layout, map: &ImageMap, out: Out<'_>) -> Result<()> {
    let cs = layout.geometry.cluster_size;
    let per_table = entries_per_l2(cs);
    let mut writer = RegionWriter::new(layout.l2, layout, out);
    let mut open: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut placer = Placer::new(cs, layout.data.offset);
    for (cluster, data) in map.data() {
        let mut note = |placed: Placed<()>| {
            note_l2(&mut open, layout, &placed);
            Ok::<_, crate::error::Error>(())
        };
        placer.push(cluster, Form::of(data.stored_len, cs), (), &mut note)?;
        let oldest = placer.oldest_held().unwrap_or(cluster).0 / per_table;
        while let Some(table) = open.first_entry().filter(|table| *table.key() < oldest) {
            writer.put(&table.remove())?;
        }
    }
    placer.flush(&mut |placed: Placed<()>| {
        note_l2(&mut open, layout, &placed);
        Ok::<_, crate::error::Error>(())
    })?;
    open.into_values().try_for_each(|table| writer.put(&table))?;
    writer.finish()
}

fn note_l2(open: &mut BTreeMap<u64, Vec<u8>>, layout: &Layout, placed: &Placed<()>) {
    let cs = layout.geometry.cluster_size;
    let per_table = entries_per_l2(cs);
    let table = open.entry(placed.cluster.0 / per_table).or_insert_with(|| vec![0; cs.size()]);
    let L2Entry(entry) = match placed.form {
        Form::Plain => L2Entry::plain(placed.host),
        Form::Compressed(len) => L2Entry::compressed(placed.host, len, cs),
    };
    let at = (placed.cluster.0 % per_table * 8) as usize;
    table[at..at + 8].copy_from_slice(&entry.to_be_bytes());
}

/// Places the map's clusters as the data itself is placed.
fn for_each_placed(
    layout: &Layout,
    map: &ImageMap,
    out: &mut impl FnMut(Placed<()>) -> Result<()>,
) -> Result<()> {
    let cs = layout.geometry.cluster_size;
    let mut placer = Placer::new(cs, layout.data.offset);
    map.data().try_for_each(|(cluster, data): (ClusterIndex, _)| {
        placer.push(cluster, Form::of(data.stored_len, cs), (), out)
    })?;
    placer.flush(out)
}
