//! A disk that comes from somewhere else: here from the changed blocks that a backup keeps, here in memory.
//!
//! `cargo run --example custom_source -- FILE.qcow2`

use std::collections::BTreeMap;

use snapcow::convert::{Conversion, Receipt};
use snapcow::error::Result;
use snapcow::facts::{Access, SourceFacts};
use snapcow::flow::CHUNK_BYTES;
use snapcow::source::{Outlet, Source, Wanted};
use snapcow::units::ClusterIndex;

/// Blocks of a disk by their offset; everything else is zero.
struct Backup {
    facts: SourceFacts,
    blocks: BTreeMap<u64, Vec<u8>>,
    len: u64,
}

impl Backup {
    fn new(len: u64, blocks: BTreeMap<u64, Vec<u8>>) -> Self {
        // Any part can be read at any time, and nobody waits for us at the other end.
        let facts = SourceFacts {
            name: "the backup".into(),
            len: Some(len),
            access: Access::Random,
            is_remote: false,
        };
        Self { facts, blocks, len }
    }

    /// Fills `out` from the offset `at`; tells whether there is any block.
    fn fill(&self, out: &mut [u8], at: u64) -> bool {
        let end = at + out.len() as u64;
        out.fill(0);
        let mut any = false;
        for (start, block) in self.blocks.range(..end) {
            let (from, to) = (at.max(*start), end.min(start + block.len() as u64));
            if from < to {
                let piece = &block[(from - start) as usize..(to - start) as usize];
                out[(from - at) as usize..(to - at) as usize].copy_from_slice(piece);
                any = true;
            }
        }
        any
    }
}

impl Source for Backup {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let bits = outlet.cluster_size().bits();
        let all = 0..outlet.cluster_size().clusters_for(self.len);
        let runs = match wanted {
            Wanted::All => vec![all],
            Wanted::Runs(runs) => runs.to_vec(),
        };
        for run in runs {
            let (mut at, end) = (run.start << bits, (run.end << bits).min(self.len));
            // Chunks of whole clusters in rising order; the last one may be short.
            while at < end {
                let len = (end - at).min(CHUNK_BYTES as u64) as usize;
                let mut buffer = outlet.buffer()?;
                if self.fill(&mut buffer[..len], at) {
                    outlet.count_read(len as u64);
                    outlet.data(ClusterIndex(at >> bits), buffer, len)?;
                } else {
                    outlet.hole(ClusterIndex(at >> bits), outlet.cluster_size().clusters_for(len as u64))?;
                }
                at += len as u64;
            }
        }
        Ok(self.len)
    }
}

fn backup() -> Backup {
    let text = b"what the guest wrote ".repeat(5000);
    Backup::new(1 << 30, [(0, text.clone()), (700_000_001, text)].into())
}

fn convert(path: &str) -> Result<Receipt> {
    Conversion::of(backup()).to_file(path)
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "backup.qcow2".into());
    let receipt = convert(&path)?;
    println!("{path}: {} bytes hold a disk of {}", receipt.image_len, receipt.virtual_size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapcow::read::{GuestImage, Input};

    use super::*;

    #[test]
    fn the_image_holds_the_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.qcow2");
        let receipt = convert(path.to_str().unwrap()).unwrap();
        assert_eq!((receipt.virtual_size, receipt.data_clusters), (1 << 30, 4));
        let image = std::fs::read(path).unwrap();
        let input = Input { len: image.len() as u64, bytes: Arc::new(image), name: "the image".into() };
        let image = GuestImage::open(input).unwrap();
        for start in [0, 699_990_000] {
            let (mut read, mut expected) = (vec![0; 200_000], vec![0; 200_000]);
            image.reader().read(&mut read, start).unwrap();
            assert!(backup().fill(&mut expected, start));
            assert!(read == expected, "at {start}");
        }
    }
}
