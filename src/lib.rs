//! snapcow

pub mod units;

pub mod error;
#[cfg(feature = "openstack")]
pub mod openstack;
#[cfg(feature = "embedded")]
pub mod embedded;
