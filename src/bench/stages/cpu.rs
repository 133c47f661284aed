//! Stages that only compute: scan, hash, CRC, encode, place.

use std::hint::black_box;

use super::pieces::Pieces;
use super::{Bench, codec_name};
use crate::bench::report::StageFigure;
use crate::bench::timing::{Lap, Watch};
use crate::bench::workload::CLUSTER_SIZE;
use crate::convert::{Cancel, hash_data};
use crate::encode::{Compression, Encoder};
use crate::error::Result;
use crate::flow::{CHUNK_BYTES, Form};
use crate::hash::{Algorithm, Hasher};
use crate::map::{DataCluster, ImageMap};
use crate::place::{Geometry, Layout, Order, Placed, Placer, write_tables};
use crate::qcow2::Compat;
use crate::scan;
use crate::units::ClusterIndex;

/// Zeros that are scanned in turn, as chunks come out of the engine's pool, in bytes.
const SCAN_RING_BYTES: usize = 8 * CHUNK_BYTES;
/// How often they are scanned: half a GiB in all.
const SCAN_PASSES: usize = 32;
/// Most of the disk that is hashed in one round, in bytes: it is evenly spread over it.
const HASH_BYTES_MAX: u64 = 256 << 20;
/// Data clusters of the map that is placed at least: 4 GiB of them.
const PLACE_CLUSTERS_MIN: u64 = 1 << 16;

/// Every kernel over zeros, on one thread, and what the engine calls, on all.
pub(super) fn scan(bench: &Bench<'_>) -> Result<Vec<StageFigure>> {
    let zeros = vec![0; SCAN_RING_BYTES];
    let pieces = Pieces { bytes: &zeros, piece_bytes: CHUNK_BYTES, passes: SCAN_PASSES };
    let cs = CLUSTER_SIZE;
    let mut figures = Vec::new();
    for kernel in scan::zero::kernels() {
        let is_zero = kernel.is_zero;
        let worker =
            || move |chunk: &[u8]| chunk.chunks(cs.size()).filter(|cluster| is_zero(cluster)).count() as u64;
        figures.push(bare_loop(bench, "scan", kernel.name, pieces, &[1], &worker)?);
    }
    let worker = || move |chunk: &[u8]| scan::runs(black_box(chunk), cs).count() as u64;
    let threads = [1, bench.threads];
    figures.push(bare_loop(bench, "scan", "facade", pieces, &threads, &worker)?);
    figures.iter_mut().for_each(|figure| figure.output_bytes = None);
    Ok(figures)
}

/// The hash of the disk, zeros included, as the engine takes it. It is serial by nature: one thread.
pub(super) fn hash(bench: &Bench<'_>) -> Result<StageFigure> {
    let size = bench.workload.contents.size_bytes;
    let chunks = size.div_ceil(CHUNK_BYTES as u64);
    let stride = size.div_ceil(HASH_BYTES_MAX).max(1);
    let bytes: u64 = (0..chunks)
        .step_by(stride as usize)
        .map(|chunk| (size - chunk * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64))
        .sum();
    let mut buffer = vec![0; CHUNK_BYTES];
    let one = bench.time(bytes, 1, || {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        let mut sum = Lap::default();
        for chunk in (0..chunks).step_by(stride as usize) {
            let offset = chunk * CHUNK_BYTES as u64;
            let len = (size - offset).min(CHUNK_BYTES as u64) as usize;
            // Reading is another stage's work: the clocks stand still.
            bench.workload.read_at(offset, &mut buffer[..len])?;
            let watch = Watch::thread();
            hash_data(&mut hasher, &buffer[..len]);
            let lap = watch.lap();
            sum.wall_seconds += lap.wall_seconds;
            sum.cpu_seconds += lap.cpu_seconds;
            if bench.cancel.signal().is_some() {
                break;
            }
        }
        black_box(hasher.finish());
        Ok(sum)
    })?;
    Ok(StageFigure::new("hash", "sha512", bytes, one))
}

/// CRC-32 of data clusters.
pub(super) fn crc(bench: &Bench<'_>, sample: &[u8]) -> Result<StageFigure> {
    let pieces = Pieces { bytes: sample, piece_bytes: CHUNK_BYTES, passes: 1 };
    let worker = || {
        |chunk: &[u8]| {
            let crcs =
                chunk.chunks(CLUSTER_SIZE.size()).map(|cluster| u64::from(Encoder::guest_crc(cluster)));
            black_box(crcs.sum::<u64>())
        }
    };
    let mut figure = bare_loop(bench, "crc", "crc32", pieces, &[1, bench.threads], &worker)?;
    figure.output_bytes = None;
    Ok(figure)
}

/// A codec in a bare loop over data clusters; what does not get smaller counts as stored plain.
pub(super) fn encode(bench: &Bench<'_>, compression: Compression, sample: &[u8]) -> Result<StageFigure> {
    let pieces = Pieces { bytes: sample, piece_bytes: CHUNK_BYTES, passes: 1 };
    let threads = [1, bench.threads];
    bare_loop(bench, "encode", &codec_name(compression), pieces, &threads, &encoder_of(compression))
}

/// Processor seconds that this loop takes for a byte, on all threads, once and now: to be held against the
/// engine's right beside it.
pub(in crate::bench) fn encode_pace(
    compression: Compression,
    sample: &[u8],
    threads: usize,
    cancel: &Cancel,
) -> f64 {
    let pieces = Pieces { bytes: sample, piece_bytes: CHUNK_BYTES, passes: 2 };
    let (lap, _) = pieces.run(threads, cancel, &encoder_of(compression));
    lap.cpu_seconds / (pieces.total_bytes(threads) as f64).max(1.0)
}

/// Works through a piece and tells how many bytes came out.
type Worker = Box<dyn FnMut(&[u8]) -> u64>;

/// Makes workers that encode each cluster of a chunk and give the number of bytes that came out.
fn encoder_of(compression: Compression) -> impl Fn() -> Worker + Sync {
    move || {
        let mut encoder = Encoder::new(compression, CLUSTER_SIZE);
        let mut room = vec![0; CLUSTER_SIZE.size()];
        Box::new(move |chunk: &[u8]| {
            let clusters = chunk.chunks_exact(CLUSTER_SIZE.size());
            clusters.map(|cluster| encoder.compress(cluster, &mut room).unwrap_or(cluster.len()) as u64).sum()
        })
    }
}

/// The same loop on one thread and, where asked for, on more.
fn bare_loop<W: FnMut(&[u8]) -> u64>(
    bench: &Bench<'_>,
    stage: &str,
    variant: &str,
    pieces: Pieces<'_>,
    threads: &[usize],
    make: &(impl Fn() -> W + Sync),
) -> Result<StageFigure> {
    let mut output = 0;
    let mut time = |threads: usize| {
        bench.time(pieces.total_bytes(threads), threads, || {
            let (lap, out) = pieces.run(threads, bench.cancel, make);
            output = (out as f64 * pieces.total_bytes(1) as f64 / pieces.total_bytes(threads) as f64) as u64;
            Ok(lap)
        })
    };
    let one = time(1)?;
    let all = threads.get(1).filter(|&&threads| threads > 1).map(|&threads| time(threads)).transpose()?;
    let mut figure = StageFigure::new(stage, variant, pieces.total_bytes(1), one);
    figure.output_bytes = Some(output);
    figure.all_threads = all.or_else(|| threads.get(1).map(|_| figure.one_thread.clone()));
    Ok(figure)
}

/// Offsets of all clusters, the layout, and the bytes of header and tables.
pub(super) fn place(bench: &Bench<'_>, sample: &[u8]) -> Result<StageFigure> {
    let cs = CLUSTER_SIZE;
    let map = map_like(bench, sample);
    let geometry = Geometry {
        compat: Compat::V1_1,
        compression: Compression::Deflate(1).header_type(),
        cluster_size: cs,
    };
    let bytes = map.data_clusters() * cs.bytes();
    let one = bench.time(bytes, 1, || {
        let watch = Watch::thread();
        let mut placer = Placer::new(cs, Layout::head_last_data_start(cs));
        let mut out = |placed: Placed<()>| {
            black_box(placed.host);
            Ok::<_, crate::error::Error>(())
        };
        for (cluster, data) in map.data() {
            placer.push(cluster, Form::of(data.stored_len, cs), (), &mut out)?;
        }
        placer.flush(&mut out)?;
        let layout = Layout::new(geometry, Order::HeadLast, map.clusters() * cs.bytes(), &map)?;
        write_tables(&layout, &map, &mut |_, part| {
            black_box(part);
            Ok(())
        })?;
        Ok(watch.lap())
    })?;
    Ok(StageFigure::new("place", "tables", bytes, one))
}

/// A map with the lengths of the sample's clusters and the disk's zeros between them, long enough to
/// be timed.
fn map_like(bench: &Bench<'_>, sample: &[u8]) -> ImageMap {
    let cs = CLUSTER_SIZE;
    let mut encoder = Encoder::new(Compression::Deflate(1), cs);
    let mut room = vec![0; cs.size()];
    let lens: Vec<u32> = sample
        .chunks_exact(cs.size())
        .step_by((sample.len() >> cs.bits()).div_ceil(256).max(1))
        .map(|cluster| encoder.compress(cluster, &mut room).unwrap_or(cs.size()) as u32)
        .collect();
    let contents = bench.workload.contents;
    let zeros_each = contents.size_bytes as f64 / contents.data_cluster_bytes.max(1) as f64 - 1.0;
    let mut map = ImageMap::new(cs, 0);
    let mut due = 0.0;
    for index in 0..PLACE_CLUSTERS_MIN {
        due += zeros_each.clamp(0.0, 64.0);
        // In runs of eight clusters, about as long as extents are.
        if index % 8 == 0 {
            map.push_zeros(due as u64);
            due -= due.floor();
        }
        let cluster = ClusterIndex(map.clusters());
        map.push_data(DataCluster {
            stored_len: lens[index as usize % lens.len()],
            guest_crc: cluster.0 as u32,
        });
    }
    map
}
