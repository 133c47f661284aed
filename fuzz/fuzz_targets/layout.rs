//! Any map, laid out: every byte has one owner, every refcount is the number of references, the file is as long as
//! planned, and the tables lead back to what was placed.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::map::{DataCluster, ImageMap};
use snapcow::place::{Geometry, Order};
use snapcow::qcow2::{Compat, CompressionType};
use snapcow::units::ClusterSize;
use snapcow_fuzz::layout::check;

/// Most clusters that hold data, and most in all: beyond that a case only takes longer.
const DATA_MAX: u64 = 4_000;
const CLUSTERS_MAX: u64 = 1 << 18;

#[derive(Arbitrary, Debug)]
enum Piece {
    Zeros(u8),
    ManyZeros(u32),
    Plain(u8),
    /// So many clusters, each stored in this length, give or take a few bytes.
    Compressed(u8, u32),
    /// Very small ones share a host cluster by the thousand.
    Tiny(u16, u8),
}

#[derive(Arbitrary, Debug)]
struct Case {
    bits: u8,
    old: bool,
    zstd: bool,
    head_last: bool,
    cut: u16,
    pieces: Vec<Piece>,
}

fn map_of(pieces: &[Piece], cs: ClusterSize) -> ImageMap {
    let mut map = ImageMap::new(cs, 0);
    let whole = cs.bytes() as u32;
    for piece in pieces {
        let (count, len) = match *piece {
            Piece::Zeros(count) => {
                map.push_zeros(u64::from(count));
                continue;
            }
            Piece::ManyZeros(count) => {
                map.push_zeros(u64::from(count) % CLUSTERS_MAX.saturating_sub(map.clusters()).max(1));
                continue;
            }
            Piece::Plain(count) => (u64::from(count), whole),
            Piece::Compressed(count, len) => (u64::from(count), 1 + len % (whole - 1)),
            Piece::Tiny(count, len) => (u64::from(count), 1 + u32::from(len) % 40),
        };
        for step in 0..count.min(DATA_MAX.saturating_sub(map.data_clusters())) {
            let len = if len == whole { len } else { (len + step as u32 % 3).min(whole - 1) };
            map.push_data(DataCluster { stored_len: len, guest_crc: 0 });
        }
    }
    map
}

fuzz_target!(|case: Case| {
    let span = ClusterSize::MAX_BITS - ClusterSize::MIN_BITS + 1;
    let cs = ClusterSize::from_bits(ClusterSize::MIN_BITS + u32::from(case.bits) % span)
        .expect("within the bounds");
    let map = map_of(&case.pieces, cs);
    let cut = u64::from(case.cut) % (cs.bytes() / 512) * 512;
    let virtual_size = (map.clusters() * cs.bytes()).saturating_sub(cut);
    let geometry = Geometry {
        compat: if case.old { Compat::V0_10 } else { Compat::V1_1 },
        compression: if case.zstd && !case.old { CompressionType::Zstd } else { CompressionType::Zlib },
        cluster_size: cs,
    };
    let order = if case.head_last { Order::HeadLast } else { Order::HeadFirst };
    check(geometry, order, virtual_size, &map);
});
