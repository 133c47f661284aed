use super::*;

const CS: ClusterSize = ClusterSize::DEFAULT;

fn limits(memory_blocks: u64, disk_blocks: u64, may_drop: bool) -> Limits {
    let block = Spool::block_bytes(CS) as u64;
    Limits {
        memory_bytes: memory_blocks * block,
        disk_bytes: disk_blocks * block,
        dir: std::env::temp_dir(),
        may_drop,
    }
}

fn stored(index: u64) -> Vec<u8> {
    (0..30_000 + index % 5000).map(|byte| (byte * (index + 3)) as u8).collect()
}

fn filled(limits: Limits, clusters: u64) -> Spool {
    let mut spool = Spool::new(limits, CS);
    for index in 0..clusters {
        spool.append(ClusterIndex(index * 2), &stored(index)).unwrap();
    }
    spool.finish().unwrap();
    spool
}

fn check_contents(spool: &Spool, clusters: u64) {
    let first = spool.first_held().unwrap().0 / 2;
    let mut next = first;
    for record in spool.read() {
        let (cluster, bytes) = record.unwrap();
        assert_eq!(cluster.0, next * 2);
        assert_eq!(bytes, stored(next));
        next += 1;
    }
    assert_eq!(next, clusters);
    let dropped: u64 = (0..first).map(|index| stored(index).len() as u64).sum();
    assert_eq!(spool.stats().dropped_bytes, dropped);
}

#[test]
fn what_fits_in_memory_never_touches_the_disk() {
    let spool = filled(limits(8, 8, true), 200);
    assert!(!spool.has_dropped());
    assert_eq!(spool.stats().disk_written_bytes, 0);
    check_contents(&spool, 200);
    check_contents(&spool, 200);
}

#[test]
fn the_oldest_blocks_move_to_disk_and_come_back() {
    let spool = filled(limits(3, 100, false), 500);
    assert!(!spool.has_dropped());
    assert!(spool.stats().disk_written_bytes > 0);
    check_contents(&spool, 500);
}

/// Flips one bit of the only file of this process that lies, unlinked, in `dir`.
fn flip_a_bit_on_disk(dir: &std::path::Path) {
    use std::os::unix::fs::FileExt;
    let is_own = |path: &std::path::PathBuf| {
        std::fs::read_link(path)
            .is_ok_and(|link| link.starts_with(dir) && link.to_string_lossy().ends_with("(deleted)"))
    };
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let number = open.into_iter().find(is_own).expect("the spool's file");
    let file = std::fs::File::options().read(true).write(true).open(number).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 500_000).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, 500_000).unwrap();
}

#[test]
fn a_bit_that_flips_on_disk_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = filled(Limits { dir: dir.path().to_owned(), ..limits(3, 100, false) }, 500);
    assert!(spool.read().all(|record| record.is_ok()));
    flip_a_bit_on_disk(dir.path());
    let error = spool.read().find_map(Result::err).expect("the flipped bit");
    assert_eq!((error.stage(), error.kind()), (Stage::Spool, Kind::Local));
    assert!(error.to_string().contains("does not come back as it was kept"), "{error}");
}

#[test]
fn on_overflow_the_lowest_clusters_go_first() {
    for (memory, disk) in [(3, 0), (3, 4), (2, 2)] {
        let spool = filled(limits(memory, disk, true), 700);
        assert!(spool.has_dropped(), "{memory}+{disk}");
        check_contents(&spool, 700);
        let kept = spool.read().count() as u64;
        assert!(kept >= (memory + disk - 2) * 25, "{memory}+{disk} blocks keep {kept} clusters");
    }
}

#[test]
fn a_directory_that_is_not_there_leaves_memory_alone() {
    let mut limits = limits(3, 100, true);
    limits.dir = "/nonexistent/spool".into();
    let spool = filled(limits, 500);
    assert!(spool.stats().disk_given_up && spool.has_dropped());
    check_contents(&spool, 500);
}

#[test]
fn without_leave_to_drop_an_overflow_names_the_options() {
    let mut spool = Spool::new(limits(2, 2, false), CS);
    let error = (0..1000).find_map(|index| spool.append(ClusterIndex(index), &stored(index)).err()).unwrap();
    assert_eq!(error.kind(), Kind::Local);
    assert!(error.to_string().contains("--spool-disk"), "{error}");
}

#[test]
fn clusters_of_two_mib_fit() {
    let cs = ClusterSize::from_bits(21).unwrap();
    let block = Spool::block_bytes(cs) as u64;
    let limits =
        Limits { memory_bytes: 2 * block, disk_bytes: 9 * block, dir: std::env::temp_dir(), may_drop: false };
    let mut spool = Spool::new(limits, cs);
    for index in 0..8 {
        spool.append(ClusterIndex(index), &vec![index as u8; cs.size()]).unwrap();
    }
    spool.finish().unwrap();
    assert_eq!(spool.read().map(|r| r.unwrap().1[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Far slower than any network.
fn crawl(file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::thread::sleep(Duration::from_secs(20));
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

fn fail(_: &std::fs::File, _: &[u8], _: u64) -> std::io::Result<()> {
    // EIO
    Err(std::io::Error::from_raw_os_error(5))
}

#[test]
fn a_disk_that_cannot_keep_up_is_given_up_and_not_waited_for() {
    let mut spool = Spool::new(limits(3, 100, true), CS);
    spool.disk.as_mut().unwrap().write = crawl;
    let begin = Instant::now();
    for index in 0..500 {
        spool.append(ClusterIndex(index * 2), &stored(index)).unwrap();
    }
    spool.finish().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15), "the disk was waited for");
    assert!(spool.stats().disk_given_up && spool.has_dropped());
    check_contents(&spool, 500);
}

#[test]
fn a_disk_that_fails_is_given_up_only_where_clusters_may_go() {
    let mut spool = Spool::new(limits(3, 100, true), CS);
    spool.disk.as_mut().unwrap().write = fail;
    for index in 0..500 {
        spool.append(ClusterIndex(index * 2), &stored(index)).unwrap();
    }
    spool.finish().unwrap();
    assert!(spool.stats().disk_given_up && spool.has_dropped());
    check_contents(&spool, 500);

    let mut spool = Spool::new(limits(3, 100, false), CS);
    spool.disk.as_mut().unwrap().write = fail;
    let error = (0..500).find_map(|index| spool.append(ClusterIndex(index), &stored(index)).err()).unwrap();
    assert_eq!((error.stage(), error.kind()), (Stage::Spool, Kind::Local), "{error}");
    assert!(error.to_string().contains("--spool-dir"), "{error}");
}
