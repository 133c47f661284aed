//! Stage 2 of 5, scan. Takes a chunk's bytes, gives its clusters as [`Run`]s of zero and data.
//! Holds nothing; never depends on how the input was cut.

pub mod zero;

use crate::flow::Run;
use crate::units::ClusterSize;

/// Cuts whole clusters into runs.
///
/// `bytes` is a multiple of the cluster size long; a shorter rest is left out.
pub fn runs(bytes: &[u8], cluster_size: ClusterSize) -> impl Iterator<Item = Run> + '_ {
    let mut kinds = bytes.chunks_exact(cluster_size.size()).map(|cluster| !zero::is_zero(cluster)).peekable();
    let mut first = 0;
    std::iter::from_fn(move || {
        let is_data = kinds.next()?;
        let mut run = Run { first, clusters: 1, is_data };
        while kinds.next_if_eq(&is_data).is_some() {
            run.clusters += 1;
        }
        first += run.clusters;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_chunk_and_alternate() {
        let cs = ClusterSize::from_bytes(512).unwrap();
        let mut bytes = vec![0; 512 * 5];
        bytes[512 + 511] = 1;
        bytes[1024] = 1;
        let run = |first, clusters, is_data| Run { first, clusters, is_data };
        assert!(runs(&bytes, cs).eq([run(0, 1, false), run(1, 2, true), run(3, 2, false)]));
        assert_eq!(runs(&[], cs).count(), 0);
    }
}
