//! The hashes that Glance keeps of an image's data: `os_hash_algo` names SHA-2 variants,
//! `checksum` is MD5. A leaf.

use std::fmt::Write as _;

use sha2::Digest as _;

mod guest;
mod sha512;

pub use guest::{BLOCK_BYTES, BlockDigests, GuestDigest};
use sha512::Sha512;

/// A hash that Glance is known to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `checksum`, where nothing better is kept.
    Md5,
    /// `os_hash_algo` = `sha256`.
    Sha256,
    /// `os_hash_algo` = `sha384`.
    Sha384,
    /// `os_hash_algo` = `sha512`, Glance's default.
    Sha512,
}

impl Algorithm {
    /// By the name that `os_hash_algo` uses.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "md5" => Some(Self::Md5),
            "sha256" => Some(Self::Sha256),
            "sha384" => Some(Self::Sha384),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// The name that `os_hash_algo` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

/// A hash of an image's data and how it is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The value in lower-case hexadecimal.
    pub hex: String,
}

/// A running hash.
#[derive(Clone)]
pub struct Hasher(Context);

#[derive(Clone)]
enum Context {
    Md5(Box<md5::Md5>),
    Sha256(Box<sha2::Sha256>),
    Sha384(Box<Sha512>),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Begins a hash.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Md5 => Context::Md5(Box::default()),
            Algorithm::Sha256 => Context::Sha256(Box::default()),
            Algorithm::Sha384 => Context::Sha384(Box::new(Sha512::new_384())),
            Algorithm::Sha512 => Context::Sha512(Box::new(Sha512::new())),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Context::Md5(context) => context.update(bytes),
            Context::Sha256(context) => context.update(bytes),
            Context::Sha384(context) | Context::Sha512(context) => context.update(bytes),
        }
    }

    /// Adds so many bytes of zero, which SHA-512 and SHA-384 do in two thirds of the time that
    /// other bytes take.
    pub fn update_zeros(&mut self, mut count: u64) {
        static ZEROS: [u8; 32768] = [0; 32768];
        if let Context::Sha384(context) | Context::Sha512(context) = &mut self.0 {
            context.update_zeros(count);
            return;
        }
        while count > 0 {
            let take = count.min(ZEROS.len() as u64);
            self.update(&ZEROS[..take as usize]);
            count -= take;
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Digest {
        match self.0 {
            Context::Md5(context) => Digest { algorithm: Algorithm::Md5, hex: hex(&context.finalize()) },
            Context::Sha256(context) => {
                Digest { algorithm: Algorithm::Sha256, hex: hex(&context.finalize()) }
            }
            Context::Sha384(context) => {
                Digest { algorithm: Algorithm::Sha384, hex: hex(&context.finish()[..48]) }
            }
            Context::Sha512(context) => Digest { algorithm: Algorithm::Sha512, hex: hex(&context.finish()) },
        }
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;
    use md5::Md5;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    #[test]
    fn known_answers() {
        for (name, prefix) in [
            ("md5", "900150983cd2"),
            ("sha256", "ba7816bf8f01"),
            ("sha384", "cb00753f45a3"),
            ("sha512", "ddaf35a19361"),
        ] {
            let algorithm = Algorithm::from_name(name).unwrap();
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            let digest = hasher.finish();
            assert_eq!(digest.algorithm.name(), name);
            assert!(digest.hex.starts_with(prefix), "{name}: {}", digest.hex);
        }
    }

    /// More than 2^32 bits, by coreutils: `head -c 536870913 /dev/zero | sha512sum`.
    #[test]
    fn known_answers_for_many_zeros() {
        for (algorithm, prefix) in
            [(Algorithm::Sha384, "243996d96817743f535a722a"), (Algorithm::Sha512, "8165468866efe161e7d5394b")]
        {
            let mut hasher = Hasher::new(algorithm);
            hasher.update_zeros((1 << 29) + 1);
            let hex = hasher.finish().hex;
            assert!(hex.starts_with(prefix), "{algorithm:?}: {hex}");
        }
    }

    /// The hash by a library that shares no code with ours, and as plain data.
    fn by_others(algorithm: Algorithm, bytes: &[u8]) -> String {
        let sha2 = |variant| hex(digest::digest(variant, bytes).as_ref());
        match algorithm {
            Algorithm::Md5 => hex(&Md5::digest(bytes)),
            Algorithm::Sha256 => sha2(&digest::SHA256),
            Algorithm::Sha384 => sha2(&digest::SHA384),
            Algorithm::Sha512 => sha2(&digest::SHA512),
        }
    }

    #[test]
    fn every_length_around_a_block_as_data_and_as_zeros() {
        for len in 0..400usize {
            for split in [0, 1, len / 2, len.saturating_sub(1), len] {
                let split = split.min(len);
                let bytes = vec![0; len];
                for algorithm in ALL {
                    let (mut data, mut zeros) = (Hasher::new(algorithm), Hasher::new(algorithm));
                    data.update(&bytes[..split]);
                    zeros.update_zeros(split as u64);
                    data.update(&bytes[split..]);
                    zeros.update_zeros((len - split) as u64);
                    let expected = by_others(algorithm, &bytes);
                    assert_eq!(data.finish().hex, expected, "{algorithm:?}, {len} cut at {split}");
                    assert_eq!(zeros.finish().hex, expected, "{algorithm:?}, {len} zeros cut at {split}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_mixture_of_data_and_zeros(
            pieces in proptest::collection::vec((any::<bool>(), any::<u8>(), prop_oneof![0usize..300, 0usize..70_000]), 0..12),
        ) {
            let mut bytes = Vec::new();
            let mut hashers = ALL.map(Hasher::new);
            for (is_zeros, seed, len) in pieces {
                if is_zeros {
                    bytes.resize(bytes.len() + len, 0);
                    hashers.iter_mut().for_each(|hasher| hasher.update_zeros(len as u64));
                } else {
                    let piece: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(167) ^ seed).collect();
                    hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
                    bytes.extend(piece);
                }
            }
            for (algorithm, hasher) in ALL.into_iter().zip(hashers) {
                prop_assert_eq!(hasher.finish().hex, by_others(algorithm, &bytes), "{:?}", algorithm);
            }
        }
    }
}
