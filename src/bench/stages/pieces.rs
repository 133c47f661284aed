//! A bare loop: pieces of a buffer, worked through by several threads, with nothing around it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bench::timing::{Lap, Watch};
use crate::convert::Cancel;

/// Pieces that each thread gets on average at least, so that the last ones do not decide.
const PIECES_PER_THREAD: usize = 4;

/// What is worked through.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) piece_bytes: usize,
    /// How often all of it is worked through at least.
    pub(super) passes: usize,
}

impl Pieces<'_> {
    fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.piece_bytes)
    }

    /// How often all of it is worked through by so many threads.
    fn passes(&self, threads: usize) -> usize {
        self.passes.max((threads * PIECES_PER_THREAD).div_ceil(self.count().max(1)))
    }

    /// Bytes that go in when so many threads work.
    pub(super) fn total_bytes(&self, threads: usize) -> u64 {
        self.bytes.len() as u64 * self.passes(threads) as u64
    }

    /// Works through everything once. Every thread makes its own worker and has done one piece
    /// before the clocks start; a worker gives the number of bytes that came out of a piece.
    pub(super) fn run<W: FnMut(&[u8]) -> u64>(
        &self,
        threads: usize,
        cancel: &Cancel,
        make: &(impl Fn() -> W + Sync),
    ) -> (Lap, u64) {
        let (next, start) = (AtomicUsize::new(0), Barrier::new(threads));
        let end = self.count() * self.passes(threads);
        let piece = |number: usize| {
            let from = number % self.count() * self.piece_bytes;
            &self.bytes[from..self.bytes.len().min(from + self.piece_bytes)]
        };
        let work = || {
            let mut worker = make();
            worker(piece(0));
            start.wait();
            let watch = Watch::thread();
            let mut out = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end || cancel.signal().is_some() {
                    return (watch.lap(), out);
                }
                out += worker(piece(number));
            }
        };
        let laps: Vec<(Lap, u64)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("a bare loop does not panic")).collect()
        });
        let lap = Lap {
            wall_seconds: laps.iter().map(|(lap, _)| lap.wall_seconds).fold(0.0, f64::max),
            cpu_seconds: laps.iter().map(|(lap, _)| lap.cpu_seconds).sum(),
        };
        (lap, laps.iter().map(|(_, out)| out).sum())
    }
}
