//! Disks that can be read at any place: raw ones and qcow2 images.

use std::sync::Arc;

use super::{Disk, DiskReader, Extent};
use crate::error::Result;
use crate::read::{GuestImage, GuestReader, Input};
use crate::source::{FileSource, Source};

/// A raw disk.
pub struct RawDisk {
    input: Input,
    /// The file itself, where it can tell where its holes are.
    file: Option<Arc<FileSource>>,
}

impl RawDisk {
    /// Any bytes; nothing tells where holes are.
    pub fn new(input: Input) -> Self {
        Self { input, file: None }
    }

    /// A file or block device, whose holes are not read.
    pub fn of_file(file: Arc<FileSource>) -> Self {
        let facts = file.facts();
        let input = Input { bytes: file.bytes(), len: facts.len.unwrap_or(0), name: facts.name.clone() };
        Self { input, file: Some(file) }
    }
}

impl Disk for RawDisk {
    fn name(&self) -> &str {
        &self.input.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.input.len)
    }

    fn reader(&self) -> Result<Box<dyn DiskReader + '_>> {
        Ok(Box::new(self))
    }
}

impl DiskReader for &RawDisk {
    fn extent(&mut self, from: u64, until: u64) -> Result<Extent> {
        if from >= self.input.len {
            return Ok(Extent { end: until, is_zero: true });
        }
        let end = until.min(self.input.len);
        let Some(file) = &self.file else { return Ok(Extent { end, is_zero: false }) };
        Ok(match file.next_data(from)? {
            Some(data) if data.start <= from => Extent { end: data.end.clamp(from + 1, end), is_zero: false },
            Some(data) => Extent { end: data.start.min(end), is_zero: true },
            None => Extent { end, is_zero: true },
        })
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<usize> {
        let there = self.input.len.saturating_sub(offset).min(out.len() as u64) as usize;
        if there > 0 {
            self.input.bytes.read_at(&mut out[..there], offset)?;
        }
        out[there..].fill(0);
        Ok(there)
    }
}

/// A qcow2 image.
pub struct Qcow2Disk {
    guest: GuestImage,
    name: String,
}

impl Qcow2Disk {
    /// Opens an image.
    ///
    /// # Errors
    /// As [`GuestImage::open`].
    pub fn open(input: Input) -> Result<Self> {
        let name = input.name.clone();
        Ok(Self { guest: GuestImage::open(input)?, name })
    }
}

impl Disk for Qcow2Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.guest.virtual_size())
    }

    fn reader(&self) -> Result<Box<dyn DiskReader + '_>> {
        Ok(Box::new(Qcow2Reader { reader: self.guest.reader(), len: self.guest.virtual_size() }))
    }
}

struct Qcow2Reader<'a> {
    reader: GuestReader<'a>,
    len: u64,
}

impl DiskReader for Qcow2Reader<'_> {
    fn extent(&mut self, from: u64, until: u64) -> Result<Extent> {
        if from >= self.len {
            return Ok(Extent { end: until, is_zero: true });
        }
        self.reader.extent(from, until)
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<usize> {
        let there = self.len.saturating_sub(offset).min(out.len() as u64) as usize;
        self.reader.read(&mut out[..there], offset)?;
        out[there..].fill(0);
        Ok(there)
    }
}
