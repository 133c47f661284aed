//! A conversion with the command's own defaults, for callers that change one or two of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Cancel, Counters, Job, Proof, Receipt, Target, convert, machine_facts};
use crate::encode::{Compression, Family, Level};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{SinkFacts, SinkOrder};
use crate::hash::Digest;
use crate::place::Geometry;
use crate::plan::{Facts, Plan, SpoolDisk, Wishes};
use crate::qcow2::Compat;
use crate::sink::{Delivery, FileSink};
use crate::source::Source;
use crate::units::ClusterSize;

/// What the command takes for everything but code and image map, in bytes.
const MEMORY_BYTES: u64 = 256 << 20;

/// A disk that is about to be converted: zlib at its default level, clusters of 64 KiB, qcow2 version 3, 256 MiB of
/// memory, a spool in `$TMPDIR` or `/var/tmp`, all proofs.
#[must_use = "nothing happens before to_file or deliver"]
pub struct Conversion {
    job: Job,
    wishes: Wishes,
}

impl Conversion {
    /// Of this disk.
    pub fn of(source: impl Source + 'static) -> Self {
        let cluster_size = ClusterSize::DEFAULT;
        // Every family has every named level.
        let compression = Family::Deflate.at(Level::Default).unwrap_or(Compression::Deflate(1));
        let compat = Compat::V1_1;
        let geometry = Geometry { compat, compression: compression.header_type(), cluster_size };
        let spool_dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).unwrap_or("/var/tmp".into());
        Self {
            job: Job {
                source: Arc::new(source),
                source_digest: Err("nobody has told its hash".into()),
                proof: Proof::default(),
                free: None,
                geometry,
                compression,
                spool_dir: spool_dir.into(),
                counters: Arc::default(),
                cancel: Cancel::new(),
            },
            wishes: Wishes {
                cluster_size,
                threads: None,
                connections: None,
                memory_bytes: MEMORY_BYTES,
                spool_disk: SpoolDisk::Auto,
            },
        }
    }

    /// Compares the disk with a hash that is known of it, or tells why there is none.
    pub fn compare_with(mut self, digest: Result<Digest, String>) -> Self {
        self.job.source_digest = digest;
        self
    }

    /// How clusters are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.job.compression = compression;
        self.job.geometry.compression = compression.header_type();
        self
    }

    /// The size of a cluster.
    pub fn cluster_size(mut self, size: ClusterSize) -> Self {
        self.job.geometry.cluster_size = size;
        self.wishes.cluster_size = size;
        self
    }

    /// The version of the format.
    pub fn compat(mut self, compat: Compat) -> Self {
        self.job.geometry.compat = compat;
        self
    }

    /// Encoder threads; one a core otherwise.
    pub fn threads(mut self, threads: usize) -> Self {
        self.wishes.threads = Some(threads);
        self
    }

    /// Memory for everything but code and image map, in bytes.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.wishes.memory_bytes = bytes;
        self
    }

    /// Where encoded clusters wait that memory does not hold, and how much of it they may take.
    pub fn spool(mut self, dir: impl Into<PathBuf>, disk: SpoolDisk) -> Self {
        self.job.spool_dir = dir.into();
        self.wishes.spool_disk = disk;
        self
    }

    /// Which proofs are made.
    pub fn proof(mut self, proof: Proof) -> Self {
        self.job.proof = proof;
        self
    }

    /// Figures that grow while it runs.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.job.counters)
    }

    /// The switch that ends it from another thread.
    pub fn cancel(&self) -> Cancel {
        self.job.cancel.clone()
    }

    /// Converts into a file that appears whole; one that exists is not replaced.
    ///
    /// # Errors
    /// As [`Plan::new`], [`FileSink::create`] and [`convert`].
    pub fn to_file(self, path: impl AsRef<Path>) -> Result<Receipt> {
        let path = path.as_ref();
        let facts = SinkFacts { name: path.display().to_string(), order: SinkOrder::Random };
        let (plan, job) = self.planned(facts)?;
        convert(&plan, &job, Target::File(Box::new(FileSink::create(path, false)?)))
    }

    /// Converts into something that takes the image in order.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`convert`].
    pub fn deliver(self, delivery: impl Delivery + 'static) -> Result<Receipt> {
        let (plan, job) = self.planned(delivery.facts().clone())?;
        convert(&plan, &job, Target::Delivery(Box::new(delivery)))
    }

    pub(super) fn planned(self, sink: SinkFacts) -> Result<(Plan, Job)> {
        let geometry = self.job.geometry;
        if geometry.compat == Compat::V0_10 && matches!(self.job.compression, Compression::Zstd(_)) {
            let what = "qcow2 version 2 cannot hold zstd clusters";
            return Err(Error::new(Stage::Plan, Kind::Usage, what));
        }
        let plan = Plan::new(Facts {
            source: self.job.source.facts().clone(),
            sink,
            machine: machine_facts(&self.job.spool_dir),
            wishes: self.wishes,
        })?;
        Ok((plan, self.job))
    }
}

impl std::fmt::Debug for Conversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conversion({}, {:?})", self.job.source.facts().name, self.wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{GuestImage, Input};
    use crate::source::FileSource;

    #[test]
    fn what_is_set_shows_in_the_image_and_what_contradicts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, target) = (folder.path().join("raw"), folder.path().join("a.qcow2"));
        let disk: Vec<u8> = (0..3_000_000u32).map(|at| (at / 5000) as u8).collect();
        std::fs::write(&raw, &disk).unwrap();
        let source = || FileSource::open(&raw, false).unwrap();
        let mut hasher = crate::hash::Hasher::new(crate::hash::Algorithm::Sha256);
        hasher.update(&disk);
        let conversion = Conversion::of(source())
            .compare_with(Ok(hasher.finish()))
            .compression(Compression::Zstd(2))
            .cluster_size(ClusterSize::from_bytes(4096).unwrap())
            .threads(1)
            .memory_bytes(128 << 20)
            .spool(folder.path(), SpoolDisk::Bytes(0))
            .proof(Proof::NONE);
        let counters = conversion.counters();
        let receipt = conversion.to_file(&target).unwrap();
        assert!(matches!(receipt.source_check, crate::convert::SourceCheck::Verified(_)));
        assert_eq!((receipt.source_len, receipt.clusters), (3_000_000, 733));
        assert_eq!((receipt.verified_clusters, receipt.guest_digest), (None, None));
        assert_eq!(Counters::get(&counters.guest_bytes), 3_002_368);
        let image = std::fs::read(&target).unwrap();
        assert_eq!((image[4..8].to_vec(), image[104]), (vec![0, 0, 0, 3], 1), "version 3, zstd");
        let input = Input { len: image.len() as u64, bytes: Arc::new(image), name: "a".into() };
        let guest = GuestImage::open(input).unwrap();
        let mut read = vec![0; disk.len()];
        guest.reader().read(&mut read, 0).unwrap();
        assert!(read == disk);
        let refused = Conversion::of(source()).to_file(&target).unwrap_err();
        assert_eq!(refused.kind(), Kind::Target);
        let contradiction = Conversion::of(source()).compression(Compression::Zstd(2)).compat(Compat::V0_10);
        assert_eq!(contradiction.to_file(folder.path().join("b")).unwrap_err().kind(), Kind::Usage);
        let ended = Conversion::of(source());
        ended.cancel().trigger(15);
        let error = ended.to_file(folder.path().join("b")).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(15));
    }
}
