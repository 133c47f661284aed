//! Every stage alone. Takes the disk, gives a figure for each stage, with the same code that the
//! engine runs, and nothing else on the machine as far as this process can tell.

mod cpu;
mod files;
mod network;
mod pieces;

use super::Options;
use super::report::StageFigure;
use super::service::Services;
use super::timing::{Timing, rounds};
use super::workload::{SAMPLE_BYTES_MAX, Workload};
use crate::convert::Cancel;
use crate::encode::{Compression, Family, Level};
use crate::error::{Result, Stage};

/// Most of the data on which codecs are timed that no route uses, in bytes.
const SIDE_SAMPLE_BYTES_MAX: u64 = 16 << 20;

/// Codecs and levels that are timed besides those of the routes: what a user might choose, and QEMU's
/// own zstd.
fn side_codecs(options: &Options) -> Vec<Compression> {
    let named = [
        (Family::Deflate, Level::Fast),
        (Family::Deflate, Level::Small),
        (Family::DeflateSmallWindow, Level::Default),
        (Family::Zstd, Level::Number(3)),
        (Family::Zstd, Level::Small),
    ];
    let own = route_codecs(options);
    let codecs = named.into_iter().filter_map(|(family, level)| family.at(level));
    codecs.filter(|codec| !own.contains(codec)).collect()
}

pub(super) use cpu::encode_pace;

/// What every stage is timed with.
struct Bench<'a> {
    rounds: usize,
    threads: usize,
    workload: &'a Workload,
    cancel: &'a Cancel,
}

/// The codecs of the routes: none, zlib and zstd at their defaults, unless the options name another
/// level of one of them.
pub(super) fn route_codecs(options: &Options) -> [Compression; 3] {
    let own = options.compression;
    let default = |family: Family| family.at(Level::Default).unwrap_or(Compression::None);
    [Compression::None, default(Family::Deflate), default(Family::Zstd)]
        .map(|usual| if usual.word() == own.word() { own } else { usual })
}

/// Name of a codec with its level.
pub(super) fn codec_name(compression: Compression) -> String {
    let has_small_window = match compression {
        Compression::DeflateSmallWindow(_) => true,
        #[cfg(feature = "isal-sys")]
        Compression::DeflateIsalSmallWindow => true,
        _ => false,
    };
    let window = if has_small_window { "-4k" } else { "" };
    match (compression, compression.level()) {
        (Compression::None, _) => compression.word().to_owned(),
        (_, Some(level)) => format!("{}{window}-{level}", compression.word()),
        (_, None) => format!("{}{window}-isal", compression.word()),
    }
}

/// Times all of them.
pub(super) fn all(
    options: &Options,
    threads: usize,
    workload: &Workload,
    services: &Services,
    cancel: &Cancel,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<StageFigure>> {
    let bench = Bench { rounds: options.rounds, threads, workload, cancel };
    let mut figures = Vec::new();
    say("source: the file is read");
    figures.push(files::source(&bench)?);
    say("scan: zeros are found");
    figures.extend(cpu::scan(&bench)?);
    say("hash: SHA-512");
    figures.push(cpu::hash(&bench)?);
    let sample = workload.sample(SAMPLE_BYTES_MAX, cancel)?;
    figures.push(cpu::crc(&bench, &sample)?);
    let own = route_codecs(options);
    for codec in own.into_iter().filter(|codec| *codec != Compression::None) {
        say(&format!("encode: {}", codec_name(codec)));
        figures.push(cpu::encode(&bench, codec, &sample)?);
    }
    let side = workload.sample(SIDE_SAMPLE_BYTES_MAX, cancel)?;
    for codec in side_codecs(options) {
        say(&format!("encode: {}", codec_name(codec)));
        figures.push(cpu::encode(&bench, codec, &side)?);
    }
    drop(side);
    say("place: offsets and tables");
    figures.push(cpu::place(&bench, &sample)?);
    say("sink: the file is written");
    let sample = bytes::Bytes::from(sample);
    figures.push(files::sink(&bench, &sample)?);
    say("network: in and out");
    figures.push(network::inward(&bench, &services.plain, "sequential")?);
    figures.push(network::inward(&bench, &services.ranged, "ranges")?);
    figures.push(network::outward(&bench, &services.plain, &sample)?);
    Ok(figures)
}

impl Bench<'_> {
    /// Takes the samples of one kind of work, `bytes` in each.
    fn time(
        &self,
        bytes: u64,
        threads: usize,
        mut round: impl FnMut() -> Result<super::timing::Lap>,
    ) -> Result<Timing> {
        let laps = rounds(self.rounds, || {
            self.cancel.check(Stage::Plan)?;
            let lap = round()?;
            // A round that was cut short is no sample.
            self.cancel.check(Stage::Plan).map(|()| lap)
        })?;
        Ok(Timing::of(&laps, bytes, threads))
    }
}
