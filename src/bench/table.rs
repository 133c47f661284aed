//! The report as text.

use std::fmt::Write;

use super::model::{ALL_CORES, Bound};
use super::options::percent;
use super::report::Report;
use super::timing::Timing;
use crate::units::Human;

/// What a person reads on a terminal: machine, stages alone, routes with their limits.
pub fn table(report: &Report) -> String {
    let mut text = heading(report);
    let mut stages = vec![row(["stage alone", "a core", "in all", "threads", "out"])];
    for figure in &report.stages {
        let best = figure.best();
        let out = figure.output_bytes.map(|out| percent(out as f64 / figure.bytes.max(1) as f64));
        stages.push(vec![
            figure.name(),
            rate(figure.one_thread.bytes_per_cpu_second),
            rate(best.bytes_per_second),
            best.threads.to_string(),
            out.unwrap_or_default(),
        ]);
    }
    let _ = writeln!(text, "\n{}", aligned(&stages));
    let mut routes = vec![row(["whole", "wall", "bound", "achieved", "encode", "peak", "limit"])];
    for figure in &report.routes {
        routes.push(vec![
            figure.route.clone(),
            seconds(figure.timing.median_wall_seconds),
            seconds(figure.bound.bound_seconds),
            whole_percent(figure.achieved_share),
            figure.encode_share_of_bare_loop.map(whole_percent).unwrap_or_default(),
            Human(figure.peak_rss_bytes >> 20 << 20).to_string(),
            limit(&figure.bound),
        ]);
    }
    let _ = writeln!(text, "{}", aligned(&routes));
    text.push_str(
        "a core: bytes in by CPU time on one thread; in all: bytes in by wall time, alone on the machine.\n\
         bound: no whole is faster than its slowest stage alone, nor than the CPU time of all stages shared by all\n\
         cores; achieved: bound by wall. encode: the encode stage in the engine by the bare loops of CRC and codec.\n",
    );
    let medians =
        format!("Medians of {} after one to warm up; took", plural(report.parameters.rounds, "round"));
    let _ = writeln!(text, "{medians} {:.0} s.", report.elapsed_seconds);
    if !report.versions.optimised {
        text.push_str("This build is not optimised: its figures mean nothing.\n");
    }
    text
}

fn heading(report: &Report) -> String {
    let (workload, parameters, machine) = (&report.workload, &report.parameters, &report.machine);
    format!(
        "snapcow {} on {}, {}, {} of memory, {}, load {:.1}\n{}\nfiles in {}, {}\n",
        report.versions.snapcow,
        machine.cpu_model,
        plural(machine.cores, "core"),
        Human(machine.memory_bytes >> 20 << 20),
        machine.kernel,
        machine.load_average,
        disk(report),
        parameters.dir,
        if parameters.durable { "durable on disk" } else { "which is memory: nothing is durable" },
    ) + if workload.extents == 0 { "the disk holds nothing but its boot sector\n" } else { "" }
}

/// The disk in words.
pub(super) fn disk(report: &Report) -> String {
    let (workload, parameters) = (&report.workload, &report.parameters);
    format!(
        "disk of {} with {} of data ({}), {} of that incompressible, extents of {} on average, seed {}",
        Human(workload.size_bytes),
        Human(workload.data_bytes),
        percent(workload.data_bytes as f64 / workload.size_bytes.max(1) as f64),
        percent(workload.incompressible_bytes as f64 / workload.data_bytes.max(1) as f64),
        Human(workload.mean_extent_bytes),
        parameters.seed,
    )
}

/// What limits a route, in words.
pub(super) fn limit(bound: &Bound) -> String {
    if bound.limit == ALL_CORES {
        format!("all cores, most for {}", bound.dearest_stage)
    } else {
        bound.limit.clone()
    }
}

/// Bytes a second, decimal, as links and disks are sold.
pub(super) fn rate(bytes_per_second: f64) -> String {
    match bytes_per_second {
        rate if rate >= 1e12 => format!("{:.2} TB/s", rate / 1e12),
        rate if rate >= 1e10 => format!("{:.1} GB/s", rate / 1e9),
        rate if rate >= 1e9 => format!("{:.2} GB/s", rate / 1e9),
        rate => format!("{:.0} MB/s", rate / 1e6),
    }
}

/// A time with about three digits.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 9.9995 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.09995 => format!("{seconds:.3} s"),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

/// A share in whole percent.
pub(super) fn whole_percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Least to most, as text.
pub(super) fn spread(timing: &Timing) -> String {
    format!("{:.3}–{:.3}", timing.min_wall_seconds, timing.max_wall_seconds)
}

/// `1 core`, `2 cores`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell, numbers to the right; the first and the last are words.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let room = " ".repeat(widths[column] - cell.chars().count());
            let is_words = column == 0 || (column + 1 == columns && columns > 5);
            let _ = if is_words { write!(line, "{cell}{room}  ") } else { write!(line, "{room}{cell}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
