//! The header of an image, judged: what may stand in it, and whether the rest can be found by it.

use super::Input;
use super::finding::{Class, Findings, Place};
use crate::error::Result;
use crate::qcow2::CompressionType;
use crate::qcow2::header::{INCOMPATIBLE_COMPRESSION_TYPE, V2_HEADER_BYTES};
use crate::qcow2::limits::{L1_TABLE_BYTES_MAX, REFCOUNT_TABLE_BYTES_MAX, VIRTUAL_SIZE_MAX, l1_entries};
use crate::qcow2::parse::{self, Extension, NoHeader, RawHeader};
use crate::units::{ClusterSize, SECTOR_BYTES};

/// Bytes that are read to find out how large the first cluster is.
const HEAD_BYTES: usize = 512;
/// Most internal snapshots that QEMU opens (`QCOW_MAX_SNAPSHOTS`).
pub(super) const SNAPSHOTS_MAX: u32 = 65_536;
/// Longest name of a backing file (QEMU, `qcow2_do_open`).
const BACKING_NAME_MAX: u32 = 1023;

/// An image whose header names its tables credibly.
#[derive(Debug)]
pub(super) struct Image {
    pub input: Input,
    pub header: RawHeader,
    pub cluster_size: ClusterSize,
    pub compression: CompressionType,
    /// The extensions, and the bytes that they lie in.
    pub extensions: Vec<Extension>,
    pub first_cluster: Vec<u8>,
}

impl Image {
    /// Reads and judges the header; `None` if nothing else can be found by it.
    ///
    /// # Errors
    /// What keeps the bytes from coming; no qcow2 image at all, or a version or feature that this reader does
    /// not know.
    pub fn open(input: Input, findings: &mut Findings) -> Result<Option<Self>> {
        let mut head = vec![0; HEAD_BYTES];
        let there = input.read(&mut head, 0)?;
        let header = match RawHeader::parse(&head[..there]) {
            Ok(header) => header,
            Err(NoHeader::OtherFormat) => return Err(input.refuse("is not a qcow2 image")),
            Err(NoHeader::Version(version)) => {
                return Err(
                    input.refuse(&format!("is a qcow2 image of version {version}; only 2 and 3 are known"))
                );
            }
            Err(NoHeader::Cut) => {
                findings.add(Class::Outside, Place::host(0), format_args!("the file ends within the header"));
                return Ok(None);
            }
        };
        let Some(cluster_size) = ClusterSize::from_bits(header.cluster_bits) else {
            let bits = header.cluster_bits;
            let text = format_args!("cluster_bits is {bits}, not one of 9 to 21");
            findings.add(Class::Header, Place::host(20), text);
            return Ok(None);
        };
        let mut first_cluster = vec![0; cluster_size.size()];
        input.read(&mut first_cluster, 0)?;
        // Once more: what follows the compression type may reach beyond the first read.
        let header = RawHeader::parse(&first_cluster).unwrap_or(header);
        if header.incompatible & parse::INCOMPATIBLE_EXTENDED_L2 != 0 {
            return Err(input
                .refuse("has extended L2 entries (subclusters), which this reader does not know")
                .advise("check it with qemu-img; OpenStack's image inspector rejects it as well"));
        }
        let mut judge = Judge { input: &input, header: &header, cluster_size, findings };
        let usable = judge.features() & judge.sizes();
        let extensions = judge.extensions(&first_cluster);
        let Some(compression) = judge.compression().filter(|_| usable) else { return Ok(None) };
        Ok(Some(Self { input, header, cluster_size, compression, extensions, first_cluster }))
    }

    /// The data of the first extension of this type.
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        let found = self.extensions.iter().find(|extension| extension.kind == kind)?;
        self.first_cluster.get(found.at..found.at + found.len)
    }

    /// The name of the backing file, if there is one, fit to be shown.
    pub fn backing_name(&self) -> Option<String> {
        (self.header.backing_offset != 0).then(|| {
            let from = usize::try_from(self.header.backing_offset).unwrap_or(usize::MAX);
            let len = self.header.backing_len.min(BACKING_NAME_MAX) as usize;
            let end = from.saturating_add(len).min(self.first_cluster.len());
            shown(self.first_cluster.get(from.min(end)..end).unwrap_or_default())
        })
    }

    /// The name of the external data file, if guest data lie in one, fit to be shown.
    pub fn data_file_name(&self) -> Option<String> {
        (self.header.incompatible & parse::INCOMPATIBLE_DATA_FILE != 0)
            .then(|| shown(self.extension(parse::EXTENSION_DATA_FILE).unwrap_or_default()))
    }
}

/// Bytes from the file without what would disturb a terminal.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

struct Judge<'a> {
    input: &'a Input,
    header: &'a RawHeader,
    cluster_size: ClusterSize,
    findings: &'a mut Findings,
}

impl Judge<'_> {
    fn wrong(&mut self, at: u64, text: std::fmt::Arguments<'_>) -> bool {
        self.findings.add(Class::Header, Place::host(at), text);
        false
    }

    /// Whether the features and the length of the header let the rest be understood.
    fn features(&mut self) -> bool {
        let header = self.header;
        let mut usable = true;
        if header.incompatible & parse::INCOMPATIBLE_DIRTY != 0 {
            let text = "the dirty bit is set: it was not closed, its refcounts may be too low";
            self.findings.add(Class::Dirty, Place::host(72), format_args!("{text}"));
        }
        if header.incompatible & parse::INCOMPATIBLE_CORRUPT != 0 {
            let text = "the corrupt bit is set: QEMU found it damaged and does not write to it";
            self.findings.add(Class::Corrupt, Place::host(72), format_args!("{text}"));
        }
        let unknown = header.incompatible & !parse::INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            usable = self.wrong(72, format_args!("unknown incompatible features {unknown:#x}"));
        }
        for (at, word, unknown) in [
            (80, "compatible", header.compatible & !parse::COMPATIBLE_KNOWN),
            (88, "autoclear", header.autoclear & !parse::AUTOCLEAR_KNOWN),
        ] {
            if unknown != 0 {
                let text = format_args!("unknown {word} features {unknown:#x}");
                self.findings.add(Class::Note, Place::host(at), text);
            }
        }
        if header.version == 3 {
            let len = header.header_len;
            let fits = len >= 104 && len.is_multiple_of(8) && u64::from(len) <= self.cluster_size.bytes();
            if !fits {
                usable = self.wrong(100, format_args!("header_length is {len}"));
            }
            if !header.rest_is_zero {
                let text = "fields behind the compression type that this reader does not know";
                self.findings.add(Class::Note, Place::host(105), format_args!("{text}"));
            }
        }
        if header.refcount_order > 6 {
            usable = self.wrong(96, format_args!("refcount_order is {}", header.refcount_order));
        }
        if header.crypt_method > 2 {
            usable = self.wrong(32, format_args!("crypt_method is {}", header.crypt_method));
        }
        usable
    }

    /// Whether sizes and places of the tables are possible.
    fn sizes(&mut self) -> bool {
        let (header, cs) = (self.header, self.cluster_size);
        let mut usable = true;
        let size = header.virtual_size;
        if !size.is_multiple_of(SECTOR_BYTES) {
            self.wrong(
                24,
                format_args!("the disk has {size} bytes, no whole sectors: QEMU drops the last ones"),
            );
        }
        if size > VIRTUAL_SIZE_MAX {
            usable = self.wrong(24, format_args!("a disk of {size} bytes is larger than offsets can tell"));
        } else if l1_entries(size, cs) > u64::from(header.l1_entries) {
            let (have, need) = (header.l1_entries, l1_entries(size, cs));
            self.wrong(36, format_args!("the L1 table has {have} entries, the disk needs {need}"));
        }
        if u64::from(header.l1_entries) * 8 > L1_TABLE_BYTES_MAX {
            usable =
                self.wrong(36, format_args!("an L1 table of {} entries exceeds 32 MiB", header.l1_entries));
        }
        let refcount_table_len = u64::from(header.refcount_table_clusters) << cs.bits();
        if refcount_table_len == 0 || refcount_table_len > REFCOUNT_TABLE_BYTES_MAX {
            let clusters = header.refcount_table_clusters;
            usable = self.wrong(56, format_args!("a refcount table of {clusters} clusters"));
        }
        if header.snapshots > SNAPSHOTS_MAX {
            usable = self.wrong(60, format_args!("{} internal snapshots", header.snapshots));
        }
        for (at, what, offset, is_used) in [
            (40, "the L1 table", header.l1_offset, header.l1_entries > 0),
            (48, "the refcount table", header.refcount_table_offset, true),
            (64, "the snapshot table", header.snapshots_offset, header.snapshots > 0),
        ] {
            if is_used && (cs.offset_in(offset) != 0 || offset == 0) {
                usable = self.wrong(at, format_args!("{what} cannot begin at offset {offset}"));
            }
        }
        usable
    }

    /// The extensions that are there; one that does not fit hides those behind it.
    fn extensions(&mut self, first_cluster: &[u8]) -> Vec<Extension> {
        let header = self.header;
        let start = if header.version == 3 { header.header_len as usize } else { V2_HEADER_BYTES };
        let cluster_len = first_cluster.len();
        let mut end = cluster_len;
        if header.backing_offset != 0 {
            let (offset, len) = (header.backing_offset, header.backing_len);
            let name_end = offset.checked_add(u64::from(len)).filter(|end| *end <= cluster_len as u64);
            if len > BACKING_NAME_MAX || name_end.is_none() || offset < start as u64 {
                let text = format_args!("a backing file's name of {len} bytes cannot stand at {offset}");
                self.wrong(8, text);
            } else {
                end = offset as usize;
            }
        }
        let (extensions, outcome) = parse::extensions(first_cluster, start, end);
        if let Err(at) = outcome {
            let text = format_args!("a header extension does not fit into the first cluster");
            self.findings.add(Class::Extension, Place::host(at as u64), text);
        }
        let there = usize::try_from(self.input.len).unwrap_or(usize::MAX);
        if there < cluster_len && extensions.iter().any(|extension| extension.at + extension.len > there) {
            let text = format_args!("the file ends within the header extensions");
            self.findings.add(Class::Outside, Place::host(self.input.len), text);
        }
        extensions
    }

    fn compression(&mut self) -> Option<CompressionType> {
        let (kind, bit) = (self.header.compression_type, INCOMPATIBLE_COMPRESSION_TYPE);
        if (kind != 0) != (self.header.incompatible & bit != 0) {
            self.wrong(
                104,
                format_args!("compression type {kind} and its feature bit contradict each other"),
            );
        }
        match kind {
            0 => Some(CompressionType::Zlib),
            1 => Some(CompressionType::Zstd),
            _ => {
                self.wrong(104, format_args!("unknown compression type {kind}"));
                None
            }
        }
    }
}
