//! `do_one_pass` of `fs/jbd2/recovery.c` of Linux, in its three passes, for what an undamaged journal may hold and for
//! what a damaged one does to it.

use std::collections::{BTreeMap, HashMap};

use super::super::ext::Ext;
use super::super::sparse::Image;
use super::super::sums::{crc32_be, crc32c};
use super::ring::{COMMIT, DESCRIPTOR, MAGIC, REVOKE};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Scan,
    Revoke,
    Replay,
}

struct Journal<'a, 'b> {
    image: &'a Image<'b>,
    block: usize,
    places: Vec<u64>,
    at: u64,
    seed: u32,
    end: Option<u32>,
    revoked: HashMap<u64, u32>,
    written: BTreeMap<u64, Vec<u8>>,
}

type Answer<T> = Result<T, &'static str>;

fn be16(block: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([block[at], block[at + 1]])
}

fn be32(block: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn is_at_or_behind(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) as i32 >= 0
}

/// The blocks that a mount would write from the journal.
///
/// # Errors
/// What Linux would not mount.
pub fn replay(image: &Image<'_>, ext: &Ext) -> Answer<BTreeMap<u64, Vec<u8>>> {
    let places: Vec<u64> = ext.journal(image).0.iter().map(|block| block * ext.block).collect();
    let at = *places.first().ok_or("no journal")?;
    let seed = crc32c(!0, &image.get(at + 0x30, 16));
    let (end, revoked, written) = (None, HashMap::new(), BTreeMap::new());
    let mut journal = Journal { image, block: ext.block as usize, places, at, seed, end, revoked, written };
    if journal.word(0x1c) == 0 {
        return Ok(BTreeMap::new());
    }
    let (first, last) = (journal.word(0x14), journal.word(0x10));
    if first >= last || last as usize > journal.places.len() {
        return Err("the ring");
    }
    for pass in [Pass::Scan, Pass::Revoke, Pass::Replay] {
        journal.pass(pass)?;
    }
    Ok(journal.written)
}

impl Journal<'_, '_> {
    fn word(&self, at: u64) -> u32 {
        self.image.be32(self.at + at) as u32
    }

    fn has_v1(&self) -> bool {
        self.word(0x24) & 1 != 0
    }

    fn has_v2_or_v3(&self) -> bool {
        self.word(0x28) & 0x18 != 0
    }

    fn has_v3(&self) -> bool {
        self.word(0x28) & 0x10 != 0
    }

    fn is_wide(&self) -> bool {
        self.word(0x28) & 2 != 0
    }

    fn is_async(&self) -> bool {
        self.word(0x28) & 4 != 0
    }

    fn tag_bytes(&self) -> usize {
        if self.has_v3() {
            return 16;
        }
        let v2 = if self.has_v2_or_v3() { 2 } else { 0 };
        (if self.is_wide() { 12 } else { 8 }) + v2
    }

    fn read(&self, number: u32) -> Answer<Vec<u8>> {
        let place = self.places.get(number as usize).ok_or("beyond the journal")?;
        Ok(self.image.get(*place, self.block))
    }

    fn wrap(&self, number: u32) -> u32 {
        let (first, last) = (self.word(0x14), self.word(0x10));
        if number >= last { number - (last - first) } else { number }
    }

    fn has_tail(&self, block: &[u8]) -> bool {
        if !self.has_v2_or_v3() {
            return true;
        }
        let tail = self.block - 4;
        let mut copy = block.to_vec();
        copy[tail..].fill(0);
        crc32c(self.seed, &copy) == be32(block, tail)
    }

    /// The tags of a descriptor: where they lie.
    fn tags(&self, block: &[u8]) -> Vec<usize> {
        let end = self.block - if self.has_v2_or_v3() { 4 } else { 0 };
        let (mut tags, mut at) = (Vec::new(), 12);
        while at + self.tag_bytes() <= end {
            tags.push(at);
            let flags = be16(block, at + 6);
            at += self.tag_bytes() + if flags & 2 == 0 { 16 } else { 0 };
            if flags & 8 != 0 {
                break;
            }
        }
        tags
    }

    fn has_commit_sum(&self, block: &[u8]) -> bool {
        let mut copy = block.to_vec();
        copy[16..20].fill(0);
        !self.has_v2_or_v3() || crc32c(self.seed, &copy) == be32(block, 16)
    }

    fn pass(&mut self, pass: Pass) -> Answer<()> {
        let (mut next, mut sequence) = (self.word(0x1c), self.word(0x18));
        let (mut must_check_time, mut last_time, mut sum) = (false, 0, !0);
        for _ in 0..4 * self.places.len() {
            if pass != Pass::Scan && self.end.is_some_and(|end| is_at_or_behind(sequence, end)) {
                break;
            }
            let block = self.read(next)?;
            next = self.wrap(next + 1);
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            match be32(&block, 4) {
                DESCRIPTOR => {
                    if !self.has_tail(&block) {
                        if pass != Pass::Scan {
                            return Err("the checksum of a descriptor");
                        }
                        must_check_time = true;
                    }
                    next = self.descriptor(pass, &block, next, sequence, &mut sum)?;
                }
                COMMIT if pass != Pass::Scan => sequence = sequence.wrapping_add(1),
                COMMIT => {
                    let time = u64::from(be32(&block, 48)) << 32 | u64::from(be32(&block, 52));
                    let is_right = if self.has_v1() {
                        if self.end.is_some() {
                            return Err("a commit behind a damaged one");
                        }
                        let is_sum = be32(&block, 16) == sum && block[12..14] == [1, 4];
                        is_sum || be32(&block, 16) == 0 && block[12..14] == [0, 0]
                    } else {
                        self.has_commit_sum(&block)
                    };
                    if must_check_time || !is_right {
                        if time < last_time {
                            break;
                        }
                        if must_check_time || !self.is_async() {
                            return Err("a damaged transaction");
                        }
                        self.end.get_or_insert(sequence);
                    }
                    (last_time, sum) = (time, !0);
                    sequence = sequence.wrapping_add(1);
                }
                REVOKE => {
                    must_check_time |= pass == Pass::Scan && !self.has_tail(&block);
                    if pass == Pass::Revoke {
                        self.revoke(&block, sequence)?;
                    }
                }
                _ => break,
            }
        }
        if pass == Pass::Scan {
            self.end.get_or_insert(sequence);
        } else if self.end != Some(sequence) {
            return Err("the passes end at different places");
        }
        Ok(())
    }

    /// Gives the block behind those that a descriptor describes.
    fn descriptor(
        &mut self,
        pass: Pass,
        block: &[u8],
        next: u32,
        sequence: u32,
        sum: &mut u32,
    ) -> Answer<u32> {
        if pass == Pass::Scan && self.has_v1() {
            *sum = crc32_be(*sum, block);
        }
        let mut next = next;
        for tag in self.tags(block) {
            let data = self.read(next)?;
            next = self.wrap(next + 1);
            if pass == Pass::Scan && self.has_v1() {
                *sum = crc32_be(*sum, &data);
            }
            if pass == Pass::Replay {
                self.write(block, tag, data, sequence)?;
            }
        }
        Ok(next)
    }

    fn write(&mut self, descriptor: &[u8], tag: usize, mut data: Vec<u8>, sequence: u32) -> Answer<()> {
        let high = if self.is_wide() { be32(descriptor, tag + 8) } else { 0 };
        let number = u64::from(high) << 32 | u64::from(be32(descriptor, tag));
        if self.revoked.get(&number).is_some_and(|until| is_at_or_behind(*until, sequence)) {
            return Ok(());
        }
        let sum = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &data);
        let is_right = match (self.has_v3(), self.has_v2_or_v3()) {
            (true, _) => be32(descriptor, tag + 12) == sum,
            (_, true) => be16(descriptor, tag + 4) == sum as u16,
            _ => true,
        };
        if !is_right {
            return Err("the checksum of a block");
        }
        if be16(descriptor, tag + 6) & 1 != 0 {
            data[..4].copy_from_slice(&MAGIC.to_be_bytes());
        }
        self.written.insert(number, data);
        Ok(())
    }

    fn revoke(&mut self, block: &[u8], sequence: u32) -> Answer<()> {
        let used = be32(block, 12) as usize;
        if used > self.block - if self.has_v2_or_v3() { 4 } else { 0 } {
            return Err("a revoke block");
        }
        let width = if self.is_wide() { 8 } else { 4 };
        for at in (16..used).step_by(width).filter(|at| at + width <= used) {
            let low = u64::from(be32(block, at + width - 4));
            let number = if width == 8 { u64::from(be32(block, at)) << 32 | low } else { low };
            let until = self.revoked.entry(number).or_insert(sequence);
            if is_at_or_behind(sequence, *until) {
                *until = sequence;
            }
        }
        Ok(())
    }
}
