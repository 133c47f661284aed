//! What is left whole, and with which reason.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Mounted, freed, fsck, oracle, ready, run};

/// A filesystem of 80 MiB, and a copy of it that was taken while it was mounted.
fn make(folder: &Path, options: &str) -> (PathBuf, PathBuf) {
    let (image, copy, on) = (folder.join("image"), folder.join("copy"), folder.join("on"));
    let _ = fs::remove_file(&image);
    File::create(&image).unwrap().set_len(80 << 20).unwrap();
    run(&format!("mke2fs -q -F {options} {}", image.display()));
    let mounted = Mounted::new(&image, &on, "rw");
    for number in 0..40 {
        fs::write(on.join(format!("f{number}")), vec![7; 50_000]).unwrap();
    }
    run(&format!("sync -f {}", on.display()));
    fs::remove_file(on.join("f3")).unwrap();
    File::open(on.join("f4")).unwrap().sync_all().unwrap();
    run(&format!("sync -f {}", on.display()));
    run(&format!("cp {} {}", image.display(), copy.display()));
    mounted.end();
    (image, copy)
}

/// The reason why a copy of `image` is left whole after a command of `debugfs`.
fn reason(image: &Path, command: &str) -> String {
    let changed = image.with_extension("changed");
    fs::copy(image, &changed).unwrap();
    if !command.is_empty() {
        let commands = image.with_extension("commands");
        fs::write(&commands, format!("{command}\n")).unwrap();
        run(&format!("debugfs -w -f {} {}", commands.display(), changed.display()));
    }
    freed(&changed).map(|freed| freed.free.bytes().to_string()).unwrap_or_else(|reason| reason)
}

#[test]
fn what_is_not_proven_is_kept_with_the_reason() {
    if !ready(&["mke2fs", "debugfs", "dumpe2fs", "e2fsck", "mount", "cp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (clean, dirty) = make(folder.path(), "-t ext4");
    assert!(freed(&clean).is_ok() && freed(&dirty).is_ok());
    let cases = [
        (&dirty, "feature -needs_recovery", "not empty"),
        (&clean, "ssv state 3", "errors"),
        (&clean, "ssv state 0", "unmounted"),
        (&clean, "ssv free_blocks_count 77", "counts 77"),
        (&clean, "set_bg 1 free_blocks_count 5", "checksum of the descriptor of group 1"),
        (&clean, "set_bg 0 free_blocks_count 5\nset_bg 0 checksum calc", "group 0 counts 5"),
        (&clean, "feature dirdata", "dirdata"),
        (&clean, "ssv feature_compat 0x8000003c", "0x80000000"),
        (&clean, "ssv journal_inum 12", "inode 12"),
        (&clean, "ssv journal_uuid 00112233-4455-6677-8899-aabbccddeeff", "another disk"),
        (&clean, "ssv creator_os 1", "another system"),
        (&clean, "ssv rev_level 2", "revision"),
        (&clean, "ssv blocks_count 81921", "larger"),
        (&clean, "sif <8> mode 0040755", "plain file"),
        (&clean, "sif <8> block[0] 0", "journal's inode"),
        (&clean, "freeb 1", "bitmap"),
    ];
    for (image, command, expected) in cases {
        let found = reason(image, command);
        assert!(found.contains(expected), "{command}: {found}");
    }
}

#[test]
fn fast_commits_mounted_mmp_and_lost_journals_are_left_whole() {
    if !ready(&["mke2fs", "debugfs", "dumpe2fs", "e2fsck", "mount", "cp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (options, expected) in [
        ("-t ext4 -O fast_commit", "fast commits"),
        ("-t ext4 -O mmp", "in use"),
        ("-t ext2", "cleanly unmounted"),
    ] {
        let (clean, dirty) = make(folder.path(), options);
        assert!(freed(&clean).is_ok(), "{options}");
        let found = reason(&dirty, "");
        assert!(found.contains(expected), "{options}: {found}");
        // After a repair it is like any other.
        if !options.contains("mmp") {
            fsck(&dirty);
            assert_eq!(freed(&dirty).unwrap().free.as_slice(), oracle(&dirty).0, "{options}");
        }
    }
    let journal = folder.path().join("journal");
    File::create(&journal).unwrap().set_len(16 << 20).unwrap();
    run(&format!("mke2fs -q -F -O journal_dev {}", journal.display()));
    assert!(reason(&journal, "").contains("journal_dev"));
}
