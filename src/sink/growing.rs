//! A file that is written from its beginning on and whose runs of zeros are holes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::name::{link, open_hidden, open_up, rename};
use crate::error::{Error, Kind, Result, Stage};

/// The file, whatever its name is.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) file: Arc<File>,
    /// For messages.
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

impl Growing {
    pub(super) fn cut(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.failed(len, error))?;
        self.len = len;
        Ok(())
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.len).map_err(|error| self.failed(self.len, error))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn failed(&self, offset: u64, cause: std::io::Error) -> Error {
        let errno = Errno::from_io_error(&cause);
        let failed = local(format!("write `{}` at offset {offset}", self.path.display()), cause);
        match errno {
            Some(Errno::NOSPC | Errno::DQUOT) => failed.advise("free some space, or write to another disk"),
            Some(Errno::FBIG) => {
                failed.advise("raise the limit (`ulimit -f`), or write to a file system for larger files")
            }
            _ => failed,
        }
    }

    /// Waits until all is on disk and gives it the mode of any other file.
    pub(super) fn settle(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed(self.len, error))?;
        open_up(&self.file)
            .map_err(|error| local(format!("set the mode of `{}`", self.path.display()), error))
    }
}

/// A raw disk in the making: a file that appears whole or not at all, with holes where its zeros are.
#[derive(Debug)]
pub struct SparseFile {
    growing: Growing,
    target: PathBuf,
    replace: bool,
    /// The name that it has while it is written, if it needs one.
    temporary: Option<PathBuf>,
}

impl SparseFile {
    /// Begins a file. Nothing is visible under its name until [`Self::commit`].
    ///
    /// # Errors
    /// As [`super::FileSink::create`].
    pub fn create(target: &Path, replace: bool) -> Result<Self> {
        super::FileSink::check(target, replace)?;
        let folder = folder_of(target);
        let (file, temporary) = open_hidden(folder, target).map_err(|error| {
            local(format!("create a file in `{}` for `{}`", folder.display(), target.display()), error)
        })?;
        let growing = Growing { file: Arc::new(file), path: target.to_owned(), len: 0 };
        Ok(Self { growing, target: target.to_owned(), replace, temporary })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Kind::Local`] if the disk is full or fails.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.growing.put(bytes)
    }

    /// Takes so many zeros, which take no room.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_zeros(&mut self, count: u64) -> Result<()> {
        self.growing.cut(self.growing.len + count)
    }

    /// Waits until all is on disk and gives it its name.
    ///
    /// # Errors
    /// As [`super::FileSink::commit`]. Nothing stays behind.
    pub fn commit(mut self) -> Result<()> {
        self.growing.settle()?;
        match &self.temporary {
            None => link(&self.growing.file, &self.target, self.replace)?,
            Some(temporary) => rename(temporary, &self.target, self.replace)?,
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for SparseFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn local(what: String, error: std::io::Error) -> Error {
    Error::new(Stage::Sink, Kind::Local, what).because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_sparse_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.raw");
        let mut file = SparseFile::create(&target, false).unwrap();
        file.put(b"data").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = SparseFile::create(&target, false).unwrap();
        file.put(b"data").unwrap();
        file.put_zeros(10 << 20).unwrap();
        file.put(b"end").unwrap();
        assert!(!target.exists());
        file.commit().unwrap();
        let meta = target.metadata().unwrap();
        assert_eq!(meta.len(), (10 << 20) + 7);
        assert!(meta.blocks() * 512 < 100_000, "the zeros take no room");
        assert_eq!(SparseFile::create(&target, false).unwrap_err().kind(), Kind::Target);
        SparseFile::create(&target, true).unwrap().commit().unwrap();
        assert_eq!(target.metadata().unwrap().len(), 0);
    }
}
