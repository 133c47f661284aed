//! A digest of what the guest reads, the same for a raw disk and for every image of it, in a construction
//! that others compute as well: blkhash, the one of the command `blksum`.
//!
//! ```text
//! H( H(block 1) ‖ … ‖ H(block N) ‖ length )
//! ```
//! - H is SHA-256, `blksum`'s default; its values go in as 32 bytes.
//! - The guest's bytes are cut into blocks of 64 KiB; the last one is hashed as long as it is, without padding.
//! - The length is the disk as the guest sees it, in bytes, little endian in 8 bytes: a raw disk counts with zeros
//!   up to the next whole sector of 512 bytes, as QEMU shows it.
//!
//! Source: `blkhash` 0.11 (`lib/blkhash.c`, and the reference implementation `test/blkhash.py`); N. Soffer and
//! E. Waisbard, «An Efficient Hash Function Construction for Sparse Data», SECRYPT 2024. The test's known answers are
//! that program's.
//!
//! Blocks are hashed where their bytes are at hand, by many threads ([`BlockDigests`]), and put together in order
//! ([`GuestDigest`]). A block of zeros costs 32 bytes of the outer hash: a TiB of them half a second.

use sha2::{Digest as _, Sha256};

use super::hex;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Hashes of zero blocks that go into the outer hash at once.
const ZERO_BATCH: usize = 512;

const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// What a stretch of the guest's bytes adds to the digest.
#[derive(Clone, Default)]
pub struct BlockDigests {
    start: u64,
    len: u64,
    /// Bytes in front of the first block that begins in the stretch.
    head: Vec<u8>,
    /// Whole blocks; `None` for one of zeros.
    blocks: Vec<Option<Hash>>,
    /// A block that ends behind the stretch.
    tail: Option<Sha256>,
}

impl BlockDigests {
    /// Of a stretch that begins at this guest offset.
    pub fn new(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    /// Adds the next bytes; `is_zero` tells whether a block is all zeros, in less time than hashing takes.
    pub fn add(&mut self, mut bytes: &[u8], is_zero: impl Fn(&[u8]) -> bool) {
        let head_end = self.start.next_multiple_of(BLOCK_BYTES as u64);
        while !bytes.is_empty() {
            let at = self.start + self.len;
            let left = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
            let (piece, rest) = bytes.split_at(left.min(bytes.len()));
            if at < head_end {
                self.head.extend_from_slice(piece);
            } else if piece.len() == BLOCK_BYTES {
                self.blocks.push((!is_zero(piece)).then(|| Sha256::digest(piece).into()));
            } else {
                let mut block = self.tail.take().unwrap_or_default();
                block.update(piece);
                if piece.len() == left {
                    self.blocks.push(Some(block.finalize().into()));
                } else {
                    self.tail = Some(block);
                }
            }
            self.len += piece.len() as u64;
            bytes = rest;
        }
    }
}

impl std::fmt::Debug for BlockDigests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockDigests({} bytes at {})", self.len, self.start)
    }
}

/// The digest of a guest's content in the making.
pub struct GuestDigest {
    outer: Sha256,
    /// Guest bytes that are in it.
    at: u64,
    /// The block that has begun and is not complete.
    open: Sha256,
    /// The hash of a block of zeros, many times.
    zero_hashes: Vec<u8>,
}

impl Default for GuestDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestDigest {
    /// Of nothing so far.
    pub fn new() -> Self {
        let zero: Hash = Sha256::digest(vec![0; BLOCK_BYTES]).into();
        Self { outer: Sha256::new(), at: 0, open: Sha256::new(), zero_hashes: zero.repeat(ZERO_BATCH) }
    }

    /// Adds a stretch. They come in rising order; what lies between two of them is zeros.
    pub fn add(&mut self, stretch: BlockDigests) {
        debug_assert!(stretch.start >= self.at, "{stretch:?} behind {}", self.at);
        self.add_zeros(stretch.start.saturating_sub(self.at));
        self.open_block(&stretch.head);
        self.at += stretch.blocks.len() as u64 * BLOCK_BYTES as u64;
        for block in &stretch.blocks {
            self.outer.update(block.as_ref().map_or(&self.zero_hashes[..HASH_BYTES], |hash| hash));
        }
        if let Some(tail) = stretch.tail {
            self.open = tail;
        }
        self.at = stretch.start + stretch.len;
    }

    /// Ends it: everything behind the last stretch up to `len` is zeros. Gives the value in lower-case hexadecimal.
    pub fn finish(mut self, len: u64) -> String {
        self.add_zeros(len.saturating_sub(self.at));
        if !self.at.is_multiple_of(BLOCK_BYTES as u64) {
            self.outer.update(self.open.finalize());
        }
        self.outer.update(len.to_le_bytes());
        hex(&self.outer.finalize())
    }

    fn add_zeros(&mut self, count: u64) {
        static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let block = BLOCK_BYTES as u64;
        let before = (self.at.next_multiple_of(block) - self.at).min(count);
        self.open_block(&ZEROS[..before as usize]);
        let mut whole = (count - before) / block;
        self.at += whole * block;
        while whole > 0 {
            let take = whole.min(ZERO_BATCH as u64);
            self.outer.update(&self.zero_hashes[..take as usize * HASH_BYTES]);
            whole -= take;
        }
        self.open_block(&ZEROS[..((count - before) % block) as usize]);
    }

    /// Adds bytes that do not go beyond the end of the block that they begin or go on with.
    fn open_block(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.open.update(bytes);
        self.at += bytes.len() as u64;
        if self.at.is_multiple_of(BLOCK_BYTES as u64) {
            let hash = std::mem::take(&mut self.open).finalize();
            self.outer.update(hash);
        }
    }
}

impl std::fmt::Debug for GuestDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestDigest({} bytes)", self.at)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use proptest::prelude::*;

    use super::*;

    /// The construction, word for word, with another library's SHA-256.
    fn plainly(disk: &[u8]) -> String {
        let mut outer: Vec<u8> =
            disk.chunks(BLOCK_BYTES).flat_map(|block| digest(&SHA256, block).as_ref().to_vec()).collect();
        outer.extend((disk.len() as u64).to_le_bytes());
        hex(digest(&SHA256, &outer).as_ref())
    }

    fn is_zero(bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| byte == 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// However the disk is cut, whether zeros come as bytes or not at all.
        #[test]
        fn any_cut_gives_the_same(
            pieces in proptest::collection::vec((0u8..3, prop_oneof![0usize..2000, 0usize..200_000, Just(BLOCK_BYTES)]), 0..12),
            feed in 1usize..100_000,
        ) {
            let mut disk = Vec::new();
            let mut guest = GuestDigest::new();
            for (kind, len) in pieces {
                let start = disk.len();
                disk.extend((0..len).map(|at| if kind == 2 { (at % 251) as u8 } else { 0 }));
                // Kind 0 is a hole that nobody reports.
                if kind > 0 {
                    let mut stretch = BlockDigests::new(start as u64);
                    disk[start..].chunks(feed).for_each(|bytes| stretch.add(bytes, is_zero));
                    guest.add(stretch);
                }
            }
            prop_assert_eq!(guest.finish(disk.len() as u64), plainly(&disk));
        }
    }

    fn of(disk: &[u8]) -> String {
        let mut stretch = BlockDigests::new(0);
        stretch.add(disk, is_zero);
        let mut guest = GuestDigest::new();
        guest.add(stretch);
        guest.finish(disk.len() as u64)
    }

    /// By `blksum` of blkhash 0.11: `blksum FILE`.
    #[test]
    fn known_answers() {
        let pattern: Vec<u8> = (0..300_032u32).map(|at| (at % 251) as u8).collect();
        for (disk, value) in [
            (Vec::new(), "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"),
            (pattern[..512].to_vec(), "1c0ee660b2cf9f4a4d746b6db81a0c48b6928781be82d5b50602ce87497cc049"),
            (pattern, "d40a817cf7b7809fd11d26dcbb8cf4aaae41afab829a22baa9cd6dba3861b266"),
            (vec![0; 160 << 10], "6e5bd7a4e6c78c4e204ece206d5d3e44cf2f3275da94c659964bfdeb18b1622e"),
        ] {
            assert_eq!(of(&disk), value, "{} bytes", disk.len());
        }
        // A hole of 64 GiB: `truncate -s 64G`.
        assert_eq!(
            GuestDigest::new().finish(64 << 30),
            "367f984dcf73554902751c875fce47aff87b9ac3d31e8a9ca7cff4a58818e56d"
        );
    }
}
