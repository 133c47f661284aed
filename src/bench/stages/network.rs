//! The stages that move bytes from and to the embedded Glance.

use bytes::Bytes;

use super::Bench;
use super::files::{Pools, drain};
use crate::bench::report::StageFigure;
use crate::bench::service::Service;
use crate::bench::timing::Watch;
use crate::error::Result;
use crate::sink::Delivery;

/// Most that is uploaded in one round, in bytes.
const UPLOAD_BYTES_MAX: u64 = 256 << 20;
/// Size of the parts that the engine hands to an upload, in bytes.
const PART_BYTES: usize = 256 << 10;
/// What may wait for the upload: the engine's share at its defaults, in bytes.
const QUEUE_BYTES: u64 = 32 << 20;

/// The whole image comes in, in order or by ranges.
pub(super) fn inward(bench: &Bench<'_>, service: &Service, variant: &str) -> Result<StageFigure> {
    let pools = Pools::new();
    let source = service.source(bench.cancel)?;
    let bytes = bench.workload.contents.size_bytes;
    let one = bench.time(bytes, 1, || drain(&source, &pools, bench.cancel).map(|(lap, _)| lap))?;
    Ok(StageFigure::new("network in", variant, bytes, one))
}

/// An upload of data that has been ready in memory, with the hashes of both ends.
pub(super) fn outward(bench: &Bench<'_>, service: &Service, sample: &Bytes) -> Result<StageFigure> {
    let bytes = bench.workload.contents.data_cluster_bytes.min(UPLOAD_BYTES_MAX);
    let one = bench.time(bytes, 1, || {
        let mut target = service.target("raw", QUEUE_BYTES, bench.cancel)?;
        let watch = Watch::process();
        target.sink.deliver(bytes, &mut |sink| {
            let mut left = bytes as usize;
            for start in (0..sample.len()).step_by(PART_BYTES).cycle() {
                if left == 0 {
                    break;
                }
                let end = sample.len().min(start + PART_BYTES).min(start + left);
                left -= end - start;
                sink.put(sample.slice(start..end))?;
            }
            Ok(())
        })?;
        let lap = watch.lap();
        service.forget(&target.id, bench.cancel)?;
        Ok(lap)
    })?;
    Ok(StageFigure::new("network out", "upload", bytes, one))
}
