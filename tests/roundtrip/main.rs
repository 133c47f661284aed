//! File → file and stream → stream through the library: what independent readers read from the
//! image is what was on the disk, on every route, and the same options always give the same bytes.

#[path = "../common/mod.rs"]
mod common;
mod sharing;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use common::{disks, oracles};
use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, RouteTaken, Target, convert, machine_facts};
use snapcow::encode::Compression;
use snapcow::error::{Kind, Result};
use snapcow::facts::{Access, SinkFacts, SinkOrder, SourceFacts};
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, SpoolDisk, Wishes};
use snapcow::qcow2::Compat;
use snapcow::sink::{FileSink, StreamSink};
use snapcow::source::{FileSource, Outlet, Source, StreamSource, Wanted};
use snapcow::units::ClusterSize;

/// How to convert.
#[derive(Clone, Copy, Debug)]
struct How {
    cluster_bytes: u64,
    compat: Compat,
    compression: Compression,
    threads: usize,
    /// Blocks of 1 MiB that the spool has in memory; `None`: what the plan gives it.
    spool_blocks: Option<u64>,
    spool_disk_bytes: u64,
}

const USUAL: How = How {
    cluster_bytes: 65536,
    compat: Compat::V1_1,
    compression: Compression::Deflate(1),
    threads: 2,
    spool_blocks: None,
    spool_disk_bytes: 0,
};

/// Every codec, the slow levels too.
const CODECS: &[Compression] = &[
    Compression::None,
    Compression::Deflate(1),
    Compression::Deflate(6),
    Compression::Deflate(12),
    Compression::DeflateSmallWindow(6),
    #[cfg(feature = "isal-sys")]
    Compression::DeflateIsal,
    #[cfg(feature = "isal-sys")]
    Compression::DeflateIsalSmallWindow,
    Compression::Zstd(1),
    Compression::Zstd(19),
];

fn run(source: Arc<dyn Source>, sink: SinkFacts, target: Target, how: How, dir: &Path) -> Result<Receipt> {
    let cluster_size = ClusterSize::from_bytes(how.cluster_bytes).unwrap();
    let wishes = Wishes {
        cluster_size,
        threads: Some(how.threads),
        connections: None,
        memory_bytes: 256 << 20,
        spool_disk: SpoolDisk::Bytes(how.spool_disk_bytes),
    };
    let facts = Facts { source: source.facts().clone(), sink, machine: machine_facts(dir), wishes };
    let mut plan = Plan::new(facts)?;
    if let Some(blocks) = how.spool_blocks {
        plan.budget.spool_memory_bytes = blocks << 20;
    }
    assert_eq!(plan.budget.threads, how.threads);
    let geometry = Geometry { compat: how.compat, compression: how.compression.header_type(), cluster_size };
    let job = Job {
        source,
        free: None,
        source_digest: Err("not a service".into()),
        proof: Proof { verify_encode: true, guest_digest: true },
        geometry,
        compression: how.compression,
        spool_dir: dir.to_owned(),
        counters: Arc::new(Counters::default()),
        cancel: Cancel::new(),
    };
    convert(&plan, &job, target)
}

fn to_file(source: Arc<dyn Source>, target: &Path, how: How) -> Receipt {
    let sink = SinkFacts { name: target.display().to_string(), order: SinkOrder::Random };
    let file = FileSink::create(target, true).unwrap();
    run(source, sink, Target::File(Box::new(file)), how, target.parent().unwrap()).unwrap()
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn to_stream(source: Arc<dyn Source>, how: How, dir: &Path) -> Result<(Vec<u8>, Receipt)> {
    let memory = Memory::default();
    let sink = StreamSink::new("memory", Box::new(memory.clone()));
    let facts = SinkFacts { name: "memory".into(), order: SinkOrder::InOrder };
    let receipt = run(source, facts, Target::Delivery(Box::new(sink)), how, dir)?;
    let bytes = std::mem::take(&mut *memory.0.lock().unwrap());
    assert_eq!(bytes.len() as u64, receipt.image_len, "the planned length is the length");
    Ok((bytes, receipt))
}

/// The construction of `blksum`, word for word, with a SHA-256 that the product does not use.
fn blksum(disk: &[u8]) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut guest = disk.to_vec();
    guest.resize(disk.len().next_multiple_of(512), 0);
    let mut outer: Vec<u8> =
        guest.chunks(64 << 10).flat_map(|block| digest(&SHA256, block).as_ref().to_vec()).collect();
    outer.extend((guest.len() as u64).to_le_bytes());
    digest(&SHA256, &outer).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream that gives a different, odd number of bytes each time.
struct Odd {
    disk: Vec<u8>,
    at: usize,
    random: disks::Seeded,
}

impl Read for Odd {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let longest = 1 << self.random.below(17);
        let take = (1 + self.random.below(longest) as usize).min(out.len()).min(self.disk.len() - self.at);
        out[..take].copy_from_slice(&self.disk[self.at..self.at + take]);
        self.at += take;
        Ok(take)
    }
}

fn odd_stream(seed: u64, disk: &[u8]) -> Arc<dyn Source> {
    let odd = Odd { disk: disk.to_vec(), at: 0, random: disks::Seeded::new(seed) };
    Arc::new(StreamSource::new("stream", Box::new(odd), true))
}

/// A file that can be read again only from the beginning, as most stores behind Glance.
struct FromStart(FileSource, SourceFacts);

impl Source for FromStart {
    fn facts(&self) -> &SourceFacts {
        &self.1
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        match wanted {
            Wanted::All => self.0.read(wanted, outlet),
            Wanted::Runs(_) => {
                let whole = std::iter::once(0..wanted.end()).collect();
                self.0.read(&Wanted::Runs(Arc::new(whole)), outlet)
            }
        }
    }
}

/// A raw disk, in memory and as a file.
struct Disk {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Disk {
    fn new(bytes: Vec<u8>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        disks::write_sparse(&dir.path().join("disk.raw"), &bytes);
        Self { dir, bytes }
    }

    fn raw(&self) -> PathBuf {
        self.dir.path().join("disk.raw")
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(FileSource::open(&self.raw(), true).unwrap())
    }

    fn source_from_start(&self) -> Arc<dyn Source> {
        let file = FileSource::open(&self.raw(), true).unwrap();
        let facts = SourceFacts { access: Access::Sequential, ..file.facts().clone() };
        Arc::new(FromStart(file, facts))
    }

    /// Converts by the direct route, and by the spool to a stream; both are proven.
    fn prove_both_layouts(&self, how: How) {
        let what = format!("{} bytes, {how:?}", self.bytes.len());
        let direct = self.dir.path().join("direct.qcow2");
        let receipt = to_file(self.source(), &direct, how);
        assert_eq!(receipt.guest_digest, Some(blksum(&self.bytes)), "{what}");
        assert_eq!(receipt.route, Some(RouteTaken::Direct));
        assert_eq!(direct.metadata().unwrap().len(), receipt.image_len, "{what}");
        let streamed = self.dir.path().join("streamed.qcow2");
        let (bytes, from_stream) = to_stream(self.source(), how, self.dir.path()).unwrap();
        std::fs::write(&streamed, bytes).unwrap();
        assert_eq!(from_stream.guest_digest, receipt.guest_digest, "{what}");
        for image in [direct, streamed] {
            let what = format!("{what}, {}", image.display());
            if !matches!(how.compression, Compression::Zstd(_)) {
                oracles::imago_agrees(&self.bytes, &image, &what);
            }
            oracles::qemu_img_agrees(&self.raw(), &image, &what);
        }
    }
}

fn cluster_sizes() -> impl Iterator<Item = u64> {
    (ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS).map(|bits| 1 << bits)
}

#[test]
fn disks_of_awkward_sizes() {
    for len in [0, 1, 511, 512, 513, 65_535, 65_536, 65_537, (2 << 20) - 1, (5 << 20) + 3] {
        let disk = Disk::new(disks::mixed(len as u64, len));
        for cluster_bytes in [512, 4096, 65536, 2 << 20] {
            disk.prove_both_layouts(How { cluster_bytes, ..USUAL });
        }
    }
}

#[test]
fn every_codec_at_every_cluster_size() {
    let disk = Disk::new(disks::mixed(7, (1 << 20) + 70_001));
    for cluster_bytes in cluster_sizes() {
        for &compression in CODECS {
            disk.prove_both_layouts(How { cluster_bytes, compression, ..USUAL });
        }
    }
}

#[test]
fn version_2_at_every_cluster_size() {
    let disk = Disk::new(disks::mixed(8, 700_001));
    for cluster_bytes in cluster_sizes() {
        for compression in [Compression::None, Compression::Deflate(1), Compression::DeflateSmallWindow(1)] {
            disk.prove_both_layouts(How { cluster_bytes, compression, compat: Compat::V0_10, ..USUAL });
        }
    }
}

#[test]
fn disks_of_one_kind() {
    for bytes in [vec![0; 3 << 20], vec![1; 3 << 20], disks::noise(3, (3 << 20) + 1)] {
        let disk = Disk::new(bytes);
        for cluster_bytes in [512, 65536, 2 << 20] {
            disk.prove_both_layouts(How { cluster_bytes, ..USUAL });
        }
    }
}

/// One layout each for the two kinds of sinks: threads, chunks and the whereabouts of the spool
/// never show.
#[test]
fn the_same_bytes_whatever_the_road() {
    // Enough noise that a spool of 2 MiB overflows, and enough else that packing matters.
    let mut bytes = disks::mixed(11, 9 << 20);
    bytes.extend(disks::noise(12, (6 << 20) + 3));
    let disk = Disk::new(bytes);
    let dir = disk.dir.path();
    for (cluster_bytes, compression) in [
        (512, Compression::Deflate(1)),
        (4096, Compression::DeflateSmallWindow(1)),
        (65536, Compression::Deflate(1)),
        (65536, Compression::Zstd(1)),
        (65536, Compression::None),
        (2 << 20, Compression::Deflate(1)),
    ] {
        let how = How { cluster_bytes, compression, threads: 1, ..USUAL };
        let (expected, receipt) = to_stream(disk.source(), how, dir).unwrap();
        assert_eq!(receipt.route, Some(RouteTaken::Spool));
        let digest = receipt.guest_digest;
        assert_eq!(digest, Some(blksum(&disk.bytes)));
        // A block holds a whole cluster, so for the largest ones it is larger than 1 MiB.
        let small = if cluster_bytes > 1 << 20 { 6 } else { 2 };
        for threads in [1, 2, 8] {
            let how = How { threads, ..how };
            let on_disk = How { spool_blocks: Some(small), spool_disk_bytes: 64 << 20, ..how };
            let partly = How { spool_blocks: Some(small), spool_disk_bytes: small << 20, ..how };
            let dropped = How { spool_blocks: Some(small), ..how };
            for (road, source, how, route) in [
                ("in memory", disk.source(), how, RouteTaken::Spool),
                ("on disk", disk.source(), on_disk, RouteTaken::Spool),
                ("partly let go", disk.source(), partly, RouteTaken::Reread),
                ("parts read again", disk.source(), dropped, RouteTaken::Reread),
                ("read again from the start", disk.source_from_start(), dropped, RouteTaken::Reread),
                ("odd stream", odd_stream(threads as u64, &disk.bytes), how, RouteTaken::Spool),
                ("odd stream on disk", odd_stream(99, &disk.bytes), on_disk, RouteTaken::Spool),
            ] {
                let (bytes, receipt) = to_stream(source, how, dir).unwrap();
                assert_eq!(receipt.route, Some(route), "{road}, {how:?}");
                assert_eq!(receipt.guest_digest.as_ref(), digest.as_ref(), "{road}, {how:?}");
                assert!(bytes == expected, "{road}: other bytes with {how:?}");
            }
        }
        head_last_is_one_layout(&disk, how);
    }
}

fn head_last_is_one_layout(disk: &Disk, how: How) {
    let target = disk.dir.path().join("image.qcow2");
    let mut expected = None;
    for threads in [1, 2, 8] {
        for source in [disk.source(), odd_stream(threads as u64, &disk.bytes)] {
            to_file(source, &target, How { threads, ..how });
            let bytes = std::fs::read(&target).unwrap();
            let expected = expected.get_or_insert_with(|| bytes.clone());
            assert!(bytes == *expected, "direct: other bytes with {threads} threads, {how:?}");
        }
    }
}

#[test]
fn a_stream_that_overflows_its_spool_stops_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let how = How { spool_blocks: Some(2), ..USUAL };
    let error = to_stream(odd_stream(1, &disks::noise(1, 6 << 20)), how, dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Local);
    assert!(error.to_string().contains("--spool-disk"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_comes_back(
        seed in any::<u64>(),
        len in prop_oneof![0usize..5000, 0usize..3_000_000],
        bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS,
        codec in 0..CODECS.len() - 2,
        old in any::<bool>(),
        threads in 1usize..4,
        streamed in any::<bool>(),
    ) {
        let disk = Disk::new(disks::mixed(seed, len));
        let compat = if old { Compat::V0_10 } else { Compat::V1_1 };
        let how = How { cluster_bytes: 1 << bits, compat, compression: CODECS[codec], threads, ..USUAL };
        let image = disk.dir.path().join("image.qcow2");
        if streamed {
            let source = odd_stream(seed, &disk.bytes);
            let (bytes, receipt) = to_stream(source, how, disk.dir.path()).unwrap();
            std::fs::write(&image, bytes).unwrap();
            prop_assert_eq!(receipt.guest_digest, Some(blksum(&disk.bytes)));
        } else {
            let receipt = to_file(disk.source(), &image, how);
            prop_assert_eq!(receipt.guest_digest, Some(blksum(&disk.bytes)));
        }
        oracles::imago_agrees(&disk.bytes, &image, &format!("{len} bytes, seed {seed}, {how:?}"));
    }
}
