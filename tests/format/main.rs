//! The format, proven: `check` notices every mutation and passes what QEMU and snapcow write, `verify`
//! notices what no structure shows, and four judges who share no code agree on every image that snapcow
//! writes.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;

mod afterwards;
mod anatomy;
mod commands;
mod foreign;
#[cfg(feature = "embedded")]
mod glance;
mod matrix;
mod mutations;
mod table;
mod tools;
