//! snapcow turns the RAW snapshot of a virtual machine into a compact qcow2 image while it streams
//! from one place to another: out of OpenStack Glance and back into it, from and to files, pipes and
//! block devices. The raw image is never on disk.
//!
//! ```text
//!  source ──► scan ──► encode ──► place ──► sink
//!  Glance     zero/    none,      host      Glance
//!  file       data     zlib,      offsets,  file
//!  stdin      (SIMD)   zstd       tables    stdout
//!                          │        ▲
//!                          └ spool ─┘   plan decides route and budgets beforehand
//! ```
//!
//! [`convert::convert`] is the whole story on one page; the modules below follow the bytes.

pub mod convert;

pub mod plan;

pub mod source;

pub mod scan;

pub mod encode;

pub mod spool;

pub mod state;

pub mod place;

pub mod sink;

// What reads an image back, and proves that it holds what it should.

pub mod read;

pub mod extents;

pub mod verify;

pub mod fetch;

// What the stages share.

pub mod flow;

pub mod facts;

pub mod map;

pub mod buffers;

pub mod hash;

pub mod units;

pub mod error;

#[cfg(feature = "openstack")]
pub mod retry;

pub mod faults;

pub mod partitions;

pub mod holes;

pub mod markup;

// What lies below them.

pub mod qcow2;

#[cfg(feature = "openstack")]
pub mod openstack;

#[cfg(feature = "embedded")]
pub mod embedded;

// What measures all of it.

#[cfg(feature = "bench")]
pub mod bench;
