//! Placing, layout and tables of disks with 65 536 data clusters: dense, and spread over a disk of
//! which one cluster in eight holds data.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::encode::Compression;
use snapcow::error::Error;
use snapcow::flow::Form;
use snapcow::map::{DataCluster, ImageMap};
use snapcow::place::{Geometry, Layout, Order, Placed, Placer, write_tables};
use snapcow::qcow2::Compat;
use snapcow::units::ClusterSize;

const DATA_CLUSTERS: u32 = 1 << 16;
const CS: ClusterSize = ClusterSize::DEFAULT;

/// Runs of eight data clusters with `gap` zero clusters behind each; one in four is stored plain.
fn map(gap: u64) -> ImageMap {
    let mut map = ImageMap::new(CS, 0);
    for index in 0..DATA_CLUSTERS {
        let spread = index.wrapping_mul(2_654_435_761);
        let stored_len = if spread >> 30 == 0 { CS.bytes() as u32 } else { 4096 + spread % 40_000 };
        map.push_data(DataCluster { stored_len, guest_crc: index });
        if index % 8 == 7 {
            map.push_zeros(gap);
        }
    }
    map
}

fn layout(criterion: &mut Criterion) {
    let geometry = Geometry {
        compat: Compat::V1_1,
        compression: Compression::Deflate(1).header_type(),
        cluster_size: CS,
    };
    let mut group = criterion.benchmark_group("place, 65536 data clusters");
    group.throughput(Throughput::Elements(u64::from(DATA_CLUSTERS)));
    for (name, gap) in [("dense", 0), ("one in eight", 56)] {
        let map = map(gap);
        let size = map.clusters() * CS.bytes();
        group.bench_function(format!("placer, {name}"), |bencher| {
            bencher.iter(|| {
                let mut placer = Placer::new(CS, Layout::head_last_data_start(CS));
                let mut out = |placed: Placed<()>| {
                    black_box(placed.host);
                    Ok::<(), Error>(())
                };
                for (cluster, data) in map.data() {
                    placer.push(cluster, Form::of(data.stored_len, CS), (), &mut out).unwrap();
                }
                placer.flush(&mut out).unwrap();
                placer.end()
            });
        });
        for order in [Order::HeadFirst, Order::HeadLast] {
            group.bench_function(format!("layout, {name}, {order:?}"), |bencher| {
                bencher.iter(|| Layout::new(geometry, order, size, black_box(&map)).unwrap());
            });
            let layout = Layout::new(geometry, order, size, &map).unwrap();
            group.bench_function(format!("tables, {name}, {order:?}"), |bencher| {
                bencher.iter(|| {
                    let mut bytes = 0;
                    write_tables(&layout, &map, &mut |_, part| {
                        bytes += black_box(part).len();
                        Ok(())
                    })
                    .unwrap();
                    bytes
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, layout);
criterion_main!(benches);
