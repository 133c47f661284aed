//! Whether a running QEMU has an image file open for writing.
//!
//! QEMU takes open-file-description read locks on single bytes: byte 100 + p for a permission that
//! it uses, 200 + p for one that it does not share (`RAW_LOCK_PERM_BASE`, `RAW_LOCK_SHARED_BASE` in
//! `block/file-posix.c`; p = 0 consistent read, p = 1 write).

use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};

/// A byte that is locked when somebody writes.
const WRITE_PERMISSION_BYTE: i64 = 101;
/// A byte that is locked when somebody does not want others to read.
const READ_UNSHARED_BYTE: i64 = 200;

/// True if another open file description holds a lock that excludes reading a stable image. A file
/// system without such locks counts as unlocked.
pub(super) fn is_in_use(file: &impl AsFd) -> bool {
    [WRITE_PERMISSION_BYTE, READ_UNSHARED_BYTE].into_iter().any(|byte| {
        let mut lock = nix::libc::flock {
            l_type: nix::libc::F_WRLCK as nix::libc::c_short,
            l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).is_ok()
            && lock.l_type != nix::libc::F_UNLCK as nix::libc::c_short
    })
}
