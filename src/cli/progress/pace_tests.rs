//! The remaining time on made-up runs: it is true, and it does not jump.

use super::*;

const TICK: f64 = 0.2;
const MIB: u64 = 1 << 20;
const LEN: u64 = 10_000 * MIB;
const IMAGE: u64 = 1_000 * MIB;

fn look(seconds: f64, phase: Phase, guest: u64, sink: u64) -> Look {
    Look {
        at: Duration::from_secs_f64(seconds),
        phase,
        source_len: Some(LEN),
        sends: true,
        source_bytes: guest,
        guest_bytes: guest,
        zero_bytes: guest / 2,
        hole_bytes: 0,
        stored_bytes: guest / 10,
        sink_bytes: sink,
        image_bytes: if phase == Phase::Survey { 0 } else { IMAGE },
        reread_bytes: 0,
    }
}

/// A run whose speeds, in MiB a second, are functions of the time: the moments, with what was foretold then.
fn run(read: impl Fn(f64) -> f64, send: impl Fn(f64) -> f64) -> Vec<(f64, Option<f64>)> {
    let (mut pace, mut said, mut at) = (Pace::default(), Vec::new(), 0.0);
    let (mut guest, mut sink) = (0.0, 0.0);
    pace.see(&look(at, Phase::Survey, 0, 0));
    while guest < LEN as f64 {
        at += TICK;
        guest = (guest + read(at) * TICK * MIB as f64).min(LEN as f64);
        pace.see(&look(at, Phase::Survey, guest as u64, 0));
        said.push((at, pace.left()));
    }
    while sink < IMAGE as f64 {
        pace.see(&look(at, Phase::Deliver, LEN, sink as u64));
        said.push((at, pace.left()));
        at += TICK;
        sink = (sink + send(at) * TICK * MIB as f64).min(IMAGE as f64);
    }
    said
}

/// Between two looks the remaining time moves by the time that passed, and at most 3 % and half a second beside it.
fn does_not_jump(said: &[(f64, Option<f64>)]) {
    for pair in said.windows(2) {
        let [(before, Some(was)), (after, Some(is))] = pair else { continue };
        let jump = (is - (was - (after - before)).max(0.0)).abs();
        assert!(jump <= 0.03 * was + 0.5, "from {was:.1} to {is:.1} s at {after:.1} s");
    }
    let begun = said.iter().position(|(_, left)| left.is_some()).expect("something is foretold");
    assert!(said[begun..].iter().all(|(_, left)| left.is_some()), "what was once foretold stays so");
}

#[test]
fn a_steady_run_is_foretold_from_the_third_second_on() {
    let said = run(|_| 100.0, |_| 50.0);
    does_not_jump(&said);
    let end = said.last().unwrap().0;
    for (at, left) in said.iter().filter(|(at, _)| *at > 3.0) {
        let (truth, left) = (end - at, left.unwrap());
        assert!(
            (left - truth).abs() <= 0.05 * truth + 1.0,
            "{left:.1} s said, {truth:.1} s true at {at:.1} s"
        );
    }
}

#[test]
fn noise_a_pause_and_a_slower_line_move_it_gently() {
    let noise = |at: f64| 100.0 + 60.0 * (at * 7.0).sin() * (at * 1.3).cos();
    let pause = |at: f64| if (30.0..40.0).contains(&at) { 0.0 } else { 100.0 };
    let slower = |at: f64| if at < 40.0 { 200.0 } else { 20.0 };
    let bursts = |at: f64| if ((at / 5.0) as u64).is_multiple_of(2) { 190.0 } else { 10.0 };
    let cases: [(&dyn Fn(f64) -> f64, f64); 4] =
        [(&noise, 50.0), (&pause, 50.0), (&slower, 10.0), (&bursts, 50.0)];
    for (read, send) in cases {
        let said = run(read, |_| send);
        does_not_jump(&said);
        // In the second half of the run it is true within a third of what is left.
        let end = said.last().unwrap().0;
        let late = said.iter().filter(|(at, _)| *at > 0.6 * end && end - at > 10.0);
        for (at, left) in late {
            let (truth, left) = (end - at, left.unwrap());
            assert!(
                (left - truth).abs() < truth / 3.0,
                "{left:.1} s said, {truth:.1} s true at {at:.1} of {end:.1}"
            );
        }
    }
}

#[test]
fn an_upload_that_is_five_times_slower_than_guessed_is_learnt_calmly() {
    let said = run(|_| 100.0, |_| 10.0);
    does_not_jump(&said);
    let (end, (at, left)) = (said.last().unwrap().0, said[said.len() - 300]);
    assert!((left.unwrap() - (end - at)).abs() < 10.0, "{left:?} at {at} of {end}");
}

#[test]
fn nothing_is_foretold_of_a_stream_without_an_end() {
    let mut pace = Pace::default();
    for tick in 0..100u32 {
        let mut look = look(f64::from(tick) * TICK, Phase::Survey, u64::from(tick) * MIB, 0);
        look.source_len = None;
        pace.see(&look);
        assert_eq!(pace.left(), None);
    }
    let rate = pace.rate().unwrap();
    assert!((rate / MIB as f64 - 5.0).abs() < 0.1, "{rate}");
}
