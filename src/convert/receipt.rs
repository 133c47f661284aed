//! The proof of a run: what was read, made, sent, and which hashes agreed.

use std::time::Duration;

use super::Job;
use super::counters::{Counters, Timed};
use super::pipeline::Pass;
use super::proof::Proof;
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::Form;
use crate::hash::{Algorithm, Digest};
use crate::map::ImageMap;
use crate::place::Layout;
use crate::plan::Plan;
use crate::sink::Delivered;
use crate::spool::{Spool, SpoolStats};

/// The route that the bytes took in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTaken {
    /// One pass, header last.
    Direct,
    /// One pass into the spool.
    Spool,
    /// The spool overflowed: a second read.
    Reread,
}

/// Whether the source was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceCheck {
    /// Its hash is the one that the service keeps.
    Verified(Digest),
    /// It was not compared, and why.
    NotVerified(String),
}

/// What a finished run can show.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Name of the source.
    pub source: String,
    /// Name of the target.
    pub target: String,
    /// Bytes of the raw disk.
    pub source_len: u64,
    /// The disk as the guest sees it: `source_len` rounded up to 512.
    pub virtual_size: u64,
    /// Whether the source was verified.
    pub source_check: SourceCheck,
    /// The digest of what the guest reads, in lower-case hexadecimal; see [`crate::hash::GuestDigest`].
    pub guest_digest: Option<String>,
    /// Whether pass 1, with the comparison of the source and the digest, was an earlier run's, by its state file.
    pub resumed: bool,
    /// How often a compressed cluster was decoded again and compared before it was placed; one that was encoded
    /// again, for a second read or a second upload, counts again.
    pub verified_clusters: Option<u64>,
    /// The route taken.
    pub route: Option<RouteTaken>,
    /// Bytes of the image.
    pub image_len: u64,
    /// Clusters that hold data, of all.
    pub data_clusters: u64,
    /// Clusters of the disk.
    pub clusters: u64,
    /// Data clusters that are stored compressed; the others are stored as they were read.
    pub compressed_clusters: u64,
    /// What the spool has seen, where there was one.
    pub spool: Option<SpoolStats>,
    /// The smallest `--memory` that would have saved a second read, in bytes.
    pub memory_to_save_reread: Option<u64>,
    /// The smallest `--spool-disk` that would have saved a second read, in bytes.
    pub disk_to_save_reread: Option<u64>,
    /// What the delivery found, unless the target is a file.
    pub delivered: Option<Delivered>,
    /// Bytes of the image that are blocks of the source as well.
    pub shared_bytes: u64,
    /// How a file target was written.
    pub written_by: Option<&'static str>,
    /// Wall time of the conversion.
    pub wall: Duration,
    /// Thread time of reading local files, scan, encode, decoding again, digest and hash, and time that the sink
    /// took.
    pub stage_times: [(&'static str, Duration); 7],
}

impl Receipt {
    /// Of a run between these two that has done nothing yet.
    pub fn new(source: &str, target: &str) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            source_len: 0,
            virtual_size: 0,
            source_check: SourceCheck::NotVerified("the run did not come so far".into()),
            guest_digest: None,
            resumed: false,
            verified_clusters: None,
            route: None,
            image_len: 0,
            data_clusters: 0,
            clusters: 0,
            compressed_clusters: 0,
            spool: None,
            memory_to_save_reread: None,
            disk_to_save_reread: None,
            delivered: None,
            shared_bytes: 0,
            written_by: None,
            wall: Duration::ZERO,
            stage_times: [("read", Duration::ZERO); 7],
        }
    }

    /// What is missing of the whole chain of proof, as a sentence; `None` if it is whole, so that the source is not
    /// needed any more: the source verified by the hash that its service keeps, every compressed cluster decoded again
    /// and compared, the target's hash that of the bytes sent. MD5 is no proof: two disks with the same one can be made
    /// to order. `source_too`: whether the source has to be verified.
    ///
    /// A run that went on from a state file has encoded, and decoded, every cluster again.
    pub fn gap_in_proof(&self, source_too: bool) -> Option<String> {
        let weak = |digest: &Digest| digest.algorithm == Algorithm::Md5;
        match &self.source_check {
            _ if !source_too => {}
            SourceCheck::Verified(digest) if weak(digest) => {
                return Some("the source is verified by MD5 alone".into());
            }
            SourceCheck::Verified(_) => {}
            SourceCheck::NotVerified(reason) => return Some(format!("the source is not verified: {reason}")),
        }
        match self.verified_clusters {
            None => return Some("the compressed clusters were not decoded again".into()),
            Some(decoded) if decoded < self.compressed_clusters => {
                let all = self.compressed_clusters;
                return Some(format!("{decoded} of {all} compressed clusters were decoded again"));
            }
            Some(_) => {}
        }
        match self.delivered.as_ref().map(|delivered| (&delivered.verified, &delivered.unverified)) {
            None => Some("the target keeps no hash".into()),
            Some((Some(digest), _)) if weak(digest) => Some("the target is verified by MD5 alone".into()),
            Some((Some(_), _)) => None,
            Some((None, Some(reason))) => Some(format!("the target is not verified: {reason}")),
            Some((None, None)) => Some("the target is not verified".into()),
        }
    }

    /// After pass 1: checks length and hash of the source.
    pub(super) fn surveyed(&mut self, pass: &Pass, map: &ImageMap, job: &Job) -> Result<()> {
        self.source_len = pass.len;
        self.virtual_size = super::virtual_size(pass);
        self.clusters = map.clusters();
        self.data_clusters = map.data_clusters();
        let is_compressed = |stored_len| Form::of(stored_len, map.cluster_size()) != Form::Plain;
        self.compressed_clusters =
            map.data().filter(|(_, entry)| is_compressed(entry.stored_len)).count() as u64;
        self.guest_digest.clone_from(&pass.guest_digest);
        if map.clusters() != map.cluster_size().clusters_for(pass.len) {
            let what = format!(
                "{} of {} clusters arrived",
                map.clusters(),
                map.cluster_size().clusters_for(pass.len)
            );
            return Err(Error::new(Stage::Source, Kind::Other, what).advise("please report this"));
        }
        self.source_check = match (&job.source_digest, &pass.digest) {
            (Err(reason), _) => SourceCheck::NotVerified(reason.clone()),
            (Ok(expected), Some(found)) if found == expected => SourceCheck::Verified(found.clone()),
            (Ok(expected), found) => {
                let found = found.as_ref().map_or("no hash", |digest| digest.hex.as_str());
                let what = format!(
                    "the bytes of {} have the {} {found}, but the service keeps {}",
                    self.source,
                    expected.algorithm.name(),
                    expected.hex
                );
                return Err(Error::new(Stage::Source, Kind::SourceChanged, what)
                    .advise("the stored image is damaged, or was damaged on the way: run this again, then ask the operator"));
            }
        };
        Ok(())
    }

    pub(super) fn spooled(&mut self, spool: &Spool, plan: &Plan) {
        let stats = spool.stats();
        if spool.has_dropped() {
            // One block more than the clusters took: the next one is opened before the last is full.
            let needed = (stats.blocks + 1) * Spool::block_bytes(plan.facts.wishes.cluster_size) as u64;
            let budget = &plan.budget;
            self.memory_to_save_reread =
                Some(budget.memory_bytes + needed.saturating_sub(budget.spool_memory_bytes));
            self.disk_to_save_reread = Some(needed.saturating_sub(budget.spool_memory_bytes / 2));
        }
        self.spool = Some(stats);
    }

    pub(super) fn delivered(&mut self, route: RouteTaken, layout: &Layout, delivered: Option<Delivered>) {
        self.route = Some(route);
        self.image_len = layout.file_len;
        self.delivered = delivered;
    }

    pub(super) fn finish(&mut self, counters: &Counters, proof: Proof, wall: Duration) {
        self.wall = wall;
        self.verified_clusters = proof.verify_encode.then(|| Counters::get(&counters.verified_clusters));
        self.shared_bytes = Counters::get(&counters.shared_bytes);
        self.stage_times = [
            ("read", counters.time(Timed::Read)),
            ("scan", counters.time(Timed::Scan)),
            ("encode", counters.time(Timed::Encode)),
            ("verify", counters.time(Timed::Verify)),
            ("digest", counters.time(Timed::Digest)),
            ("hash", counters.time(Timed::Hash)),
            ("sink", counters.time(Timed::Sink)),
        ];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: Algorithm) -> Digest {
        Digest { algorithm, hex: "00".into() }
    }

    #[test]
    fn the_proof_is_whole_only_with_all_of_its_links() {
        let delivered = |verified: Option<Digest>| {
            Some(Delivered {
                verified,
                unverified: Some("nothing to compare".into()),
                ..Delivered::default()
            })
        };
        let whole = Receipt {
            source_check: SourceCheck::Verified(digest(Algorithm::Sha512)),
            compressed_clusters: 5,
            verified_clusters: Some(5),
            delivered: delivered(Some(digest(Algorithm::Sha512))),
            ..Receipt::new("a", "b")
        };
        assert_eq!(whole.gap_in_proof(true), None);
        let without = |receipt: Receipt, word: &str, source_too: bool| {
            let gap = receipt.gap_in_proof(source_too);
            assert!(gap.as_ref().is_some_and(|gap| gap.contains(word)), "{gap:?}");
        };
        for check in [SourceCheck::Verified(digest(Algorithm::Md5)), SourceCheck::NotVerified("null".into())]
        {
            let unproven = Receipt { source_check: check, ..whole.clone() };
            without(unproven.clone(), "the source", true);
            assert_eq!(unproven.gap_in_proof(false), None);
        }
        without(Receipt { verified_clusters: None, ..whole.clone() }, "decoded", false);
        without(Receipt { verified_clusters: Some(4), ..whole.clone() }, "4 of 5", false);
        without(Receipt { delivered: None, ..whole.clone() }, "the target", false);
        without(Receipt { delivered: delivered(None), ..whole.clone() }, "nothing to compare", false);
        let weak = delivered(Some(digest(Algorithm::Md5)));
        without(Receipt { delivered: weak, ..whole }, "MD5", false);
    }
}
