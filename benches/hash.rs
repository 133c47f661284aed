//! SHA-512 of 1 MiB of data and of zeros: ours as the pipeline uses it, and the whole of it by aws-lc,
//! which stays in for good, so that ours has to keep earning its place. And the digest of the guest's content.

use std::hint::black_box;

use aws_lc_rs::digest;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::hash::{Algorithm, BlockDigests, GuestDigest, Hasher};
use snapcow::scan::zero::is_zero;

const LEN: usize = 1 << 20;

fn sha512(criterion: &mut Criterion) {
    let zeros = vec![0; LEN];
    let data: Vec<u8> = (0..LEN as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut group = criterion.benchmark_group("sha512, 1 MiB");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (name, bytes) in [("data", &data), ("zeros as data", &zeros)] {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        group.bench_function(name, |bencher| bencher.iter(|| hasher.update(black_box(bytes))));
        let mut context = digest::Context::new(&digest::SHA512);
        let name = format!("{name}, by aws-lc");
        group.bench_function(name, |bencher| bencher.iter(|| context.update(black_box(bytes))));
    }
    let mut hasher = Hasher::new(Algorithm::Sha512);
    group.bench_function("zeros", |bencher| bencher.iter(|| hasher.update_zeros(black_box(LEN as u64))));
    group.finish();
}

fn guest_digest(criterion: &mut Criterion) {
    let zeros = vec![0; LEN];
    let data: Vec<u8> = (0..LEN as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut group = criterion.benchmark_group("guest digest, 1 MiB");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (name, bytes) in [("data", &data), ("zeros as data", &zeros)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut digests = BlockDigests::new(0);
                digests.add(black_box(bytes), is_zero);
                digests
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("guest digest, 64 GiB");
    group.throughput(Throughput::Bytes(64 << 30));
    group.bench_function("a hole", |bencher| bencher.iter(|| GuestDigest::new().finish(black_box(64 << 30))));
    group.finish();
}

criterion_group!(benches, sha512, guest_digest);
criterion_main!(benches);
