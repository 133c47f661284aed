//! `snapcow bench`: options in words, the report as a table, as JSON and as a page, and two reports
//! side by side.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use snapcow::bench::{Options, Report, compare, page, run as measure, table};
use snapcow::convert::Cancel;
use snapcow::encode::Compression;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::sink::write_whole;
use snapcow::units::parse_size;

use super::args::{Args, Command, CompressionName};
use super::{convert, prepare, tell};

#[derive(Clone, Debug, Parser)]
pub struct BenchArgs {
    /// Virtual size of the disk that is made up
    #[arg(long, default_value = "512MiB", value_parser = parse_size, value_name = "SIZE", help_heading = "Disk")]
    pub size: u64,
    /// Share of it that holds data
    #[arg(long, default_value = "15%", value_parser = percent, value_name = "PERCENT", help_heading = "Disk")]
    pub density: f64,
    /// Share of the data that does not compress: 0 to 1, or a percentage
    #[arg(long, default_value = "25%", value_parser = share, value_name = "SHARE", help_heading = "Disk")]
    pub entropy: f64,
    /// Mean length of an extent of data [default: a server's mix of 4 KiB to 8 MiB]
    #[arg(long, value_parser = parse_size, value_name = "SIZE", help_heading = "Disk")]
    pub run_length: Option<u64>,
    /// The same number makes the same disk
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Disk")]
    pub seed: u64,

    /// Encoder threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Measurement")]
    pub threads: Option<u16>,
    /// Rounds of which the median counts; one more comes before, to warm up
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Measurement")]
    pub rounds: u16,
    /// Compression of the network routes, as for convert
    #[arg(long, default_value = "zlib", help_heading = "Measurement")]
    pub compression: CompressionName,
    /// Its level, as for convert
    #[arg(long, value_name = "LEVEL", help_heading = "Measurement")]
    pub level: Option<String>,
    /// Where files lie [default: the first with room of /dev/shm, $TMPDIR, /var/tmp]
    #[arg(long, value_name = "DIR", help_heading = "Measurement")]
    pub dir: Option<PathBuf>,

    /// Write all figures, with every sample
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,
    /// Write one page with plots, complete in itself
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Measure nothing: print two reports side by side, with ratios
    #[arg(
        long,
        num_args = 2,
        value_names = ["OLD.json", "NEW.json"],
        help_heading = "Output",
        conflicts_with_all = [
            "size", "density", "entropy", "run_length", "seed", "threads", "rounds", "compression", "level",
            "dir", "json", "html",
        ]
    )]
    pub compare: Option<Vec<PathBuf>>,
}

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    if let Some([old, new]) = args.compare.as_deref() {
        return convert::say(compare(&read(old)?, &read(new)?).trim_end());
    }
    let options = options(args)?;
    // Known now rather than after the measurement.
    [&args.json, &args.html].into_iter().flatten().try_for_each(|path| check_folder(path))?;
    let mut say = |what: &str| {
        if !quiet {
            tell(format_args!("snapcow bench: {what}"));
        }
    };
    // An interrupted run fails in whatever it was doing; the signal is the reason.
    let report = measure(&options, cancel, &mut say)
        .map_err(|error| cancel.check(error.stage()).err().unwrap_or(error))?;
    // What was asked for in files is there even if nobody reads the table.
    let written = [(&args.json, report.to_json()), (&args.html, page(&report))]
        .into_iter()
        .filter_map(|(path, text)| path.as_ref().map(|path| write(path, &text)))
        .collect::<Result<Vec<()>>>();
    convert::say(table(&report).trim_end())?;
    written.map(drop)
}

fn options(args: &BenchArgs) -> Result<Options> {
    let options = Options {
        size_bytes: args.size,
        data_fraction: args.density,
        incompressible_fraction: args.entropy,
        run_length_bytes: args.run_length,
        seed: args.seed,
        threads: args.threads.map(usize::from),
        rounds: usize::from(args.rounds),
        compression: compression(args)?,
        dir: args.dir.clone(),
    };
    options.check()?;
    Ok(options)
}

/// What `convert` makes of the same words.
fn compression(args: &BenchArgs) -> Result<Compression> {
    let name = args.compression.to_possible_value();
    let name = name.map(|name| name.get_name().to_owned()).unwrap_or_default();
    let mut words: Vec<String> = ["snapcow", "convert", "-", "-"].map(str::to_owned).to_vec();
    words.push(format!("--compression={name}"));
    words.extend(args.level.iter().map(|level| format!("--level={level}")));
    let parsed = Args::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        Error::new(Stage::Plan, Kind::Usage, first.trim_start_matches("error: ").to_owned())
    })?;
    let Command::Convert(conversion) = parsed.command else {
        return Err(Error::new(Stage::Plan, Kind::Other, "the benchmark's own words were misunderstood"));
    };
    prepare::format(&conversion).map(|(_, compression)| compression)
}

fn read(path: &Path) -> Result<Report> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|error| {
        Error::new(Stage::Plan, Kind::Local, format!("read the report `{name}`")).because(error)
    })?;
    Report::from_json(&String::from_utf8_lossy(&text), &name)
}

fn check_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    let what = format!("`{}` cannot become a file", path.display());
    Err(Error::new(Stage::Plan, Kind::Local, what).advise("name a file in a folder that is there"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text.as_bytes()).map_err(|error| {
        Error::new(Stage::Sink, Kind::Local, format!("write `{}`", path.display())).because(error)
    })
}

/// A percentage, with or without its sign.
fn percent(text: &str) -> Result<f64, String> {
    number(text.trim_end_matches('%')).map(|percent| percent / 100.0)
}

/// A percentage with its sign, or a number from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    if text.ends_with('%') { percent(text) } else { number(text) }
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("`{text}` is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> BenchArgs {
        BenchArgs::try_parse_from([&["bench"], words].concat()).unwrap()
    }

    #[test]
    fn words_become_options() {
        let words = ["--density=7.5", "--entropy=0.5", "--run-length=64k", "--compression=zstd", "--level=3"];
        let options = options(&parsed(&words)).unwrap();
        assert_eq!((options.data_fraction, options.incompressible_fraction), (0.075, 0.5));
        assert_eq!((options.run_length_bytes, options.compression), (Some(65536), Compression::Zstd(3)));
        assert_eq!(parsed(&["--density=20%"]).density, 0.2);
        assert_eq!(parsed(&["--entropy=20%"]).entropy, 0.2);
    }

    #[test]
    fn no_words_are_the_librarys_defaults() {
        let (ours, theirs) = (options(&parsed(&[])).unwrap(), Options::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for words in [["--level=77"], ["--level=much"], ["--density=0"], ["--entropy=25"], ["--size=1k"]] {
            let error = options(&parsed(&words)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{words:?}");
        }
        for words in [["--density=all"], ["--entropy=nan"], ["--rounds=0"], ["--threads=0"]] {
            assert!(BenchArgs::try_parse_from([["bench"], words].concat()).is_err(), "{words:?}");
        }
        assert!(BenchArgs::try_parse_from(["bench", "--compare", "a", "b", "--json", "c"]).is_err());
        assert!(BenchArgs::try_parse_from(["bench", "--compare", "a"]).is_err());
    }
}
