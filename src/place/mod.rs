//! Stage 4 of 5, place. Takes the data clusters in guest order with their stored lengths, gives
//! each its offset in the file, and the bytes of header and tables. Holds at most
//! [`HELD_BYTES_MAX`] of payload; never looks into a cluster.
//!
//! # Decisions
//! - One placing rule for every route ([`Placer`]), so that the same clusters land in the same
//!   order whatever the road they took. What differs is only where the tables lie ([`Layout`]).
//! - Tables are never held in memory: they are written by placing the map's clusters once more.

mod layout;
mod placer;
mod tables;

pub use layout::{Geometry, Layout, Order, check_virtual_size, packed_len};
pub use placer::{HELD_BYTES_MAX, Placed, Placer};
pub use tables::{PART_BYTES, write_tables};
