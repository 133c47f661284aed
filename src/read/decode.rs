//! Compressed clusters back to guest bytes: bounded by the cluster, by decoders that the encoder does not
//! use where there are such (zlib-rs for deflate).

use zlib_rs::{Inflate, InflateFlush, Status};
use zstd_safe::{DCtx, find_frame_compressed_size};

use crate::qcow2::CompressionType;

/// Window of deflate streams: the largest, which reads those with a smaller one as well.
const WINDOW_BITS: u8 = 15;

/// Decodes clusters of one image.
pub struct Decoder(Codec);

enum Codec {
    Deflate(Box<Inflate>),
    Zstd(DCtx<'static>),
}

impl Decoder {
    /// For clusters that are compressed like this.
    pub fn new(compression: CompressionType) -> Self {
        Self(match compression {
            CompressionType::Zlib => Codec::Deflate(Box::new(inflate())),
            CompressionType::Zstd => Codec::Zstd(DCtx::create()),
        })
    }

    /// Fills `cluster` from `stored`, behind whose stream there may be other bytes: a descriptor counts
    /// whole sectors.
    ///
    /// # Errors
    /// What is wrong with the stream, in a few words.
    pub fn decode(&mut self, stored: &[u8], cluster: &mut [u8]) -> Result<(), &'static str> {
        match &mut self.0 {
            Codec::Deflate(stream) => {
                let status = stream.decompress(stored, cluster, InflateFlush::Finish);
                let filled = stream.total_out() == cluster.len() as u64;
                match status {
                    Ok(Status::StreamEnd) => stream.reset(false),
                    // What a broken stream leaves behind is not worth a thought.
                    _ => **stream = inflate(),
                }
                match status {
                    Ok(Status::StreamEnd) if filled => Ok(()),
                    Ok(Status::StreamEnd) => Err("its deflate stream ends before the cluster is full"),
                    Ok(_) if filled => Err("its deflate stream holds more than a cluster"),
                    Ok(_) => Err("its deflate stream is cut"),
                    Err(_) => Err("it is no deflate stream"),
                }
            }
            Codec::Zstd(context) => {
                let (mut read, mut filled) = (0, 0);
                // One call a frame: its window is the cluster itself, whatever size the frame claims. Every
                // frame is at least a few bytes long, so this ends.
                while filled < cluster.len() {
                    let rest = &stored[read..];
                    let len = find_frame_compressed_size(rest).map_err(|_| "it is no whole zstd frame")?;
                    let decoded = context.decompress(&mut cluster[filled..], &rest[..len]);
                    filled +=
                        decoded.map_err(|_| "its zstd frame is damaged or holds more than a cluster")?;
                    read += len;
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Codec::Deflate(_) => "Decoder(deflate)",
            Codec::Zstd(_) => "Decoder(zstd)",
        })
    }
}

fn inflate() -> Inflate {
    Inflate::new(false, WINDOW_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"snapshot of a virtual machine ";

    fn cluster() -> Vec<u8> {
        TEXT.iter().copied().cycle().take(65536).collect()
    }

    fn encoded(compression: CompressionType) -> Vec<u8> {
        let mut out = vec![0; 65536];
        let len = match compression {
            CompressionType::Zlib => {
                let level = libdeflater::CompressionLvl::new(6).unwrap();
                libdeflater::Compressor::new(level).deflate_compress(&cluster(), &mut out).unwrap()
            }
            CompressionType::Zstd => zstd_safe::compress(&mut out[..], &cluster(), 3).unwrap(),
        };
        out.truncate(len);
        out
    }

    #[test]
    fn streams_are_decoded_whatever_follows_and_after_any_failure() {
        for compression in [CompressionType::Zlib, CompressionType::Zstd] {
            let stream = encoded(compression);
            let mut padded = stream.clone();
            padded.resize(stream.len().next_multiple_of(512) + 512, 0xa5);
            let mut decoder = Decoder::new(compression);
            let mut out = vec![0; 65536];
            for good in [&stream, &padded] {
                decoder.decode(good, &mut out).unwrap();
                assert!(out == cluster());
                for cut in [0, 1, stream.len() / 2, stream.len() - 1] {
                    assert!(
                        decoder.decode(&stream[..cut], &mut out).is_err(),
                        "{compression:?} cut at {cut}"
                    );
                }
                assert!(decoder.decode(good, &mut out[..512]).is_err(), "{compression:?}: too much in it");
                assert!(decoder.decode(good, &mut vec![0; 1 << 17]).is_err(), "{compression:?}: too little");
                assert!(decoder.decode(&[0xff; 600], &mut out).is_err(), "{compression:?}: noise");
            }
        }
    }

    #[test]
    fn a_cluster_may_be_several_zstd_frames() {
        let (mut stream, mut part) = (Vec::new(), vec![0; 65536]);
        for half in cluster().chunks(40_000) {
            let len = zstd_safe::compress(&mut part[..], half, 1).unwrap();
            stream.extend_from_slice(&part[..len]);
        }
        let mut out = vec![0; 65536];
        Decoder::new(CompressionType::Zstd).decode(&stream, &mut out).unwrap();
        assert!(out == cluster());
    }
}
