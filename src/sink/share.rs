//! Blocks that a source file and an image have in common, on file systems that can do that.
//!
//! # Decisions
//! - `copy_file_range` and not the FICLONERANGE ioctl: it shares where source and target allow it
//!   (`vfs_copy_file_range` in Linux tries `remap_file_range` first), and needs no unsafe code. Where a file
//!   system could not share it would copy, so only the two that can are asked.

use std::fs::File;

use rustix::io::Errno;

/// `f_type` of XFS and btrfs (`linux/magic.h`).
const SHARING_FILE_SYSTEMS: [u64; 2] = [0x5846_5342, 0x9123_683e];

/// Whether blocks of `cluster_bytes` can be shared between two files.
pub(super) fn can_share(from: &File, to: &File, cluster_bytes: u64) -> bool {
    let device = |file: &File| rustix::fs::fstat(file).ok().map(|stat| stat.st_dev);
    let Ok(statfs) = rustix::fs::fstatfs(to) else { return false };
    device(from).is_some()
        && device(from) == device(to)
        && SHARING_FILE_SYSTEMS.contains(&(statfs.f_type as u64))
        && cluster_bytes.is_multiple_of((statfs.f_bsize as u64).max(1))
}

/// Makes `len` bytes of `to` the same blocks as those of `from`; tells how many have become so. Fewer than asked
/// for, and 0 in particular, means that the rest is to be written.
pub(super) fn share(from: &File, from_offset: u64, to: &File, to_offset: u64, len: u64) -> u64 {
    let mut done = 0;
    while done < len {
        let (mut source, mut target) = (from_offset + done, to_offset + done);
        let left = usize::try_from(len - done).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) => break,
            Ok(shared) => done += shared as u64,
            Err(Errno::INTR) => {}
            Err(error) => {
                tracing::debug!("no blocks shared at {to_offset}: {error}");
                break;
            }
        }
    }
    done
}
