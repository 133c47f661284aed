//! `--trim` on filesystems that real tools made: what the readers of free space find against what those tools say, and whole
//! disks against `fstrim`.
#![cfg(all(feature = "cli", feature = "embedded"))]

mod disk;
mod ext4;
mod glance;
mod hostile;
#[path = "../lab/mod.rs"]
mod lab;
mod tools;
mod whole;
mod xfs;
