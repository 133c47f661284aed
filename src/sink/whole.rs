//! Small files that appear whole or not at all: reports. What is being written is its owner's alone.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::name::open_up;

/// Writes a file beside its place, with mode 0600, and puts it there when it is complete, with the mode that the
/// umask leaves to any new file. What is no regular file (a link, a pipe, a terminal, `/dev/stdout`) is written
/// through, and so is a file that nothing can take the place of: in a folder that takes no files, or mounted by itself.
///
/// # Errors
/// What the file system says. A regular file is as it was before, if it could be replaced.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let exists = match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => return std::fs::write(path, bytes),
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    match replace(path, bytes) {
        Err(error) if exists && is_in_the_way(&error) => std::fs::write(path, bytes),
        result => result,
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Its mode is 0600, and it goes when it is dropped.
    let mut file =
        tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".part").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    open_up(file.as_file())?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

/// Whether only the place is to blame, and not the bytes.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_file_appears_whole_with_the_usual_mode_and_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let usual = File::create(dir.path().join("usual")).unwrap().metadata().unwrap().mode() & 0o777;
        let path = dir.path().join("report.json");
        for text in ["one", "another"] {
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().mode() & 0o777, usual);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
        assert!(write_whole(&dir.path().join("no/report.json"), b"x").is_err());
    }

    #[test]
    fn a_reader_of_the_old_file_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        std::fs::write(&path, b"old").unwrap();
        let old = File::open(&path).unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(io::read_to_string(old).unwrap(), "old");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_is_no_regular_file_is_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        symlink(&real, &link).unwrap();
        write_whole(&link, b"by the link").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"by the link");
        let (mut reader, writer) = io::pipe().unwrap();
        write_whole(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())), b"by the pipe").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "by the pipe");
        assert!(write_whole(Path::new("/dev/full"), b"x").is_err());
    }
}
