//! LVM2: the label of a physical volume, its metadata areas, and which logical volumes are plain enough to be read.
//!
//! Sources: lvm2, lib/format_text/layout.h (all that lies on the disk), lib/label/label.c (where labels lie),
//! lib/format_text/format-text.c (metadata areas), lib/format_text/import_vsn1.c (what the text means).

mod area;
mod group;
mod label;
mod stretch;
#[cfg(test)]
mod tests;
mod tree;

pub use area::{Copy, TREE_FACTOR, text};
pub use group::{Group, Logical, Physical, Stretch};
pub use label::{Label, label};

/// LVM's checksum (lib/misc/crc.c): the CRC-32 of zlib from a value of its own, without the final inversion.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL_CRC);
    hasher.update(bytes);
    !hasher.finalize()
}

/// `INITIAL_CRC` of lib/misc/crc.h.
const INITIAL_CRC: u32 = 0xf597_a6cf;
