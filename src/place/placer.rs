//! The placing rule.
//!
//! Compressed clusters are packed byte by byte, in guest order. A plain cluster needs a whole host
//! cluster at an aligned offset; placed at once, it would leave the rest of the host cluster that
//! the packing has begun unused, half a cluster on average. So it is held back while compressed
//! clusters go on packing (QEMU back-fills to the same end, `alloc_bytes` in
//! `block/qcow2-refcount.c`), until the first of:
//!
//! 1. the packing stands on a cluster boundary, where nothing is lost;
//! 2. the next compressed cluster would cross a boundary with at most 1/16 of a cluster to go;
//! 3. [`HELD_BYTES_MAX`] are held back or have gone past.
//!
//! Offsets rise in the order in which clusters are handed out.

use crate::flow::Form;
use crate::qcow2::limits::REFCOUNT_MAX;
use crate::units::{ClusterIndex, ClusterSize, HostOffset};

/// Payload that is held back at most (one cluster, where clusters are as large as this), in bytes.
pub const HELD_BYTES_MAX: u64 = 2 << 20;

/// A cluster that has its place.
#[derive(Debug)]
pub struct Placed<T> {
    /// Which guest cluster.
    pub cluster: ClusterIndex,
    /// Where it lies in the file.
    pub host: HostOffset,
    /// How it is stored.
    pub form: Form,
    /// What the caller sent along.
    pub payload: T,
}

/// Places clusters one after the other; see the module's text for the rule.
#[derive(Debug)]
pub struct Placer<T> {
    cluster_size: ClusterSize,
    /// Where the next compressed byte goes.
    cursor: u64,
    held: Vec<(ClusterIndex, T)>,
    /// Compressed bytes placed since the first held cluster came.
    passed: u64,
    /// The host cluster that was packed last, and how many compressed clusters touch it.
    shared: (u64, u32),
}

impl<T> Placer<T> {
    /// Starts at a cluster-aligned host offset.
    pub fn new(cluster_size: ClusterSize, start: HostOffset) -> Self {
        debug_assert_eq!(cluster_size.offset_in(start.0), 0);
        Self { cluster_size, cursor: start.0, held: Vec::new(), passed: 0, shared: (u64::MAX, 0) }
    }

    /// Takes the next cluster in guest order and hands out what now has a place, in host order.
    ///
    /// # Errors
    /// Only what `out` returns.
    pub fn push<E>(
        &mut self,
        cluster: ClusterIndex,
        form: Form,
        payload: T,
        out: &mut impl FnMut(Placed<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        match form {
            Form::Plain => {
                self.held.push((cluster, payload));
                if self.is_aligned() || self.waiting() >= HELD_BYTES_MAX { self.flush(out) } else { Ok(()) }
            }
            Form::Compressed(len) => {
                let len = u64::from(len);
                if !self.held.is_empty()
                    && (self.may_flush_before(len) || self.waiting() + len > HELD_BYTES_MAX)
                {
                    self.flush(out)?;
                }
                self.reserve_share(len);
                let host = HostOffset(self.cursor);
                self.cursor += len;
                if !self.held.is_empty() {
                    self.passed += len;
                }
                out(Placed { cluster, host, form, payload })
            }
        }
    }

    /// Whether a cluster of this form, pushed next, would have to wait for its place.
    pub fn would_hold(&self, form: Form) -> bool {
        let waiting = self.waiting() + self.cluster_size.bytes();
        form == Form::Plain && !self.is_aligned() && waiting < HELD_BYTES_MAX
    }

    /// Hands out what is still held back. The placer can go on afterwards.
    ///
    /// # Errors
    /// Only what `out` returns.
    pub fn flush<E>(&mut self, out: &mut impl FnMut(Placed<T>) -> Result<(), E>) -> Result<(), E> {
        self.passed = 0;
        for (cluster, payload) in self.held.drain(..) {
            let host = self.cluster_size.round_up(self.cursor);
            self.cursor = host + self.cluster_size.bytes();
            out(Placed { cluster, host: HostOffset(host), form: Form::Plain, payload })?;
        }
        Ok(())
    }

    /// The lowest guest cluster that is held back.
    pub fn oldest_held(&self) -> Option<ClusterIndex> {
        self.held.first().map(|(cluster, _)| *cluster)
    }

    /// The first host offset behind everything placed so far.
    pub fn end(&self) -> HostOffset {
        HostOffset(self.cursor)
    }

    fn is_aligned(&self) -> bool {
        self.cluster_size.offset_in(self.cursor) == 0
    }

    fn waiting(&self) -> u64 {
        self.held.len() as u64 * self.cluster_size.bytes() + self.passed
    }

    fn may_flush_before(&self, len: u64) -> bool {
        if self.is_aligned() {
            return true;
        }
        let left = self.cluster_size.bytes() - self.cluster_size.offset_in(self.cursor);
        len > left && left <= self.cluster_size.bytes() / 16
    }

    /// Keeps the refcount of every host cluster within 16 bits: moves on to the next one when the
    /// current is touched by as many compressed clusters as a refcount can count.
    fn reserve_share(&mut self, len: u64) {
        let bits = self.cluster_size.bits();
        if self.cursor >> bits == self.shared.0 && self.shared.1 == REFCOUNT_MAX {
            self.cursor = self.cluster_size.round_up(self.cursor);
        }
        let (first, last) = (self.cursor >> bits, (self.cursor + len - 1) >> bits);
        self.shared = if last == self.shared.0 { (last, self.shared.1 + 1) } else { (last, 1) };
        debug_assert!(first <= last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const CS: ClusterSize = ClusterSize::DEFAULT;

    fn place(start: u64, forms: &[Form]) -> (Vec<(u64, u64)>, u64) {
        let mut placer = Placer::new(CS, HostOffset(start));
        let mut placed = Vec::new();
        let mut out = |p: Placed<()>| {
            placed.push((p.cluster.0, p.host.0));
            Ok::<(), Infallible>(())
        };
        for (index, form) in forms.iter().enumerate() {
            placer.push(ClusterIndex(index as u64), *form, (), &mut out).unwrap();
        }
        placer.flush(&mut out).unwrap();
        let end = placer.end().0;
        (placed, end)
    }

    #[test]
    fn plain_clusters_alone_follow_each_other() {
        let (placed, end) = place(1 << 16, &[Form::Plain, Form::Plain]);
        assert_eq!(placed, [(0, 1 << 16), (1, 2 << 16)]);
        assert_eq!(end, 3 << 16);
    }

    #[test]
    fn a_plain_cluster_waits_while_compressed_ones_fill_the_begun_host_cluster() {
        let c = Form::Compressed(30_000);
        // 30000 + 30000 leave 5536 bytes, too much to give up; the third crosses, and after the
        // fourth (120000) the fifth would cross with 11072 to go: still too much.
        let (placed, _) = place(0, &[c, Form::Plain, c, c, c]);
        assert_eq!(placed, [(0, 0), (2, 30_000), (3, 60_000), (4, 90_000), (1, 2 << 16)]);
    }

    #[test]
    fn a_boundary_with_little_to_lose_lets_the_held_ones_out() {
        let (placed, end) = place(0, &[Form::Compressed(62_000), Form::Plain, Form::Compressed(10_000)]);
        assert_eq!(placed, [(0, 0), (1, 1 << 16), (2, 2 << 16)]);
        assert_eq!(end, (2 << 16) + 10_000);
    }

    #[test]
    fn nothing_is_held_back_by_more_than_two_mib() {
        let mut forms = vec![Form::Compressed(100), Form::Plain];
        forms.extend([Form::Compressed(50_000); 100]);
        let (placed, _) = place(0, &forms);
        let position = placed.iter().position(|(cluster, _)| *cluster == 1).unwrap();
        assert!((position as u64 - 1) * 50_000 <= HELD_BYTES_MAX);
        assert!(placed.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn a_host_cluster_is_shared_by_at_most_65535_compressed_clusters() {
        let two_mib = ClusterSize::from_bits(21).unwrap();
        let mut placer = Placer::new(two_mib, HostOffset(0));
        let mut last = 0;
        for index in 0..65_536u64 {
            let mut out = |p: Placed<()>| {
                last = p.host.0;
                Ok::<(), Infallible>(())
            };
            placer.push(ClusterIndex(index), Form::Compressed(20), (), &mut out).unwrap();
        }
        assert_eq!(last, 2 << 20);
    }
}
