//! What a run leaves in a file so that the next one can go on: the image map and the length that it leads to,
//! what both runs must have in common, and the ID of the image that is being made.
//!
//! The file is written beside its place (`FILE.new`) and renamed, with mode 0600, and held by a lock while a run uses
//! it: two runs with one file would delete each other's image. It appears with the new image's ID before that image
//! is made, gets the survey when pass 1 has ended, and goes when all is done, or when it holds neither a survey nor
//! an image that may still be there. The format is in `format.rs`.

mod format;

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result, Stage};

use format::MAGIC;
pub use format::{Found, Key, Saved, Survey, read, write};

/// A state file in use.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    key: Key,
    image: Option<String>,
    survey: Option<Survey>,
    has_survey: bool,
    /// Locked; `None` while there is no file yet.
    held: Option<File>,
}

impl Keeper {
    /// Opens what an earlier run left, if it left anything. `len_max` is the source's length in bytes.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is of another build, source, format or target; [`Kind::Local`] if it is damaged,
    /// cannot be read, or is in use.
    pub fn open(path: &Path, key: Key, len_max: u64) -> Result<Self> {
        let mut keeper = Self {
            path: path.to_owned(),
            key,
            image: None,
            survey: None,
            has_survey: false,
            held: locked(path, false)?,
        };
        let Some(file) = &keeper.held else { return Ok(keeper) };
        let saved = read(&mut BufReader::new(file), len_max).map_err(|why| {
            Error::new(Stage::Plan, Kind::Local, format!("the state file `{}` {why}", path.display()))
                .advise("delete it, and the run begins anew")
        })?;
        if let Some(why) = difference(&saved.key, &keeper.key) {
            let what = format!("the state file `{}` does not fit: {why}", path.display());
            return Err(Error::new(Stage::Plan, Kind::Usage, what)
                .advise("give what it was made with, or delete it, and the run begins anew"));
        }
        keeper.image = saved.image;
        keeper.has_survey = saved.survey.is_some();
        keeper.survey = saved.survey;
        Ok(keeper)
    }

    /// The ID of the image that a run made or was about to make, unless it is known to be gone.
    pub fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// There is no such image any more, or there never was.
    pub fn image_is_gone(&mut self) {
        self.image = None;
    }

    /// Whether the next run could use the file: it saves it pass 1, or names what it has to look at.
    pub fn is_of_use(&self) -> bool {
        self.has_survey || self.image.is_some()
    }

    /// Whether the file holds a survey.
    pub fn has_survey(&self) -> bool {
        self.has_survey
    }

    /// The last run's survey; given once.
    pub fn take_survey(&mut self) -> Option<Survey> {
        self.survey.take()
    }

    /// Notes the ID of the image that is about to be made. What was surveyed stays; must come before
    /// [`Self::take_survey`].
    ///
    /// # Errors
    /// [`Kind::Local`] if it cannot be written.
    pub fn begin(&mut self, image: Option<&str>) -> Result<()> {
        self.image = image.map(str::to_owned);
        let survey = self.survey.take();
        let result = self.save(survey.as_ref().map(Survey::found));
        self.survey = survey;
        result
    }

    /// Notes what pass 1 found.
    ///
    /// # Errors
    /// [`Kind::Local`] if it cannot be written; the file is as it was then.
    pub fn surveyed(&mut self, found: Found<'_>) -> Result<()> {
        self.save(Some(found))?;
        self.has_survey = true;
        Ok(())
    }

    /// Removes the file: everything is done, or what it holds is of no use any more. A file that is not ours (none
    /// was made yet) stays.
    ///
    /// # Errors
    /// [`Kind::Local`] if it is still there afterwards.
    pub fn finish(&mut self) -> Result<()> {
        (self.has_survey, self.image) = (false, None);
        let Some(_locked) = self.held.take() else { return Ok(()) };
        let _ = std::fs::remove_file(self.beside());
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let what = format!("delete the state file `{}`", self.path.display());
                Err(Error::new(Stage::Plan, Kind::Local, what).because(error))
            }
            _ => Ok(()),
        }
    }

    /// Where the file is written before it is renamed.
    fn beside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    fn save(&mut self, found: Option<Found<'_>>) -> Result<()> {
        let beside = self.beside();
        let Some(mut file) = locked(&beside, true)? else { return Ok(()) };
        if !is_remnant(&mut file).map_err(|error| cannot("look at", &beside, error))? {
            let what = format!("`{}` is in the way, and is no state file", beside.display());
            return Err(Error::new(Stage::Plan, Kind::Local, what).advise("give another name by --state"));
        }
        match self.write_beside(&beside, &file, found) {
            Ok(()) => {
                self.held = Some(file);
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&beside);
                if self.held.is_none() && error.kind() == std::io::ErrorKind::AlreadyExists {
                    return Err(in_use(&self.path));
                }
                Err(cannot("write", &self.path, error).advise("give a place with room by --state"))
            }
        }
    }

    fn write_beside(&self, beside: &Path, file: &File, found: Option<Found<'_>>) -> std::io::Result<()> {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
        let mut to = BufWriter::new(file);
        write(&self.key, self.image.as_deref(), found, &mut to)?;
        to.flush()?;
        drop(to);
        file.sync_all()?;
        if self.held.is_some() {
            std::fs::rename(beside, &self.path)?;
        } else {
            // A run that began at the same time may have made its own meanwhile.
            rename_to_nothing(beside, &self.path)?;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Whether a file beside is what a run left that was killed while it wrote: nothing, or the beginning of a state
/// file.
fn is_remnant(file: &mut File) -> std::io::Result<bool> {
    let mut start = Vec::new();
    (&*file).take(MAGIC.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(MAGIC.starts_with(&start))
}

/// Renames to a name that must not be taken.
fn rename_to_nothing(from: &Path, to: &Path) -> std::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that knows no such flag has hard links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

fn in_use(path: &Path) -> Error {
    let what = format!("the state file `{}` is in use by another run", path.display());
    Error::new(Stage::Plan, Kind::Local, what).advise("wait for that run, or give each its own --state")
}

/// The file, locked; `None` if there is none and none is to be made.
fn locked(path: &Path, make: bool) -> Result<Option<File>> {
    loop {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(make).truncate(false).mode(0o600);
        if make {
            // Nobody's link leads us to another file, which would be emptied.
            how.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        }
        let opened = how.open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !make => return Ok(None),
            Err(error) => return Err(cannot("open", path, error)),
        };
        let meta = file.metadata().map_err(|error| cannot("look at", path, error))?;
        if !meta.is_file() {
            let what = format!("the state file `{}` is no regular file", path.display());
            return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give another name by --state"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path)),
            Err(TryLockError::Error(error)) => return Err(cannot("lock", path, error)),
        }
        // It may have been replaced between the opening and the lock.
        let is_still_there =
            std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (meta.dev(), meta.ino()));
        if is_still_there {
            return Ok(Some(file));
        }
    }
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(Stage::Plan, Kind::Local, format!("{what} the state file `{}`", path.display())).because(error)
}

/// What keeps a state file from being of use, if anything does.
fn difference(saved: &Key, own: &Key) -> Option<String> {
    let pairs = [
        ("source", &saved.source, &own.source),
        ("format", &saved.format, &own.format),
        ("target", &saved.target, &own.target),
        ("build", &saved.build, &own.build),
    ];
    let (name, saved, own) = pairs.into_iter().find(|(_, saved, own)| saved != own)?;
    // The file may be somebody else's work, and this goes to a terminal.
    Some(format!(
        "it is of another {name}, `{}`; this run has `{}`",
        saved.escape_debug(),
        own.escape_debug()
    ))
}

#[cfg(test)]
mod tests;
