//! What a person reads of a run: a line that lives, a line that stays, a line for a log.

use std::time::Duration;

use snapcow::convert::Phase;
use snapcow::units::Human;

use super::pace::{Look, Pace};

/// A bar shorter than this says less than its percentage.
const BAR_MIN: usize = 8;
const BAR_MAX: usize = 40;
const NAME: usize = 9;

/// How a line may look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub columns: usize,
    pub colour: bool,
    pub unicode: bool,
}

/// The word for a stage, in every kind of progress.
pub fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::Survey => "reading",
        Phase::Deliver => "sending",
        Phase::Settle => "finishing",
    }
}

/// Seconds as `0:07`, `12:34` or `3h05m`.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// Pieces of a line, the more important ones first; where the columns end, those that come last are left out.
struct Pieces {
    room: usize,
    kept: Vec<(u8, String)>,
}

impl Pieces {
    /// `place` is where the piece stands among the others, whatever its importance.
    fn add(&mut self, place: u8, piece: Option<String>) {
        if let Some(piece) = piece.filter(|piece| piece.chars().count() + 2 <= self.room) {
            self.room -= piece.chars().count() + 2;
            self.kept.push((place, piece));
        }
    }

    fn join(mut self) -> String {
        self.kept.sort_by_key(|(place, _)| *place);
        self.kept.into_iter().map(|(_, piece)| format!("  {piece}")).collect()
    }
}

/// The line that lives, with its length in columns: always fewer than the terminal has.
pub fn live(look: &Look, pace: &Pace, in_stage: Duration, style: Style) -> (String, usize) {
    let head = format!("{:NAME$}", word(look.phase));
    let room = style.columns.saturating_sub(1);
    let mut pieces = Pieces { room: room.saturating_sub(NAME), kept: Vec::new() };
    let fraction = look.fraction().filter(|_| look.phase != Phase::Preparing);
    if matches!(look.phase, Phase::Preparing | Phase::Settle) {
        pieces.add(0, Some(clock(in_stage.as_secs_f64())));
        pieces.add(1, (look.phase == Phase::Settle).then(|| "until the target is safe".into()));
    } else {
        let rate = pace.rate().map(|rate| format!("{}/s", Human(rate as u64)));
        let bar = if fraction.is_some() { BAR_MIN } else { 0 };
        pieces.add(0, fraction.map(percent));
        pieces.add(6, pace.left().map(|left| format!("{} left", clock(left))));
        pieces.add(2, Some(amount(look)));
        pieces.add(3, rate);
        let reserved = pieces.room.min(bar + 2);
        pieces.room -= reserved;
        pieces.add(4, zero(look));
        pieces.add(5, kept(look));
        pieces.room += reserved;
        pieces.add(1, fraction.and_then(|share| bar_of(share, pieces.room, style.unicode)));
    }
    let tail: String = pieces.join();
    let plain: String = format!("{head}{tail}").chars().take(room).collect();
    let columns = plain.chars().count();
    // The name is ASCII, so that its bytes are its columns.
    match plain.split_at_checked(NAME) {
        Some((name, rest)) if style.colour => (format!("\x1b[1;36m{name}\x1b[0m{rest}"), columns),
        _ => (plain, columns),
    }
}

/// The line that a stage leaves, with the end of line.
pub fn settled(look: &Look, in_stage: Duration, done: bool, style: Style) -> String {
    let seconds = in_stage.as_secs_f64();
    let mut pieces = Pieces { room: style.columns.saturating_sub(NAME + 1), kept: Vec::new() };
    let time = if done { took(seconds) } else { format!("stopped after {}", took(seconds)) };
    if matches!(look.phase, Phase::Preparing | Phase::Settle) {
        pieces.add(1, Some(time));
    } else {
        let (amount, _) = look.part();
        let moved = match look.phase {
            Phase::Deliver => look.sink_bytes,
            _ => look.source_bytes,
        };
        let again = (look.reread_bytes > 0).then(|| format!("read again {}", Human(look.reread_bytes)));
        pieces.add(1, Some(time));
        pieces.add(0, Some(Human(amount).to_string()));
        pieces.add(2, (seconds >= 0.1).then(|| format!("{}/s", Human((moved as f64 / seconds) as u64))));
        pieces.add(4, kept(look));
        pieces.add(3, zero(look));
        pieces.add(5, again.filter(|_| look.phase == Phase::Deliver));
    }
    let plain = format!("{:NAME$}{}", word(look.phase), pieces.join());
    let plain: String = plain.chars().take(style.columns.saturating_sub(1)).collect();
    match plain.split_at_checked(NAME) {
        Some((name, rest)) if style.colour => format!("\x1b[1;32m{name}\x1b[0m{rest}\n"),
        _ => format!("{plain}\n"),
    }
}

/// The same for a log, where lines have no width.
pub fn logged(look: &Look, pace: &Pace) -> String {
    let mut words = vec![
        look.fraction()
            .map_or_else(|| amount(look), |f| format!("{}, {}", percent(f).trim_start(), amount(look))),
    ];
    words.extend(pace.rate().map(|rate| format!("{}/s", Human(rate as u64))));
    words.extend(zero(look));
    words.extend(kept(look));
    words.extend(pace.left().map(|left| format!("about {} left", clock(left))));
    format!("{}: {}", word(look.phase), words.join(", "))
}

fn percent(share: f64) -> String {
    // 100 only when all is done.
    format!("{:>3} %", (share * 100.0).floor() as u64)
}

fn took(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { clock(seconds) }
}

fn amount(look: &Look) -> String {
    let (done, whole) = look.part();
    match whole {
        Some(whole) => of(done, whole),
        None => Human(done).to_string(),
    }
}

/// `4.2/10 GiB`: both in the unit of the whole.
fn of(done: u64, whole: u64) -> String {
    let total = Human(whole).to_string();
    let unit = total.rsplit(' ').next().unwrap_or_default();
    let exponent = if whole < 1024 { 0 } else { whole.ilog2() / 10 };
    let value = done as f64 / (1u64 << (10 * exponent)) as f64;
    if exponent == 0 { format!("{done}/{whole} {unit}") } else { format!("{value:.1}/{total}") }
}

fn zero(look: &Look) -> Option<String> {
    (look.phase == Phase::Survey && look.zero_bytes > 0).then(|| format!("zero {}", Human(look.zero_bytes)))
}

fn kept(look: &Look) -> Option<String> {
    (look.phase == Phase::Survey && look.stored_bytes > 0)
        .then(|| format!("kept {}", Human(look.stored_bytes)))
}

fn bar_of(share: f64, room: usize, unicode: bool) -> Option<String> {
    let len = room.checked_sub(2)?.min(BAR_MAX);
    let done = ((share * len as f64) as usize).min(len);
    let (full, empty) = if unicode { ("━", "─") } else { ("#", ".") };
    (len >= BAR_MIN).then(|| format!("{}{}", full.repeat(done), empty.repeat(len - done)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(phase: Phase) -> Look {
        Look {
            at: Duration::from_secs(10),
            phase,
            source_len: Some(10 << 30),
            sends: true,
            source_bytes: 4 << 30,
            guest_bytes: (42 << 30) / 10 + 1,
            zero_bytes: 3 << 30,
            hole_bytes: 0,
            stored_bytes: 600 << 20,
            sink_bytes: 100 << 20,
            image_bytes: 700 << 20,
            reread_bytes: 0,
        }
    }

    fn lived() -> Pace {
        let mut pace = Pace::default();
        let mut begin = look(Phase::Survey);
        (begin.at, begin.guest_bytes, begin.source_bytes) = (Duration::ZERO, 0, 0);
        pace.see(&begin);
        pace.see(&look(Phase::Survey));
        pace
    }

    #[test]
    fn every_line_is_shorter_than_the_terminal_is_wide() {
        let pace = lived();
        for columns in 1..200 {
            for (phase, unicode) in [
                (Phase::Preparing, true),
                (Phase::Survey, true),
                (Phase::Survey, false),
                (Phase::Deliver, true),
                (Phase::Settle, false),
            ] {
                let style = Style { columns, colour: false, unicode };
                let (line, told) = live(&look(phase), &pace, Duration::from_secs(10), style);
                assert_eq!(line.chars().count(), told);
                assert!(told < columns, "{columns}: {line}");
                let line = settled(&look(phase), Duration::from_secs(10), true, style);
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn a_wide_terminal_shows_all_and_a_narrow_one_what_counts() {
        let line = |columns| {
            let style = Style { columns, colour: false, unicode: false };
            live(&look(Phase::Survey), &lived(), Duration::from_secs(10), style).0
        };
        assert_eq!(
            line(100),
            "reading     42 %  #######............  4.2/10 GiB  409.6 MiB/s  zero 3 GiB  kept 600 MiB  0:21 left"
        );
        assert!(line(80).contains("zero 3 GiB") && line(80).contains("left"), "{}", line(80));
        assert_eq!(line(40), "reading     42 %  4.2/10 GiB  0:21 left");
        let style = Style { columns: 80, colour: false, unicode: false };
        assert_eq!(
            settled(&look(Phase::Survey), Duration::from_secs(12), true, style),
            "reading    4.2 GiB  0:12  341.3 MiB/s  zero 3 GiB  kept 600 MiB\n"
        );
    }

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!([0.4, 7.0, 754.0, 11_100.0].map(clock), ["0:00", "0:07", "12:34", "3h05m"]);
    }
}
