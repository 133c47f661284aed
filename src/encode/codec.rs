//! The codecs behind one face: bytes in, bytes out if they fit.

use libdeflater::{CompressionLvl, Compressor};
use zlib_rs::{Deflate, DeflateFlush, Status};
use zstd_safe::{CCtx, CParameter};

use super::Compression;
#[cfg(feature = "isal-sys")]
use super::isal::Isal;
use super::probe::Probe;

/// Window of QEMU's own deflate streams as a power of two (`deflateInit2` with -12 in
/// `block/qcow2-threads.c`): 4 KiB.
const SMALL_WINDOW_BITS: u8 = 12;

/// Largest window that deflate has: 32 KiB.
#[cfg(feature = "isal-sys")]
const LARGE_WINDOW_BITS: u8 = 15;

pub(super) enum Codec {
    Libdeflate {
        compressor: Box<Compressor>,
        probe: Probe,
    },
    ZlibRs {
        stream: Box<Deflate>,
        level: i32,
        probe: Probe,
    },
    #[cfg(feature = "isal-sys")]
    Isal(Isal),
    Zstd(Box<CCtx<'static>>),
}

impl Codec {
    /// `None` where nothing is to be compressed.
    pub(super) fn new(compression: Compression) -> Option<Self> {
        match compression {
            Compression::None => None,
            Compression::Deflate(level) => {
                let level = CompressionLvl::new(level.clamp(1, 12)).unwrap_or_default();
                Some(Self::Libdeflate { compressor: Box::new(Compressor::new(level)), probe: Probe::new() })
            }
            Compression::DeflateSmallWindow(level) => {
                let level = level.clamp(1, 9);
                Some(Self::ZlibRs { stream: Box::new(small_window(level)), level, probe: Probe::new() })
            }
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsal => Some(Self::Isal(Isal::new(LARGE_WINDOW_BITS))),
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsalSmallWindow => Some(Self::Isal(Isal::new(SMALL_WINDOW_BITS))),
            Compression::Zstd(level) => {
                let mut context = Box::new(CCtx::create());
                // A level within the library's own bounds is always taken.
                let _ = context.set_parameter(CParameter::CompressionLevel(level.clamp(1, 19)));
                Some(Self::Zstd(context))
            }
        }
    }

    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        match self {
            Self::Libdeflate { compressor, probe } => {
                if probe.is_noise(input, output) {
                    return None;
                }
                compressor.deflate_compress(input, output).ok()
            }
            #[cfg(feature = "isal-sys")]
            Self::Isal(isal) => isal.compress(input, output),
            Self::Zstd(context) => context.compress2(output, input).ok(),
            Self::ZlibRs { stream, level, probe } => {
                if probe.is_noise(input, output) {
                    return None;
                }
                let status = stream.compress(input, output, DeflateFlush::Finish);
                let len = stream.total_out() as usize;
                if matches!(status, Ok(Status::StreamEnd)) {
                    stream.reset();
                    Some(len)
                } else {
                    // zlib-rs 0.6.8 can panic when a stream whose output did not fit is reset.
                    **stream = small_window(*level);
                    None
                }
            }
        }
    }
}

fn small_window(level: i32) -> Deflate {
    Deflate::new(level, false, SMALL_WINDOW_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    fn codecs() -> impl Iterator<Item = Compression> {
        [
            Compression::Deflate(1),
            Compression::Deflate(12),
            Compression::DeflateSmallWindow(1),
            Compression::DeflateSmallWindow(6),
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsal,
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsalSmallWindow,
            Compression::Zstd(1),
            Compression::Zstd(19),
        ]
        .into_iter()
    }

    #[test]
    fn a_result_does_not_depend_on_what_was_compressed_before() {
        let (text, noise) = (b"snapshot ".repeat(7000), noise(65536));
        for compression in codecs() {
            let mut fresh = Codec::new(compression).unwrap();
            let mut used = Codec::new(compression).unwrap();
            let (mut a, mut b) = (vec![0; 65535], vec![0; 65535]);
            assert_eq!(used.compress(&noise, &mut b), None, "{compression:?}: noise does not get smaller");
            assert_eq!(used.compress(&text, &mut b[..20]), None, "{compression:?}: it does not fit");
            used.compress(&text[..5000], &mut b).unwrap();
            let lens = (fresh.compress(&text, &mut a).unwrap(), used.compress(&text, &mut b).unwrap());
            assert_eq!(a[..lens.0], b[..lens.1], "{compression:?}");
        }
    }

    #[test]
    fn a_small_window_stream_can_be_read_with_a_small_window() {
        let mut text = noise(5000);
        text.extend_from_within(..);
        text.resize(65536, 7);
        let small_ones = [
            Compression::DeflateSmallWindow(9),
            #[cfg(feature = "isal-sys")]
            Compression::DeflateIsalSmallWindow,
        ];
        for compression in small_ones {
            let mut codec = Codec::new(compression).unwrap();
            let mut out = vec![0; 65535];
            let len = codec.compress(&text, &mut out).unwrap();
            let mut back = vec![0; 65536];
            let mut inflate = zlib_rs::Inflate::new(false, SMALL_WINDOW_BITS);
            // In pieces of 1 KiB, so that only the stream's own window can serve far references.
            let mut read = 0;
            for piece in back.chunks_mut(1024) {
                let before = inflate.total_in();
                inflate.decompress(&out[read..len], piece, zlib_rs::InflateFlush::NoFlush).unwrap();
                read += (inflate.total_in() - before) as usize;
            }
            assert!(back == text, "{compression:?}");
        }
    }
}
