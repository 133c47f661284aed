//! The receipt as JSON: `schema` is `snapcow/report/1`, names are in snake_case with the unit last.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use snapcow::convert::{Counters, Receipt, RouteTaken, SourceCheck, Timed};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::plan::{Plan, Route};

use super::args::ConvertArgs;

/// What is known of a run so far; a failure reports that much.
#[derive(Default)]
pub struct Outcome {
    pub plan: Option<Plan>,
    pub counters: Option<Arc<Counters>>,
    pub receipt: Option<Receipt>,
    pub image_id: Option<String>,
    pub dropped_properties: Vec<String>,
}

/// Writes the report.
///
/// # Errors
/// [`Kind::Local`] if it cannot be written; the conversion itself has ended by then.
pub fn write(path: &Path, options: &ConvertArgs, outcome: &Outcome, failure: Option<&Error>) -> Result<()> {
    let report = report(options, outcome, failure);
    let text = format!("{report:#}\n");
    std::fs::write(path, text).map_err(|error| {
        Error::new(Stage::Sink, Kind::Local, format!("write the report `{}`", path.display())).because(error)
    })
}

fn report(options: &ConvertArgs, outcome: &Outcome, failure: Option<&Error>) -> Value {
    let mut report = json!({
        "schema": "snapcow/report/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "outcome": failure.map_or("ok", |error| error.kind().word()),
        "exit_code": failure.map_or(0, |error| error.kind().exit_code()),
        "source": options.source,
        "target": options.target,
        "image_id": outcome.image_id,
        "dropped_properties": outcome.dropped_properties,
        "dry_run": options.dry_run,
    });
    if let Some(error) = failure {
        report["error"] = json!({
            "stage": error.stage().to_string(),
            "message": error.to_string(),
            "advice": error.advice(),
        });
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

fn plan_json(plan: &Plan) -> Value {
    let budget = &plan.budget;
    json!({
        "route": match plan.route { Route::Direct => "direct", Route::Spool(_) => "spool" },
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
