//! A file in the making that outlives the run which makes it, so that the next run goes on where that one ended.
//!
//! While `FILE` is being made its bytes are in `FILE.snapcow-part`, in order from byte 0 on, so that the length of
//! that file says how far it came; `FILE.snapcow-part.txt` says what they are bytes of. Whoever goes on compares the
//! latter with what he is about to fetch, and proves the bytes that are there as he proves those that come.
//! `FILE` itself appears when all of it is on disk. Runs of zeros become holes.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::growing::{Growing, local};
use crate::error::{Error, Kind, Result, Stage};

/// What the name of a file in the making ends with.
const SUFFIX: &str = ".snapcow-part";
/// What the name of the file that describes it ends with.
const ABOUT_SUFFIX: &str = ".snapcow-part.txt";
/// A description is shorter, in bytes.
const ABOUT_MAX: usize = 4096;

/// See the module's text. Dropping it keeps the files.
#[derive(Debug)]
pub struct Part {
    target: PathBuf,
    about: PathBuf,
    growing: Growing,
}

impl Part {
    /// Takes up what an earlier run left for `target`, or begins anew. `of` tells what the bytes are of: lines of
    /// text, the same for the same bytes alone. Where `fresh` is set, whatever there is goes first.
    ///
    /// # Errors
    /// [`Kind::Target`] if another run is at it, or if what is there is of something else; [`Kind::Local`] if the
    /// folder does not take files.
    pub fn open(target: &Path, of: &str, fresh: bool) -> Result<Self> {
        let (path, about) = (Self::path_for(target), beside(target, ABOUT_SUFFIX));
        let file = open_part(&path)?;
        let len =
            file.metadata().map_err(|error| local(format!("look at `{}`", path.display()), error))?.len();
        let growing = Growing { file: Arc::new(file), path, len };
        let mut part = Self { target: target.to_owned(), about, growing };
        if fresh {
            part.cut(0)?;
        }
        match part.is_empty() {
            true => describe(&part.about, of)?,
            false => part.compare(of)?,
        }
        Ok(part)
    }

    /// Where the bytes of `target` are until it is finished.
    pub fn path_for(target: &Path) -> PathBuf {
        beside(target, SUFFIX)
    }

    /// Bytes that are there.
    pub fn len(&self) -> u64 {
        self.growing.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.growing.len == 0
    }

    /// Where the bytes are until the file is finished.
    pub fn path(&self) -> &Path {
        &self.growing.path
    }

    /// The file, for whoever reads what is there.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.growing.file)
    }

    /// Forgets the bytes from `len` on.
    ///
    /// # Errors
    /// [`Kind::Local`].
    pub fn cut(&mut self, len: u64) -> Result<()> {
        self.growing.cut(len)
    }

    /// Takes bytes at the offset where the last ones ended.
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

    /// Waits until all is on disk and gives the file its last name.
    ///
    /// # Errors
    /// [`Kind::Local`] if the disk fails, [`Kind::Target`] if a file of that name has come into being meanwhile and
    /// `replace` is not set. Then the files are kept.
    pub fn commit(self, replace: bool) -> Result<()> {
        self.growing.settle()?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(CWD, &self.growing.path, CWD, &self.target, flags).map_err(|error| {
            let kind = if error == Errno::EXIST { Kind::Target } else { Kind::Local };
            let what = format!("give the finished file its name `{}`", self.target.display());
            Error::new(Stage::Sink, kind, what).because(std::io::Error::from(error))
        })?;
        remove(&self.about);
        Ok(())
    }

    /// Removes what there is.
    pub fn discard(self) {
        remove(&self.growing.path);
        remove(&self.about);
    }

    fn compare(&self, of: &str) -> Result<()> {
        let there = std::fs::read(&self.about).unwrap_or_default();
        if there == of.as_bytes() {
            return Ok(());
        }
        let refuse = |what: String| {
            Err(Error::new(Stage::Sink, Kind::Target, what)
                .advise("choose another name, or give --no-resume to drop that one"))
        };
        let path = self.growing.path.display();
        match std::str::from_utf8(&there) {
            Ok(text) if !text.is_empty() && text.len() < ABOUT_MAX => {
                let words = text.lines().skip(1).collect::<Vec<_>>().join(", ");
                refuse(format!("`{path}` is a part of something else: {words}"))
            }
            _ => refuse(format!("`{path}` is there, and nothing tells what it is a part of")),
        }
    }
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens or makes the file and locks it; the lock ends with the process.
fn open_part(path: &Path) -> Result<File> {
    let shown = path.display();
    // Not through a link that somebody else may have put there.
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(|error| local(format!("create `{shown}`"), error))?;
    let busy = || {
        Error::new(Stage::Sink, Kind::Target, format!("`{shown}` is being written by another run"))
            .advise("wait for that one, or choose another name")
    };
    // Where files cannot be locked, nobody can tell.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(busy());
    }
    let own = file.metadata().map_err(|error| local(format!("look at `{shown}`"), error))?;
    if !own.is_file() {
        return Err(Error::new(Stage::Sink, Kind::Target, format!("`{shown}` is not a regular file")));
    }
    // Whoever had the lock may have finished the file in that moment, and what is open here has another name now.
    match std::fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => Ok(file),
        _ => Err(busy()),
    }
}

/// Writes what a file is a part of, whole or not at all.
fn describe(path: &Path, of: &str) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
        let what = format!("`{}` is not a regular file", path.display());
        return Err(Error::new(Stage::Sink, Kind::Target, what).advise("remove it, or choose another name"));
    }
    super::write_whole(path, of.as_bytes())
        .map_err(|error| local(format!("write `{}`", path.display()), error))
}

/// What cannot be removed is named by the next run.
fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!("remove `{}`: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_next_run_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.raw");
        let mut part = Part::open(&target, "part\nof a", false).unwrap();
        part.put(&[7; 5000]).unwrap();
        part.put_zeros(5_000_000).unwrap();
        drop(part);
        assert_eq!(names(folder.path()), ["a.raw.snapcow-part", "a.raw.snapcow-part.txt"]);
        let mut part = Part::open(&target, "part\nof a", false).unwrap();
        assert_eq!(part.len(), 5_005_000);
        part.put(&[8; 3]).unwrap();
        part.commit(false).unwrap();
        assert_eq!(names(folder.path()), ["a.raw"]);
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!(bytes.len(), 5_005_003);
        assert!(bytes[..5000].iter().all(|&byte| byte == 7) && bytes.ends_with(&[0, 8, 8, 8]));
        assert!(target.metadata().unwrap().blocks() * 512 < 100_000, "the zeros take no room");
    }

    #[test]
    fn what_is_of_something_else_is_only_dropped_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.raw");
        Part::open(&target, "part\nof a", false).unwrap().put(b"a").unwrap();
        let error = Part::open(&target, "part\nof b", false).unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        assert!(error.to_string().contains("of a") && error.to_string().contains("--no-resume"), "{error}");
        std::fs::remove_file(folder.path().join("a.raw.snapcow-part.txt")).unwrap();
        let error = Part::open(&target, "part\nof a", false).unwrap_err();
        assert!(error.to_string().contains("nothing tells"), "{error}");
        assert!(Part::open(&target, "part\nof b", true).unwrap().is_empty());
        Part::open(&target, "part\nof b", false).unwrap().discard();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn two_runs_do_not_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.raw");
        let part = Part::open(&target, "part\nof a", false).unwrap();
        let error = Part::open(&target, "part\nof a", true).unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        assert!(error.to_string().contains("another run"), "{error}");
        drop(part);
        Part::open(&target, "part\nof a", false).unwrap();
    }

    #[test]
    fn no_link_is_followed_and_no_file_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let (target, theirs) = (folder.path().join("a.raw"), folder.path().join("theirs"));
        std::fs::write(&theirs, b"theirs").unwrap();
        std::os::unix::fs::symlink(&theirs, folder.path().join("a.raw.snapcow-part")).unwrap();
        assert_eq!(Part::open(&target, "part\nof a", true).unwrap_err().kind(), Kind::Local);
        assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
        std::fs::remove_file(folder.path().join("a.raw.snapcow-part")).unwrap();
        let mut part = Part::open(&target, "part\nof a", false).unwrap();
        part.put(b"new").unwrap();
        std::fs::write(&target, b"old").unwrap();
        assert_eq!(part.commit(false).unwrap_err().kind(), Kind::Target);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        Part::open(&target, "part\nof a", false).unwrap().commit(true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }
}
