//! The refcounts that the image keeps, held against the references that were counted; and what lies behind
//! all of it.

use super::super::finding::{Class, Place};
use super::Check;
use super::counts::Use;
use crate::error::Result;
use crate::qcow2::entry::OFFSET;
use crate::qcow2::parse::{entries, refcount};

/// How much of what lies behind the last cluster in use is looked at, at either end of it.
const TAIL_BYTES: u64 = 16 << 20;
/// How much of it at once.
const TAIL_PIECE_BYTES: u64 = 1 << 20;

/// Neighbouring clusters with too high a refcount, which are one finding.
#[derive(Clone, Copy)]
struct Leak {
    first: u64,
    end: u64,
}

impl Check {
    /// Where the refcount blocks are: a host offset for each, 0 where there is none or none that can be read.
    pub(super) fn refcount_table(&mut self) -> Result<Vec<u64>> {
        let cs = self.image.cluster_size;
        let start = self.image.header.refcount_table_offset;
        let len = u64::from(self.image.header.refcount_table_clusters) << cs.bits();
        if !self.region(start, len, "the refcount table")? {
            return Ok(Vec::new());
        }
        let table = self.read_table(start, (len / 8) as usize)?;
        let mut blocks: Vec<u64> = entries(&table).collect();
        for (index, block) in blocks.iter_mut().enumerate().filter(|(_, block)| **block != 0) {
            let entry = *block;
            if entry & !OFFSET != 0 {
                let place = Place::host(start + index as u64 * 8);
                let text = format_args!("refcount table entry {index}, {entry:#x}, has reserved bits");
                self.findings.add(Class::ReservedBits, place, text);
            }
            *block = entry & OFFSET;
            if *block != 0 && !self.region(*block, cs.bytes(), "a refcount block")? {
                *block = 0;
            }
        }
        // Nothing is behind the last one; a table of 8 MiB is not kept for that.
        blocks.truncate(blocks.iter().rposition(|block| *block != 0).map_or(0, |last| last + 1));
        Ok(blocks)
    }

    /// Compares every refcount with the references.
    pub(super) fn refcounts(&mut self, blocks: &[u64]) -> Result<()> {
        let (cs, bits) = (self.image.cluster_size, self.image.header.refcount_bits());
        let per_block = cs.bytes() * 8 / u64::from(bits);
        let mut block = vec![0; cs.size()];
        let mut leak = None;
        let mut first = 0;
        for &offset in blocks {
            if offset == 0 {
                block.fill(0);
            } else {
                self.image.input.read(&mut block, offset)?;
            }
            // Where all is zero and nothing is in use there is nothing to compare.
            if offset != 0 || first < self.counts.clusters() {
                for index in 0..per_block {
                    let stored = refcount(&block, index as usize, bits).unwrap_or(0);
                    self.compare(first + index, stored, &mut leak);
                }
            }
            first += per_block;
        }
        (first..self.counts.clusters()).for_each(|cluster| self.compare(cluster, 0, &mut leak));
        self.tell_leak(leak);
        Ok(())
    }

    fn compare(&mut self, cluster: u64, stored: u64, leak: &mut Option<Leak>) {
        let (used, counted) = self.counts.get(cluster);
        if stored == 0 && counted == 0 {
            return;
        }
        let cs = self.image.cluster_size;
        let host = cluster << cs.bits();
        let place = Place::host(host);
        if stored > counted {
            self.used_to(if cluster < self.counts.clusters() { host + cs.bytes() } else { 0 });
            match leak {
                Some(leak) if leak.end == cluster => leak.end += 1,
                _ => {
                    let before = leak.replace(Leak { first: cluster, end: cluster + 1 });
                    self.tell_leak(before);
                }
            }
        } else if stored < counted {
            let text =
                format_args!("the host cluster at {host} has {counted} references, and refcount {stored}");
            self.findings.add(Class::RefcountTooLow, place, text);
        }
        let wrong = match used {
            Use::PlainCopied => stored != 1,
            Use::PlainShared => stored == 1,
            Use::PlainMixed => true,
            _ => false,
        };
        if wrong {
            let text =
                format_args!("the COPIED flag of the cluster at {host} contradicts its refcount {stored}");
            self.findings.add(Class::CopiedFlag, place, text);
        }
    }

    fn tell_leak(&mut self, leak: Option<Leak>) {
        let Some(Leak { first, end }) = leak else { return };
        let bits = self.image.cluster_size.bits();
        let (from, to) = (first << bits, end << bits);
        let text = format_args!("bytes {from} to {} have a higher refcount than references", to - 1);
        self.findings.add_many(Class::Leak, end - first, Place::host(from), text);
    }

    /// What lies behind everything in use: bytes there are nobody's. A cluster that QEMU has freed may lie
    /// there, which it clears where the file system lets it.
    pub(super) fn tail(&mut self) -> Result<()> {
        let (end, file_len) = (self.facts.end, self.image.input.len);
        let behind = file_len.saturating_sub(end);
        let last = file_len.saturating_sub(TAIL_BYTES).max(end);
        let ranges = [end..file_len.min(end.saturating_add(TAIL_BYTES)), last..file_len];
        let mut piece = vec![0; TAIL_PIECE_BYTES.min(behind) as usize];
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let take = (range.end - at).min(TAIL_PIECE_BYTES) as usize;
                self.image.input.read(&mut piece[..take], at)?;
                if piece[..take].iter().any(|&byte| byte != 0) {
                    let text =
                        format_args!("{behind} bytes behind the last cluster in use, which ends at {end}");
                    self.findings.add(Class::TrailingData, Place::host(end), text);
                    return Ok(());
                }
                at += take as u64;
            }
        }
        if behind >= self.image.cluster_size.bytes() {
            let text = format_args!("{behind} bytes of zeros behind the last cluster in use");
            self.findings.add(Class::Note, Place::host(end), text);
        }
        Ok(())
    }
}
