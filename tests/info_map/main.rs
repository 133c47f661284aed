//! `info`, `map` and `convert --map`: what is said of an image is what QEMU says of it, pictures are whole, and a map
//! is believed only as far as something proves it.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod common;
#[cfg(feature = "openstack")]
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../format/tools.rs"]
#[allow(dead_code, reason = "another test program uses the rest")]
mod tools;

#[cfg(feature = "embedded")]
mod glance;
mod holes;
mod info;
mod map;
mod picture;
#[cfg(feature = "openstack")]
mod real;
