//! What decides about the codec's bytes besides the bytes that it is given.

use super::{Compression, Encoder};
use crate::units::ClusterSize;

/// The program, the codec as it behaves here, and the instructions that this processor offers it: two runs whose
/// builds are the same make the same image, bit by bit.
///
/// Codecs choose their way by what the processor has, and a library may be another one under the same version
/// of this program. So the instructions are named, and some clusters are compressed and summed up.
pub fn build(compression: Compression) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let sum = fingerprint(compression);
    format!("snapcow {version}, {compression:?} {sum:08x}, zstd {}, {}", zstd_safe::version_string(), cpu())
}

/// CRC-32 over what some clusters become: text, structured binary data, noise with repetitions.
fn fingerprint(compression: Compression) -> u32 {
    let cs = ClusterSize::DEFAULT;
    let mut encoder = Encoder::new(compression, cs);
    let mut room = vec![0; cs.size()];
    let mut sum = crc32fast::Hasher::new();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for kind in 0..3 {
        let mut cluster = Vec::with_capacity(cs.size() + 64);
        while cluster.len() < cs.size() {
            let value = next();
            match kind {
                0 => cluster.extend_from_slice(format!("{} {:x}\n", value % 977, value % 61).as_bytes()),
                1 => cluster.extend_from_slice(&[value as u8 & 15, 0, (value >> 8) as u8 & 3, 0xff]),
                _ if value.is_multiple_of(3) && cluster.len() > 40 => {
                    let from = value as usize % (cluster.len() - 33);
                    cluster.extend_from_within(from..from + 33);
                }
                _ => cluster.extend_from_slice(&value.to_le_bytes()),
            }
        }
        cluster.truncate(cs.size());
        let len = encoder.compress(&cluster, &mut room).unwrap_or(0);
        sum.update(&(len as u32).to_le_bytes());
        sum.update(&room[..len]);
    }
    sum.finalize()
}

/// The architecture and those of its extensions that codecs are known to ask for.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("vpclmulqdq", std::arch::is_x86_feature_detected!("vpclmulqdq")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    let mut text = std::env::consts::ARCH.to_owned();
    for (name, _) in found.iter().filter(|(_, there)| *there) {
        text.push('+');
        text.push_str(name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_the_same_each_time_and_another_for_another_codec() {
        let all = [
            Compression::None,
            Compression::Deflate(1),
            Compression::Deflate(6),
            Compression::DeflateSmallWindow(6),
            Compression::Zstd(2),
        ];
        let prints: Vec<u32> = all.iter().map(|&compression| fingerprint(compression)).collect();
        assert!(prints.iter().enumerate().all(|(at, print)| !prints[..at].contains(print)), "{prints:x?}");
        assert_eq!(build(Compression::Zstd(2)), build(Compression::Zstd(2)));
        assert!(build(Compression::Zstd(2)).contains(std::env::consts::ARCH));
    }
}
