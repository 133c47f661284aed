//! Where things lie in an image, so that a mutation can be aimed.

use snapcow::qcow2::{L1Entry, L2Entry, Mapping, RawHeader};
use snapcow::units::ClusterSize;

/// Offsets of the parts of a good image, by its own tables.
#[derive(Clone, Debug)]
pub struct Anatomy {
    pub version: u32,
    pub cluster: usize,
    pub virtual_size: u64,
    pub l1: usize,
    /// Offsets of the L1 entries that name a table.
    pub l1_entries: Vec<usize>,
    /// Offsets of the L2 entries of plain clusters.
    pub plain: Vec<usize>,
    /// Offsets of the L2 entries of compressed clusters.
    pub compressed: Vec<usize>,
    pub refcount_table: usize,
    /// Offset of the first refcount block.
    pub refcounts: usize,
    pub refcount_bits: u32,
    pub len: usize,
}

impl Anatomy {
    pub fn of(bytes: &[u8]) -> Self {
        let header = RawHeader::parse(bytes).unwrap();
        let cs = ClusterSize::from_bits(header.cluster_bits).unwrap();
        let mut anatomy = Self {
            version: header.version,
            cluster: cs.size(),
            virtual_size: header.virtual_size,
            l1: header.l1_offset as usize,
            l1_entries: Vec::new(),
            plain: Vec::new(),
            compressed: Vec::new(),
            refcount_table: header.refcount_table_offset as usize,
            refcounts: u64_at(bytes, header.refcount_table_offset as usize) as usize,
            refcount_bits: header.refcount_bits(),
            len: bytes.len(),
        };
        for index in 0..header.l1_entries as usize {
            let at = anatomy.l1 + index * 8;
            let Some(table) = L1Entry(u64_at(bytes, at)).l2_table() else { continue };
            anatomy.l1_entries.push(at);
            for at in (table.0 as usize..table.0 as usize + cs.size()).step_by(8) {
                match L2Entry(u64_at(bytes, at)).mapping(cs, header.version) {
                    Mapping::Plain(_) => anatomy.plain.push(at),
                    Mapping::Compressed { .. } => anatomy.compressed.push(at),
                    _ => {}
                }
            }
        }
        anatomy
    }

    /// Host offset of the cluster that a plain entry names.
    pub fn host(&self, bytes: &[u8], entry: usize) -> usize {
        (u64_at(bytes, entry) & snapcow::qcow2::entry::OFFSET) as usize
    }

    /// Host offset and length in whole sectors of what a compressed entry names.
    pub fn span(&self, bytes: &[u8], entry: usize) -> (usize, usize) {
        let cs = ClusterSize::from_bytes(self.cluster as u64).unwrap();
        match L2Entry(u64_at(bytes, entry)).mapping(cs, self.version) {
            Mapping::Compressed { host, len } => (host.0 as usize, len as usize),
            other => panic!("{other:?}"),
        }
    }

    /// Offset of the refcount of the host cluster at `host`; refcounts have 16 bits.
    pub fn refcount_of(&self, host: usize) -> usize {
        assert_eq!(self.refcount_bits, 16);
        let at = host / self.cluster * 2;
        assert!(at < self.cluster, "the first block covers it");
        self.refcounts + at
    }
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
