use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;
use crate::facts::SourceFacts;
use crate::flow::ReadAt;
use crate::source::FileSource;
use crate::units::ClusterIndex;

const MIB: usize = 1 << 20;

/// Noise, zeros, noise, an odd end.
fn disk() -> Vec<u8> {
    let noise = |seed: u64, len: usize| {
        (0..len as u64).map(move |at| (at.wrapping_mul(0x9e37_79b9).wrapping_add(seed) >> 13) as u8 | 1)
    };
    noise(1, 3 * MIB).chain(vec![0; 9 * MIB]).chain(noise(2, 2 * MIB + 777)).collect()
}

/// Bytes that come in order until they fail.
struct Shaky {
    facts: SourceFacts,
    bytes: Vec<u8>,
    fails_at: u64,
}

impl Source for Shaky {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let bits = outlet.cluster_size().bits();
        let mut at = match wanted {
            Wanted::All => 0,
            Wanted::Runs(runs) => runs[0].start << bits,
        };
        while at < self.bytes.len() as u64 {
            if at >= self.fails_at {
                return Err(Error::new(Stage::Source, Kind::Network, "a cut wire"));
            }
            let len = (self.bytes.len() as u64 - at).min(CHUNK_BYTES as u64) as usize;
            let mut buffer = outlet.buffer()?;
            self.bytes.read_at(&mut buffer[..len], at)?;
            outlet.data(ClusterIndex(at >> bits), buffer, len)?;
            outlet.count_read(len as u64);
            at += len as u64;
        }
        Ok(at)
    }
}

fn shaky(access: Access, fails_at: u64) -> Shaky {
    let bytes = disk();
    let facts = SourceFacts { name: "noise".into(), len: Some(bytes.len() as u64), access, is_remote: true };
    Shaky { facts, bytes, fails_at }
}

fn digest() -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&disk());
    hasher.finish()
}

fn fetch(source: impl Source + 'static) -> Fetch {
    Fetch {
        source: Arc::new(source),
        digest: Ok(digest()),
        buffers: 4,
        counters: Arc::default(),
        cancel: Cancel::new(),
    }
}

fn part(folder: &Path) -> Part {
    Part::open(&folder.join("a.raw"), "part\nof a", false).unwrap()
}

#[test]
fn what_was_fetched_before_is_used_and_proved() {
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(shaky(Access::Random, 4 << 20)).into_part(&mut part(folder.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    let mut rest = part(folder.path());
    assert_eq!(rest.len(), 4 << 20);
    let again = fetch(shaky(Access::Random, u64::MAX));
    let fetched = again.into_part(&mut rest).unwrap();
    assert_eq!((fetched.resumed_bytes, fetched.verified), (4 << 20, Ok(())));
    assert_eq!(fetched.digest, digest());
    assert_eq!(Counters::get(&again.counters.source_bytes), disk().len() as u64 - (4 << 20));
    rest.commit(false).unwrap();
    let file = folder.path().join("a.raw");
    assert!(std::fs::read(&file).unwrap() == disk());
    assert!(file.metadata().unwrap().blocks() * 512 <= 6 * MIB as u64, "the zeros take no room");
}

#[test]
fn a_part_that_was_damaged_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    fetch(shaky(Access::Random, 4 << 20)).into_part(&mut part(folder.path())).unwrap_err();
    let path = folder.path().join("a.raw.snapcow-part");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = fetch(shaky(Access::Random, u64::MAX)).into_part(&mut part(folder.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::SourceChanged, "{error}");
}

#[test]
fn a_source_that_gives_no_ranges_is_read_from_its_beginning_again() {
    let folder = tempfile::tempdir().unwrap();
    fetch(shaky(Access::Sequential, 6 << 20)).into_part(&mut part(folder.path())).unwrap_err();
    let mut all = part(folder.path());
    let again = fetch(shaky(Access::Sequential, u64::MAX));
    let fetched = again.into_part(&mut all).unwrap();
    assert_eq!((fetched.resumed_bytes, fetched.bytes), (0, disk().len() as u64));
    assert_eq!(Counters::get(&again.counters.source_bytes), disk().len() as u64);
    // All is there: what is left is its proof.
    let nothing = fetch(shaky(Access::Sequential, 0)).into_part(&mut all).unwrap();
    assert_eq!((nothing.resumed_bytes, nothing.digest), (fetched.bytes, digest()));
}

#[test]
fn a_file_with_holes_is_a_source_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("source");
    let holed = std::fs::File::create(&file).unwrap();
    holed.set_len(disk().len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holed, &disk()[..3 * MIB], 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holed, &disk()[12 * MIB..], 12 * MIB as u64).unwrap();
    let fetch = fetch(FileSource::open(&file, true).unwrap());
    let mut stream = Vec::new();
    assert_eq!(fetch.into_stream(&mut stream, "a vector").unwrap().verified, Ok(()));
    assert!(stream == disk());
    let fetched = fetch.into_part(&mut part(folder.path())).unwrap();
    assert_eq!(fetched.digest, digest());
}

#[test]
fn an_ended_run_and_a_closed_stream_end_the_fetch() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = fetch(shaky(Access::Random, u64::MAX)).into_stream(&mut Closed, "a pipe").unwrap_err();
    assert_eq!(error.kind(), Kind::ClosedPipe);
    let folder = tempfile::tempdir().unwrap();
    let ended = fetch(shaky(Access::Random, u64::MAX));
    ended.cancel.trigger(2);
    let error = ended.into_part(&mut part(folder.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(2));
}

#[test]
fn a_hash_that_nobody_keeps_is_made_and_said_to_be_unproved() {
    let unknown = Fetch { digest: Err("nobody keeps one".into()), ..fetch(shaky(Access::Random, u64::MAX)) };
    let fetched = unknown.into_stream(&mut Vec::new(), "a vector").unwrap();
    assert_eq!(fetched.verified, Err("nobody keeps one".into()));
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&disk());
    assert_eq!(fetched.digest, hasher.finish());
}
