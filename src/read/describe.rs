//! What the first bytes of a qcow2 file say of it. Judged as little as is needed to read on: a damaged image, and
//! one with features that the reader does not know, can be described as well.

use super::image::shown;
use crate::qcow2::header::INCOMPATIBLE_COMPRESSION_TYPE;
use crate::qcow2::parse::{self, BitmapsExtension, NoHeader, RawHeader};
use crate::qcow2::{header::V2_HEADER_BYTES, limits::VIRTUAL_SIZE_MAX};
use crate::units::{ClusterSize, SECTOR_BYTES};

/// Bytes from the beginning of a file in which extensions and names are looked for, at most a cluster.
pub const DESCRIBED_BYTES: usize = 64 << 10;

/// Type of the extension that names the backing file's format.
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// Type of the extension that names features.
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
/// Longest text that is shown, in bytes.
const TEXT_BYTES_MAX: usize = 1023;

/// What a file says of itself; texts are fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The header's fields as they stand.
    pub header: RawHeader,
    /// Features whose bits are set, and unknown bits.
    pub features: Vec<String>,
    /// How compressed clusters are compressed; `None` if nobody knows.
    pub compression: Option<&'static str>,
    /// How the data are encrypted, if they are.
    pub encryption: Option<&'static str>,
    /// The file that holds what this one does not; it is named, never opened.
    pub backing_file: Option<String>,
    /// The format that it is said to have.
    pub backing_format: Option<String>,
    /// The file that holds the data; `Some` also where it has no name.
    pub data_file: Option<String>,
    /// Number of persistent bitmaps.
    pub bitmaps: u32,
    /// Header extensions: their types' names, and bytes of their data.
    pub extensions: Vec<(String, usize)>,
    /// What is odd about all this, in sentences.
    pub warnings: Vec<String>,
}

impl Description {
    /// Size of a cluster in bytes, if it is a possible one.
    pub fn cluster_bytes(&self) -> Option<u64> {
        ClusterSize::from_bits(self.header.cluster_bits).map(ClusterSize::bytes)
    }
}

/// Describes a file by its first [`DESCRIBED_BYTES`]; fewer tell less.
///
/// # Errors
/// What it is instead of a qcow2 image of version 2 or 3.
pub fn describe(head: &[u8]) -> Result<Description, NoHeader> {
    let header = RawHeader::parse(head)?;
    let mut warnings = warnings(&header);
    let cluster = ClusterSize::from_bits(header.cluster_bits).map_or(0, ClusterSize::size);
    let head = &head[..head.len().min(cluster)];
    let begin = if header.version == 3 { header.header_len as usize } else { V2_HEADER_BYTES };
    let backing_at = usize::try_from(header.backing_offset).unwrap_or(usize::MAX);
    let end = if header.backing_offset == 0 { head.len() } else { head.len().min(backing_at) };
    let (found, outcome) = parse::extensions(head, begin, end);
    if outcome.is_err() {
        warnings.push("a header extension does not fit where it stands".into());
    }
    let data = |kind: u32| {
        let own = found.iter().find(|extension| extension.kind == kind)?;
        head.get(own.at..own.at + own.len)
    };
    let text = |bytes: &[u8]| shown(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]);
    let name = backing_at..backing_at.saturating_add(header.backing_len as usize);
    let is_external = header.incompatible & parse::INCOMPATIBLE_DATA_FILE != 0;
    Ok(Description {
        features: features(&header),
        compression: match header.compression_type {
            0 => Some("zlib"),
            1 => Some("zstd"),
            _ => None,
        },
        encryption: match header.crypt_method {
            0 => None,
            1 => Some("AES"),
            2 => Some("LUKS"),
            _ => Some("unknown"),
        },
        backing_file: (header.backing_offset != 0).then(|| text(head.get(name).unwrap_or_default())),
        backing_format: data(EXTENSION_BACKING_FORMAT).map(text),
        data_file: is_external.then(|| text(data(parse::EXTENSION_DATA_FILE).unwrap_or_default())),
        bitmaps: data(parse::EXTENSION_BITMAPS)
            .and_then(BitmapsExtension::parse)
            .map_or(0, |extension| extension.bitmaps),
        extensions: found.iter().map(|own| (extension_name(own.kind), own.len)).collect(),
        warnings,
        header,
    })
}

fn warnings(header: &RawHeader) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |is_so: bool, what: &str| warnings.extend(is_so.then(|| what.to_owned()));
    let incompatible = header.incompatible;
    warn(incompatible & parse::INCOMPATIBLE_DIRTY != 0, "it was not closed: its refcounts may be too low");
    warn(incompatible & parse::INCOMPATIBLE_CORRUPT != 0, "QEMU found it damaged and does not write to it");
    warn(incompatible & !parse::INCOMPATIBLE_KNOWN != 0, "it has features that nobody knows here");
    warn(ClusterSize::from_bits(header.cluster_bits).is_none(), "its cluster size is impossible");
    warn(header.virtual_size > VIRTUAL_SIZE_MAX, "its disk is larger than offsets can tell");
    warn(!header.virtual_size.is_multiple_of(SECTOR_BYTES), "its disk does not end with a whole sector");
    let has_bit = incompatible & INCOMPATIBLE_COMPRESSION_TYPE != 0;
    warn((header.compression_type != 0) != has_bit, "its compression type and the bit for it contradict");
    warnings
}

fn features(header: &RawHeader) -> Vec<String> {
    let known = |word: &str, bit: u32| match (word, bit) {
        ("incompatible", 0) => Some("dirty"),
        ("incompatible", 1) => Some("corrupt"),
        ("incompatible", 2) => Some("external data file"),
        ("incompatible", 3) => Some("compression type"),
        ("incompatible", 4) => Some("extended L2 entries"),
        ("compatible", 0) => Some("lazy refcounts"),
        ("autoclear", 0) => Some("bitmaps"),
        ("autoclear", 1) => Some("raw external data"),
        _ => None,
    };
    [
        ("incompatible", header.incompatible),
        ("compatible", header.compatible),
        ("autoclear", header.autoclear),
    ]
    .into_iter()
    .flat_map(|(word, bits)| {
        (0..64)
            .filter(move |bit| bits >> bit & 1 != 0)
            .map(move |bit| known(word, bit).map_or_else(|| format!("{word} bit {bit}"), str::to_owned))
    })
    .collect()
}

fn extension_name(kind: u32) -> String {
    match kind {
        EXTENSION_BACKING_FORMAT => "backing file format".into(),
        EXTENSION_FEATURE_NAMES => "feature names".into(),
        parse::EXTENSION_BITMAPS => "bitmaps".into(),
        parse::EXTENSION_ENCRYPTION => "encryption header".into(),
        parse::EXTENSION_DATA_FILE => "external data file".into(),
        other => format!("{other:#010x}"),
    }
}
