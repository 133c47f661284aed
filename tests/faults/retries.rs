//! Transfers that break are taken up again: by the rest alone where the store allows it, else from the beginning,
//! with what was there before compared on the way; as often and as long as was asked for.

use std::time::{Duration, Instant};

use snapcow::convert::{RouteTaken, SourceCheck};
use snapcow::embedded::{
    Answer, Cut, EmbeddedOptions, Fault, Faults, RangeAnswer, Record, Route, SeedHash, Stall,
};
use snapcow::error::{Kind, Stage};
use snapcow::retry::Retry;

use super::bench::{Bench, MIB, Noise, Tune, quick, with};

/// The probe is refused before it counts as a download that can be cut.
fn cut(times: u32, after_bytes: u64, reset: bool) -> Faults {
    let what = Cut { after_bytes, reset };
    Faults { download_cut: Some(Fault::first(times, what)), ..Faults::default() }
}

fn finished(records: &[Record]) -> Vec<bool> {
    records.iter().map(|record| record.finished).collect()
}

#[test]
fn a_sequential_download_that_breaks_starts_over_and_skips() {
    for reset in [false, true] {
        let bench = Bench::new(with(cut(2, 9 * MIB + 77, reset)), Noise::full(24 * MIB));
        let (receipt, _) = bench.converts(&Tune::spool());
        assert!(matches!(receipt.source_check, SourceCheck::Verified(_)));
        assert_eq!(finished(&bench.whole_downloads()), [false, false, true]);
        // The probe, and one question for the rest alone, which this store refuses.
        let ranges: Vec<_> = bench.records(Route::Download).iter().filter_map(|r| r.range.clone()).collect();
        assert_eq!(ranges.len(), 2, "{ranges:?}");
    }
}

#[test]
fn the_second_read_starts_over_too() {
    let faults = Faults {
        download_cut: Some(Fault { skip: 1, times: 2, what: Cut { after_bytes: 5 * MIB, reset: true } }),
        ..Faults::default()
    };
    let bench = Bench::new(with(faults), Noise::full(24 * MIB));
    let (receipt, _) = bench.converts(&Tune::reread());
    assert_eq!((receipt.route, receipt.delivered.unwrap().retries), (Some(RouteTaken::Reread), 0));
    assert!(bench.whole_downloads().len() >= 4);
}

#[test]
fn the_rest_alone_is_asked_for_where_the_store_allows_it() {
    // One of several endpoints: the one that was probed does not know ranges, this one does.
    let faults = Faults {
        range_answer: Some(Fault::first(1, RangeAnswer::Whole200)),
        download_cut: Some(Fault { skip: 1, times: 1, what: Cut { after_bytes: 9 * MIB, reset: true } }),
        ..Faults::default()
    };
    let bench = Bench::new(EmbeddedOptions { ranges: true, ..with(faults) }, Noise::full(24 * MIB));
    bench.converts(&Tune::spool());
    assert_eq!(bench.whole_downloads().len(), 1);
    let last = bench.records(Route::Download).pop().unwrap();
    let end = format!("-{}", 24 * MIB - 1);
    assert!(last.range.as_deref().is_some_and(|range| range.ends_with(&end)), "{last:?}");
    assert!(last.sent_bytes < 24 * MIB, "{last:?}");
}

#[test]
fn a_source_that_changed_while_a_download_was_broken_is_refused() {
    // Without a hash of Glance's nothing else would notice.
    let faults = Faults { download_flip: Some(Fault::from_second(3 * MIB)), ..cut(1, 9 * MIB, true) };
    let bench = Bench::with_hash(with(faults), Noise::full(24 * MIB), SeedHash::Missing);
    let error = bench.fails(&Tune::spool(), Stage::Source, Kind::SourceChanged);
    assert!(error.contains("changed between two downloads"), "{error}");
}

#[test]
fn a_download_that_never_gets_further_is_given_up() {
    let bench = Bench::new(with(cut(u32::MAX, 5 * MIB, true)), Noise::full(24 * MIB));
    let retry = Retry { retries: 2, ..quick() };
    let error = bench.fails(&Tune { retry, ..Tune::spool() }, Stage::Source, Kind::Network);
    assert!(error.contains("download image"), "{error}");
    assert_eq!(bench.whole_downloads().len(), 3, "the one that came further, and two more");
}

#[test]
fn a_download_that_gets_further_each_time_comes_to_its_end() {
    // Ranges: every second connection is cut, more often than one range may be tried in vain.
    let what = Cut { after_bytes: 3 * MIB, reset: true };
    let faults = Faults { download_cut: Some(Fault { skip: 1, times: 12, what }), ..Faults::default() };
    let bench = Bench::new(EmbeddedOptions { ranges: true, ..with(faults) }, Noise::full(48 * MIB));
    let retry = Retry { retries: 1, ..quick() };
    bench.converts(&Tune { retry, ..Tune::spool() });
}

#[test]
fn the_time_for_tries_is_bounded_too() {
    let bench = Bench::new(with(cut(u32::MAX, 0, true)), Noise::full(4 * MIB));
    let retry = Retry { retries: 1000, time: Duration::from_secs(1), ..quick() };
    let begin = Instant::now();
    bench.fails(&Tune { retry, ..Tune::spool() }, Stage::Source, Kind::Network);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(bench.whole_downloads().len() < 20);
}

#[test]
fn a_download_that_falls_silent_is_taken_up_again() {
    for ranges in [false, true] {
        let stall = Stall { after_bytes: 6 * MIB, duration: Duration::from_secs(60) };
        let skip = u32::from(ranges);
        let faults =
            Faults { download_stall: Some(Fault { skip, times: 1, what: stall }), ..Faults::default() };
        let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, Noise::full(24 * MIB));
        let retry = Retry { silence: Duration::from_millis(700), ..quick() };
        let begin = Instant::now();
        bench.converts(&Tune { retry, ..Tune::spool() });
        assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    }
}

#[test]
fn an_upload_that_nobody_reads_is_sent_again() {
    let stall = Stall { after_bytes: 3 * MIB, duration: Duration::from_secs(60) };
    let faults = Faults { upload_stall: Some(Fault::first(1, stall)), ..Faults::default() };
    let options = EmbeddedOptions { socket_buffer_bytes: Some(64 << 10), ..with(faults) };
    let bench = Bench::new(options, Noise::full(24 * MIB));
    let retry = Retry { upload_silence: Duration::from_millis(700), ..quick() };
    let (receipt, _) = bench.converts(&Tune { retry, ..Tune::spool() });
    assert_eq!(receipt.delivered.unwrap().retries, 1);
}

#[test]
fn a_broken_upload_is_sent_again_without_a_new_survey() {
    let faults = Faults { upload_cut: Some(Fault::first(2, 7 * MIB)), ..Faults::default() };
    let bench = Bench::new(with(faults), Noise::full(24 * MIB));
    let (receipt, _) = bench.converts(&Tune::spool());
    assert_eq!(receipt.delivered.unwrap().retries, 2);
    assert_eq!(bench.whole_downloads().len(), 1, "the source was read once");
}

#[test]
fn a_wish_for_a_pause_is_obeyed() {
    let busy = Answer { retry_after: Some(1), ..Answer::status(429) };
    let mut faults = Faults::default();
    faults.answers.push((Some(Route::Create), Fault::first(1, busy)));
    let bench = Bench::new(with(faults), Noise::full(MIB));
    let begin = Instant::now();
    bench.converts(&Tune::spool());
    assert!(begin.elapsed() > Duration::from_millis(750), "{:?}", begin.elapsed());
}
