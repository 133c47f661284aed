//! `snapcow snapshot` against the real Keystone and Glance of `tools/openstack` and its stand-in for Nova.

mod failing;
mod refused;
mod resumed;
pub mod stand_in;
mod together;
mod whole;
