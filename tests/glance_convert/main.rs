//! The command against the real Keystone and Glance of `tools/openstack`; see `lab`.
#![cfg(all(feature = "cli", feature = "openstack"))]

#[path = "../lab/mod.rs"]
mod lab;

#[cfg(feature = "bench")]
mod bench;
mod cloud_refusals;
mod file_refusals;
#[cfg(feature = "embedded")]
mod hostile;
mod pairs;
mod proof;
mod receipt;
mod resources;
mod routes;
mod signals;
