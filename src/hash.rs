//! The hashes that Glance keeps of an image's data: `os_hash_algo` names SHA-2 variants,
//! `checksum` is MD5. A leaf.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use md5::Digest as _;

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
    Sha2(Algorithm, Box<digest::Context>),
}

impl Hasher {
    /// Begins a hash.
    pub fn new(algorithm: Algorithm) -> Self {
        let sha2 = |variant| Context::Sha2(algorithm, Box::new(digest::Context::new(variant)));
        Self(match algorithm {
            Algorithm::Md5 => Context::Md5(Box::default()),
            Algorithm::Sha256 => sha2(&digest::SHA256),
            Algorithm::Sha384 => sha2(&digest::SHA384),
            Algorithm::Sha512 => sha2(&digest::SHA512),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Context::Md5(context) => context.update(bytes),
            Context::Sha2(_, context) => context.update(bytes),
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Digest {
        match self.0 {
            Context::Md5(context) => Digest { algorithm: Algorithm::Md5, hex: hex(&context.finalize()) },
            Context::Sha2(algorithm, context) => Digest { algorithm, hex: hex(context.finish().as_ref()) },
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
    use super::*;

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
}
