//! The plan for people: a glance's worth, 80 columns wide.

use std::fmt::Write;

use snapcow::convert::Basis;
use snapcow::encode::Compression;
use snapcow::plan::estimate::{CONFIDENCE_PERCENT, Interval};
use snapcow::units::Human;

use super::super::screen::wrap;
use super::super::trim;
use super::forecast::{Forecast, Spool};
use super::times::{Part, Seconds};

const COLUMNS: usize = 80;
/// Where the text behind a label begins.
const INDENT: usize = 9;
/// The same for a part of the time, behind its number.
const PART_INDENT: usize = 18;

/// The plan, as lines.
pub fn text(forecast: &Forecast) -> String {
    let mut out = String::new();
    let plan = forecast.plan.to_string();
    let is_note = |line: &&str| line.starts_with("note ");
    let (before, behind): (Vec<&str>, Vec<&str>) = plan
        .lines()
        .filter(|line| !is_note(line))
        .partition(|line| !(line.starts_with("threads ") || line.starts_with("memory ")));
    before.iter().for_each(|line| put(&mut out, line));
    if let Some(findings) = &forecast.free {
        for (index, line) in trim::planned(findings).iter().enumerate() {
            put(&mut out, &format!("{:9}{line}", if index == 0 { "trim" } else { "" }));
        }
    }
    image(&mut out, forecast);
    time(&mut out, forecast);
    spool(&mut out, forecast);
    place(&mut out, forecast);
    let made = match forecast.creates.as_slice() {
        [] => "nothing but what goes to standard output".into(),
        made => made.join(", "),
    };
    let gone = match forecast.deletes.as_slice() {
        [] => "deletes nothing, the source stays".into(),
        gone => format!("DELETES {}", gone.join(", ")),
    };
    put(&mut out, &format!("makes    {made}; {gone}"));
    behind.iter().for_each(|line| put(&mut out, line));
    forecast.notes.iter().for_each(|note| put(&mut out, &format!("note     {note}")));
    out
}

fn image(out: &mut String, forecast: &Forecast) {
    let Some(bytes) = forecast.image_bytes else {
        return put(out, &format!("image    length {}", forecast.known_by));
    };
    let of_disk = match forecast.plan.facts.source.len {
        Some(len) => format!(" ({:.1} % of the disk)", 100.0 * bytes.likely as f64 / len.max(1) as f64),
        None => String::new(),
    };
    put(out, &format!("image    {}{of_disk}", sizes(bytes)));
    let sure = match forecast.sample.as_ref().map(|sample| sample.basis) {
        Some(Basis::Spread { .. }) => format!("; {CONFIDENCE_PERCENT} % sure"),
        _ => String::new(),
    };
    put(out, &format!("         {}{sure}", forecast.known_by));
    if forecast.compression != Compression::None
        && let Some(data) = forecast.data_bytes
    {
        put(out, &format!("         data on the disk: {}", sizes(data)));
    }
}

fn time(out: &mut String, forecast: &Forecast) {
    let Some(total) = forecast.total else {
        return put(out, "time     not known beforehand");
    };
    put(out, &format!("time     {}", seconds(total)));
    for part in &forecast.parts {
        let how = basis(part, forecast);
        let line = format!("         {:>7}  {}: {how}", short(part.seconds.likely), part.words);
        put_under(out, &line, PART_INDENT);
    }
}

/// By what a part's time is known.
fn basis(part: &Part, forecast: &Forecast) -> String {
    match part.name {
        "pass_1" => {
            let limit = forecast.limit.map_or("", |limit| limit.words());
            format!("by a pilot of the same; the limit is {limit}")
        }
        "upload" => match forecast.upload_rate {
            Some((rate, true)) => format!("{:.0} MB/s, measured", rate / 1e6),
            Some((rate, false)) => {
                format!("{:.0} MB/s is ASSUMED; --probe-upload measures it", rate / 1e6)
            }
            None => part.basis.into(),
        },
        _ => part.basis.into(),
    }
}

fn spool(out: &mut String, forecast: &Forecast) {
    let words = match forecast.spool {
        Spool::None => return,
        Spool::Unknown => "how much the spool will have to hold is not known",
        Spool::Fits => "fits: one read of the source is enough",
        Spool::Rereads { surely: true } => {
            "too small: the source is read again in part; a larger --spool-disk or --memory saves that"
        }
        Spool::Rereads { surely: false } => {
            "may be too small: then the source is read again in part, unless --spool-disk or --memory is larger"
        }
    };
    put(out, &format!("spool    {words}"));
}

fn place(out: &mut String, forecast: &Forecast) {
    if !forecast.place_is_glance {
        return;
    }
    let both = forecast.plan.facts.source.is_remote;
    if let Some(used) = forecast.quota_used_bytes {
        let (verdict, left) = match (forecast.quota_free_bytes, forecast.image_bytes) {
            (None, _) => ("no limit", String::new()),
            (Some(free), Some(image)) if free < image.low => {
                ("TOO LITTLE", format!(", {} left", Human(free)))
            }
            (Some(free), Some(image)) if free < image.high => {
                ("may be too little", format!(", {} left", Human(free)))
            }
            (Some(free), _) => ("enough", format!(", {} left", Human(free))),
        };
        put(out, &format!("quota    {verdict}: {} used{left}; both images exist at once", Human(used)));
    } else if both {
        put(out, "quota    none told by this Glance; both images exist at once");
    }
    let Some((own, source)) = forecast.min_disk_gib else { return };
    let was = match source {
        Some(was) if was == own => " as the source has it".into(),
        Some(was) => format!(", the source says {was}"),
        None => String::new(),
    };
    let known = if forecast.plan.facts.source.len.is_some() { "" } else { " or more, set at the end" };
    put(
        out,
        &format!(
            "min_disk {own} GiB{known}{was}: flavours with smaller root disks cannot boot it, however small the image is"
        ),
    );
}

/// Adds a line; what does not fit goes on under the text behind the label.
fn put(out: &mut String, line: &str) {
    put_under(out, line, INDENT);
}

/// Adds a line; what does not fit goes on at that column.
fn put_under(out: &mut String, line: &str, at: usize) {
    let (head, text) = line.split_at_checked(at).unwrap_or((line, ""));
    let _ = writeln!(out, "{head}{}", wrap(text, COLUMNS - at).join(&format!("\n{:at$}", "")));
}

fn sizes(interval: Interval) -> String {
    if interval.is_exact() {
        return Human(interval.low).to_string();
    }
    format!("{} to {}, likely {}", Human(interval.low), Human(interval.high), Human(interval.likely))
}

fn seconds(total: Seconds) -> String {
    let (low, high) = (short(total.low), short(total.high));
    let likely = short(total.likely);
    if low == high { format!("about {likely}") } else { format!("about {likely} ({low} to {high})") }
}

/// A time in one unit, or two.
fn short(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_column_80_and_go_on_under_the_text() {
        let mut out = String::new();
        put(&mut out, &format!("note     {}", "word ".repeat(40).trim_end()));
        put_under(&mut out, &format!("            1.2 s  {}", "part ".repeat(30).trim_end()), PART_INDENT);
        for line in out.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[1].starts_with("         word"), "{out}");
        assert!(lines.last().unwrap().starts_with("                  part"), "{out}");
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in
            [(0.04, "0.0 s"), (9.94, "9.9 s"), (61.0, "61 s"), (600.0, "10 min"), (9000.0, "2.5 h")]
        {
            assert_eq!(short(seconds), text);
        }
    }
}
