//! snapcow

pub mod units;

pub mod error;

pub mod convert;

pub mod buffers;
pub mod facts;
pub mod flow;
pub mod hash;
pub mod map;

pub mod qcow2;

pub mod plan;

pub mod source;

pub mod scan;

pub mod encode;

pub mod place;

pub mod spool;

pub mod sink;

#[cfg(feature = "openstack")]
pub mod openstack;
#[cfg(feature = "embedded")]
pub mod embedded;
