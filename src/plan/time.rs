//! How long a pass over the source takes, from a pilot: some of it, read, hashed and encoded as the run will do it.
//!
//! # Decisions
//! - Stages overlap, so a pass takes as long as its slowest one: the one thread that hashes, the threads that encode, or
//!   all processors together. What the pilot took beyond that is the source's (its rate, a service on the same
//!   machine), and grows with the bytes that are read.
//! - The pilot's share of data differs from the disk's. Costs of data and of zeros are kept apart, so that only what
//!   cannot be told apart is carried over as it was.

/// Some bytes of the source, and what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Bytes that are read.
    pub read_bytes: f64,
    /// Bytes of them in clusters that hold data.
    pub data_bytes: f64,
    /// Bytes besides that are known to be zero and not read.
    pub hole_bytes: f64,
}

/// What the pilot took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pilot {
    /// What was read.
    pub load: Load,
    /// Seconds from the first byte's arrival to the last cluster encoded.
    pub wall_seconds: f64,
    /// Seconds of processor time of this process.
    pub cpu_seconds: f64,
}

/// Processor seconds a byte, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// To compress a byte of data, and to prove it.
    pub encode: f64,
    /// To hash a byte of data; 0 where nothing is hashed.
    pub hash_data: f64,
    /// To hash a zero.
    pub hash_zero: f64,
}

/// What a pass is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The source, with service and network in front of it; or others who use this machine.
    Source,
    /// The one thread that hashes.
    Hash,
    /// The threads that encode.
    Encode,
    /// All processors.
    Processors,
}

impl Limit {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Source => "the source, or what else runs here",
            Self::Hash => "hashing the source, one thread",
            Self::Encode => "the encoder threads",
            Self::Processors => "this machine's processors",
        }
    }
}

/// Foretells passes.
#[derive(Clone, Copy, Debug)]
pub struct PassModel {
    pilot: Pilot,
    costs: Costs,
    cores: f64,
    threads: f64,
    /// Processor seconds of a byte that is read, beside hash and codec.
    carry: f64,
    /// Seconds of a byte that is read, which no stage of ours explains.
    beyond: f64,
}

impl PassModel {
    /// From what was measured, for a machine of `cores` and so many encoder threads.
    pub fn new(pilot: Pilot, costs: Costs, cores: usize, threads: usize) -> Self {
        let bytes = pilot.load.read_bytes.max(1.0);
        let mut model = Self {
            pilot,
            costs,
            cores: cores.max(1) as f64,
            threads: threads.max(1) as f64,
            carry: 0.0,
            beyond: 0.0,
        };
        model.carry =
            (pilot.cpu_seconds - model.hash(pilot.load) - model.encode(pilot.load)).max(0.0) / bytes;
        model.beyond = (pilot.wall_seconds - model.own(pilot.load).0).max(0.0) / bytes;
        model
    }

    /// Seconds that a pass takes, and what limits it.
    pub fn seconds(&self, load: Load) -> (f64, Limit) {
        let (own, limit) = self.own(load);
        let beyond = self.beyond * load.read_bytes;
        (own + beyond, if beyond > own { Limit::Source } else { limit })
    }

    /// Bytes a second that the pilot read.
    pub fn pilot_rate(&self) -> f64 {
        self.pilot.load.read_bytes / self.pilot.wall_seconds.max(1e-9)
    }

    fn hash(&self, load: Load) -> f64 {
        let zeros = (load.read_bytes - load.data_bytes).max(0.0) + load.hole_bytes;
        self.costs.hash_data * load.data_bytes + self.costs.hash_zero * zeros
    }

    fn encode(&self, load: Load) -> f64 {
        self.costs.encode * load.data_bytes
    }

    /// The slowest of the stages that are ours.
    fn own(&self, load: Load) -> (f64, Limit) {
        let (hash, encode) = (self.hash(load), self.encode(load));
        let all = (hash + encode + self.carry * load.read_bytes) / self.cores;
        [(hash, Limit::Hash), (encode / self.threads, Limit::Encode), (all, Limit::Processors)]
            .into_iter()
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or((0.0, Limit::Source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: f64 = 1e9;

    fn load(read: f64, data: f64) -> Load {
        Load { read_bytes: read * GB, data_bytes: data * GB, hole_bytes: 0.0 }
    }

    #[test]
    fn a_slow_source_is_what_counts() {
        let pilot = Pilot { load: load(0.1, 0.05), wall_seconds: 10.0, cpu_seconds: 0.2 };
        let costs = Costs { encode: 2.0 / GB, hash_data: 2.0 / GB, hash_zero: 1.4 / GB };
        let (seconds, limit) = PassModel::new(pilot, costs, 8, 8).seconds(load(10.0, 1.0));
        assert_eq!(limit, Limit::Source);
        assert!((seconds - 1000.0).abs() < 20.0, "{seconds}");
    }

    #[test]
    fn a_pilot_denser_than_the_disk_is_corrected() {
        // All data in the pilot, 4 s of codec a GB on one thread of one core; a tenth of the disk is data.
        let pilot = Pilot { load: load(0.1, 0.1), wall_seconds: 0.45, cpu_seconds: 0.45 };
        let costs = Costs { encode: 4.0 / GB, ..Costs::default() };
        let (seconds, limit) = PassModel::new(pilot, costs, 1, 1).seconds(load(10.0, 1.0));
        assert_eq!(limit, Limit::Processors);
        assert!((seconds - 9.0).abs() < 0.1, "{seconds}");
    }

    #[test]
    fn one_thread_hashes_however_many_cores_there_are() {
        let pilot = Pilot { load: load(0.1, 0.1), wall_seconds: 0.2, cpu_seconds: 0.3 };
        let costs = Costs { encode: 1.0 / GB, hash_data: 2.0 / GB, hash_zero: 1.0 / GB };
        let (seconds, limit) = PassModel::new(pilot, costs, 32, 32).seconds(load(10.0, 10.0));
        assert_eq!(limit, Limit::Hash);
        assert!((seconds - 20.0).abs() < 1e-6, "{seconds}");
    }
}
