//! The disk that is converted: a generated one, kept as a sparse file that has no name.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::Options;
use crate::convert::{Cancel, machine_facts};
use crate::embedded::{ImageData, Shape, VmImage};
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::CHUNK_BYTES;
use crate::scan::zero::is_zero;
use crate::source::FileSource;
use crate::units::{ClusterSize, Human};

/// Size of a cluster in all measurements: the default of the format.
pub(super) const CLUSTER_SIZE: ClusterSize = ClusterSize::DEFAULT;
/// The unit in which the file is filled, in bytes.
const PAGE_BYTES: usize = 4096;
/// Most of the data that is kept in memory while stages are timed, in bytes.
pub(super) const SAMPLE_BYTES_MAX: u64 = 256 << 20;
/// Memory of everything else, in bytes: `--memory` of the routes and some more.
const MEMORY_BYTES: u64 = 512 << 20;
/// Room for tables and small things in the folder, in bytes.
const SLACK_BYTES: u64 = 32 << 20;

/// What the disk turned out to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Virtual size in bytes.
    pub size_bytes: u64,
    /// Bytes of pages that are not zero.
    pub data_bytes: u64,
    /// Clusters of 64 KiB that are not zero, in bytes: what is encoded.
    pub data_cluster_bytes: u64,
    /// Bytes of pages that do not get smaller.
    pub incompressible_bytes: u64,
    /// Extents of data, with zeros between them.
    pub extents: u64,
    /// Their mean length in bytes.
    pub mean_extent_bytes: u64,
}

impl Contents {
    /// Counts a disk's extents; the boot sector is one cluster more, and no extent.
    fn of(image: &VmImage) -> Self {
        let mut contents = Self { size_bytes: image.len(), ..Self::default() };
        let (mut end, mut clusters, mut next_cluster) = (None, 0, 0);
        let mut touch = |first: u64, behind: u64| {
            let first = first.max(next_cluster);
            clusters += behind.saturating_sub(first);
            next_cluster = next_cluster.max(behind);
        };
        touch(0, 1);
        image.for_each_extent(|range, does_not_compress| {
            let len = range.end - range.start;
            contents.data_bytes += len;
            contents.incompressible_bytes += if does_not_compress { len } else { 0 };
            contents.extents += u64::from(end != Some(range.start));
            end = Some(range.end);
            touch(range.start >> CLUSTER_SIZE.bits(), CLUSTER_SIZE.clusters_for(range.end));
        });
        contents.data_cluster_bytes = clusters * CLUSTER_SIZE.bytes();
        contents.mean_extent_bytes = contents.data_bytes / contents.extents.max(1);
        contents
    }
}

/// The disk, and the folder in which files are written.
pub(super) struct Workload {
    pub(super) image: Arc<VmImage>,
    pub(super) contents: Contents,
    pub(super) source: Arc<FileSource>,
    /// Whether the folder lies in memory, where nothing is durable.
    pub(super) is_memory: bool,
    pub(super) dir_shown: String,
    file: Arc<File>,
    dir: TempDir,
}

impl Workload {
    /// Generates and stores the disk.
    pub(super) fn make(options: &Options, cancel: &Cancel) -> Result<Self> {
        let shape = Shape {
            data_fraction: options.data_fraction,
            noise_fraction: options.incompressible_fraction,
            mean_extent_bytes: options.run_length_bytes,
        };
        let image = Arc::new(VmImage::shaped(options.seed, options.size_bytes, shape));
        let contents = Contents::of(&image);
        let parent = choose_dir(options.dir.as_deref(), &contents)?;
        let dir = tempfile::Builder::new().prefix("snapcow-bench-").tempdir_in(&parent);
        let dir = dir.map_err(|error| failed(format!("make a folder in `{}`", parent.display()), error))?;
        let path = dir.path().join("disk.raw");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|error| failed(format!("create `{}`", path.display()), error))?;
        std::fs::remove_file(&path)
            .map_err(|error| failed(format!("take the name of `{}` away", path.display()), error))?;
        fill(&file, &image, cancel).map_err(|error| {
            failed(format!("store {} of data in `{}`", Human(contents.data_bytes), parent.display()), error)
                .advise("free some space, or give a smaller --size, or another --dir")
        })?;
        cancel.check(Stage::Plan)?;
        let nameless = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let source = Arc::new(FileSource::open(&nameless, false)?);
        let is_memory = machine_facts(dir.path()).spool_is_memory;
        let dir_shown = parent.display().to_string();
        Ok(Self { image, contents, source, is_memory, dir_shown, file: Arc::new(file), dir })
    }

    /// The folder, which is gone when this is dropped.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The disk as an image that a service can serve: its bytes from the file, its holes by the
    /// generator's word.
    pub(super) fn data(&self) -> Arc<dyn ImageData> {
        Arc::new(Stored { file: Arc::clone(&self.file), image: Arc::clone(&self.image) })
    }

    /// Reads at an offset, with zeros behind the end.
    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let there = self.contents.size_bytes.saturating_sub(offset).min(bytes.len() as u64) as usize;
        bytes[there..].fill(0);
        self.file
            .read_exact_at(&mut bytes[..there], offset)
            .map_err(|error| failed(format!("read the made disk at offset {offset}"), error))
    }

    /// Clusters that hold data, one behind the other, evenly taken from the whole disk: at most about
    /// so many bytes of them.
    pub(super) fn sample(&self, bytes_max: u64, cancel: &Cancel) -> Result<Vec<u8>> {
        let cs = CLUSTER_SIZE;
        let share = (bytes_max as f64 / self.contents.data_cluster_bytes.max(1) as f64).min(1.0);
        let mut sample = Vec::with_capacity(self.contents.data_cluster_bytes.min(bytes_max) as usize);
        let mut due = 1.0;
        for cluster in 0..cs.clusters_for(self.contents.size_bytes) {
            let offset = cluster << cs.bits();
            if self.image.is_hole(offset, cs.bytes().min(self.contents.size_bytes - offset)) {
                continue;
            }
            due += share;
            if due < 1.0 {
                continue;
            }
            due -= 1.0;
            let at = sample.len();
            sample.resize(at + cs.size(), 0);
            self.read_at(offset, &mut sample[at..])?;
            cancel.check(Stage::Plan)?;
        }
        Ok(sample)
    }
}

/// The stored disk in the service's eyes.
struct Stored {
    file: Arc<File>,
    image: Arc<VmImage>,
}

impl ImageData for Stored {
    fn len(&self) -> u64 {
        self.image.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        self.file.read_exact_at(buf, offset).expect("a file that nobody else knows keeps its bytes");
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        self.image.is_hole(offset, len)
    }
}

/// Writes the pages that are not zero, on all cores.
fn fill(file: &File, image: &VmImage, cancel: &Cancel) -> std::io::Result<()> {
    file.set_len(image.len())?;
    let next = AtomicU64::new(0);
    let work = || -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let offset = next.fetch_add(CHUNK_BYTES as u64, Ordering::Relaxed);
            if offset >= image.len() || cancel.signal().is_some() {
                return Ok(());
            }
            let len = (image.len() - offset).min(CHUNK_BYTES as u64);
            if image.is_hole(offset, len) {
                continue;
            }
            let bytes = &mut buffer[..len as usize];
            image.read_at(offset, bytes);
            for (index, page) in bytes.chunks(PAGE_BYTES).enumerate() {
                if !is_zero(page) {
                    file.write_all_at(page, offset + (index * PAGE_BYTES) as u64)?;
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("filling a file does not panic"))
    })
}

/// The folder asked for, or the first usual one with room; both must have room.
fn choose_dir(wanted: Option<&Path>, contents: &Contents) -> Result<PathBuf> {
    if let Some(dir) = wanted {
        return check_room(dir, contents).map(|()| dir.to_owned());
    }
    let temporary = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let usual = [Some("/dev/shm".into()), temporary, Some("/var/tmp".into())];
    let mut last = None;
    for dir in usual.into_iter().flatten().filter(|dir| dir.is_dir()) {
        match check_room(&dir, contents) {
            Ok(()) => return Ok(dir),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::new(Stage::Plan, Kind::Local, "there is no folder for files here").advise("give --dir")
    }))
}

/// The disk and one image of it, not compressed, must fit; as must memory, which holds what is
/// uploaded too.
fn check_room(dir: &Path, contents: &Contents) -> Result<()> {
    if !dir.is_dir() {
        let what = format!("`{}` is no folder", dir.display());
        return Err(Error::new(Stage::Plan, Kind::Local, what).advise("give --dir a folder that is there"));
    }
    let facts = machine_facts(dir);
    let files = 2 * contents.data_cluster_bytes + SLACK_BYTES;
    let advice = "give a smaller --size or --density, or another --dir";
    if let Some(free) = facts.spool_free_bytes.filter(|&free| free < files) {
        let what = format!("`{}` has {} left, and {} are needed", dir.display(), Human(free), Human(files));
        return Err(Error::new(Stage::Plan, Kind::Local, what).advise(advice));
    }
    let in_memory = if facts.spool_is_memory { files } else { 0 };
    let memory = in_memory + 2 * contents.data_cluster_bytes + MEMORY_BYTES;
    if facts.memory_bytes < memory {
        let what =
            format!("{} of memory are left, and {} are needed", Human(facts.memory_bytes), Human(memory));
        return Err(Error::new(Stage::Plan, Kind::Local, what).advise(advice));
    }
    Ok(())
}

fn failed(what: String, error: std::io::Error) -> Error {
    Error::new(Stage::Plan, Kind::Local, what).because(error)
}
