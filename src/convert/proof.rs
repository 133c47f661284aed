//! Which proofs a run makes besides the comparison with the services' hashes.

/// Proofs that cost time and are chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Decode every compressed cluster again and compare it, before it is placed.
    pub verify_encode: bool,
    /// Make the digest of the guest's content ([`crate::hash::GuestDigest`]).
    pub guest_digest: bool,
}

impl Proof {
    /// Neither.
    pub const NONE: Self = Self { verify_encode: false, guest_digest: false };
}

impl Default for Proof {
    /// Both: beside a network and the hash of the source they hardly show. Between local files the command leaves them
    /// out unless told otherwise, or asked for a receipt.
    fn default() -> Self {
        Self { verify_encode: true, guest_digest: true }
    }
}
