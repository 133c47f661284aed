//! Disks that are mostly zeros: as a real tool left them, and with changes laid over them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use snapcow::error::Result;
use snapcow::free::Disk;

/// Bytes of a page.
pub const PAGE: usize = 4096;

type Page = Box<[u8; PAGE]>;

/// A disk that is shared by all cases.
#[derive(Debug)]
pub struct Base {
    pub len: u64,
    /// For each page its place in `pages`, from 1; 0 for zeros.
    index: Vec<u32>,
    pages: Vec<Page>,
}

impl Base {
    /// Unpacks what `tools/fuzz.d/bases.py` packs.
    pub fn unpack(packed: &[u8]) -> Self {
        let size = zstd_safe::get_frame_content_size(packed).expect("a frame").expect("with its length");
        let mut plain = vec![0; size as usize];
        zstd_safe::decompress(&mut plain[..], packed).expect("a frame");
        let len = u64::from_le_bytes(*plain.first_chunk().expect("a length"));
        let mut base = Self::zeros(len);
        for entry in plain[8..].chunks_exact(4 + PAGE) {
            let number = u32::from_le_bytes(*entry.first_chunk().expect("a number"));
            base.pages.push(Box::new(*entry.last_chunk().expect("a page")));
            base.index[number as usize] = base.pages.len() as u32;
        }
        base
    }

    /// A disk of nothing but zeros.
    pub fn zeros(len: u64) -> Self {
        Self { len, index: vec![0; len.div_ceil(PAGE as u64) as usize], pages: Vec::new() }
    }

    /// Puts another disk at a place of this one.
    pub fn lay(&mut self, at: u64, inside: Self) {
        let first = at as usize / PAGE;
        for (slot, place) in self.index[first..].iter_mut().zip(inside.index).filter(|(_, place)| *place != 0)
        {
            *slot = self.pages.len() as u32 + place;
        }
        self.pages.extend(inside.pages);
    }

    /// Makes zeros of a range within a page.
    pub fn clear(&mut self, range: Range<u64>) {
        let (number, within) = (range.start as usize / PAGE, range.start as usize % PAGE);
        if let Some(at) = self.index[number].checked_sub(1) {
            self.pages[at as usize][within..within + (range.end - range.start) as usize].fill(0);
        }
    }

    fn page(&self, number: u64) -> Option<&[u8; PAGE]> {
        let at = (*self.index.get(number as usize)?).checked_sub(1)?;
        self.pages.get(at as usize).map(|page| &**page)
    }
}

/// What a disk was asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The ranges of each call.
    pub calls: Vec<Vec<Range<u64>>>,
    /// All their bytes.
    pub bytes: u64,
    /// Bytes of the largest call.
    pub most: u64,
}

/// A disk with changes. Keeps an account of what it is asked for.
#[derive(Debug)]
pub struct Image<'a> {
    base: &'a Base,
    pub len: u64,
    changed: BTreeMap<u64, Page>,
    asked: Mutex<Asked>,
}

impl Clone for Image<'_> {
    fn clone(&self) -> Self {
        Self { base: self.base, len: self.len, changed: self.changed.clone(), asked: Mutex::default() }
    }
}

impl<'a> Image<'a> {
    pub fn new(base: &'a Base) -> Self {
        Self { base, len: base.len, changed: BTreeMap::new(), asked: Mutex::default() }
    }

    fn page(&self, number: u64) -> Option<&[u8; PAGE]> {
        self.changed.get(&number).map(|page| &**page).or_else(|| self.base.page(number))
    }

    /// Adds these bytes to `out`; what lies behind the end is zero.
    fn copy(&self, range: &Range<u64>, out: &mut Vec<u8>) {
        let from = out.len();
        out.resize(from + (range.end - range.start) as usize, 0);
        let mut at = range.start;
        while at < range.end {
            let (number, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let len = (PAGE - within).min((range.end - at) as usize);
            if let Some(page) = self.page(number) {
                let to = from + (at - range.start) as usize;
                out[to..to + len].copy_from_slice(&page[within..within + len]);
            }
            at += len as u64;
        }
    }

    /// `len` bytes from `at`; what lies behind the end is zero.
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        if at > self.len {
            return vec![0; len];
        }
        let mut out = Vec::with_capacity(len);
        self.copy(&(at..at + len as u64), &mut out);
        out
    }

    fn array<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut out = [0; N];
        if at > self.len {
            return out;
        }
        let (number, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        if within + N > PAGE {
            out.copy_from_slice(&self.get(at, N));
        } else if let Some(page) = self.page(number) {
            out.copy_from_slice(&page[within..within + N]);
        }
        out
    }

    pub fn u8(&self, at: u64) -> u8 {
        self.array::<1>(at)[0]
    }

    pub fn le16(&self, at: u64) -> u64 {
        u16::from_le_bytes(self.array(at)).into()
    }

    pub fn le32(&self, at: u64) -> u64 {
        u32::from_le_bytes(self.array(at)).into()
    }

    pub fn le64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub fn be16(&self, at: u64) -> u64 {
        u16::from_be_bytes(self.array(at)).into()
    }

    pub fn be32(&self, at: u64) -> u64 {
        u32::from_be_bytes(self.array(at)).into()
    }

    pub fn be64(&self, at: u64) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// Writes; what lies behind the end is dropped.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let mut at = at;
        let mut left = &bytes[..bytes.len().min(self.len.saturating_sub(at) as usize)];
        while !left.is_empty() {
            let (number, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (now, later) = left.split_at(left.len().min(PAGE - within));
            let base = self.base;
            let page = self.changed.entry(number);
            let page = page.or_insert_with(|| Box::new(base.page(number).copied().unwrap_or([0; PAGE])));
            page[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            left = later;
        }
    }

    /// What it was asked for since the last call of this.
    pub fn asked(&self) -> Asked {
        std::mem::take(&mut *self.asked.lock().expect("no reader panics with it"))
    }
}

impl Disk for Image<'_> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        assert!(wanted.windows(2).all(|pair| pair[0].end <= pair[1].start), "in rising order: {wanted:?}");
        assert!(wanted.iter().all(|range| range.start < range.end && range.end <= self.len), "{wanted:?}");
        let bytes = wanted.iter().map(|range| range.end - range.start).sum();
        let mut asked = self.asked.lock().expect("no reader panics with it");
        asked.calls.push(wanted.to_vec());
        asked.bytes += bytes;
        asked.most = asked.most.max(bytes);
        drop(asked);
        let one = |range: &Range<u64>| {
            let mut out = Vec::with_capacity((range.end - range.start) as usize);
            self.copy(range, &mut out);
            out
        };
        Ok(wanted.iter().map(one).collect())
    }
}
