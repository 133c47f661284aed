//! Journals of ext3 and ext4: a filesystem that goes on changing in its journal only, and a replay as Linux does it.

mod kernel;
mod model;
mod ring;

pub use kernel::replay;
pub use model::{Kind, Model, Transaction};
pub use ring::{Ring, Style};

use std::collections::BTreeMap;

use super::ext::{Ext, SUPER, fit_journal_super};
use super::sparse::Image;

/// The bit of the superblock that says that the journal must be replayed.
const RECOVER: u64 = 4;

/// Sets or clears it.
pub fn set_recovery(image: &mut Image<'_>, ext: &Ext, needs: bool) {
    let bits = image.le32(SUPER + 0x60) & !RECOVER | if needs { RECOVER } else { 0 };
    image.put(SUPER + 0x60, &(bits as u32).to_le_bytes());
    ext.fit_super(image, false);
}

/// The filesystem as it is once its journal was replayed: these blocks written, the journal empty.
pub fn replayed<'a>(image: &Image<'a>, ext: &Ext, blocks: &BTreeMap<u64, Vec<u8>>) -> Image<'a> {
    let mut after = image.clone();
    for (block, bytes) in blocks {
        after.put(block * ext.block, bytes);
    }
    let is_right = {
        let mut copy = after.clone();
        ext.fit_super(&mut copy, false);
        copy.le32(SUPER + 0x3fc) == after.le32(SUPER + 0x3fc)
    };
    if is_right && let Some(ext) = Ext::of(&after) {
        set_recovery(&mut after, &ext, false);
        // The superblock's count is not journaled.
        ext.fit_super(&mut after, true);
    }
    if let Some(first) = ext.journal(image).0.first() {
        after.put(first * ext.block + 0x1c, &[0; 4]);
        fit_journal_super(&mut after, first * ext.block);
    }
    after
}
