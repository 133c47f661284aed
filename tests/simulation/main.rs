//! Thousands of runs, each with a schedule of faults drawn from a seed: in memory, into a file, and through a
//! Glance in this process. Whatever happens: success means that the target is the source, bit by bit; failure
//! means that nothing is left, or that what is left is named, and that the message says which step failed.
//!
//! SNAPCOW_SCHEDULES: how many, from seed 0 on (300). SNAPCOW_SEED: this one alone. A seed always gives the
//! same schedule; in memory and into files its faults strike at the same byte each time.
#![cfg(feature = "embedded")]

#[path = "../common/disks.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod disks;
mod glance;
mod local;
mod proof;
mod schedule;
mod shaky;
#[path = "../common/writer.rs"]
mod writer;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use schedule::{Schedule, World};
use snapcow::error::Error;

/// No schedule takes this long unless it hangs.
const HANGS: Duration = Duration::from_secs(120);
/// Seeds that broke a promise once.
const FOUND: [u64; 3] = [6787, 14098, 15750];
/// Schedules under way at once: most of their time is waiting.
const AT_ONCE: usize = 6;

/// What a schedule came to: how it ended, or which promise was broken.
pub type Verdict = Result<String, String>;

/// What every error has to be like.
pub fn check_error(error: &Error) -> Result<String, String> {
    let text = error.to_string();
    let stage = format!("{}: ", error.stage());
    if !text.starts_with(&stage) || text.len() < stage.len() + 10 {
        return Err(format!("the message names no step: {text}"));
    }
    Ok(error.kind().word().to_owned())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn run(schedule: Schedule) -> Verdict {
    let (done, verdict) = mpsc::channel();
    let own = schedule.clone();
    std::thread::spawn(move || {
        let verdict = catch_unwind(AssertUnwindSafe(|| match own.world {
            World::Glance { .. } => glance::run(&own),
            World::Memory { .. } | World::File => local::run(&own),
        }));
        let _ = done.send(verdict.unwrap_or_else(|_| Err("the run panicked".into())));
    });
    verdict.recv_timeout(HANGS).unwrap_or_else(|_| Err("the run hangs".into()))
}

#[test]
fn whatever_goes_wrong_the_result_is_right_or_nothing_is_left() {
    let seeds: Vec<u64> = match number("SNAPCOW_SEED") {
        Some(seed) => vec![seed],
        None => FOUND.into_iter().chain(0..number("SNAPCOW_SCHEDULES").unwrap_or(300)).collect(),
    };
    let (begin, next) = (Instant::now(), AtomicUsize::new(0));
    let (ends, violations) = (Mutex::new(BTreeMap::<String, u64>::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    if violations.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let schedule = Schedule::draw(seed);
                    let world = schedule.world.word();
                    match run(schedule.clone()) {
                        Ok(end) => *ends.lock().unwrap().entry(format!("{world}: {end}")).or_default() += 1,
                        Err(what) => {
                            violations
                                .lock()
                                .unwrap()
                                .push(format!("SNAPCOW_SEED={seed}: {what}\n{schedule:#?}"));
                        }
                    }
                }
            });
        }
    });
    println!("{} schedules in {:.1} s", seeds.len(), begin.elapsed().as_secs_f64());
    let ends = ends.into_inner().unwrap();
    ends.iter().for_each(|(end, count)| println!("{count:7} {end}"));
    let violations = violations.into_inner().unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    if seeds.len() >= 200 {
        // Faults that nothing survives, or that nobody meets, would prove nothing.
        let count =
            |word: &str| ends.iter().filter(|(end, _)| end.contains(word)).map(|(_, n)| n).sum::<u64>();
        let all = ends.values().sum::<u64>();
        assert!(count(": done") * 10 > all && count(": done") * 10 < all * 9, "{ends:?}");
    }
}

#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in 0..500 {
        assert_eq!(format!("{:?}", Schedule::draw(seed)), format!("{:?}", Schedule::draw(seed)));
    }
}

#[test]
fn in_memory_a_seed_comes_to_the_same_end_each_time() {
    let in_memory = (0..).map(Schedule::draw).filter(|own| matches!(own.world, World::Memory { .. }));
    for schedule in in_memory.take(40) {
        let ends = [run(schedule.clone()), run(schedule.clone())];
        assert_eq!(ends[0], ends[1], "{schedule:#?}");
    }
}
