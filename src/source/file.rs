//! Regular files and block devices. Holes are found with SEEK_DATA and SEEK_HOLE and never read.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;

use super::{Outlet, PROBE_BYTES, Source, Wanted, image_format, locks};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SourceFacts};
use crate::flow::{CHUNK_BYTES, ReadAt};
use crate::units::ClusterIndex;

/// A file or block device that holds a raw disk.
#[derive(Debug)]
pub struct FileSource {
    opened: Arc<Opened>,
    facts: SourceFacts,
    len: u64,
    /// Size, modification and change time when it was opened; a block device has none.
    state: Option<State>,
}

/// What the threads that read share.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
}

impl ReadAt for Opened {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(bytes, offset).map_err(|error| {
            let what = format!("read {} bytes at offset {offset} of `{}`", bytes.len(), self.path.display());
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::new(
                    Stage::Source,
                    Kind::SourceChanged,
                    format!("{what}: it became shorter while it was read"),
                )
            } else {
                Error::new(Stage::Source, Kind::Source, what).because(error)
            }
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl FileSource {
    /// Opens a source.
    ///
    /// # Errors
    /// [`Kind::Source`] if it is not there, is neither a file nor a block device, is in use by a
    /// running QEMU, or, unless `raw_by_order`, begins like an image format.
    pub fn open(path: &Path, raw_by_order: bool) -> Result<Self> {
        let refuse = |what: String| Error::new(Stage::Source, Kind::Source, what);
        let shown = path.display();
        let file = File::open(path).map_err(|error| cannot_open(path, error))?;
        let meta = file.metadata().map_err(|error| refuse(format!("look at `{shown}`")).because(error))?;
        let is_device = meta.file_type().is_block_device();
        if !is_device && !meta.is_file() {
            return Err(refuse(format!("`{shown}` is neither a regular file nor a block device"))
                .advise("for a pipe, write - and feed it to standard input"));
        }
        if locks::is_in_use(&file) {
            return Err(refuse(format!(
                "`{shown}` is in use by a running QEMU, so its bytes are still changing"
            ))
            .advise("stop the virtual machine, or take a snapshot and convert that"));
        }
        let len = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|error| refuse(format!("find the size of `{shown}`")).because(error))?;
        let state = if is_device { None } else { State::of(&file).ok() };
        let facts =
            SourceFacts { name: shown.to_string(), len: Some(len), access: Access::Random, is_remote: false };
        let source = Self { opened: Arc::new(Opened { path: path.to_owned(), file }), facts, len, state };
        if !raw_by_order {
            source.refuse_image_formats()?;
        }
        Ok(source)
    }

    /// Device and inode of the file, or the number of the device itself: equal for the same thing by
    /// another name.
    ///
    /// # Errors
    /// What `stat` says.
    pub fn identity(&self) -> std::io::Result<(u64, u64)> {
        let meta = self.opened.file.metadata()?;
        Ok((meta.dev(), meta.ino()))
    }

    fn refuse_image_formats(&self) -> Result<()> {
        let mut head = [0; PROBE_BYTES];
        let take = usize::try_from(self.len).unwrap_or(usize::MAX).min(PROBE_BYTES);
        self.opened.read_at(&mut head[..take], 0)?;
        match image_format(&head[..take]) {
            None => Ok(()),
            Some(format) => Err(not_raw(&self.facts.name, format)),
        }
    }

    /// The bytes of the file, for whoever reads it in an order of his own.
    pub fn bytes(&self) -> Arc<dyn ReadAt> {
        self.opened.clone()
    }

    /// The next run of bytes that may hold data, at or behind `from`. Where the file system cannot
    /// tell, that is all the rest.
    ///
    /// # Errors
    /// [`Kind::Source`] if the file cannot be asked.
    pub fn next_data(&self, from: u64) -> Result<Option<Range<u64>>> {
        match rustix::fs::seek(&self.opened.file, SeekFrom::Data(from)) {
            Ok(start) => {
                let end = rustix::fs::seek(&self.opened.file, SeekFrom::Hole(start)).unwrap_or(self.len);
                Ok(Some(start..end.min(self.len)))
            }
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < self.len).then_some(from..self.len)),
            Err(error) => {
                let what = format!("find data behind offset {from} of `{}`", self.facts.name);
                Err(Error::new(Stage::Source, Kind::Source, what).because(error))
            }
        }
    }

    /// Reads a byte range that begins on a cluster.
    fn read_range(&self, range: Range<u64>, outlet: &mut Outlet) -> Result<()> {
        let cs = outlet.cluster_size();
        let mut offset = range.start;
        while offset < range.end {
            let take = (range.end - offset).min(CHUNK_BYTES as u64) as usize;
            // Several threads read pieces of it; only here is it known what comes next. Whether the
            // kernel takes the hint makes no difference to what is read.
            let ahead = NonZeroU64::new(take as u64);
            let _ = rustix::fs::fadvise(&self.opened.file, offset, ahead, Advice::WillNeed);
            outlet.unread(ClusterIndex(offset >> cs.bits()), self.opened.clone(), take)?;
            outlet.count_read(take as u64);
            offset += take as u64;
        }
        Ok(())
    }

    fn read_all(&self, outlet: &mut Outlet) -> Result<()> {
        let cs = outlet.cluster_size();
        let total = cs.clusters_for(self.len);
        let mut next = 0;
        while let Some(data) = self.next_data(next << cs.bits())? {
            let first = (data.start >> cs.bits()).max(next);
            let end = cs.clusters_for(data.end).min(total);
            if first >= end {
                break;
            }
            outlet.hole(ClusterIndex(next), first - next)?;
            self.read_range(first << cs.bits()..(end << cs.bits()).min(self.len), outlet)?;
            next = end;
        }
        Ok(outlet.hole(ClusterIndex(next), total - next)?)
    }
}

impl Source for FileSource {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        match wanted {
            Wanted::All => self.read_all(outlet)?,
            Wanted::Runs(runs) => {
                let bits = outlet.cluster_size().bits();
                for run in runs.iter() {
                    self.read_range(run.start << bits..(run.end << bits).min(self.len), outlet)?;
                }
            }
        }
        Ok(self.len)
    }

    fn file(&self) -> Option<&File> {
        self.state.as_ref().map(|_| &self.opened.file)
    }

    fn data_behind(&self, from: u64) -> Result<Option<Range<u64>>> {
        self.next_data(from)
    }

    fn settle(&self) -> Result<()> {
        let Some(before) = &self.state else { return Ok(()) };
        if State::of(&self.opened.file).is_ok_and(|now| now == *before) {
            return Ok(());
        }
        let what = format!("`{}` changed while it was read (size, or time of modification)", self.facts.name);
        Err(Error::new(Stage::Source, Kind::SourceChanged, what)
            .advise("stop whoever writes to it and run this again"))
    }
}

fn cannot_open(path: &Path, error: std::io::Error) -> Error {
    let shown = path.display();
    let wrapped = Error::new(Stage::Source, Kind::Source, format!("open `{shown}`"));
    if error.kind() == std::io::ErrorKind::NotFound {
        if path.components().count() == 1 {
            return wrapped
                .because(std::io::Error::other("no such file"))
                .advise(format!("for an image write glance:{shown}"));
        }
        return wrapped.because(std::io::Error::other("no such file"));
    }
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return wrapped.because(error).advise("ask for read permission on it");
    }
    wrapped.because(error)
}

/// The refusal of something that is an image already.
pub(super) fn not_raw(name: &str, format: &str) -> Error {
    Error::new(
        Stage::Source,
        Kind::Source,
        format!("`{name}` is not a raw disk: it begins like a {format} image"),
    )
    .advise("convert it with qemu-img, or give --source-format raw if its guest really sees these bytes")
}
