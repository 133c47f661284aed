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
    /// What the command does unless told otherwise.
    fn default() -> Self {
        Self { verify_encode: false, guest_digest: true }
    }
}
