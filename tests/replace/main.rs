//! `snapcow replace`: in the lab; and ended at every step, against the in-process Glance, where the same command goes on.
#![cfg(all(feature = "cli", feature = "embedded"))]

#[path = "../faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
mod ended;
mod in_the_lab;
#[path = "../lab/mod.rs"]
mod lab;
