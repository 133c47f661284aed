//! An image that goes somewhere else: here in pieces of equal size into a folder, as an object store takes them.
//!
//! `cargo run --example custom_sink -- DISK.raw FOLDER`

use std::path::{Path, PathBuf};

use bytes::Bytes;
use snapcow::convert::{Conversion, Receipt};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{SinkFacts, SinkOrder};
use snapcow::sink::{Delivered, Delivery, InOrder, Produce};
use snapcow::source::FileSource;

/// Bytes of a piece.
const PIECE_BYTES: usize = 5 << 20;

/// Pieces in a folder.
struct Pieces {
    facts: SinkFacts,
    folder: PathBuf,
    piece: Vec<u8>,
    written: Vec<PathBuf>,
    sent: u64,
}

impl Pieces {
    fn new(folder: &Path) -> Self {
        let facts = SinkFacts { name: folder.display().to_string(), order: SinkOrder::InOrder };
        Self { facts, folder: folder.into(), piece: Vec::new(), written: Vec::new(), sent: 0 }
    }

    fn flush(&mut self) -> Result<()> {
        let path = self.folder.join(format!("piece-{:05}", self.written.len()));
        self.written.push(path.clone());
        std::fs::write(&path, &self.piece).map_err(|error| {
            Error::new(Stage::Sink, Kind::Local, format!("write `{}`", path.display())).because(error)
        })?;
        self.sent += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

impl InOrder for Pieces {
    fn put(&mut self, mut part: Bytes) -> Result<()> {
        while !part.is_empty() {
            let take = part.len().min(PIECE_BYTES - self.piece.len());
            self.piece.extend_from_slice(&part.split_to(take));
            if self.piece.len() == PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }
}

impl Delivery for Pieces {
    fn facts(&self) -> &SinkFacts {
        &self.facts
    }

    // A service that loses what it was sent may ask for it again: by another call of `produce`.
    fn deliver(&mut self, _len: u64, produce: Produce<'_>) -> Result<Delivered> {
        produce(self)?;
        self.flush()?;
        let unverified = Some("a folder has nobody who could confirm its bytes".into());
        Ok(Delivered { bytes: self.sent, unverified, ..Delivered::default() })
    }

    // After a failure nothing is to be left; what cannot be removed is named.
    fn abandon(&mut self) -> Option<String> {
        let left: Vec<_> = self.written.iter().filter(|path| std::fs::remove_file(path).is_err()).collect();
        left.first().map(|path| format!("remove `{}` and what is like it", path.display()))
    }
}

fn convert(disk: &Path, folder: &Path) -> Result<Receipt> {
    Conversion::of(FileSource::open(disk, false)?).deliver(Pieces::new(folder))
}

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [disk, folder] = &words[..] else {
        let what = "two words are needed: a raw disk and a folder";
        return Err(Error::new(Stage::Plan, Kind::Usage, what));
    };
    let receipt = convert(Path::new(disk), Path::new(folder))?;
    println!("{folder}: {} bytes hold a disk of {}", receipt.image_len, receipt.virtual_size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapcow::read::{GuestImage, Input};

    use super::*;

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// Bytes that do not get smaller.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    #[test]
    fn the_pieces_are_the_image() {
        let (pieces, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (raw, disk) = (other.path().join("disk"), noise(12 << 20));
        std::fs::write(&raw, &disk).unwrap();
        let receipt = convert(&raw, pieces.path()).unwrap();
        let names = names(pieces.path());
        assert_eq!(names.len(), 3);
        let image: Vec<u8> = names.iter().flat_map(|name| std::fs::read(name).unwrap()).collect();
        assert_eq!(image.len() as u64, receipt.image_len);
        let input = Input { len: image.len() as u64, bytes: Arc::new(image), name: "the image".into() };
        let mut read = vec![0; disk.len()];
        GuestImage::open(input).unwrap().reader().read(&mut read, 0).unwrap();
        assert!(read == disk);
    }

    #[test]
    fn nothing_is_left_of_what_failed() {
        let (pieces, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let raw = other.path().join("disk");
        std::fs::write(&raw, noise(12 << 20)).unwrap();
        // The second piece has no place.
        std::fs::create_dir(pieces.path().join("piece-00001")).unwrap();
        let error = convert(&raw, pieces.path()).unwrap_err();
        assert_eq!((error.stage(), error.kind()), (Stage::Sink, Kind::Local));
        assert!(error.advice().unwrap().contains("piece-00001"), "{error}");
        assert_eq!(names(pieces.path()), [pieces.path().join("piece-00001")]);
    }
}
