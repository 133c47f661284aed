//! What happens in a run, drawn from a seed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use snapcow::embedded::{
    Answer, Cut, Fault, Faults, HashFault, Hashes, LostAnswer, RangeAnswer, Refusal, Route, Stall,
};
use snapcow::encode::Compression;
use snapcow::facts::Access;
use snapcow::qcow2::Compat;

use crate::disks::{Seeded, mixed};

/// Disks to choose from; making and hashing them takes longer than a run.
const DISKS: u64 = 12;

/// A disk and its hashes.
pub struct Disk {
    pub bytes: Bytes,
    pub hashes: Hashes,
}

/// The disk of a number: up to 9 MiB, not always whole sectors.
pub fn disk(number: u64) -> &'static Disk {
    static ALL: OnceLock<Vec<Disk>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        (0..DISKS)
            .map(|number| {
                let mut random = Seeded::new(number + 77);
                let len = match number {
                    0 => 0,
                    1 => 1,
                    _ => random.below(9 << 20) | u64::from(number % 2 == 0),
                };
                let bytes = Bytes::from(mixed(number, len as usize));
                let hashes = Hashes::of(&bytes);
                Disk { bytes, hashes }
            })
            .collect()
    });
    &all[number as usize]
}

/// Where a run takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Source and target in memory.
    Memory { access: Access },
    /// From memory into a file.
    File,
    /// From and to a Glance in this process.
    Glance { ranges: bool },
}

impl World {
    pub fn word(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::File => "file",
            Self::Glance { .. } => "glance",
        }
    }
}

/// What a wrapper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The operation fails.
    Fail,
    /// The disk fails like this.
    Errno(Errno),
    /// Its thread panics.
    Panic,
    /// One bit of the bytes that pass is flipped.
    Flip(u64),
    /// The run gets a signal.
    Signal,
    /// It takes a little longer.
    Pause(Duration),
}

/// A trouble and its occasion: the pass or attempt, and the chunk or byte.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub round: u64,
    pub at: u64,
    pub what: Trouble,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub world: World,
    pub disk: u64,
    /// Whether the source's hash is known.
    pub verified: bool,
    pub cluster_bytes: u64,
    pub compat: Compat,
    pub compression: Compression,
    pub threads: usize,
    pub spool_memory_bytes: u64,
    pub spool_disk_bytes: u64,
    pub queue_bytes: u64,
    /// What the source's wrapper does; `at` counts chunks.
    pub source: Vec<Event>,
    /// What the target's wrapper does; `at` counts bytes. A file is written in one round.
    pub sink: Vec<Event>,
    /// In memory: bytes after which an attempt to send breaks off, one for each attempt.
    pub breaks: Vec<u64>,
    /// Whether a state file is kept, and the run repeated without faults if it failed.
    pub with_state: bool,
    pub faults: Faults,
    pub small_sockets: bool,
    /// The token expires so long after the beginning.
    pub token_expires: Option<Duration>,
}

fn pick<T: Copy>(random: &mut Seeded, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

/// With a probability of `per_cent`.
fn chance(random: &mut Seeded, per_cent: u64) -> bool {
    random.below(100) < per_cent
}

impl Schedule {
    /// The schedule of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Seeded::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(99));
        (0..4).for_each(|_| {
            random.next();
        });
        let random = &mut random;
        let world = match random.below(100) {
            0..50 => World::Memory {
                access: pick(random, &[Access::Once, Access::Sequential, Access::Sequential, Access::Random]),
            },
            50..65 => World::File,
            _ => World::Glance { ranges: chance(random, 50) },
        };
        let compat = pick(random, &[Compat::V1_1, Compat::V0_10]);
        let compression = match compat {
            Compat::V0_10 => pick(random, &[Compression::None, Compression::Deflate(1)]),
            Compat::V1_1 => pick(random, &[Compression::None, Compression::Deflate(1), Compression::Zstd(1)]),
        };
        let (disk, verified) = (random.below(DISKS), chance(random, 70));
        let mut schedule = Self {
            world,
            disk,
            verified,
            cluster_bytes: pick(random, &[4096, 65536, 65536, 2 << 20]),
            compat,
            compression,
            threads: 1 + random.below(3) as usize,
            spool_memory_bytes: pick(random, &[0, 4 << 20, 64 << 20]),
            spool_disk_bytes: pick(random, &[0, 0, 8 << 20]),
            queue_bytes: pick(random, &[1 << 20, 4 << 20]),
            source: Vec::new(),
            sink: Vec::new(),
            breaks: Vec::new(),
            with_state: chance(random, 30) && world != World::File,
            faults: Faults::default(),
            small_sockets: chance(random, 50),
            token_expires: None,
        };
        schedule.draw_events(random);
        if let World::Glance { .. } = world {
            schedule.draw_faults(random);
            if chance(random, 5) {
                schedule.token_expires = Some(Duration::from_millis(random.below(120)));
            }
        }
        schedule
    }

    fn draw_events(&mut self, random: &mut Seeded) {
        let (chunks, bytes) = (6, (disk(self.disk).bytes.len() as u64).max(1));
        let wrapped = if matches!(self.world, World::Glance { .. }) { 15 } else { 45 };
        if chance(random, wrapped) {
            for _ in 0..1 + random.below(2) {
                let round = random.below(3);
                let what = match random.below(10) {
                    0..3 => Trouble::Fail,
                    3 => Trouble::Panic,
                    // In pass 1 only the source's hash can tell.
                    4..7 if self.verified || round > 0 => Trouble::Flip(random.next()),
                    7 => Trouble::Signal,
                    _ => Trouble::Pause(Duration::from_micros(random.below(5000))),
                };
                self.source.push(Event { round, at: random.below(chunks), what });
            }
        }
        let is_file = self.world == World::File;
        if chance(random, if is_file { wrapped } else { wrapped / 2 }) {
            let errno = Trouble::Errno(pick(random, &[Errno::NOSPC, Errno::IO]));
            let fail = if is_file { errno } else { Trouble::Fail };
            let what = pick(random, &[fail, Trouble::Signal, Trouble::Pause(Duration::from_millis(2))]);
            self.sink.push(Event { round: random.below(2), at: random.below(bytes), what });
        }
        if chance(random, 40) {
            self.breaks = (0..random.below(5)).map(|_| random.below(bytes)).collect();
        }
    }

    fn draw_faults(&mut self, random: &mut Seeded) {
        let len = (disk(self.disk).bytes.len() as u64).max(1);
        let verified = self.verified;
        let faults = &mut self.faults;
        for _ in 0..[0, 1, 1, 2][random.below(4) as usize] {
            let status =
                pick(random, &[400, 401, 403, 404, 409, 410, 413, 429, 429, 500, 500, 502, 503, 503, 504]);
            let retry_after = chance(random, 10).then_some(1);
            let answer = Answer { retry_after, ..Answer::status(status) };
            let route = pick(
                random,
                &[
                    None,
                    Some(Route::Show),
                    Some(Route::Create),
                    Some(Route::Delete),
                    Some(Route::Download),
                    Some(Route::Upload),
                ],
            );
            faults.answers.push((route, occasions(random, answer)));
        }
        let cut = Cut { after_bytes: random.below(len), reset: chance(random, 50) };
        let stall = |random: &mut Seeded| Stall {
            after_bytes: random.below(len),
            duration: Duration::from_millis(random.below(700)),
        };
        faults.download_cut = chance(random, 30).then(|| occasions(random, cut));
        faults.download_stall = chance(random, 5).then(|| {
            let stall = stall(random);
            occasions(random, stall)
        });
        let flip = random.below(len);
        faults.download_flip = (verified && chance(random, 8)).then(|| occasions(random, flip));
        faults.download_no_content = chance(random, 3).then(|| occasions(random, ()));
        faults.download_without_length = chance(random, 15).then(|| occasions(random, ()));
        let wrong = pick(
            random,
            &[
                RangeAnswer::WholeBodyAs206,
                RangeAnswer::Whole200,
                RangeAnswer::Shifted,
                RangeAnswer::WrongContentRange,
            ],
        );
        faults.range_answer = chance(random, 15).then(|| occasions(random, wrong));
        faults.upload_cut = chance(random, 25).then(|| {
            let at = random.below(len);
            occasions(random, at)
        });
        faults.upload_stall = chance(random, 5).then(|| {
            let stall = stall(random);
            occasions(random, stall)
        });
        let refusal = Refusal {
            status: pick(random, &[409, 413, 415]),
            text: "refused by the schedule".into(),
            after_bytes: chance(random, 50).then(|| random.below(len)),
        };
        faults.upload_refused = chance(random, 5).then(|| occasions(random, refusal));
        faults.upload_finish_delay = chance(random, 10).then(|| Duration::from_millis(random.below(60)));
        let lost = pick(random, &[LostAnswer::Reset, LostAnswer::Status(502), LostAnswer::Status(504)]);
        faults.upload_lost = chance(random, 15).then(|| occasions(random, lost));
        let hash = pick(random, &[HashFault::Wrong, HashFault::Missing]);
        faults.upload_hash = chance(random, 8).then(|| occasions(random, hash));
        faults.create_lost = chance(random, 10).then(|| occasions(random, lost));
    }

    /// The disk that is converted.
    pub fn bytes(&self) -> Arc<Bytes> {
        Arc::new(disk(self.disk).bytes.clone())
    }
}

/// Now and then for ever, mostly once or twice.
fn occasions<T>(random: &mut Seeded, what: T) -> Fault<T> {
    let times = if chance(random, 10) { u32::MAX } else { 1 + random.below(3) as u32 };
    Fault { skip: random.below(3) as u32, times, what }
}
