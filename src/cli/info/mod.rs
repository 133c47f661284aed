//! `snapcow info`: what is known of an image without reading it: its record in Glance, its header, what its tables
//! or its file system say, its partitions.
//!
//! `--json` prints one object, `schema` is `snapcow/info/1`; lengths and offsets are bytes where their names do not
//! say otherwise, and what is not known is null. With `--free` the `schema` is `snapcow/free/1`, see `free.rs`.

mod facts;
mod free;
mod text;

use clap::Parser;
use serde_json::{Value, json};
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::read::Description;

#[cfg(feature = "openstack")]
use super::args::CloudArgs;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::image::interruptible;
use super::terminal::escape_json;
use facts::{Contents, Facts};

#[derive(Clone, Debug, Parser)]
pub struct InfoArgs {
    /// PATH of a raw or qcow2 file or a block device, or glance:NAME-or-ID
    pub image: String,
    /// Tell what the filesystems in it have freed, and what `--trim` would leave out
    #[arg(long)]
    pub free: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    pub json: bool,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Runs the command.
pub fn run(options: &InfoArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    if options.image == "-" {
        let what = "standard input is read once, and in order: nothing is known of it";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save it to a file first"));
    }
    if options.free {
        return free::run(
            options,
            quiet,
            cancel,
            #[cfg(feature = "openstack")]
            &mut clouds,
        );
    }
    let subject = facts::open(
        &options.image,
        #[cfg(feature = "openstack")]
        &mut clouds,
    )?;
    let facts = interruptible(cancel, move || facts::look(subject))?;
    if options.json {
        super::convert::say(&escape_json(&format!("{:#}", to_json(&facts))))
    } else if quiet {
        Ok(())
    } else {
        super::convert::say(&text::text(&facts))
    }
}

fn to_json(facts: &Facts) -> Value {
    json!({
        "schema": "snapcow/info/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "image": facts.name,
        "record": record(facts),
        "ranges": facts.ranges,
        "file_bytes": facts.file_len,
        "format": facts.format,
        "virtual_size_bytes": facts.virtual_size(),
        "qcow2": facts.qcow2.as_ref().map(qcow2),
        "contents": facts.contents.as_ref().ok().map(|contents| contents_json(contents, facts)),
        "contents_unknown_because": facts.contents.as_ref().err(),
        "partition_table": facts.table.as_ref().map(|table| json!({
            "scheme": table.scheme.name(),
            "partitions": table.partitions.iter().map(|partition| json!({
                "number": partition.number,
                "start_bytes": partition.start,
                "length_bytes": partition.len,
                "type": partition.kind,
                "name": partition.name,
                "doubt": partition.doubt,
            })).collect::<Vec<_>>(),
        })),
        "warnings": facts.warnings,
    })
}

#[cfg(feature = "openstack")]
fn record(facts: &Facts) -> Option<Value> {
    let image = facts.record.as_ref()?;
    Some(json!({
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "size_bytes": image.size,
        "virtual_size_bytes": image.virtual_size,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "checksum": image.checksum,
        "visibility": image.visibility,
        "owner": image.owner,
        "members": facts.members,
        "protected": image.protected,
        "os_hidden": image.os_hidden,
        "min_disk_gib": image.min_disk,
        "min_ram_mib": image.min_ram,
        "tags": image.tags,
        "created_at": image.created_at,
        "updated_at": image.updated_at,
        "properties": image.properties,
    }))
}

#[cfg(not(feature = "openstack"))]
fn record(_: &Facts) -> Option<Value> {
    None
}

fn qcow2(description: &Description) -> Value {
    let header = &description.header;
    json!({
        "version": header.version,
        "cluster_size_bytes": description.cluster_bytes(),
        "refcount_bits": (header.refcount_order <= 6).then(|| header.refcount_bits()),
        "compression": description.compression,
        "encryption": description.encryption,
        "features": description.features,
        "snapshots": header.snapshots,
        "bitmaps": description.bitmaps,
        "backing_file": description.backing_file,
        "backing_format": description.backing_format,
        "data_file": description.data_file,
        "extensions": description.extensions.iter()
            .map(|(name, bytes)| json!({"type": name, "length_bytes": bytes})).collect::<Vec<_>>(),
    })
}

fn contents_json(contents: &Contents, facts: &Facts) -> Value {
    let clusters = |bytes: u64| {
        let cluster = facts.qcow2.as_ref().and_then(Description::cluster_bytes)?;
        Some(bytes.div_ceil(cluster))
    };
    json!({
        "data_bytes": contents.data_bytes(),
        "stored_bytes": contents.stored(),
        "plain_bytes": contents.plain.bytes,
        "compressed_bytes": contents.compressed.bytes,
        "compressed_stored_bytes": contents.compressed.stored,
        "zero_bytes": contents.zero.bytes,
        "unallocated_bytes": contents.unallocated.bytes,
        "plain_clusters": clusters(contents.plain.bytes),
        "compressed_clusters": clusters(contents.compressed.bytes),
        "zero_clusters": clusters(contents.zero.bytes),
        "unallocated_clusters": clusters(contents.unallocated.bytes),
        "extents": contents.extents(),
    })
}
