//! Every zero kernel over 64 KiB of zeros that lie in the cache: the portable one stays in for good,
//! so that a faster one has to keep earning its place.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::scan::zero;

fn kernels(criterion: &mut Criterion) {
    let bytes = vec![0u8; 64 << 10];
    let mut group = criterion.benchmark_group("zero, 64 KiB, in cache");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for kernel in zero::kernels() {
        group.bench_function(kernel.name, |bencher| bencher.iter(|| (kernel.is_zero)(black_box(&bytes))));
    }
    group.bench_function("facade", |bencher| bencher.iter(|| zero::is_zero(black_box(&bytes))));
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
