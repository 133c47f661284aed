//! The report as one page that needs nothing else: style and plots inside, no scripts, no references.

mod svg;

use std::fmt::Write;

use svg::{Bar, Chart, Scale, round_ticks};

use super::model::Phase;
use super::options::percent;
use super::report::{Report, RouteFigure};
use super::table::{disk, limit, plural, rate, seconds, spread, whole_percent};
use crate::markup::escape;
use crate::units::Human;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(report: &Report) -> String {
    let mut text = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n");
    text.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n");
    let _ = writeln!(
        text,
        "<title>snapcow bench: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>",
        escape(&report.machine.cpu_model)
    );
    text.push_str(&head(report));
    text.push_str(&limits(report));
    text.push_str(&routes(report));
    text.push_str(&stages(report));
    text.push_str(HOW_TO_READ);
    text.push_str(&particulars(report));
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "<h1>snapcow bench</h1>\n<p>{}, {}, {} of memory, {}. {}.</p>\n<p>A {}.</p>\n",
        escape(&machine.cpu_model),
        plural(machine.cores, "core"),
        Human(machine.memory_bytes >> 20 << 20),
        escape(&machine.kernel),
        date(report.started_unix_seconds),
        escape(&disk(report))
    );
    if !report.versions.optimised {
        text.push_str("<p class=\"warn\">This build is not optimised: its figures mean nothing.</p>\n");
    }
    if machine.load_average > machine.cores as f64 * 0.5 {
        let _ = writeln!(
            text,
            "<p class=\"warn\">The machine was busy before the start (load {:.1}): the figures say less.</p>",
            machine.load_average
        );
    }
    text
}

fn date(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map(|time| time.format("%Y-%m-%d %H:%M UTC").to_string())
        .unwrap_or_default()
}

fn limits(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .routes
        .iter()
        .map(|figure| {
            vec![
                figure.route.clone(),
                seconds(figure.timing.median_wall_seconds),
                seconds(figure.bound.bound_seconds),
                whole_percent(figure.achieved_share),
                limit(&figure.bound),
            ]
        })
        .collect();
    let head = ["Route", "Wall", "Bound", "Achieved", "Limit"];
    format!(
        "<h2>Where the limit is, and how close the whole runs to it</h2>\n{}",
        table("Medians; the bound is what the stages alone permit", &head, &rows)
    )
}

fn routes(report: &Report) -> String {
    let mut text = String::from(
        "<h2>Routes: the bound against what is achieved</h2>\n<ul class=\"key\">\
         <li><span class=\"stage\"></span>a stage alone</li><li><span class=\"cpu\"></span>CPU time of all stages, shared by all cores</li>\
         <li><span class=\"limit\"></span>the limit of its phase</li><li><span class=\"bound\"></span>bound</li>\
         <li><span class=\"wall\"></span>achieved, with least and most</li></ul>\n",
    );
    for (index, figure) in report.routes.iter().enumerate() {
        text.push_str(&route(index, figure, report.machine.cores));
    }
    text
}

fn route(index: usize, figure: &RouteFigure, cores: usize) -> String {
    let bound = &figure.bound;
    let mut bars = Vec::new();
    for phase in &bound.phases {
        bars.extend(phase_bars(phase, bound.phases.len() > 1, cores));
    }
    let plain = |label: &str, value: f64, class| Bar {
        label: label.into(),
        value,
        shown: seconds(value),
        class,
        spread: None,
    };
    let sum = if bound.phases.len() > 1 { "Bound, both phases" } else { "Bound" };
    bars.push(plain(sum, bound.bound_seconds, "bound"));
    let timing = &figure.timing;
    bars.push(Bar {
        spread: Some((timing.min_wall_seconds, timing.max_wall_seconds)),
        shown: format!("{} ({})", seconds(timing.median_wall_seconds), whole_percent(figure.achieved_share)),
        ..plain("Achieved, wall", timing.median_wall_seconds, "wall")
    });
    let most = bars.iter().map(|bar| bar.value).fold(timing.max_wall_seconds, f64::max);
    let ticks: Vec<(f64, String)> =
        round_ticks(most).into_iter().map(|value| (value, format!("{} s", short(value)))).collect();
    let chart = Chart {
        id: format!("route-{index}"),
        title: &figure.route,
        description: format!(
            "Bars of seconds. Bound {}, achieved {}, which is {} of the bound's speed. Limit: {}. The table below has all values.",
            seconds(bound.bound_seconds),
            seconds(timing.median_wall_seconds),
            whole_percent(figure.achieved_share),
            limit(bound)
        ),
        bars: &bars,
        scale: Scale::Linear(most),
        ticks: &ticks,
        mark: Some(bound.bound_seconds),
    };
    let encode = figure.encode_share_of_bare_loop.map_or(String::new(), |share| {
        format!(" The encode stage keeps {} of a bare loop&#39;s throughput.", whole_percent(share))
    });
    format!(
        "<h3>{}</h3>\n<figure>\n<figcaption>Limit: {}. Image of {}, way taken: {}, peak memory {}.{encode}{}</figcaption>\n{}</figure>\n{}",
        escape(&figure.route),
        escape(&limit(bound)),
        Human(figure.image_bytes),
        escape(&figure.taken),
        Human(figure.peak_rss_bytes >> 20 << 20),
        if figure.proved { " The image was proved to hold the disk." } else { "" },
        chart.svg(),
        phase_table(figure)
    )
}

/// A bar for each stage of a phase, and one for all of them on all cores.
fn phase_bars(phase: &Phase, is_one_of_many: bool, cores: usize) -> Vec<Bar> {
    let named =
        |what: &str| if is_one_of_many { format!("{}: {what}", phase.phase) } else { what.to_owned() };
    let bar = |label: String, value: f64, class: &'static str, is_limit: bool| Bar {
        label: if is_limit { format!("{label}, the limit") } else { label },
        value,
        shown: seconds(value),
        class: if is_limit { "limit" } else { class },
        spread: None,
    };
    let mut bars: Vec<Bar> = phase
        .stages
        .iter()
        .map(|work| bar(named(&work.stage), work.alone_seconds, "stage", work.stage == phase.limit))
        .collect();
    let all_cores = named(&format!("CPU of all, on {}", plural(cores, "core")));
    let is_limit = phase.limit == super::model::ALL_CORES;
    bars.push(bar(all_cores, phase.shared_cpu_seconds, "cpu", is_limit));
    bars
}

fn phase_table(figure: &RouteFigure) -> String {
    let mut rows = Vec::new();
    for phase in &figure.bound.phases {
        for work in &phase.stages {
            rows.push(vec![
                work.stage.clone(),
                phase.phase.clone(),
                seconds(work.alone_seconds),
                seconds(work.cpu_seconds),
            ]);
        }
    }
    let head = ["Stage", "Phase", "Alone", "CPU"];
    let caption = format!("{}: the work of each stage, by its own figures", figure.route);
    format!("<details>\n<summary>As a table</summary>\n{}</details>\n", table(&caption, &head, &rows))
}

fn stages(report: &Report) -> String {
    let bars: Vec<Bar> = report
        .stages
        .iter()
        .map(|figure| {
            let rates = figure.one_thread.bytes_per_cpu_second;
            Bar { label: figure.name(), value: rates, shown: rate(rates), class: "stage", spread: None }
        })
        .collect();
    let values = || bars.iter().map(|bar| bar.value).filter(|value| *value > 0.0);
    let from = values().fold(1e9, f64::min).log10().floor() as i32;
    let to = (values().fold(1e9, f64::max).log10().ceil() as i32).max(from + 1);
    // Words for every second line, where there are many: a phone has room for five.
    let words =
        |power: i32| (to - from <= 4 || (power - from) % 2 == 0).then(|| power_of_ten(10f64.powi(power)));
    let ticks: Vec<(f64, String)> =
        (from..=to).map(|power| (10f64.powi(power), words(power).unwrap_or_default())).collect();
    let chart = Chart {
        id: "stages".into(),
        title: "Throughput of each stage on one core",
        description: "Bars of bytes in per second of CPU time, on a scale where each line is ten times the one before. The table below has all values.".into(),
        bars: &bars,
        scale: Scale::Log(from, to),
        ticks: &ticks,
        mark: None,
    };
    format!(
        "<h2>Stages alone</h2>\n<figure>\n<figcaption>Bytes in per second of CPU time. From line to line it is ten times as much.</figcaption>\n{}</figure>\n{}",
        chart.svg(),
        stage_table(report)
    )
}

fn stage_table(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|figure| {
            let best = figure.best();
            let out = figure.output_bytes.map(|out| percent(out as f64 / figure.bytes.max(1) as f64));
            vec![
                figure.name(),
                rate(figure.one_thread.bytes_per_cpu_second),
                rate(best.bytes_per_second),
                best.threads.to_string(),
                out.unwrap_or_else(|| "–".into()),
                Human(figure.bytes).to_string(),
                spread(&figure.one_thread),
            ]
        })
        .collect();
    let head = ["Stage", "A core", "In all", "Threads", "Size out", "Bytes a round", "Least–most, s"];
    table("Each stage alone; what does not get smaller counts as it is", &head, &rows)
}

const HOW_TO_READ: &str = "<h2>How to read this</h2>
<p>Every stage was timed alone, with the code that the engine runs. <em>A core</em> is the bytes that go in per second
of CPU time on one thread; <em>in all</em> is per second of wall time, on all threads that the stage can use.</p>
<p>No whole can be faster than its slowest stage alone, and none faster than the CPU time of all its stages, shared by
all cores. The larger of the two is the <em>bound</em> of a phase; survey and delivery follow each other, so theirs add
up. <em>Achieved</em> is the bound divided by the wall time: what is missing went into copies between the stages,
waiting, the spool, beginning and ending. On a machine where others work too it can exceed 100%.</p>
<p>The network stages talk to a Glance in the same process over loopback, so their CPU time includes the server&#39;s, and
its hashes. A real network is slower in its own way; the model takes its figures as easily.</p>
";

fn particulars(report: &Report) -> String {
    let (parameters, versions) = (&report.parameters, &report.versions);
    let run_length = parameters
        .run_length_bytes
        .map_or("a server's mix of 4 KiB to 8 MiB".to_owned(), |bytes| Human(bytes).to_string());
    let durable = if parameters.durable { "durable on disk" } else { "in memory, nothing is durable" };
    let list = [
        ("Size", Human(parameters.size_bytes).to_string()),
        ("Density", percent(parameters.data_fraction)),
        ("Incompressible", percent(parameters.incompressible_fraction)),
        ("Length of extents", run_length),
        ("Seed", parameters.seed.to_string()),
        ("Threads", parameters.threads.to_string()),
        ("Rounds", format!("{} after one to warm up", parameters.rounds)),
        ("Compression", parameters.compression.clone()),
        ("Clusters", Human(parameters.cluster_size_bytes).to_string()),
        ("Memory of a route", Human(parameters.memory_bytes).to_string()),
        ("Files", format!("{}, {durable}", parameters.dir)),
        ("Data clusters", Human(report.workload.data_cluster_bytes).to_string()),
        ("Peak memory of all", Human(report.peak_rss_bytes >> 20 << 20).to_string()),
        ("Load before", format!("{:.2}", report.machine.load_average)),
        (
            "Versions",
            format!("snapcow {} for {}, zstd {}", versions.snapcow, versions.architecture, versions.zstd),
        ),
        ("Took", format!("{:.0} s", report.elapsed_seconds)),
    ];
    let mut text = String::from("<h2>Parameters</h2>\n<dl>\n");
    for (name, value) in list {
        let _ = writeln!(text, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    }
    text.push_str("</dl>\n<h2>All samples</h2>\n");
    let samples =
        |values: &[f64]| values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(" ");
    let stages = report.stages.iter().map(|figure| (figure.name(), &figure.one_thread));
    let routes = report.routes.iter().map(|figure| (figure.route.clone(), &figure.timing));
    let rows: Vec<Vec<String>> = stages
        .chain(routes)
        .map(|(name, timing)| vec![name, samples(&timing.wall_seconds), samples(&timing.cpu_seconds)])
        .collect();
    text + &table("In seconds, in the order in which they were taken", &["What", "Wall", "CPU"], &rows)
}

/// A table that can be scrolled sideways where the screen is narrow.
fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let caption = escape(caption);
    let class = |column: usize| {
        let is_number = |row: &Vec<String>| {
            row.get(column).is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit() || c == '–'))
        };
        if column > 0 && rows.iter().all(is_number) { " class=\"n\"" } else { "" }
    };
    let mut text = format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for (column, name) in head.iter().enumerate() {
        let _ = write!(text, "<th scope=\"col\"{}>{}</th>", class(column), escape(name));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = if column == 0 {
                write!(text, "<th scope=\"row\">{cell}</th>")
            } else {
                write!(text, "<td{}>{cell}</td>", class(column))
            };
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n</div>\n");
    text
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn power_of_ten(bytes_per_second: f64) -> String {
    let (value, unit) = match bytes_per_second {
        rate if rate >= 1e12 => (rate / 1e12, "TB/s"),
        rate if rate >= 1e9 => (rate / 1e9, "GB/s"),
        rate => (rate / 1e6, "MB/s"),
    };
    format!("{} {unit}", short(value))
}
