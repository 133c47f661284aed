//! Seeded raw disks with what real ones have: holes, zeros that were written, text, noise, and all
//! of it at odd offsets.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A small generator, the same on every machine.
pub struct Seeded(u64);

impl Seeded {
    /// By its seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that do not get smaller.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// A disk of `len` bytes, about half of it zeros.
pub fn mixed(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Seeded::new(seed);
    let mut disk = vec![0; len];
    let mut at = 0;
    while at < len {
        // Between a byte and 128 KiB, small ones as often as large ones.
        let longest = 1 << random.below(18);
        let run = (1 + random.below(longest) as usize).min(len - at);
        let piece = &mut disk[at..at + run];
        match random.below(4) {
            0 | 1 => {}
            2 => {
                let word = random.next().to_le_bytes();
                piece
                    .iter_mut()
                    .enumerate()
                    .for_each(|(index, byte)| *byte = word[index % 8] ^ (index >> 9) as u8);
            }
            _ => random.fill(piece),
        }
        at += run;
    }
    disk
}

/// A disk that is noise from end to end.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut disk = vec![0; len];
    Seeded::new(seed).fill(&mut disk);
    disk
}

/// Writes a disk as a sparse file: blocks of zeros become holes, but every seventh is written.
pub fn write_sparse(path: &Path, disk: &[u8]) {
    const BLOCK: usize = 4096;
    let file = File::create(path).unwrap();
    file.set_len(disk.len() as u64).unwrap();
    for (index, block) in disk.chunks(BLOCK).enumerate() {
        if index % 7 == 0 || block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, (index * BLOCK) as u64).unwrap();
        }
    }
}
