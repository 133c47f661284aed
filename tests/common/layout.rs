//! A decoder of header and tables, written from the specification (QEMU `docs/interop/qcow2.rst`); it shares no code
//! with the writer. For the properties' test and for fuzzing.

use std::collections::BTreeMap;
use std::convert::Infallible;

use snapcow::flow::Form;
use snapcow::map::ImageMap;
use snapcow::place::{Geometry, Layout, Order, Placed, Placer, write_tables};
use snapcow::qcow2::Compat;

fn u16_at(bytes: &[u8], at: u64) -> u64 {
    u64::from(u16::from_be_bytes(bytes[at as usize..][..2].try_into().unwrap()))
}

fn u32_at(bytes: &[u8], at: u64) -> u64 {
    u64::from(u32::from_be_bytes(bytes[at as usize..][..4].try_into().unwrap()))
}

fn u64_at(bytes: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(bytes[at as usize..][..8].try_into().unwrap())
}

/// The metadata of a file as parts that were written: offset → bytes. Data may be terabytes.
#[derive(Default)]
struct Sparse(BTreeMap<u64, Vec<u8>>);

impl Sparse {
    /// The piece of at most one region that begins here or holds this offset.
    fn slice(&self, at: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len as usize);
        let mut next = at;
        while (out.len() as u64) < len {
            let (start, part) = self.0.range(..=next).next_back().expect("these bytes were written");
            let skip = (next - start) as usize;
            assert!(skip < part.len(), "nothing was written at {next}");
            let take = (part.len() - skip).min((len - out.len() as u64) as usize);
            out.extend_from_slice(&part[skip..skip + take]);
            next += take as u64;
        }
        out
    }
}

/// What the decoder makes of a file's tables.
struct Decoded {
    /// References to each host cluster: header, tables, data.
    references: BTreeMap<u64, u64>,
    /// Guest cluster → (host offset, bytes that it may touch at most; plain: the cluster).
    mapped: BTreeMap<u64, (u64, u64, bool)>,
}

impl Decoded {
    fn refer(&mut self, offset: u64, len: u64, cluster_bytes: u64) {
        for cluster in offset / cluster_bytes..(offset + len).div_ceil(cluster_bytes) {
            *self.references.entry(cluster).or_default() += 1;
        }
    }
}

/// Walks header → L1 → L2 and header → refcount table → blocks; counts references, compares them
/// with the refcounts, and gives the mapping.
fn decode(file: &Sparse, layout: &Layout) -> Decoded {
    let header = file.slice(0, 112);
    assert_eq!(&header[..4], b"QFI\xfb");
    let cluster_bytes = 1u64 << u32_at(&header, 20);
    assert_eq!(cluster_bytes, layout.geometry.cluster_size.bytes());
    assert_eq!(u64_at(&header, 24), layout.virtual_size);
    let version = u32_at(&header, 4);
    assert_eq!(version, if layout.geometry.compat == Compat::V0_10 { 2 } else { 3 });
    let (l1_entries, l1_offset) = (u32_at(&header, 36), u64_at(&header, 40));
    let (table_offset, table_clusters) = (u64_at(&header, 48), u32_at(&header, 56));
    for (what, offset) in [("L1", l1_offset), ("refcount table", table_offset)] {
        assert!(offset > 0 && offset % cluster_bytes == 0, "{what} at {offset}");
    }
    assert_eq!(l1_entries, layout.virtual_size.div_ceil(cluster_bytes * (cluster_bytes / 8)).max(1));

    let mut decoded = Decoded { references: BTreeMap::new(), mapped: BTreeMap::new() };
    decoded.refer(0, cluster_bytes, cluster_bytes);
    decoded.refer(l1_offset, l1_entries * 8, cluster_bytes);
    decoded.refer(table_offset, table_clusters * cluster_bytes, cluster_bytes);
    decode_l2(file, &mut decoded, l1_offset, l1_entries, cluster_bytes);
    check_refcounts(file, &mut decoded, table_offset, table_clusters, cluster_bytes, layout);
    decoded
}

fn decode_l2(file: &Sparse, decoded: &mut Decoded, l1_offset: u64, l1_entries: u64, cluster_bytes: u64) {
    let per_table = cluster_bytes / 8;
    // Bits 0 to x-1 are the offset, x to 61 the number of additional sectors: x = 62 - (bits - 8).
    let offset_bits = 62 - (cluster_bytes.trailing_zeros() - 8);
    let l1 = file.slice(l1_offset, l1_entries * 8);
    for index in 0..l1_entries {
        let entry = u64_at(&l1, index * 8);
        if entry == 0 {
            continue;
        }
        assert_eq!(entry >> 63, 1, "an L2 table is named once, and its entry says so");
        let table_offset = entry & 0x00ff_ffff_ffff_fe00;
        assert_eq!(entry, table_offset | 1 << 63);
        assert_eq!(table_offset % cluster_bytes, 0);
        decoded.refer(table_offset, cluster_bytes, cluster_bytes);
        let table = file.slice(table_offset, cluster_bytes);
        assert!(table.iter().any(|&byte| byte != 0), "an L2 table that maps nothing is not written");
        for slot in 0..per_table {
            let entry = u64_at(&table, slot * 8);
            if entry == 0 {
                continue;
            }
            let guest = index * per_table + slot;
            if entry >> 62 & 1 == 1 {
                assert_eq!(entry >> 63, 0, "a compressed cluster's COPIED bit is never set");
                let offset = entry & ((1 << offset_bits) - 1);
                let sectors = (entry & !(3 << 62)) >> offset_bits;
                let len = (sectors + 1) * 512 - offset % 512;
                decoded.mapped.insert(guest, (offset, len, true));
            } else {
                let offset = entry & 0x00ff_ffff_ffff_fe00;
                assert_eq!(entry, offset | 1 << 63);
                assert_eq!(offset % cluster_bytes, 0, "a plain cluster is aligned");
                decoded.mapped.insert(guest, (offset, cluster_bytes, false));
            }
        }
    }
    for (offset, len, _) in decoded.mapped.values().copied().collect::<Vec<_>>() {
        // The descriptor's sectors tell which clusters QEMU counts a reference for: sectors are never
        // larger than clusters, so the last touched sector lies in the last touched cluster.
        decoded.refer(offset, len, cluster_bytes);
    }
}

fn check_refcounts(
    file: &Sparse,
    decoded: &mut Decoded,
    table_offset: u64,
    table_clusters: u64,
    cluster_bytes: u64,
    layout: &Layout,
) {
    let table = file.slice(table_offset, table_clusters * cluster_bytes);
    let blocks: Vec<u64> =
        (0..table_clusters * cluster_bytes / 8).map(|index| u64_at(&table, index * 8)).collect();
    for &block in blocks.iter().filter(|&&block| block != 0) {
        assert_eq!(block % cluster_bytes, 0);
        decoded.refer(block, cluster_bytes, cluster_bytes);
    }
    let per_block = cluster_bytes / 2;
    let file_clusters = layout.file_len.div_ceil(cluster_bytes);
    let mut counted = BTreeMap::new();
    for (index, &block) in blocks.iter().enumerate().filter(|(_, block)| **block != 0) {
        let bytes = file.slice(block, cluster_bytes);
        for slot in 0..per_block {
            match u16_at(&bytes, slot * 2) {
                0 => {}
                refcount => {
                    counted.insert(index as u64 * per_block + slot, refcount);
                }
            }
        }
    }
    assert!(
        counted.keys().next_back().is_some_and(|&last| last < file_clusters),
        "no refcount behind the end"
    );
    assert_eq!(counted.len() as u64, file_clusters, "no cluster of the file is unused");
    for (&cluster, &refcount) in &counted {
        let references = decoded.references.get(&cluster).copied().unwrap_or(0);
        assert_eq!(refcount, references, "host cluster {cluster} of {file_clusters}");
    }
    assert_eq!(counted.len(), decoded.references.len(), "no reference to a cluster without a refcount");
}

/// Lays a map out, writes its tables, places its clusters, and holds all of it against the specification.
///
/// # Panics
/// If anything does not hold.
pub fn check(geometry: Geometry, order: Order, virtual_size: u64, map: &ImageMap) {
    let layout = Layout::new(geometry, order, virtual_size, map).unwrap();
    let cs = geometry.cluster_size;
    assert_eq!(layout.file_len % 512, 0);

    let mut file = Sparse::default();
    // Every byte's owner: header and tables by the parts that were written, data by what was placed.
    let mut owned: Vec<(u64, u64)> = Vec::new();
    write_tables(&layout, map, &mut |offset, part| {
        assert!(!part.is_empty() && part.len() <= snapcow::place::PART_BYTES);
        owned.push((offset.0, part.len() as u64));
        file.0.insert(offset.0, part.to_vec());
        Ok(())
    })
    .unwrap();
    if order == Order::HeadFirst {
        assert!(owned.is_sorted(), "an in-order sink gets header and tables in order");
    } else {
        let header = owned.iter().position(|(offset, _)| *offset == 0).unwrap();
        assert!(owned[header..].iter().all(|(offset, _)| *offset < cs.bytes()), "the header comes last");
    }

    let mut placed = BTreeMap::new();
    let mut last_host = 0;
    let mut note = |cluster: Placed<()>| {
        let len = u64::from(cluster.form.stored_len(cs));
        assert!(cluster.host.0 >= last_host, "clusters are handed out in host order");
        last_host = cluster.host.0;
        owned.push((cluster.host.0, len));
        placed.insert(cluster.cluster.0, (cluster.host.0, len, cluster.form != Form::Plain));
        Ok::<(), Infallible>(())
    };
    let mut placer = Placer::new(cs, layout.data.offset);
    for (cluster, data) in map.data() {
        placer.push(cluster, Form::of(data.stored_len, cs), (), &mut note).unwrap();
    }
    placer.flush(&mut note).unwrap();

    owned.sort_unstable();
    for pair in owned.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?} overlap");
    }
    let end = owned.iter().map(|(offset, len)| offset + len).max().unwrap();
    assert_eq!(end.next_multiple_of(512), layout.file_len, "planned size = written size");

    let decoded = decode(&file, &layout);
    assert_eq!(decoded.mapped.len() as u64, map.data_clusters());
    for (guest, (host, len, compressed)) in placed {
        let (found, room, is_compressed) = decoded.mapped[&guest];
        assert_eq!((found, is_compressed), (host, compressed), "guest cluster {guest}");
        assert!(room >= len && room < len + 512, "guest cluster {guest}: {len} bytes in sectors of {room}");
    }
}
