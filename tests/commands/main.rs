//! The commands around a conversion: against the real Keystone and Glance of `tools/openstack` with its stand-in for
//! Nova, against QEMU's word, on terminals, and against a Glance in this process whose faults come when they are wanted.
//!
//! One program for all of them: each would be linked with the whole of the library.
#![cfg(all(feature = "cli", feature = "embedded"))]

#[path = "../faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod common;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../format/tools.rs"]
#[allow(dead_code, reason = "another test program uses the rest")]
mod tools;

mod delete_source;
mod doctor;
mod download;
mod info_map;
mod listing;
mod plan;
mod replace;
mod sharing;
mod snapshot;
mod terminal;
mod upload;
