//! Slow peers and faults, against the in-process Glance that produces them on demand: what must come
//! out right is proved byte by byte by an independent reader; what must fail leaves no image, does not
//! touch the source, and says which step failed.
#![cfg(feature = "embedded")]

#[path = "faults/bench.rs"]
mod bench;
#[path = "faults/changed.rs"]
mod changed;
#[path = "faults/cleanup.rs"]
mod cleanup;
#[path = "faults/local.rs"]
mod local;
#[path = "faults/ranges.rs"]
mod ranges;
#[path = "faults/retries.rs"]
mod retries;
#[path = "faults/same.rs"]
mod same;
#[path = "faults/slow.rs"]
mod slow;
#[path = "faults/upload.rs"]
mod upload;
#[path = "faults/verify.rs"]
mod verify;
#[path = "faults/wire.rs"]
mod wire;
#[path = "common/writer.rs"]
mod writer;
