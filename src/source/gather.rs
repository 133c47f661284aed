//! Pieces of any size, gathered into chunks.
//!
//! Zeros at the beginning of a chunk are counted and not copied: here they have just come in and lie in the
//! cache, and most of a disk is zeros. So most chunks need no buffer, and nobody reads their bytes again.

use super::{Outlet, Stopped};
use crate::buffers::Buffer;
use crate::flow::CHUNK_BYTES;
use crate::units::ClusterIndex;

/// Tells whether all bytes are zero.
pub type IsZero = fn(&[u8]) -> bool;

/// Bytes that are looked at for zeros at once.
const LOOK_BYTES: usize = 4096;

/// A chunk in the making.
#[derive(Debug)]
pub struct Gather {
    is_zero: IsZero,
    bytes: Option<Buffer>,
    len: usize,
}

/// A chunk's bytes.
#[derive(Debug)]
pub struct Gathered {
    /// The buffer that they lie in; `None` if all are zero.
    pub bytes: Option<Buffer>,
    /// How many.
    pub len: usize,
}

impl Gather {
    /// Nothing yet.
    pub fn new(is_zero: IsZero) -> Self {
        Self { is_zero, bytes: None, len: 0 }
    }

    /// Takes what it can of a piece, and tells how much; `None` if it has to be given a buffer first.
    pub fn push(&mut self, piece: &[u8]) -> Option<usize> {
        let piece = &piece[..piece.len().min(CHUNK_BYTES - self.len)];
        let taken = if let Some(bytes) = &mut self.bytes {
            bytes[self.len..][..piece.len()].copy_from_slice(piece);
            piece.len()
        } else {
            piece.chunks(LOOK_BYTES).take_while(|part| (self.is_zero)(part)).map(<[u8]>::len).sum()
        };
        self.len += taken;
        (taken > 0 || piece.is_empty()).then_some(taken)
    }

    /// Gives a buffer of [`CHUNK_BYTES`] for bytes that are not zero.
    pub fn give_buffer(&mut self, mut buffer: Buffer) {
        buffer[..self.len].fill(0);
        self.bytes = Some(buffer);
    }

    /// Whether it is a whole chunk.
    pub fn is_full(&self) -> bool {
        self.len == CHUNK_BYTES
    }

    /// Gives what there is and begins anew.
    pub fn take(&mut self) -> Gathered {
        Gathered { bytes: self.bytes.take(), len: std::mem::take(&mut self.len) }
    }
}

/// Gathers a stream and sends its chunks on.
#[derive(Debug)]
pub struct Assembler {
    first: ClusterIndex,
    gather: Gather,
}

impl Assembler {
    /// Begins at a cluster.
    pub fn new(first: ClusterIndex, outlet: &Outlet) -> Self {
        Self { first, gather: Gather::new(outlet.is_zero()) }
    }

    /// Takes a piece. A full chunk is sent on.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub async fn push(&mut self, mut piece: &[u8], outlet: &mut Outlet) -> Result<(), Stopped> {
        while !piece.is_empty() {
            let Some(taken) = self.gather.push(piece) else {
                self.gather.give_buffer(outlet.pool().take_async().await.ok_or(Stopped)?);
                continue;
            };
            piece = &piece[taken..];
            if self.gather.is_full() {
                self.flush(outlet).await?;
            }
        }
        Ok(())
    }

    /// Sends on what has been gathered.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub async fn flush(&mut self, outlet: &mut Outlet) -> Result<(), Stopped> {
        let gathered = self.gather.take();
        if gathered.len == 0 {
            return Ok(());
        }
        let first = self.first;
        self.first = ClusterIndex(first.0 + outlet.cluster_size().clusters_for(gathered.len as u64));
        outlet.gathered(first, gathered).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffers::Pool;

    fn gather(is_zero: IsZero, disk: &[u8], cuts: &[usize]) -> Vec<Gathered> {
        let pool = Pool::new(disk.len() / CHUNK_BYTES + 1, CHUNK_BYTES);
        let mut gather = Gather::new(is_zero);
        let (mut done, mut from) = (Vec::new(), 0);
        for to in cuts.iter().copied().chain([disk.len()]) {
            let mut piece = &disk[from.min(to)..to];
            from = from.max(to);
            while !piece.is_empty() {
                if let Some(taken) = gather.push(piece) {
                    piece = &piece[taken..];
                } else {
                    let mut buffer = pool.take().unwrap();
                    buffer.fill(0xa5);
                    gather.give_buffer(buffer);
                }
                if gather.is_full() {
                    done.push(gather.take());
                }
            }
        }
        done.push(gather.take());
        done
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn bytes_come_out_as_they_went_in_however_they_are_cut(
            marks in prop::collection::vec(0..5 * CHUNK_BYTES / 2, 0..4),
            cuts in prop::collection::vec(0..5 * CHUNK_BYTES / 2, 0..6),
            sees_zeros: bool,
        ) {
            let mut disk = vec![0; 5 * CHUNK_BYTES / 2];
            marks.iter().for_each(|&at| disk[at] = 1);
            let mut cuts = cuts;
            cuts.sort_unstable();
            let is_zero: IsZero = if sees_zeros { |bytes| bytes.iter().all(|byte| *byte == 0) } else { |_| false };
            let chunks = gather(is_zero, &disk, &cuts);
            prop_assert_eq!(chunks.len(), 3);
            for (chunk, expected) in chunks.iter().zip(disk.chunks(CHUNK_BYTES)) {
                prop_assert_eq!(chunk.len, expected.len());
                let is_all_zero = expected.iter().all(|byte| *byte == 0);
                prop_assert_eq!(chunk.bytes.is_none(), is_all_zero && sees_zeros);
                if let Some(bytes) = &chunk.bytes {
                    prop_assert!(bytes[..chunk.len] == *expected);
                }
            }
        }
    }
}
