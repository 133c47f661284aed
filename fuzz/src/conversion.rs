//! Conversions in memory, through the library's front door.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, Target, convert};
use snapcow::error::Result;
use snapcow::facts::{Access, MachineFacts, SinkFacts, SinkOrder, SourceFacts};
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, SpoolDisk, Wishes};
use snapcow::sink::{FileSink, StreamSink};
use snapcow::source::{Assembler, Outlet, Source, StreamSource, Wanted};
use snapcow::units::ClusterIndex;

use crate::cases::Options;

/// Files of a run, in memory.
const FOLDER: &str = "/dev/shm";

/// Lengths in which bytes arrive, over and over.
#[derive(Clone, Debug)]
pub struct Cuts(Vec<usize>);

impl Cuts {
    /// From any numbers; a chunk of 0 bytes would never end.
    pub fn new(lengths: &[u16]) -> Self {
        let lengths: Vec<usize> = lengths.iter().map(|&len| 1 + usize::from(len)).collect();
        Self(if lengths.is_empty() { vec![usize::MAX] } else { lengths })
    }

    fn at(&self, number: usize) -> usize {
        self.0[number % self.0.len()]
    }
}

/// A stream whose reads give as much as the cuts say.
struct Pieces {
    disk: Arc<Vec<u8>>,
    at: usize,
    reads: usize,
    cuts: Cuts,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let take = self.cuts.at(self.reads).min(out.len()).min(self.disk.len() - self.at);
        self.reads += 1;
        out[..take].copy_from_slice(&self.disk[self.at..self.at + take]);
        self.at += take;
        Ok(take)
    }
}

/// Standard input that gives the disk in these pieces.
pub fn stream(disk: &Arc<Vec<u8>>, cuts: &Cuts) -> Arc<dyn Source> {
    let pieces = Pieces { disk: Arc::clone(disk), at: 0, reads: 0, cuts: cuts.clone() };
    Arc::new(StreamSource::new("stream", Box::new(pieces), true))
}

/// A disk that comes in frames, as from a network, and can be read again.
pub struct Frames {
    disk: Arc<Vec<u8>>,
    cuts: Cuts,
    facts: SourceFacts,
}

impl Frames {
    /// `any_part` tells whether parts of it can be read, or only all from the beginning.
    pub fn new(disk: &Arc<Vec<u8>>, cuts: &Cuts, any_part: bool) -> Self {
        let facts = SourceFacts {
            name: "frames".into(),
            len: Some(disk.len() as u64),
            access: if any_part { Access::Random } else { Access::Sequential },
            is_remote: false,
        };
        Self { disk: Arc::clone(disk), cuts: cuts.clone(), facts }
    }

    async fn push(&self, first: ClusterIndex, mut bytes: &[u8], outlet: &mut Outlet) -> Result<()> {
        let mut assembler = Assembler::new(first, outlet);
        let mut number = 0;
        while !bytes.is_empty() {
            let (frame, rest) = bytes.split_at(self.cuts.at(number).min(bytes.len()));
            number += 1;
            bytes = rest;
            assembler.push(frame, outlet).await?;
        }
        Ok(assembler.flush(outlet).await?)
    }
}

impl Source for Frames {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bits = outlet.cluster_size().bits();
        let len = self.disk.len() as u64;
        let part = |run: &std::ops::Range<u64>| {
            let end = run.end.saturating_mul(1 << bits).min(len);
            (run.start << bits) as usize..end as usize
        };
        runtime.block_on(async {
            match wanted {
                Wanted::Runs(runs) if self.facts.access == Access::Random => {
                    for run in runs.iter() {
                        self.push(ClusterIndex(run.start), &self.disk[part(run)], outlet).await?;
                    }
                    Ok(())
                }
                _ => self.push(ClusterIndex(0), &self.disk[part(&(0..wanted.end()))], outlet).await,
            }
        })?;
        Ok(len)
    }
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run(source: Arc<dyn Source>, order: SinkOrder, target: Target, options: Options) -> Result<Receipt> {
    let mut plan = Plan::new(Facts {
        source: source.facts().clone(),
        sink: SinkFacts { name: "target".into(), order },
        machine: MachineFacts {
            cores: 2,
            memory_bytes: 4 << 30,
            spool_free_bytes: Some(1 << 30),
            spool_is_memory: true,
        },
        wishes: Wishes {
            cluster_size: options.cluster_size,
            threads: Some(options.threads),
            connections: None,
            memory_bytes: 128 << 20,
            spool_disk: SpoolDisk::Bytes(if options.spool_disk { 64 << 20 } else { 0 }),
        },
    })?;
    if let Some(blocks) = options.spool_blocks {
        plan.budget.spool_memory_bytes = blocks << 20;
    }
    let job = Job {
        source,
        free: None,
        source_digest: Err("nobody knows its hash".into()),
        proof: Proof { verify_encode: true, guest_digest: true },
        geometry: Geometry {
            compat: options.compat,
            compression: options.compression.header_type(),
            cluster_size: options.cluster_size,
        },
        compression: options.compression,
        spool_dir: PathBuf::from(FOLDER),
        counters: Arc::new(Counters::default()),
        cancel: Cancel::new(),
    };
    convert(&plan, &job, target)
}

/// Converts into something that takes bytes in order.
///
/// # Errors
/// As the conversion.
pub fn to_stream(source: Arc<dyn Source>, options: Options) -> Result<(Vec<u8>, Receipt)> {
    let memory = Memory::default();
    let sink = StreamSink::new("memory", Box::new(memory.clone()));
    let receipt = run(source, SinkOrder::InOrder, Target::Delivery(Box::new(sink)), options)?;
    let bytes = std::mem::take(&mut *memory.0.lock().expect("nobody panics with it"));
    assert_eq!(bytes.len() as u64, receipt.image_len, "the planned length is the length");
    Ok((bytes, receipt))
}

/// Converts into a file and reads that.
///
/// # Errors
/// As the conversion.
pub fn to_file(source: Arc<dyn Source>, options: Options) -> Result<(Vec<u8>, Receipt)> {
    let folder = tempfile::tempdir_in(FOLDER).expect("a folder in memory");
    let path = folder.path().join("image.qcow2");
    let file = FileSink::create(&path, false)?;
    let receipt = run(source, SinkOrder::Random, Target::File(Box::new(file)), options)?;
    let bytes = std::fs::read(&path).expect("the file is there");
    assert_eq!(bytes.len() as u64, receipt.image_len, "the planned length is the length");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing is left beside it");
    Ok((bytes, receipt))
}
