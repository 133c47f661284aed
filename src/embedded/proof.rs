//! The proof that a qcow2 image holds the bytes of a raw one, through a reader that shares no code
//! with the writer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, Mapping, StorageOpenOptions};

use super::data::{FileData, ImageData};
use crate::error::{Error, Kind, Result, Stage};
use crate::units::SECTOR_BYTES;

/// How much is compared at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// How much of the disk a thread takes at once, in bytes.
const SECTION_BYTES: u64 = 64 << 20;
/// Threads at most: decompressing gains from them, memory pays for them.
const MAX_THREADS: usize = 4;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// Size of the disk as a guest sees it; all of it was accounted for.
    pub virtual_bytes: u64,
    /// Bytes that were read from both sides, or from one and found zero, and are equal.
    pub compared_bytes: u64,
    /// Bytes that are zero by both sides' own word, and were not read.
    pub hole_bytes: u64,
    /// Size of the qcow2 file.
    pub qcow2_bytes: u64,
}

/// Compares every byte that a guest reads from `qcow2` with `source`.
///
/// # Errors
/// The first difference found, with its guest offset; a file that the reader cannot open or read.
pub fn prove_equal(source: &dyn ImageData, qcow2: Arc<dyn ImageData>) -> Result<Proof> {
    let kept;
    let file = match qcow2.file() {
        Some(file) => file,
        None => {
            kept = FileData::copy_of(&*qcow2)
                .map_err(|error| failed("keep the qcow2 image in memory", error))?;
            ImageData::file(&kept).expect("what is kept is a file")
        }
    };
    let task = Task {
        source,
        file,
        // A virtual disk is whole sectors; what the source lacks reads as zero.
        virtual_bytes: source.len().next_multiple_of(SECTOR_BYTES),
        next_section: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let results: Vec<Result<Proof>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| task.work())).collect();
        workers.into_iter().map(|worker| worker.join().expect("a comparing thread does not panic")).collect()
    });
    let mut proof = task.proof(qcow2.len());
    for result in results {
        let part = result?;
        proof.compared_bytes += part.compared_bytes;
        proof.hole_bytes += part.hole_bytes;
    }
    if proof.compared_bytes + proof.hole_bytes != proof.virtual_bytes {
        return Err(Error::new(Stage::Sink, Kind::Other, "the comparison did not cover the whole disk"));
    }
    Ok(proof)
}

/// A comparison that several threads share.
struct Task<'a> {
    source: &'a dyn ImageData,
    file: &'a std::fs::File,
    virtual_bytes: u64,
    next_section: AtomicU64,
    stop: AtomicBool,
}

impl Task<'_> {
    fn proof(&self, qcow2_bytes: u64) -> Proof {
        Proof { virtual_bytes: self.virtual_bytes, compared_bytes: 0, hole_bytes: 0, qcow2_bytes }
    }

    /// Takes sections until none is left or one differs.
    fn work(&self) -> Result<Proof> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| failed("start a reader", error))?;
        let result = runtime.block_on(async {
            let image = self.open().await.map_err(|error| failed("open the qcow2 image", error))?;
            if image.size() != self.virtual_bytes {
                let text = format!("the disk has {} bytes instead of {}", image.size(), self.virtual_bytes);
                return Err(differs(text));
            }
            let mut proof = self.proof(0);
            let mut buffers = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
            while !self.stop.load(Ordering::Relaxed) {
                let start = self.next_section.fetch_add(SECTION_BYTES, Ordering::Relaxed);
                if start >= self.virtual_bytes {
                    break;
                }
                let end = (start + SECTION_BYTES).min(self.virtual_bytes);
                self.compare(&image, start, end, &mut buffers, &mut proof).await?;
            }
            Ok(proof)
        });
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    async fn open(&self) -> io::Result<FormatAccess<ImagoFile>> {
        let storage =
            ImagoFile::from_open_file(self.file.try_clone()?, StorageOpenOptions::new().write(false))?;
        let image: Qcow2<ImagoFile> =
            Qcow2::builder(storage).write(false).open(DenyImplicitOpenGate::default()).await?;
        Ok(FormatAccess::new(image))
    }

    /// Compares the guest's bytes `start..end`.
    async fn compare(
        &self,
        image: &FormatAccess<ImagoFile>,
        start: u64,
        end: u64,
        buffers: &mut (Vec<u8>, Vec<u8>),
        proof: &mut Proof,
    ) -> Result<()> {
        let at_offset = |what: &str, at: u64| format!("{what} the qcow2 image at guest offset {at}");
        let mut at = start;
        while at < end {
            let mapping = image.get_mapping(at, end - at).await;
            let (mapping, mapped) = mapping.map_err(|error| failed(at_offset("look up", at), error))?;
            if mapped == 0 {
                return Err(differs(format!("the qcow2 image ends at guest offset {at}")));
            }
            let len = mapped.min(end - at).min(PIECE_BYTES as u64);
            let zero = matches!(mapping, Mapping::Zero { .. });
            if zero && self.source.is_hole(at, len) {
                proof.hole_bytes += len;
                at += len;
                continue;
            }
            let (ours, theirs) = (&mut buffers.0[..len as usize], &mut buffers.1[..len as usize]);
            self.read_source(at, ours);
            if zero {
                theirs.fill(0);
            } else {
                let read = image.read(&mut *theirs, at).await;
                read.map_err(|error| failed(at_offset("read", at), error))?;
            }
            if ours != theirs {
                let first = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b).unwrap_or_default();
                return Err(differs(format!(
                    "the disk differs from its source at guest offset {}",
                    at + first as u64
                )));
            }
            proof.compared_bytes += len;
            at += len;
        }
        Ok(())
    }

    /// The source's bytes, with zeros after its end.
    fn read_source(&self, at: u64, buf: &mut [u8]) {
        let there = self.source.len().saturating_sub(at).min(buf.len() as u64) as usize;
        self.source.read_at(at, &mut buf[..there]);
        buf[there..].fill(0);
    }
}

fn failed(operation: impl Into<String>, error: io::Error) -> Error {
    Error::new(Stage::Sink, Kind::Other, operation).because(error)
}

fn differs(text: String) -> Error {
    Error::new(Stage::Sink, Kind::TargetHash, text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::embedded::VmImage;

    const CLUSTER: usize = 65_536;
    const COPIED: u64 = 1 << 63;
    const COMPRESSED: u64 = 1 << 62;

    /// A qcow2 image written here and now by the letter of the format: one L1 entry a 512 MiB, every
    /// second data cluster compressed. The reader needs no refcounts to read.
    fn qcow2(source: &dyn ImageData) -> Vec<u8> {
        let clusters = source.len().div_ceil(CLUSTER as u64) as usize;
        let tables = clusters.div_ceil(CLUSTER / 8);
        let mut file = vec![0; (2 + tables) * CLUSTER];
        file[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        for (at, value) in [(20, 16u32), (36, tables as u32), (96, 4), (100, 104)] {
            file[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        let virtual_size = source.len().next_multiple_of(512);
        for (at, value) in [(24, virtual_size), (40, CLUSTER as u64)] {
            file[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        for table in 0..tables {
            let entry = COPIED | ((2 + table) * CLUSTER) as u64;
            file[CLUSTER + 8 * table..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        let mut compressor =
            libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).expect("level"));
        for cluster in 0..clusters {
            let offset = (cluster * CLUSTER) as u64;
            let mut guest = vec![0; CLUSTER];
            let len = (source.len() - offset).min(CLUSTER as u64) as usize;
            source.read_at(offset, &mut guest[..len]);
            if guest.iter().all(|&byte| byte == 0) {
                continue;
            }
            let host = file.len().next_multiple_of(CLUSTER);
            let mut packed = vec![0; CLUSTER];
            let entry = match compressor.deflate_compress(&guest, &mut packed) {
                Ok(len) if cluster % 2 == 0 => {
                    guest = packed;
                    guest.truncate(len.next_multiple_of(512));
                    // 8 bits of sectors above 54 bits of offset, for clusters of 64 KiB.
                    COMPRESSED | ((len.div_ceil(512) as u64 - 1) << 54) | host as u64
                }
                _ => COPIED | host as u64,
            };
            file.resize(host, 0);
            file.extend_from_slice(&guest);
            file[2 * CLUSTER + 8 * cluster..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        file
    }

    #[test]
    fn an_image_with_the_same_bytes_is_proved_equal() {
        for size in [(200u64 << 20) + 700, 512, 100] {
            let source = VmImage::new(9, size, 0.2);
            let file = Bytes::from(qcow2(&source));
            let proof = prove_equal(&source, Arc::new(file.clone())).expect("equal");
            assert_eq!(proof.virtual_bytes, size.next_multiple_of(512));
            assert_eq!(
                (proof.compared_bytes + proof.hole_bytes, proof.qcow2_bytes),
                (proof.virtual_bytes, file.len() as u64)
            );
            assert_eq!(proof.hole_bytes > 0, size > 1 << 20);
        }
    }

    #[test]
    fn one_byte_or_sector_too_many_is_found() {
        let source = VmImage::new(9, 100 << 20, 0.2);
        let file = qcow2(&source);
        let mut raw = vec![0; 100 << 20];
        source.read_at(0, &mut raw);
        // In data, in a hole, in the last byte.
        let hole =
            (1..1600).find(|&cluster| source.is_hole(cluster * 65_536, 65_536)).expect("a hole") as usize;
        for at in [600, hole * 65_536 + 5, raw.len() - 1] {
            raw[at] ^= 1;
            let error = prove_equal(&Bytes::from(raw.clone()), Arc::new(Bytes::from(file.clone())))
                .expect_err("differs");
            assert!(error.to_string().ends_with(&format!("guest offset {at}")), "{error}");
            raw[at] ^= 1;
        }
        let longer = VmImage::new(9, (100 << 20) + 512, 0.2);
        let error = prove_equal(&longer, Arc::new(Bytes::from(file))).expect_err("differs");
        assert!(error.to_string().contains("104857600 bytes instead of 104858112"), "{error}");
        assert!(prove_equal(&source, Arc::new(Bytes::from_static(b"no qcow2"))).is_err());
    }

    #[test]
    #[ignore = "prints figures"]
    fn speed() {
        let source = VmImage::new(2, 4 << 30, 0.125);
        let file = Arc::new(Bytes::from(qcow2(&source)));
        let began = std::time::Instant::now();
        let proof = prove_equal(&source, file).expect("equal");
        println!("{proof:?}: {:.1} s", began.elapsed().as_secs_f64());
    }
}
