//! A block: some records one behind the other.
//!
//! A record is the cluster's index (u64), the length (u32) and CRC-32 (u32) of the stored bytes,
//! all little-endian, and the stored bytes.

use bytes::Bytes;

use crate::error::{Error, Kind, Result, Stage};
use crate::units::ClusterIndex;

pub(super) const RECORD_HEADER_BYTES: usize = 16;

#[derive(Debug)]
pub(super) enum Place {
    Memory(Bytes),
    Disk(u64),
}

#[derive(Debug)]
pub(super) struct Block {
    first: ClusterIndex,
    records: u64,
    len: usize,
    building: Vec<u8>,
    pub(super) place: Place,
}

impl Block {
    pub(super) fn new(first: ClusterIndex, mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self { first, records: 0, len: 0, building: memory, place: Place::Memory(Bytes::new()) }
    }

    pub(super) fn has_room_for(&self, stored_len: usize, block_bytes: usize) -> bool {
        self.len + RECORD_HEADER_BYTES + stored_len <= block_bytes
    }

    pub(super) fn push(&mut self, cluster: ClusterIndex, stored: &[u8]) {
        self.building.extend_from_slice(&cluster.0.to_le_bytes());
        self.building.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        self.building.extend_from_slice(&crc32fast::hash(stored).to_le_bytes());
        self.building.extend_from_slice(stored);
        self.len = self.building.len();
        self.records += 1;
    }

    pub(super) fn sealed(mut self) -> Self {
        self.place = Place::Memory(Bytes::from(std::mem::take(&mut self.building)));
        self
    }

    pub(super) fn first(&self) -> ClusterIndex {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.len as u64 - self.records * RECORD_HEADER_BYTES as u64
    }
}

/// The records of a block, checked one by one.
pub(super) struct Records {
    bytes: Bytes,
    failed: Option<Error>,
}

impl Records {
    pub(super) fn new(bytes: Result<Bytes>) -> Self {
        match bytes {
            Ok(bytes) => Self { bytes, failed: None },
            Err(error) => Self { bytes: Bytes::new(), failed: Some(error) },
        }
    }

    fn parse(&mut self) -> Option<(ClusterIndex, Bytes)> {
        let (header, _) = self.bytes.split_first_chunk::<RECORD_HEADER_BYTES>()?;
        let (cluster, rest) = header.split_first_chunk::<8>()?;
        let (len, crc) = rest.split_first_chunk::<4>()?;
        let cluster = ClusterIndex(u64::from_le_bytes(*cluster));
        let len = u32::from_le_bytes(*len) as usize;
        let crc = u32::from_le_bytes(crc.try_into().ok()?);
        if self.bytes.len() < RECORD_HEADER_BYTES + len {
            return None;
        }
        let stored = self.bytes.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len);
        if crc32fast::hash(&stored) != crc {
            return None;
        }
        self.bytes = self.bytes.slice(RECORD_HEADER_BYTES + len..);
        Some((cluster, stored))
    }
}

impl Iterator for Records {
    type Item = Result<(ClusterIndex, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.bytes.is_empty() {
            return None;
        }
        let record = self.parse();
        if record.is_none() {
            self.bytes = Bytes::new();
        }
        Some(record.ok_or_else(|| {
            Error::new(Stage::Spool, Kind::Local, "a spooled cluster does not come back as it was kept")
                .advise("check the disk that --spool-dir lies on, or use another one")
        }))
    }
}
