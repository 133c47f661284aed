//! The qcow2 format as numbers and byte slices: no I/O, no threads, no clock.
//!
//! Takes sizes and offsets, gives header and table bytes as QEMU's `docs/interop/qcow2.rst`
//! (called «the specification» here) defines them; takes such bytes, gives what they say. Holds nothing.
//!
//! Written: version 3 (`compat=1.1`, default) and version 2 (`compat=0.10`); clusters of 512 bytes
//! to 2 MiB; 16-bit refcounts; zlib (raw deflate) and zstd compressed clusters. Never written: a
//! backing file, an external data file, snapshots, encryption, extended L2 entries, or any
//! incompatible feature bit but the compression type (bit 3): OpenStack's image inspector rejects
//! images that have them.
#![forbid(unsafe_code)]

pub mod entry;
pub mod header;
pub mod limits;
pub mod parse;

pub use entry::{L1Entry, L2Entry, Mapping};
pub use header::{Compat, CompressionType, Header};
pub use parse::RawHeader;
