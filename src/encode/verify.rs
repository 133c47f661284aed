//! Decodes what was encoded and compares it with the cluster, by a library that shares no code with the
//! one that encoded it, so that a fault of either shows.
//!
//! # Decisions
//! - zlib: what libdeflate and ISA-L write is read by zlib-rs; what zlib-rs writes, by libdeflate.
//! - zstd: what the reference library writes is read by ruzstd, a decoder in Rust. Its own decoder would be
//!   faster, but a misunderstanding of the format would be the same on both sides.
//! - Plain clusters have no codec that could fail: they are the bytes that were read.
//! - Not `read::Decoder`: that one reads what others wrote, with bytes behind the stream; here the stream
//!   must end with its bytes, and the library is chosen by who wrote it.

use libdeflater::Decompressor;
use ruzstd::decoding::FrameDecoder;
use zlib_rs::{Inflate, InflateFlush, Status};

use super::Compression;
use crate::units::ClusterSize;

/// Window of deflate as a power of two: every stream that we write can be read with the largest one.
const WINDOW_BITS: u8 = 15;

/// A decoder for one thread, and room for a cluster.
pub struct Verifier {
    decoder: Decoder,
    room: Vec<u8>,
}

enum Decoder {
    ZlibRs(Box<Inflate>),
    Libdeflate(Decompressor),
    Ruzstd(Box<FrameDecoder>),
}

impl Verifier {
    /// `None` where nothing is compressed.
    pub fn new(compression: Compression, cluster_size: ClusterSize) -> Option<Self> {
        let decoder = match compression {
            Compression::None => return None,
            Compression::DeflateSmallWindow(_) => Decoder::Libdeflate(Decompressor::new()),
            Compression::Deflate(_) => Decoder::ZlibRs(Box::new(Inflate::new(false, WINDOW_BITS))),
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsal | Compression::DeflateIsalSmallWindow => {
                Decoder::ZlibRs(Box::new(Inflate::new(false, WINDOW_BITS)))
            }
            Compression::Zstd(_) => Decoder::Ruzstd(Box::new(FrameDecoder::new())),
        };
        Some(Self { decoder, room: vec![0; cluster_size.size()] })
    }

    /// The library that decodes.
    pub fn library(&self) -> &'static str {
        match self.decoder {
            Decoder::ZlibRs(_) => "zlib-rs",
            Decoder::Libdeflate(_) => "libdeflate",
            Decoder::Ruzstd(_) => "ruzstd",
        }
    }

    /// Whether `stored` decodes to `cluster`, all of it and nothing else.
    ///
    /// # Errors
    /// In words, what is different.
    pub fn check(&mut self, cluster: &[u8], stored: &[u8]) -> Result<(), String> {
        let room = &mut self.room[..cluster.len()];
        let len = match &mut self.decoder {
            Decoder::ZlibRs(inflate) => {
                inflate.reset(false);
                let status = inflate
                    .decompress(stored, room, InflateFlush::Finish)
                    .map_err(|error| format!("it does not decode: {}", error.as_str()))?;
                if status != Status::StreamEnd || inflate.total_in() != stored.len() as u64 {
                    return Err("the stream does not end where it should".into());
                }
                inflate.total_out() as usize
            }
            Decoder::Libdeflate(decompressor) => decompressor
                .deflate_decompress(stored, room)
                .map_err(|error| format!("it does not decode: {error}"))?,
            Decoder::Ruzstd(decoder) => {
                let len = decoder
                    .decode_all(stored, room)
                    .map_err(|error| format!("it does not decode: {error}"))?;
                // Other decoders believe what the frame says of its length.
                if decoder.content_size() != len as u64 {
                    return Err(format!("its frame announces {} bytes", decoder.content_size()));
                }
                len
            }
        };
        if len != cluster.len() {
            return Err(format!("it decodes to {len} bytes, not to {}", cluster.len()));
        }
        if room == cluster {
            return Ok(());
        }
        let at = room.iter().zip(cluster).position(|(decoded, byte)| decoded != byte).unwrap_or(len);
        Err(format!("it decodes to another byte at {at}"))
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({})", self.library())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Encoder;

    const CODECS: &[Compression] = &[
        Compression::Deflate(1),
        Compression::Deflate(12),
        Compression::DeflateSmallWindow(1),
        Compression::DeflateSmallWindow(9),
        #[cfg(feature = "isal-sys")]
        Compression::DeflateIsal,
        #[cfg(feature = "isal-sys")]
        Compression::DeflateIsalSmallWindow,
        Compression::Zstd(1),
        Compression::Zstd(19),
    ];

    fn text(len: usize, from: u32) -> Vec<u8> {
        (from..).flat_map(|number| format!("{number} bottles\n").into_bytes()).take(len).collect()
    }

    #[test]
    fn what_is_right_passes_at_every_cluster_size() {
        for bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS {
            let size = ClusterSize::from_bits(bits).unwrap();
            for &compression in CODECS {
                let mut encoder = Encoder::new(compression, size);
                let mut verifier = Verifier::new(compression, size).unwrap();
                let mut room = vec![0; size.size()];
                for from in [0, 7_000_000] {
                    let cluster = text(size.size(), from);
                    let len = encoder.compress(&cluster, &mut room).unwrap();
                    assert_eq!(verifier.check(&cluster, &room[..len]), Ok(()), "{compression:?}, 2^{bits}");
                }
            }
        }
        assert!(Verifier::new(Compression::None, ClusterSize::DEFAULT).is_none());
    }

    /// Every flipped bit is noticed, unless the decoder reads the same bytes all the same (padding).
    #[test]
    fn what_is_wrong_is_noticed_and_does_no_harm_to_the_next() {
        let size = ClusterSize::from_bytes(4096).unwrap();
        let cluster = text(4096, 1);
        for &compression in CODECS {
            let mut encoder = Encoder::new(compression, size);
            let mut verifier = Verifier::new(compression, size).unwrap();
            let mut room = vec![0; 4096];
            let len = encoder.compress(&cluster, &mut room).unwrap();
            let mut missed = 0;
            for bit in 0..len * 8 {
                room[bit / 8] ^= 1 << (bit % 8);
                missed += usize::from(verifier.check(&cluster, &room[..len]).is_ok());
                room[bit / 8] ^= 1 << (bit % 8);
            }
            // Up to 7 bits behind the last symbol, and fields of the zstd header that change nothing.
            assert!(missed <= 24, "{compression:?}: {missed} of {} flips", len * 8);
            assert!(verifier.check(&cluster, &room[..len - 1]).is_err(), "{compression:?}: cut");
            assert!(verifier.check(&text(4096, 2), &room[..len]).is_err(), "{compression:?}: another one");
            assert!(verifier.check(&cluster[..4095], &room[..len]).is_err(), "{compression:?}: longer");
            assert_eq!(verifier.check(&cluster, &room[..len]), Ok(()), "{compression:?}");
        }
    }
}
