//! The plan for programs, `snapcow/plan/1`. Sizes are in bytes, times in seconds; what is not known is null.
//!
//! | field | meaning |
//! |---|---|
//! | `source`, `target` | the words of the command line |
//! | `source_bytes`, `source_access` | length of the disk; `once`, `from_start` or `anywhere` |
//! | `route`, `route_reason` | `direct` or `spool`, and why |
//! | `threads`, `connections` | to encode and to read |
//! | `memory_bytes`, `map_worst_case_bytes` | besides code; the image map if all is data |
//! | `spool_memory_bytes`, `spool_disk_bytes` | room for encoded clusters |
//! | `spool` | `none`, `unknown`, `fits`, `may_reread` or `rereads` |
//! | `image_bytes`, `data_bytes` | `low`, `likely`, `high`: length of the new image; data on the disk |
//! | `sample` | `basis` (`all`, `spread`, `first_part`), `pieces`, `first_part_bytes`, `read_bytes`, `seconds`, `confidence_percent` |
//! | `known_by` | the same in words, or why nothing is known |
//! | `seconds` | `low`, `likely`, `high`: the whole run |
//! | `parts` | of it: `name` (`begin`, `pass_1`, `second_read`, `upload`, `settle`), `basis` (`measured`, `modelled`, `assumed`), `low`, `likely`, `high` |
//! | `limit` | what pass 1 is limited by, in words |
//! | `upload_bytes_per_second`, `upload_is_assumed` | where the target is in Glance |
//! | `format` | `compat`, `compression`, `level`, `cluster_size_bytes`, `needs_qemu` |
//! | `proofs` | `source_hash`, `verify_encode`, `guest_digest` |
//! | `min_disk_gib`, `source_min_disk_gib` | of the new image and of the source |
//! | `quota_free_bytes`, `quota_used_bytes` | of the target's project |
//! | `creates`, `deletes`, `notes` | in words |
//! | `trim` | as in a report, where `--trim` was given |

use serde_json::{Value, json};
use snapcow::convert::{Basis, Sample};
use snapcow::encode::Compression;
use snapcow::facts::Access;
use snapcow::plan::Route;
use snapcow::plan::estimate::{CONFIDENCE_PERCENT, Interval};
use snapcow::qcow2::Compat;

use super::super::trim;
use super::forecast::{Forecast, Spool};
use super::times::Seconds;

/// The object.
pub fn json(forecast: &Forecast) -> Value {
    let (plan, budget) = (&forecast.plan, &forecast.plan.budget);
    let mut object = json!({
        "schema": "snapcow/plan/1",
        "source": forecast.source,
        "target": forecast.target,
        "source_bytes": plan.facts.source.len,
        "source_access": match plan.facts.source.access {
            Access::Once => "once",
            Access::Sequential => "from_start",
            Access::Random => "anywhere",
        },
        "route": match plan.route { Route::Direct => "direct", Route::Spool(_) => "spool" },
        "route_reason": plan.route.reason(),
        "threads": budget.threads,
        "connections": budget.connections,
        "memory_bytes": budget.memory_bytes,
        "map_worst_case_bytes": plan.map_worst_case_bytes,
        "spool_memory_bytes": budget.spool_memory_bytes,
        "spool_disk_bytes": budget.spool_disk_bytes,
        "spool": spool(forecast.spool),
        "image_bytes": forecast.image_bytes.map(interval),
        "data_bytes": forecast.data_bytes.map(interval),
        "sample": forecast.sample.as_ref().map(sample),
        "known_by": forecast.known_by,
    });
    let more = json!({
        "seconds": forecast.total.map(seconds),
        "parts": forecast.parts.iter().map(|part| {
            let mut object = seconds(part.seconds);
            object["name"] = part.name.into();
            object["basis"] = part.basis.into();
            object
        }).collect::<Vec<_>>(),
        "limit": forecast.limit.map(|limit| limit.words()),
        "upload_bytes_per_second": forecast.upload_rate.map(|(rate, _)| rate as u64),
        "upload_is_assumed": forecast.upload_rate.map(|(_, measured)| !measured),
        "format": format(forecast),
        "proofs": {
            "source_hash": forecast.source_hash,
            "verify_encode": forecast.proof.verify_encode,
            "guest_digest": forecast.proof.guest_digest,
        },
        "min_disk_gib": forecast.min_disk_gib.map(|(own, _)| own),
        "source_min_disk_gib": forecast.min_disk_gib.and_then(|(_, source)| source),
        "quota_free_bytes": forecast.quota_free_bytes,
        "quota_used_bytes": forecast.quota_used_bytes,
        "creates": forecast.creates,
        "deletes": forecast.deletes,
        "notes": forecast.notes,
        "trim": forecast.free.as_deref().map(trim::json),
    });
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

fn interval(interval: Interval) -> Value {
    json!({"low": interval.low, "likely": interval.likely, "high": interval.high})
}

fn seconds(seconds: Seconds) -> Value {
    json!({"low": seconds.low, "likely": seconds.likely, "high": seconds.high})
}

fn spool(spool: Spool) -> &'static str {
    match spool {
        Spool::None => "none",
        Spool::Unknown => "unknown",
        Spool::Fits => "fits",
        Spool::Rereads { surely: false } => "may_reread",
        Spool::Rereads { surely: true } => "rereads",
    }
}

fn sample(sample: &Sample) -> Value {
    let (basis, pieces, first) = match sample.basis {
        Basis::All => ("all", None, None),
        Basis::Spread { pieces } => ("spread", Some(pieces), None),
        Basis::FirstPart { bytes } => ("first_part", None, Some(bytes)),
    };
    json!({
        "basis": basis,
        "pieces": pieces,
        "first_part_bytes": first,
        "read_bytes": sample.read_bytes,
        "seconds": sample.took.as_secs_f64(),
        "confidence_percent": pieces.map(|_| CONFIDENCE_PERCENT),
    })
}

fn format(forecast: &Forecast) -> Value {
    let zstd = matches!(forecast.compression, Compression::Zstd(_));
    let geometry = &forecast.geometry;
    json!({
        "compat": match geometry.compat { Compat::V0_10 => "0.10", Compat::V1_1 => "1.1" },
        "compression": forecast.compression.word(),
        "level": forecast.compression.level(),
        "cluster_size_bytes": geometry.cluster_size.bytes(),
        "needs_qemu": if zstd { Some("5.1") } else { None },
    })
}
