//! The names and modes of files in the making: hidden while they are written, and everybody's in the end.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use crate::error::{Error, Kind, Result, Stage};

/// Mode of a file in the making, and the one that the umask is applied to in the end.
const HIDDEN_MODE: u32 = 0o600;
const FINAL_MODE: u32 = 0o666;

/// A file in the making in `dir`: without a name where that can be, else with the one that it gives.
pub(super) fn open_hidden(dir: &Path, target: &Path) -> std::io::Result<(File, Option<PathBuf>)> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, dir, flags, Mode::from_raw_mode(HIDDEN_MODE)) {
        Ok(file) => Ok((File::from(file), None)),
        // File systems without O_TMPFILE say so in different ways; a directory that cannot be
        // written says it again below.
        Err(_) => {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            let temporary = dir.join(format!(".{name}.{}.part", std::process::id()));
            let file =
                File::options().read(true).write(true).create_new(true).mode(HIDDEN_MODE).open(&temporary)?;
            Ok((file, Some(temporary)))
        }
    }
}

/// Gives a finished file the mode of any other. The kernel tells the umask there without it being changed for a
/// moment, which every thread would feel; where it does not tell, the file stays its owner's.
pub(super) fn open_up(file: &File) -> std::io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask =
        status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    match umask {
        Some(umask) => Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(FINAL_MODE & !umask))?),
        None => Ok(()),
    }
}

/// Gives a nameless file its name.
pub(super) fn link(file: &File, target: &Path, replace: bool) -> Result<()> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link_to =
        |name: &Path| rustix::fs::linkat(CWD, nameless.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW);
    if !replace {
        return link_to(target).map_err(|error| no_name(target, error.into()));
    }
    // A link cannot replace; a rename can, and it does so at once.
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
    link_to(&temporary).map_err(|error| no_name(target, error.into()))?;
    rename(&temporary, target, true)
}

/// Gives a file its last name, or removes it.
pub(super) fn rename(from: &Path, to: &Path, replace: bool) -> Result<()> {
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, from, CWD, to, flags).map_err(|error| {
        let _ = std::fs::remove_file(from);
        no_name(to, error.into())
    })
}

fn no_name(target: &Path, error: std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::AlreadyExists { Kind::Target } else { Kind::Local };
    Error::new(Stage::Sink, kind, format!("give the finished file its name `{}`", target.display()))
        .because(error)
}
