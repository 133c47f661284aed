//! Whether an image is sound: everything that the header names is walked once, every reference to a host
//! cluster is counted, and the counts are held against the refcounts that the image keeps.

mod counts;
mod records;
mod refcounts;
mod tables;

use super::decode::Decoder;
use super::finding::{Class, Findings, Place};
use super::image::Image;
use super::{Input, Severity};
use crate::error::Result;
use crate::qcow2::CompressionType;
use counts::{Counts, Use};

/// How much a check does and may use.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Memory for counters and lists, in bytes: one byte a host cluster, 16 bytes a reference to an L2 table.
    /// The default, 512 MiB, is enough for a file of 16 TiB with clusters of 64 KiB.
    pub memory_bytes: u64,
    /// Whether to decode every compressed cluster. Without it only those that the end of the file cuts are.
    pub decode: bool,
    /// Whether a backing file or an external data file is worth a note only.
    pub allow_external: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, decode: false, allow_external: false }
    }
}

/// What an image is, as far as its own tables tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// 2 or 3.
    pub version: u32,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Size of a cluster in bytes.
    pub cluster_bytes: u64,
    /// Bits of a refcount.
    pub refcount_bits: u32,
    /// How its compressed clusters are compressed.
    pub compression: CompressionType,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Guest clusters of the active disk that are stored plain.
    pub plain_clusters: u64,
    /// Those that are compressed.
    pub compressed_clusters: u64,
    /// Those that say of themselves that they are zeros.
    pub zero_clusters: u64,
    /// Compressed clusters that were decoded.
    pub decoded_clusters: u64,
    /// The host offset behind everything in use.
    pub end: u64,
}

/// What a check came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was found.
    pub findings: Findings,
    /// What the image is; `None` if the header did not let the check go on.
    pub facts: Option<ImageFacts>,
    /// Length of the file in bytes.
    pub file_len: u64,
}

impl Report {
    /// The worst that was found, notes included.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.worst()
    }
}

/// Checks an image: header, feature bits, extensions, snapshots, bitmaps, L1 and L2 tables, refcounts, and
/// whether all that they name lies in the file.
///
/// # Errors
/// What kept the check from being finished: no qcow2 image, a feature that this reader does not know, bytes
/// that did not come, an image too large for the memory. Damage is no error of the check, but its result.
pub fn check(input: Input, options: CheckOptions) -> Result<Report> {
    let file_len = input.len;
    let mut findings = Findings::default();
    let Some(image) = Image::open(input, &mut findings)? else {
        return Ok(Report { findings, facts: None, file_len });
    };
    let (counts, table_bytes) = Counts::new(image.cluster_size.clusters_for(file_len), options.memory_bytes)?;
    let facts = ImageFacts {
        version: image.header.version,
        virtual_size: image.header.virtual_size,
        cluster_bytes: image.cluster_size.bytes(),
        refcount_bits: image.header.refcount_bits(),
        compression: image.compression,
        snapshots: image.header.snapshots,
        plain_clusters: 0,
        compressed_clusters: 0,
        zero_clusters: 0,
        decoded_clusters: 0,
        end: 0,
    };
    let decoder = Decoder::new(image.compression);
    let (stored, cluster) = (Vec::new(), vec![0; image.cluster_size.size()]);
    let mut check = Check { image, options, counts, table_bytes, findings, facts, decoder, stored, cluster };
    check.external_files();
    check.region(0, check.facts.cluster_bytes.min(file_len), "the header")?;
    let refcount_table = check.refcount_table()?;
    check.encryption_header()?;
    let tables = check.l1_tables()?;
    check.bitmaps()?;
    check.l2_tables(tables)?;
    check.refcounts(&refcount_table)?;
    check.tail()?;
    Ok(Report { findings: check.findings, facts: Some(check.facts), file_len })
}

/// A check under way.
struct Check {
    image: Image,
    options: CheckOptions,
    counts: Counts,
    /// Memory for lists of tables, in bytes.
    table_bytes: u64,
    findings: Findings,
    facts: ImageFacts,
    decoder: Decoder,
    /// A compressed cluster, and what it decodes to.
    stored: Vec<u8>,
    cluster: Vec<u8>,
}

impl Check {
    fn external_files(&mut self) {
        let class = if self.options.allow_external { Class::Note } else { Class::ExternalFile };
        if let Some(name) = self.image.backing_name() {
            self.findings.add(class, Place::host(8), format_args!("it needs a backing file, `{name}`"));
        }
        if let Some(name) = self.image.data_file_name() {
            let text = format_args!("its data lie in another file, `{name}`");
            self.findings.add(class, Place::host(72), text);
        }
    }

    /// Counts a reference to all clusters of something that is no guest data, of which `len` bytes mean
    /// something. Tells whether it can be read: aligned, inside the file, and nothing else's place.
    fn region(&mut self, offset: u64, len: u64, what: &str) -> Result<bool> {
        if len == 0 {
            return Ok(true);
        }
        let cs = self.image.cluster_size;
        let place = Place::host(offset);
        if cs.offset_in(offset) != 0 {
            let text = format_args!("{what} begins at {offset}, which is no multiple of a cluster");
            self.findings.add(Class::Unaligned, place, text);
            return Ok(false);
        }
        if !self.image.input.holds(offset, len) {
            let text = format_args!("{what} at {offset} does not lie within the file");
            self.findings.add(Class::Outside, place, text);
            return Ok(false);
        }
        let mut fits = true;
        let first = offset >> cs.bits();
        // Where one does not fit the rest is not counted: many hostile tables in one place cost nothing.
        for cluster in first..first + cs.clusters_for(len) {
            fits = fits && self.counts.add(cluster, Use::Metadata, 1)?;
        }
        if !fits {
            let text = format_args!("{what} at {offset} lies where something else is");
            self.findings.add(Class::Overlap, place, text);
        }
        self.used_to(offset + cs.round_up(len));
        Ok(fits)
    }

    fn used_to(&mut self, end: u64) {
        self.facts.end = self.facts.end.max(end);
    }

    /// Reads a table of 64-bit entries whose place is known to be inside the file.
    fn read_table(&mut self, offset: u64, entries: usize) -> Result<Vec<u8>> {
        let mut table = vec![0; entries * 8];
        self.image.input.read(&mut table, offset)?;
        Ok(table)
    }
}
