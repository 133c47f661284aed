//! What a benchmark is asked to do, and which wishes cannot be granted.

use std::path::PathBuf;

use crate::encode::Compression;
use crate::error::{Error, Kind, Result, Stage};
use crate::units::Human;

/// Smallest disk: two chunks for each of two threads, in bytes.
const SIZE_MIN_BYTES: u64 = 8 << 20;
/// Largest disk, in bytes; more would say nothing new and take hours.
const SIZE_MAX_BYTES: u64 = 64 << 40;
/// Least data of a disk, in bytes: less cannot be timed.
const DATA_MIN_BYTES: u64 = 1 << 20;
/// Extents and gaps of the disk are whole pages of so many bytes.
const PAGE_BYTES: u64 = 4096;

/// The parameters of a benchmark.
#[derive(Clone, Debug)]
pub struct Options {
    /// Virtual size of the disk in bytes.
    pub size_bytes: u64,
    /// Share of the disk that holds data, above 0.0 and up to 1.0.
    pub data_fraction: f64,
    /// Share of the data that does not get smaller, from 0.0 to 1.0.
    pub incompressible_fraction: f64,
    /// Mean length of an extent of data in bytes; `None` for a server's mix of long and short ones.
    pub run_length_bytes: Option<u64>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Encoder threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Rounds of which the median counts.
    pub rounds: usize,
    /// Compression of the network routes, and of the file route that has the same codec.
    pub compression: Compression,
    /// Where files lie; `None` for the first with room of `/dev/shm`, `$TMPDIR` and `/var/tmp`.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size_bytes: 512 << 20,
            data_fraction: 0.15,
            incompressible_fraction: 0.25,
            run_length_bytes: None,
            seed: 1,
            threads: None,
            rounds: 3,
            compression: Compression::Deflate(1),
            dir: None,
        }
    }
}

impl Options {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`Kind::Usage`], naming the option to change.
    pub fn check(&self) -> Result<()> {
        let refuse =
            |what: String, advice: String| Err(Error::new(Stage::Plan, Kind::Usage, what).advise(advice));
        if !(SIZE_MIN_BYTES..=SIZE_MAX_BYTES).contains(&self.size_bytes) {
            let bounds = format!("{} to {}", Human(SIZE_MIN_BYTES), Human(SIZE_MAX_BYTES));
            return refuse(
                format!("--size of {} is not one of {bounds}", Human(self.size_bytes)),
                format!("give a --size of {bounds}"),
            );
        }
        if !(self.data_fraction > 0.0 && self.data_fraction <= 1.0) {
            return refuse(
                format!("--density {} is no share of a disk", percent(self.data_fraction)),
                "give more than 0% and at most 100%".into(),
            );
        }
        if !(0.0..=1.0).contains(&self.incompressible_fraction) {
            return refuse(
                format!("--entropy {} is no share of the data", percent(self.incompressible_fraction)),
                "give 0% to 100%".into(),
            );
        }
        let data = (self.size_bytes as f64 * self.data_fraction) as u64;
        if data < DATA_MIN_BYTES {
            return refuse(
                format!("{} of data in a disk of {} cannot be timed", Human(data), Human(self.size_bytes)),
                "give a larger --size or --density".into(),
            );
        }
        if self.rounds == 0 || self.threads == Some(0) {
            return refuse("no thread or no round does nothing".into(), "give at least 1".into());
        }
        self.run_length_bytes.map_or(Ok(()), |mean| self.check_run_length(mean, data))
    }

    /// Extents of that mean length and the gaps that belong to them must be possible.
    fn check_run_length(&self, mean: u64, data: u64) -> Result<()> {
        let refuse =
            |what: String, advice: String| Err(Error::new(Stage::Plan, Kind::Usage, what).advise(advice));
        if mean < PAGE_BYTES {
            return refuse(
                format!("--run-length of {} is less than a page", Human(mean)),
                format!("give at least {}", Human(PAGE_BYTES)),
            );
        }
        if mean > data {
            return refuse(
                format!("runs of {} do not fit into {} of data", Human(mean), Human(data)),
                "give a shorter --run-length, or a larger --size or --density".into(),
            );
        }
        let gap = mean as f64 * (1.0 - self.data_fraction) / self.data_fraction;
        if self.data_fraction < 1.0 && gap < PAGE_BYTES as f64 {
            let densest = mean as f64 / (mean + PAGE_BYTES) as f64;
            return refuse(
                format!(
                    "--density {} leaves less than a page between runs of {}",
                    percent(self.data_fraction),
                    Human(mean)
                ),
                format!("give at most --density {:.0}%, or 100%, or a longer --run-length", densest * 100.0),
            );
        }
        Ok(())
    }
}

/// A share as people write it.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}
