//! The receipt as JSON: `schema` is `snapcow/report/1`, described by `report-1.schema.json` beside
//! this file; names are in snake_case with the unit last.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use snapcow::convert::{Counters, Receipt, RouteTaken, SourceCheck, Timed};
use snapcow::encode::Compression;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::free::disk::Findings;
use snapcow::hash::BLOCK_BYTES;
use snapcow::place::Geometry;
use snapcow::plan::{Plan, Route};
use snapcow::qcow2::Compat;
use snapcow::sink::write_whole;
use snapcow::state::Keeper;

use super::args::ConvertArgs;
use super::opened::Opened;
use super::terminal::escape_json;

/// What is known of a run so far; a failure reports that much.
#[derive(Default)]
pub struct Outcome {
    pub started: Option<SystemTime>,
    /// What tells the source from others.
    pub source: Option<Value>,
    pub format: Option<(Geometry, Compression)>,
    pub plan: Option<Plan>,
    pub counters: Option<Arc<Counters>>,
    pub receipt: Option<Receipt>,
    /// Whether a cloud's certificates were not checked.
    pub insecure: bool,
    pub image_id: Option<String>,
    pub dropped_properties: Vec<String>,
    /// What the filesystems of the source have freed, where that is left out.
    pub free: Option<Arc<Findings>>,
    /// The source image that is to be deleted once all is proven.
    #[cfg(feature = "openstack")]
    pub doomed: Option<super::delete_source::Doomed>,
    /// What became of it.
    #[cfg(feature = "openstack")]
    pub deleted_source: Option<super::delete_source::Fate>,
    /// The state file, where one is used.
    pub keeper: Option<Keeper>,
}

impl Outcome {
    /// Of a run that begins now. The wall clock is for the reader alone: nothing is decided by it.
    pub fn begun() -> Self {
        Self { started: Some(SystemTime::now()), ..Self::default() }
    }

    /// Notes what is known before the first byte.
    pub fn planned(&mut self, opened: &Opened, geometry: Geometry, compression: Compression, plan: &Plan) {
        self.source = Some(opened.describe());
        self.format = Some((geometry, compression));
        self.plan = Some(plan.clone());
    }
}

/// Writes the report.
///
/// # Errors
/// [`Kind::Local`] if it cannot be written; the conversion itself has ended by then.
pub fn write(path: &Path, options: &ConvertArgs, outcome: &Outcome, failure: Option<&Error>) -> Result<()> {
    let report = report(options, outcome, failure);
    let text = escape_json(&format!("{report:#}\n"));
    write_whole(path, text.as_bytes()).map_err(|error| {
        Error::new(Stage::Sink, Kind::Local, format!("write the report `{}`", path.display())).because(error)
    })
}

fn report(options: &ConvertArgs, outcome: &Outcome, failure: Option<&Error>) -> Value {
    let started = outcome.started.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let mut report = json!({
        "schema": "snapcow/report/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "versions": super::versions::versions(),
        "started_unix_seconds": started.map_or(0, |since| since.as_secs()),
        "outcome": failure.map_or("ok", |error| error.kind().word()),
        "exit_code": failure.map_or(0, |error| error.kind().exit_code()),
        "source": options.source,
        "target": options.target,
        "source_identity": outcome.source,
        "image_id": outcome.image_id,
        "dropped_properties": outcome.dropped_properties,
        "insecure": outcome.insecure,
        "dry_run": options.how.dry_run,
        "map": options.how.map.as_ref().map(|file| {
            json!({ "file": file.display().to_string(), "trusted": options.how.trust_map })
        }),
    });
    if let Some(findings) = &outcome.free {
        report["trim"] = super::trim::json(findings);
    }
    #[cfg(feature = "openstack")]
    {
        report["deleted_source"] =
            json!(outcome.deleted_source.as_ref().map(super::delete_source::Fate::json));
    }
    if let Some(error) = failure {
        report["error"] = json!({
            "stage": error.stage().to_string(),
            "message": error.to_string(),
            "advice": error.advice(),
        });
    }
    if let Some((geometry, compression)) = &outcome.format {
        report["format"] = format_json(geometry, *compression);
    }
    if let Some(plan) = &outcome.plan {
        report["plan"] = plan_json(plan);
    }
    if let Some(counters) = &outcome.counters {
        report["stages"] = stages(counters);
    }
    if let Some(receipt) = &outcome.receipt {
        report["receipt"] = receipt_json(receipt);
    }
    report
}

fn format_json(geometry: &Geometry, compression: Compression) -> Value {
    json!({
        "name": "qcow2",
        "compat": match geometry.compat { Compat::V0_10 => "0.10", Compat::V1_1 => "1.1" },
        "cluster_size_bytes": geometry.cluster_size.bytes(),
        "compression": compression.word(),
        "encoder": compression.library(),
        "level": compression.level(),
    })
}

fn plan_json(plan: &Plan) -> Value {
    let budget = &plan.budget;
    json!({
        "route": match plan.route { Route::Direct => "direct", Route::Spool(_) => "spool" },
        "route_reason": plan.route.reason(),
        "threads": budget.threads,
        "connections": budget.connections,
        "memory_bytes": budget.memory_bytes,
        "spool_memory_bytes": budget.spool_memory_bytes,
        "spool_disk_bytes": budget.spool_disk_bytes,
        "map_worst_case_bytes": plan.map_worst_case_bytes,
        "cluster_size_bytes": plan.facts.wishes.cluster_size.bytes(),
        "notes": plan.notes,
    })
}

fn stages(counters: &Counters) -> Value {
    let get = Counters::get;
    let seconds = |stage| counters.time(stage).as_secs_f64();
    json!({
        "source": {
            "read_bytes": get(&counters.source_bytes),
            "hole_bytes": get(&counters.hole_bytes),
            "reread_bytes": get(&counters.reread_bytes),
            "thread_seconds": seconds(Timed::Read),
            "hash_seconds": seconds(Timed::Hash),
        },
        "scan": {
            "guest_bytes": get(&counters.guest_bytes),
            "zero_bytes": get(&counters.zero_bytes),
            "data_bytes": get(&counters.data_bytes),
            "thread_seconds": seconds(Timed::Scan),
        },
        "encode": {
            "input_bytes": get(&counters.data_bytes),
            "output_bytes": get(&counters.stored_bytes),
            "plain_clusters": get(&counters.plain_clusters),
            "thread_seconds": seconds(Timed::Encode),
        },
        "verify": {
            "clusters": get(&counters.verified_clusters),
            "thread_seconds": seconds(Timed::Verify),
        },
        "digest": { "thread_seconds": seconds(Timed::Digest) },
        "place": { "image_bytes": get(&counters.image_bytes) },
        "sink": { "sent_bytes": get(&counters.sink_bytes), "wait_seconds": seconds(Timed::Sink) },
    })
}

fn receipt_json(receipt: &Receipt) -> Value {
    let digest =
        |digest: &snapcow::hash::Digest| json!({"algorithm": digest.algorithm.name(), "value": digest.hex});
    let (source_digest, source_unverified) = match &receipt.source_check {
        SourceCheck::Verified(found) => (digest(found), Value::Null),
        SourceCheck::NotVerified(reason) => (Value::Null, json!(reason)),
    };
    let guest_digest = receipt.guest_digest.as_ref().map(|value| {
        json!({
            "construction": "blksum",
            "algorithm": "sha256",
            "block_bytes": BLOCK_BYTES,
            "length_bytes": receipt.virtual_size,
            "value": value,
        })
    });
    let spool = receipt.spool.map(|spool| {
        json!({
            "encoded_bytes": spool.encoded_bytes,
            "dropped_bytes": spool.dropped_bytes,
            "disk_written_bytes": spool.disk_written_bytes,
            "disk_given_up": spool.disk_given_up,
        })
    });
    let delivered = receipt.delivered.as_ref();
    json!({
        "source_len_bytes": receipt.source_len,
        "virtual_size_bytes": receipt.virtual_size,
        "image_bytes": receipt.image_len,
        "clusters": receipt.clusters,
        "data_clusters": receipt.data_clusters,
        "route": receipt.route.map(|route| match route {
            RouteTaken::Direct => "direct",
            RouteTaken::Spool => "spool",
            RouteTaken::Reread => "reread",
        }),
        "compressed_clusters": receipt.compressed_clusters,
        "zero_clusters": receipt.clusters - receipt.data_clusters,
        "guest_digest": guest_digest,
        "resumed": receipt.resumed,
        "verified_clusters": receipt.verified_clusters,
        "source_digest": source_digest,
        "source_unverified_reason": source_unverified,
        "target_digest": delivered.and_then(|delivered| delivered.verified.as_ref()).map(digest),
        "target_unverified_reason": delivered.and_then(|delivered| delivered.unverified.clone()),
        "upload_retries": delivered.map(|delivered| delivered.retries),
        "spool": spool,
        "memory_to_save_reread_bytes": receipt.memory_to_save_reread,
        "spool_disk_to_save_reread_bytes": receipt.disk_to_save_reread,
        "shared_bytes": receipt.shared_bytes,
        "written_by": receipt.written_by,
        "wall_seconds": receipt.wall.as_secs_f64(),
    })
}
