//! Streams that pass by: whatever the order and the size of offers, enough passes give what random reads give.
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, and some have one")]

use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;

const LIMITS: Limits = Limits { memory_bytes: 64 << 20 };

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 20
}

/// A test that hangs fails.
fn within_time(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let thread = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(Duration::from_secs(120)) {
        Ok(()) => thread.join().unwrap(),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err());
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

/// Streams a disk to a reader; what is zero is told as zeros now and then.
fn stream(passing: &Passing, disk: &[u8], seed: u64, chunk_max: u64) {
    let mut state = seed;
    let mut at = 0u64;
    while at < disk.len() as u64 {
        let len = (random(&mut state) % chunk_max + 1).min(disk.len() as u64 - at);
        let bytes = &disk[at as usize..(at + len) as usize];
        if bytes.iter().all(|byte| *byte == 0) && random(&mut state) & 1 == 0 {
            passing.offer_zeros(at, len);
        } else {
            passing.offer(at, bytes);
        }
        at += len;
    }
    passing.end();
}

struct Counted<'a>(&'a dyn Disk);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A reader whose questions depend on what it has read; it sends others, which do the same.
fn wander(disk: &dyn Disk, len: u64, seed: u64, steps: u32) -> Vec<Option<u64>> {
    let _counted = Counted(disk);
    let mut state = seed;
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let mut children = Vec::new();
        for step in 0..steps {
            let mut wanted = Vec::new();
            let mut at = random(&mut state) % len;
            for _ in 0..random(&mut state) % 4 + 1 {
                let end = (at + random(&mut state) % 300 + 1).min(len);
                wanted.push(at..end);
                at = end + random(&mut state) % 500;
                if at >= len {
                    break;
                }
            }
            let sum = disk.read(&wanted).ok().map(|read| {
                read.concat().iter().fold(7u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte))
            });
            seen.push(sum);
            // A reader that failed has nothing to go on with.
            let Some(sum) = sum else { break };
            state ^= sum;
            if step % 3 == 1 && steps > 3 {
                disk.enter();
                let seed = state;
                children.push(scope.spawn(move || wander(disk, len, seed, steps / 2)));
            }
        }
        // From here on this thread waits for others: it is counted out by them ending first, or by the guard.
        disk.leave();
        for child in children {
            seen.extend(child.join().unwrap());
        }
        disk.enter();
    });
    seen
}

#[test]
fn enough_passes_give_what_random_reads_give() {
    within_time(|| {
        for seed in 0..60u64 {
            let mut state = seed;
            let len = 2_000 + random(&mut state) % 60_000;
            let disk: Vec<u8> = (0..len)
                .map(|at| if at / 3_000 % 3 == 1 { 0 } else { (random(&mut state) >> (at % 8)) as u8 })
                .collect();
            let truth = wander(&disk, len, seed, 8);
            assert!(truth.iter().all(Option::is_some));
            for chunk_max in [1 + seed % 60, 4_096, 1 << 20] {
                let mut passing = Passing::new(LIMITS);
                let mut passes = 0;
                let seen = loop {
                    let seen = std::thread::scope(|scope| {
                        let reader = scope.spawn(|| wander(&passing, len, seed, 8));
                        stream(&passing, &disk, seed ^ passes, chunk_max);
                        reader.join().unwrap()
                    });
                    passes += 1;
                    if passing.missed().is_empty() {
                        break seen;
                    }
                    assert!(seen.iter().any(Option::is_none));
                    passing = passing.again();
                };
                assert_eq!(seen, truth, "seed {seed}, chunks up to {chunk_max}");
                // Each pass answers at least one question more of the longest chain of questions.
                assert!(passes <= 16, "{passes} passes");
            }
        }
    });
}

#[test]
fn what_comes_too_late_does_not_depend_on_who_is_faster() {
    within_time(|| {
        let disk: Vec<u8> = (0..40_000u32).map(|at| (at / 7) as u8).collect();
        let mut first = None;
        for run in 0..40u64 {
            let passing = Passing::new(LIMITS);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(run * 37 % 900));
                    wander(&passing, 40_000, 5, 8)
                });
                stream(&passing, &disk, 1, 2_000);
            });
            let missed = passing.missed();
            assert!(!missed.is_empty());
            assert_eq!(*first.get_or_insert_with(|| missed.clone()), missed);
        }
    });
}

#[test]
fn a_question_that_bytes_give_rise_to_is_still_answered_from_them() {
    within_time(|| {
        let disk: Vec<u8> = (0..=255).collect();
        let passing = Passing::new(LIMITS);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _counted = Counted(&passing);
                let end = passing.read(&[200..201]).unwrap();
                let begin = passing.read(&[100..101, 250..252]).unwrap();
                (end, begin, passing.read(&[99..100]).is_err(), passing.read(&[200..201]).is_ok())
            });
            passing.offer(0, &disk[..100]);
            passing.offer(100, &disk[100..251]);
            passing.offer(251, &disk[251..]);
            let (end, begin, is_late, is_kept) = reader.join().unwrap();
            assert_eq!((end, begin), (vec![vec![200]], vec![vec![100], vec![250, 251]]));
            assert!(is_late && is_kept);
        });
        assert_eq!(passing.missed(), [99..100]);
        let again = passing.again();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _counted = Counted(&again);
                // It was wanted from the beginning, and what was kept is there at once.
                let kept = again.read(&[250..252]).unwrap();
                (kept, again.read(&[255..256]).unwrap(), again.read(&[99..101]).unwrap())
            });
            again.offer(0, &disk);
            assert_eq!(reader.join().unwrap(), (vec![vec![250, 251]], vec![vec![255]], vec![vec![99, 100]]));
        });
        assert!(again.missed().is_empty());
    });
}

#[test]
fn memory_is_bounded() {
    within_time(|| {
        let passing = Passing::new(Limits { memory_bytes: 1_000 });
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _counted = Counted(&passing);
                let large = passing.read(&[0..1_000]).is_err();
                let small = passing.read(&[0..500]).is_ok();
                (large, small, passing.read(&[100..500]).is_ok(), passing.read(&[400..901]).is_err())
            });
            for at in 0..10 {
                passing.offer(at * 100, &[1; 100]);
            }
            assert_eq!(reader.join().unwrap(), (true, true, true, true));
        });
        assert!(passing.held_bytes() <= 1_000 && passing.missed().is_empty());
    });
}

#[test]
fn readers_that_panic_or_leave_early_hold_nothing_up() {
    within_time(|| {
        let passing = Passing::new(LIMITS);
        std::thread::scope(|scope| {
            passing.enter();
            passing.enter();
            let bad = scope.spawn(|| {
                let _counted = Counted(&passing);
                passing.read(&[10..20]).unwrap();
                panic!("as planned");
            });
            scope.spawn(|| drop(Counted(&passing)));
            let good = scope.spawn(|| {
                let _counted = Counted(&passing);
                (passing.read(&[90..95]), passing.read(&[99..120]))
            });
            passing.offer(0, &[7; 50]);
            assert!(bad.join().is_err());
            passing.offer(50, &[8; 50]);
            passing.end();
            let (first, second) = good.join().unwrap();
            assert_eq!(first.unwrap(), [[8; 5]]);
            assert!(second.is_err(), "the stream is over");
        });
        // Without readers, it goes on as it likes.
        passing.offer(100, &[1; 10]);
        assert!(passing.missed().is_empty());
    });
}

#[test]
fn what_a_stream_leaves_out_is_an_error() {
    within_time(|| {
        let passing = Passing::new(LIMITS);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _counted = Counted(&passing);
                (passing.read(&[10..20, 40..50]).is_err(), passing.read(&[60..70]).is_ok())
            });
            passing.offer(0, &[1; 15]);
            passing.offer(30, &[1; 70]);
            assert_eq!(reader.join().unwrap(), (true, true));
        });
    });
}
