//! The file that is read: every range may lie partly or wholly behind its end.

use super::Input;
use crate::error::{Error, Kind, Result, Stage};

impl Input {
    /// Fills `out` from `offset`, with zeros for what lies behind the end; gives how many bytes lie before it.
    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        let inside = self.len.saturating_sub(offset).min(out.len() as u64) as usize;
        if inside > 0 {
            self.bytes.read_at(&mut out[..inside], offset)?;
        }
        out[inside..].fill(0);
        Ok(inside)
    }

    /// Whether all of `len` bytes from `offset` lie in the file.
    pub(super) fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// A refusal: this reader cannot read such a file, which need not be damaged.
    pub(super) fn refuse(&self, what: &str) -> Error {
        Error::new(Stage::Source, Kind::Source, format!("`{}` {what}", self.name))
    }

    /// A file that does not say what it should.
    pub(super) fn damaged(&self, what: &str) -> Error {
        Error::new(Stage::Source, Kind::Damaged, format!("`{}` is damaged: {what}", self.name))
    }
}
