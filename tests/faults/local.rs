//! Faults of this machine: a disk that cannot be read or written, threads that panic. Nothing is left of the target.

use std::sync::Arc;

use rustix::io::Errno;
use snapcow::convert::{Cancel, Target, convert};
use snapcow::embedded::{Faults, ImageData};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{Access, SinkFacts, SinkOrder, SourceFacts};
use snapcow::flow::{CHUNK_BYTES, ReadAt};
use snapcow::hash::{Algorithm, Digest};
use snapcow::openstack::NewImage;
use snapcow::plan::{Facts, Plan};
use snapcow::sink::FileSink;
use snapcow::source::{FileSource, Outlet, Source, Wanted};
use snapcow::units::ClusterIndex;

use super::bench::{Bench, MIB, Noise, Tune, job, plan, sink, wait, with};
use super::writer::Troubled;

/// Where a source goes wrong, after its first chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// In the thread that encodes, or in the one that hashes: who reads panics.
    ReadPanics,
    /// The same with an error of the disk.
    ReadFails,
    /// In its own thread.
    SourcePanics,
}

struct Bad {
    facts: SourceFacts,
    wrong: Wrong,
}

#[derive(Debug)]
struct BadDisk(Wrong);

impl ReadAt for BadDisk {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        bytes.fill(7);
        if self.0 == Wrong::SourcePanics || offset < CHUNK_BYTES as u64 {
            return Ok(());
        }
        assert!(self.0 != Wrong::ReadPanics, "a panic that was asked for");
        let what = format!("read {} bytes at offset {offset} of the bad disk", bytes.len());
        Err(Error::new(Stage::Source, Kind::Source, what).because(std::io::Error::from_raw_os_error(5)))
    }
}

impl Source for Bad {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, _: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let disk = Arc::new(BadDisk(self.wrong));
        for chunk in 0..8 {
            assert!(self.wrong != Wrong::SourcePanics || chunk < 2, "a panic that was asked for");
            let first = ClusterIndex(chunk * outlet.chunk_clusters());
            outlet.unread(first, disk.clone(), CHUNK_BYTES)?;
        }
        Ok(8 * CHUNK_BYTES as u64)
    }
}

fn fails(wrong: Wrong, hashed: bool) -> Error {
    let bench = Bench::new(with(Faults::default()), Noise::full(MIB));
    let cloud = bench.cloud();
    let facts = SourceFacts {
        name: "the bad disk".into(),
        len: Some(8 * CHUNK_BYTES as u64),
        access: Access::Random,
        is_remote: false,
    };
    let tune = Tune::spool();
    let plan = plan(facts.clone(), &tune).unwrap();
    let new = NewImage::private("compact", "qcow2");
    let created = wait(cloud.for_stage(Stage::Sink).create(&new)).unwrap();
    let cancel = Cancel::new();
    let sink = sink(&cloud, &created, &plan, cancel.clone());
    let digest = match hashed {
        true => Ok(Digest { algorithm: Algorithm::Sha512, hex: "0".repeat(128) }),
        false => Err("not asked for".into()),
    };
    let job = job(Arc::new(Bad { facts, wrong }), digest, &tune, cancel);
    let error = convert(&plan, &job, Target::Delivery(Box::new(sink))).unwrap_err();
    assert_eq!(bench.glance.images().len(), 1, "{wrong:?}: {error}");
    error
}

#[test]
fn a_panic_in_any_thread_is_a_failure_like_others() {
    for (wrong, hashed) in
        [(Wrong::ReadPanics, false), (Wrong::ReadPanics, true), (Wrong::SourcePanics, false)]
    {
        let error = fails(wrong, hashed);
        assert!(error.to_string().contains("thread panicked"), "{wrong:?} {hashed}: {error}");
        assert_eq!(error.kind(), Kind::Other);
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_named_with_its_offset() {
    for hashed in [false, true] {
        let error = fails(Wrong::ReadFails, hashed);
        assert_eq!((error.stage(), error.kind()), (Stage::Source, Kind::Source), "{error}");
        let text = error.to_string();
        assert!(text.contains("offset 2097152") && text.contains("Input/output error"), "{text}");
    }
}

/// Bytes that the bad target takes.
const ROOM: u64 = 4 * MIB;

/// Converts a disk into a file on a disk that fails after [`ROOM`]; the sentence.
fn fails_to_write(errno: Errno, replace: bool) -> String {
    let (sources, targets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (raw, target) = (sources.path().join("raw"), targets.path().join("image.qcow2"));
    let mut bytes = vec![0; 8 * MIB as usize];
    Noise::full(8 * MIB).read_at(0, &mut bytes);
    std::fs::write(&raw, bytes).unwrap();
    if replace {
        std::fs::write(&target, b"old").unwrap();
    }
    let source = FileSource::open(&raw, true).unwrap();
    let tune = Tune::spool();
    let facts = plan(source.facts().clone(), &tune).unwrap().facts;
    let sink = SinkFacts { name: "image.qcow2".into(), order: SinkOrder::Random };
    let plan = Plan::new(Facts { sink, ..facts }).unwrap();
    let job = job(Arc::new(source), Err("a file has no hash".into()), &tune, Cancel::new());
    let file = FileSink::create_through(&target, replace, |inner| {
        Box::new(Troubled::new(inner, move |part| if part.end > ROOM { Err(errno.into()) } else { Ok(()) }))
    });
    let error = convert(&plan, &job, Target::File(Box::new(file.unwrap()))).unwrap_err();
    assert_eq!((error.stage(), error.kind()), (Stage::Sink, Kind::Local), "{error}");
    assert_eq!(error.kind().exit_code(), 7);
    assert_eq!(std::fs::read_dir(targets.path()).unwrap().count(), usize::from(replace), "{error}");
    if replace {
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
    }
    error.to_string()
}

#[test]
fn a_target_disk_that_fails_is_named_with_its_offset() {
    for (errno, words) in [(Errno::IO, "Input/output error"), (Errno::NOSPC, "free some space")] {
        for replace in [false, true] {
            let text = fails_to_write(errno, replace);
            let offset = text.split_once("host offset ").and_then(|(_, rest)| rest.split(':').next());
            let offset: u64 =
                offset.and_then(|offset| offset.parse().ok()).unwrap_or_else(|| panic!("{text}"));
            // The first MiB, with the header, would have been written last.
            assert!((MIB..=MIB + ROOM).contains(&offset), "{text}");
            assert!(text.contains(words) && text.contains("image.qcow2"), "{text}");
        }
    }
}
