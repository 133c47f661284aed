//! The whole engine without any I/O: a made-up disk of 64 MiB from memory, through the spool, into
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, Target, convert, machine_facts};
use snapcow::embedded::{ImageData, Shape, VmImage};
use snapcow::encode::Compression;
use snapcow::error::Result;
use snapcow::facts::{Access, SinkFacts, SinkOrder, SourceFacts};
use snapcow::flow::CHUNK_BYTES;
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, SpoolDisk, Wishes};
use snapcow::qcow2::Compat;
use snapcow::sink::StreamSink;
use snapcow::source::{Outlet, Source, Wanted};
use snapcow::units::{ClusterIndex, ClusterSize};

const SIZE: u64 = 64 << 20;
const CS: ClusterSize = ClusterSize::DEFAULT;

/// A disk in memory. It knows no holes, so that every zero is looked at.
struct Memory {
    bytes: Vec<u8>,
    facts: SourceFacts,
}

impl Memory {
    fn new(data_fraction: f64) -> Arc<Self> {
        let shape = Shape { data_fraction, noise_fraction: 0.25, mean_extent_bytes: None };
        let mut bytes = vec![0; SIZE as usize];
        VmImage::shaped(1, SIZE, shape).read_at(0, &mut bytes);
        let facts =
            SourceFacts { name: "memory".into(), len: Some(SIZE), access: Access::Once, is_remote: false };
        Arc::new(Self { bytes, facts })
    }
}

impl Source for Memory {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, _wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        for (index, chunk) in self.bytes.chunks(CHUNK_BYTES).enumerate() {
            let mut buffer = outlet.buffer()?;
            buffer[..chunk.len()].copy_from_slice(chunk);
            let first = ClusterIndex((index * CHUNK_BYTES) as u64 >> CS.bits());
            outlet.data(first, buffer, chunk.len())?;
        }
        Ok(SIZE)
    }
}

fn run(source: &Arc<Memory>, compression: Compression, proof: Proof) -> Receipt {
    let spool_dir = PathBuf::from("/nonexistent");
    let plan = Plan::new(Facts {
        source: source.facts.clone(),
        sink: SinkFacts { name: "nothing".into(), order: SinkOrder::InOrder },
        machine: machine_facts(&spool_dir),
        wishes: Wishes {
            cluster_size: CS,
            threads: None,
            connections: None,
            memory_bytes: 1 << 30,
            spool_disk: SpoolDisk::Bytes(0),
        },
    })
    .unwrap();
    let header = compression.header_type();
    let job = Job {
        source: source.clone(),
        free: None,
        source_digest: Err("nobody knows its hash".into()),
        proof,
        geometry: Geometry { compat: Compat::V1_1, compression: header, cluster_size: CS },
        compression,
        spool_dir,
        counters: Arc::new(Counters::default()),
        cancel: Cancel::new(),
    };
    let nothing = StreamSink::new("nothing", Box::new(std::io::sink()));
    convert(&plan, &job, Target::Delivery(Box::new(nothing))).unwrap()
}

fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("end to end in memory, 64 MiB");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(10);
    for (name, fraction) in [("zeros", 0.0), ("15 % data", 0.15), ("all data", 1.0)] {
        let source = Memory::new(fraction);
        for compression in [Compression::None, Compression::Deflate(1), Compression::Zstd(1)] {
            for (with, proof) in [
                ("", Proof::NONE),
                (", digest", Proof { guest_digest: true, ..Proof::NONE }),
                (", verify", Proof { verify_encode: true, ..Proof::NONE }),
            ] {
                let receipt = run(&source, compression, proof);
                assert_eq!(receipt.source_len, SIZE);
                group.bench_function(format!("{name}, {compression:?}{with}"), |bencher| {
                    bencher.iter(|| run(&source, compression, proof));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
