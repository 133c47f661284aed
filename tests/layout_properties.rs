//! The layout's promises, for random maps and both orders: every byte of the file has one owner,
//! every host cluster's refcount is the number of its references, the file is as long as planned,
//! and the tables lead back to the clusters that were placed.

#[path = "common/layout.rs"]
mod layout;

use proptest::prelude::*;

use layout::check;
use snapcow::map::{DataCluster, ImageMap};
use snapcow::place::{Geometry, Order};
use snapcow::qcow2::{Compat, CompressionType};
use snapcow::units::{ClusterIndex, ClusterSize};

/// Some clusters in a row.
#[derive(Clone, Debug)]
enum Piece {
    Zeros(u64),
    Plain(u64),
    /// So many clusters, each stored in so many thousandths of a cluster.
    Compressed(u64, u32),
    /// The same in bytes: very small ones share a host cluster by the thousand.
    Tiny(u64, u32),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        3 => (1u64..300).prop_map(Piece::Zeros),
        1 => (1u64..100_000).prop_map(Piece::Zeros),
        2 => (1u64..40).prop_map(Piece::Plain),
        4 => (1u64..80, 1u32..1000).prop_map(|(count, share)| Piece::Compressed(count, share)),
        1 => (1u64..300, 1u32..40).prop_map(|(count, len)| Piece::Tiny(count, len)),
    ];
    prop::collection::vec(piece, 0..24)
}

fn map_of(pieces: &[Piece], cs: ClusterSize) -> ImageMap {
    let mut map = ImageMap::new(cs, 0);
    let cluster_bytes = cs.bytes() as u32;
    for piece in pieces {
        let (count, stored_len) = match *piece {
            Piece::Zeros(count) => {
                map.push_zeros(count);
                continue;
            }
            Piece::Plain(count) => (count, cluster_bytes),
            Piece::Compressed(count, share) => (count, (u64::from(share) * cs.bytes() / 1000).max(1) as u32),
            Piece::Tiny(count, len) => (count, len),
        };
        for step in 0..count {
            // Lengths vary a little, so that boundaries fall everywhere.
            let len =
                if stored_len == cluster_bytes { stored_len } else { stored_len.max(1 + step as u32 % 7) };
            map.push_data(DataCluster { stored_len: len.min(cluster_bytes), guest_crc: 0 });
        }
    }
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_has_one_owner_and_every_refcount_is_right(
        bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS,
        pieces in pieces(),
        cut in 0u64..4096,
        old in any::<bool>(),
        zstd in any::<bool>(),
    ) {
        let cs = ClusterSize::from_bits(bits).unwrap();
        let map = map_of(&pieces, cs);
        // The last cluster of a disk need not be whole.
        let virtual_size = (map.clusters() * cs.bytes()).saturating_sub(cut % (cs.bytes() / 512) * 512);
        let compat = if old { Compat::V0_10 } else { Compat::V1_1 };
        let compression = if zstd && !old { CompressionType::Zstd } else { CompressionType::Zlib };
        let geometry = Geometry { compat, compression, cluster_size: cs };
        for order in [Order::HeadFirst, Order::HeadLast] {
            check(geometry, order, virtual_size, &map);
        }
    }
}

/// More compressed clusters fit a host cluster than 16 bits can count.
#[test]
fn a_host_cluster_takes_no_more_clusters_than_its_refcount_can_count() {
    let cs = ClusterSize::from_bits(21).unwrap();
    for len in [1, 17, 31] {
        let mut map = ImageMap::new(cs, 0);
        (0..140_000).for_each(|_| map.push_data(DataCluster { stored_len: len, guest_crc: 0 }));
        let geometry =
            Geometry { compat: Compat::V1_1, compression: CompressionType::Zstd, cluster_size: cs };
        for order in [Order::HeadFirst, Order::HeadLast] {
            check(geometry, order, map.clusters() * cs.bytes(), &map);
        }
    }
}

/// Around the sizes at which the refcount blocks need one more of themselves, at 512 bytes.
#[test]
fn the_refcounts_count_themselves() {
    let cs = ClusterSize::from_bits(9).unwrap();
    let geometry = Geometry { compat: Compat::V1_1, compression: CompressionType::Zlib, cluster_size: cs };
    for count in (200..300).chain(15_900..16_300).step_by(3).chain([0, 1, 2]) {
        let mut map = ImageMap::new(cs, 0);
        (0..count).for_each(|_| map.push_data(DataCluster { stored_len: 512, guest_crc: 0 }));
        for order in [Order::HeadFirst, Order::HeadLast] {
            check(geometry, order, count * 512, &map);
        }
    }
}

#[test]
fn clusters_far_apart_get_an_l2_table_each() {
    let cs = ClusterSize::DEFAULT;
    let mut map = ImageMap::new(cs, 0);
    for (zeros, stored_len) in
        [(0, 65536), (8191, 5), (8191, 65536), (8192 * 20, 9), (1, 65535), (8192, 65536)]
    {
        map.push_zeros(zeros);
        map.push_data(DataCluster { stored_len, guest_crc: 0 });
    }
    assert!(map.is_data(ClusterIndex(8192)));
    let geometry = Geometry { compat: Compat::V1_1, compression: CompressionType::Zlib, cluster_size: cs };
    for order in [Order::HeadFirst, Order::HeadLast] {
        check(geometry, order, map.clusters() * cs.bytes() - 512, &map);
    }
}
