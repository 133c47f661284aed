//! Progress on standard error: a line that lives on a terminal, a few lines in a log, events for programs.
//!
//! A stage that is done leaves one line. The remaining time is that of all stages, and moves calmly ([`pace`]).
//! The events are described by `progress-1.schema.json` beside this file.

mod events;
mod line;
mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use snapcow::convert::{Counters, Phase};

use super::args::ProgressMode;
use super::screen;
use line::Style;
use pace::{Look, Pace};

const RUNNING: u8 = 0;
const DROPPED: u8 = 1;
const SUCCEEDED: u8 = 2;
const FAILED: u8 = 3;

/// How often the counters are looked at: soon enough for the eye, and never the reason that anything is slow.
const TICK: Duration = Duration::from_millis(100);
/// A look more than this many ticks apart is drawn; an eye reads no faster.
const DRAWN_TICKS: u32 = 2;
/// Stages shorter than this leave no line, unless bytes have moved in them.
const NOTABLE: Duration = Duration::from_millis(500);
/// In a log that nobody asked for progress in, stages shorter than this leave none at all.
const NOTABLE_UNASKED: Duration = Duration::from_secs(10);

/// Shows progress until it is dropped or told how it ended.
pub struct Progress {
    end: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

/// What there is to do, as far as it is known beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Length of the source in bytes.
    pub len: Option<u64>,
    /// Whether a second pass sends the image.
    pub sends: bool,
}

impl Progress {
    /// Progress of a single pass over `len` bytes.
    #[allow(dead_code, reason = "for commands that only read or only send")]
    pub fn start(mode: ProgressMode, quiet: bool, counters: Arc<Counters>, len: Option<u64>) -> Self {
        Self::of(mode, quiet, counters, Work { len, sends: false })
    }

    /// Progress of this work. `quiet` counts where nobody asked for a mode.
    pub fn of(mode: ProgressMode, quiet: bool, counters: Arc<Counters>, work: Work) -> Self {
        let is_live = screen::can_redraw();
        let show: Option<Box<dyn Show>> = match mode {
            ProgressMode::Auto if quiet => None,
            ProgressMode::None => None,
            ProgressMode::Auto | ProgressMode::Bar if is_live => Some(Box::new(Terminal::new())),
            ProgressMode::Auto => Some(Box::new(Log::new(false))),
            ProgressMode::Bar | ProgressMode::Plain => Some(Box::new(Log::new(true))),
            ProgressMode::Json => Some(Box::new(events::Events::default())),
        };
        let end = Arc::new(AtomicU8::new(RUNNING));
        let flag = Arc::clone(&end);
        let thread = show.and_then(|mut show| {
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || watch(&flag, &counters, work, &mut *show))
                .ok()
        });
        Self { end, thread }
    }

    /// The work has ended, well or not.
    pub fn end(self, is_ok: bool) {
        self.end.store(if is_ok { SUCCEEDED } else { FAILED }, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = self.end.compare_exchange(RUNNING, DROPPED, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// One way to show what is seen.
trait Show: Send {
    /// A stage begins.
    fn begin(&mut self, look: &Look, pace: &Pace);
    /// A tick has passed in it.
    fn tick(&mut self, look: &Look, pace: &Pace, in_stage: Duration);
    /// The stage is over; `look` is the last one that was taken in it.
    fn settle(&mut self, look: &Look, in_stage: Duration, is_done: bool);
    /// All is over; whether it went well, where that is known.
    fn end(&mut self, look: &Look, pace: &Pace, outcome: Option<bool>);
}

fn watch(end: &AtomicU8, counters: &Counters, work: Work, show: &mut dyn Show) {
    let begin = Instant::now();
    let mut pace = Pace::default();
    let mut look = sample(counters, work, begin.elapsed());
    if !matches!(look.phase, Phase::Preparing | Phase::Survey) {
        // This thread comes late: what it did not see is told below.
        look.phase = Phase::Preparing;
    }
    let mut stage_began = look.at;
    pace.see(&look);
    show.begin(&look, &pace);
    loop {
        std::thread::park_timeout(TICK);
        let ended = end.load(Ordering::Relaxed);
        let now = sample(counters, work, begin.elapsed());
        if now.phase != look.phase {
            // The counters do not tell what belongs to which side of the border: all that pass 1 counts was over then.
            let last = Look { phase: look.phase, ..now };
            show.settle(&last, now.at - stage_began, true);
            for phase in passed_between(look.phase, now.phase, work) {
                let passed = Look { phase, ..now };
                show.begin(&passed, &pace);
                show.settle(&passed, now.at - look.at, true);
            }
            stage_began = now.at;
            pace.see(&now);
            show.begin(&now, &pace);
        } else {
            pace.see(&now);
            show.tick(&now, &pace, now.at - stage_began);
        }
        look = now;
        if ended != RUNNING {
            let outcome = (ended != DROPPED).then_some(ended == SUCCEEDED);
            show.settle(&look, look.at - stage_began, outcome != Some(false));
            return show.end(&look, &pace, outcome);
        }
    }
}

/// Stages that came and went between two looks.
fn passed_between(from: Phase, to: Phase, work: Work) -> impl Iterator<Item = Phase> {
    let order = [Phase::Preparing, Phase::Survey, Phase::Deliver, Phase::Settle];
    let place = move |phase| order.iter().position(|known| *known == phase).unwrap_or(0);
    let passed = place(from) + 1..place(to).max(place(from) + 1);
    order
        .into_iter()
        .take(passed.end)
        .skip(passed.start)
        .filter(move |phase| work.sends || *phase != Phase::Deliver)
}

fn sample(counters: &Counters, work: Work, at: Duration) -> Look {
    let guest_bytes = Counters::get(&counters.guest_bytes);
    let hole_bytes = Counters::get(&counters.hole_bytes);
    let phase = match counters.phase() {
        // Whoever counts without naming stages has one, and reads.
        Phase::Preparing if guest_bytes > 0 => Phase::Survey,
        phase => phase,
    };
    Look {
        at,
        phase,
        source_len: work.len,
        sends: work.sends,
        source_bytes: Counters::get(&counters.source_bytes),
        guest_bytes,
        zero_bytes: Counters::get(&counters.zero_bytes) + hole_bytes,
        hole_bytes,
        stored_bytes: Counters::get(&counters.stored_bytes),
        sink_bytes: Counters::get(&counters.sink_bytes),
        image_bytes: Counters::get(&counters.image_bytes),
        reread_bytes: Counters::get(&counters.reread_bytes),
    }
}

fn is_notable(look: &Look, in_stage: Duration) -> bool {
    let moves = matches!(look.phase, Phase::Survey | Phase::Deliver);
    (moves && look.part().0 > 0) || in_stage >= NOTABLE
}

/// A terminal.
struct Terminal {
    ticks: u32,
    colour: bool,
    unicode: bool,
}

impl Terminal {
    fn new() -> Self {
        Self { ticks: 0, colour: screen::has_colour(), unicode: screen::has_unicode() }
    }

    fn style(&self) -> Style {
        Style { columns: screen::columns(), colour: self.colour, unicode: self.unicode }
    }
}

impl Show for Terminal {
    fn begin(&mut self, look: &Look, pace: &Pace) {
        self.ticks = 0;
        let (line, columns) = line::live(look, pace, Duration::ZERO, self.style());
        screen::draw(line, columns);
    }

    fn tick(&mut self, look: &Look, pace: &Pace, in_stage: Duration) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(DRAWN_TICKS) {
            let (line, columns) = line::live(look, pace, in_stage, self.style());
            screen::draw(line, columns);
        }
    }

    fn settle(&mut self, look: &Look, in_stage: Duration, is_done: bool) {
        let text = if is_notable(look, in_stage) {
            line::settled(look, in_stage, is_done, self.style())
        } else {
            String::new()
        };
        screen::settle(&text);
    }

    fn end(&mut self, _: &Look, _: &Pace, _: Option<bool>) {}
}

/// A log: each tenth of a stage at most, and where tenths take long, each time that a quarter more has passed.
struct Log {
    is_asked_for: bool,
    last_at: Duration,
    last_tenth: u64,
    begun: Duration,
}

impl Log {
    const PAUSE_MIN: Duration = Duration::from_secs(10);
    const PAUSE_MAX: Duration = Duration::from_secs(30);

    fn new(is_asked_for: bool) -> Self {
        Self { is_asked_for, last_at: Duration::ZERO, last_tenth: 0, begun: Duration::ZERO }
    }

    fn tell(&mut self, look: &Look, words: &str) {
        self.last_at = look.at;
        super::tell(format_args!("snapcow: {words}"));
    }
}

impl Show for Log {
    fn begin(&mut self, look: &Look, _: &Pace) {
        (self.last_at, self.begun, self.last_tenth) = (look.at, look.at, 0);
    }

    fn tick(&mut self, look: &Look, pace: &Pace, in_stage: Duration) {
        let since = look.at - self.last_at;
        let tenth = look.fraction().map_or(0, |share| (share * 10.0) as u64);
        let is_tenth = tenth > self.last_tenth && since >= Self::PAUSE_MIN;
        if (is_tenth || since >= Self::PAUSE_MAX.max(in_stage / 5)) && look.phase != Phase::Settle {
            self.last_tenth = tenth;
            self.tell(look, &line::logged(look, pace));
        }
    }

    fn settle(&mut self, look: &Look, in_stage: Duration, is_done: bool) {
        if is_notable(look, in_stage) && (self.is_asked_for || in_stage >= NOTABLE_UNASKED) {
            let style = Style { columns: usize::MAX, colour: false, unicode: false };
            let line = line::settled(look, in_stage, is_done, style);
            let words: Vec<&str> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
            let (name, rest) = words.split_first().map_or(("", &[][..]), |(name, rest)| (*name, rest));
            self.tell(
                look,
                &format!("{name} {}: {}", if is_done { "done" } else { "ended" }, rest.join(", ")),
            );
        }
    }

    fn end(&mut self, _: &Look, _: &Pace, _: Option<bool>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stage_is_lost_between_two_looks() {
        let passed =
            |from, to, sends| passed_between(from, to, Work { len: None, sends }).collect::<Vec<_>>();
        assert_eq!(passed(Phase::Preparing, Phase::Survey, true), []);
        assert_eq!(passed(Phase::Preparing, Phase::Deliver, true), [Phase::Survey]);
        assert_eq!(passed(Phase::Preparing, Phase::Settle, true), [Phase::Survey, Phase::Deliver]);
        assert_eq!(passed(Phase::Preparing, Phase::Settle, false), [Phase::Survey]);
        assert_eq!(passed(Phase::Survey, Phase::Settle, true), [Phase::Deliver]);
        assert_eq!(passed(Phase::Settle, Phase::Survey, true), []);
    }
}
