//! Fetching an image as it is. Takes a source and its known hash, gives a file that goes on after a failure, or a
//! stream; proves the bytes. [`expand()`] makes a raw disk of a qcow2 image that was fetched.
//!
//! It drives a source and a sink as [`crate::convert`] does, without the stages between: the source brings chunks in
//! order, by as many ranges at once as its store gives, and they are written in order. So the length of what is on
//! disk says how far it came, whatever ended the run. The hash is made of the file, close behind its end: what an
//! earlier run left is proved like what comes now, while that comes, and nobody who sends waits for it.
//!
//! It stands above `source`, `scan` and `sink`, whose bytes it moves, and `read`, which decodes; of `convert` it uses
//! only the switch that ends a run and its counters.

mod expand;
mod follow;

use std::io::Write;
use std::sync::Arc;

use crate::buffers::Pool;
use crate::convert::{Cancel, Counters, Phase, hash_data};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::Access;
use crate::flow::{Body, CHUNK_BYTES, Chunk};
use crate::hash::{Algorithm, Digest, Hasher};
use crate::scan;
use crate::sink::Part;
use crate::source::{Outlet, Source, Wanted};
use crate::units::ClusterSize;
use follow::Follower;

pub use expand::{FileLanding, expand, part_as_input};

/// The unit in which chunks are counted; nothing of it shows in the bytes.
const UNIT_BITS: u32 = 16;
/// Zeros of at least so many bytes become holes: a block of the usual file systems.
const HOLE_BITS: u32 = 12;

/// Somewhere that bytes go in order, without gaps.
pub trait Landing {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// What keeps them from landing.
    fn data(&mut self, bytes: &[u8]) -> Result<()>;

    /// Takes so many zeros.
    ///
    /// # Errors
    /// As [`Self::data`].
    fn zeros(&mut self, count: u64) -> Result<()>;
}

/// What is fetched, and how.
#[derive(Clone)]
pub struct Fetch {
    /// The bytes.
    pub source: Arc<dyn Source>,
    /// The hash that the source's service keeps, or why it is not compared.
    pub digest: Result<Digest, String>,
    /// Chunks of [`CHUNK_BYTES`] in memory at most; a source with ranges uses half as many connections at most.
    pub buffers: usize,
    /// What is counted meanwhile: `guest_bytes` is how far it came, `zero_bytes` what of it became holes.
    pub counters: Arc<Counters>,
    /// Ends the run from outside.
    pub cancel: Cancel,
}

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Length of all of it, in bytes.
    pub bytes: u64,
    /// Bytes of an earlier run that were used.
    pub resumed_bytes: u64,
    /// The hash of the bytes: by the algorithm of the known one, else SHA-512.
    pub digest: Digest,
    /// `Ok` if that hash is the known one, else why it was not compared.
    pub verified: Result<(), String>,
}

impl Fetch {
    /// Fetches what is missing of a file, and proves all of it. Where the source gives no ranges, all of it is
    /// fetched anew.
    ///
    /// # Errors
    /// Of the source, of the disk; [`Kind::SourceChanged`] if the hash is another one. The part stays as it is.
    pub fn into_part(&self, part: &mut Part) -> Result<Fetched> {
        let len = self.len()?;
        let random = self.source.facts().access == Access::Random;
        let from = if part.len() == len {
            len
        } else if random && part.len() < len {
            part.len() - part.len() % CHUNK_BYTES as u64
        } else {
            0
        };
        part.cut(from)?;
        self.counters.enter(Phase::Survey);
        Counters::add(&self.counters.guest_bytes, from);
        let follower = Follower::start(part.file(), self.algorithm(), self.cancel.clone(), from)?;
        let mut landing = PartLanding { part, follower: &follower, counters: &self.counters };
        let landed = self.run(from, len, &mut landing);
        // Who follows has to end in any case.
        if let Err(error) = landed {
            follower.give_up();
            return Err(error);
        }
        self.counters.enter(Phase::Settle);
        let digest = follower.finish(len)?;
        self.judge(digest, len, from)
    }

    /// Fetches all of it into a stream. What is proved in the end has left by then.
    ///
    /// # Errors
    /// As [`Self::into_part`]; [`Kind::ClosedPipe`] if nobody reads the stream any more.
    pub fn into_stream(&self, stream: &mut dyn Write, name: &str) -> Result<Fetched> {
        let len = self.len()?;
        self.counters.enter(Phase::Survey);
        let mut landing = StreamLanding::new(stream, name, Arc::clone(&self.counters));
        landing.hasher = Some(Hasher::new(self.algorithm()));
        self.run(0, len, &mut landing)?;
        self.counters.enter(Phase::Settle);
        let digest = landing.finish()?;
        self.judge(digest.unwrap_or_else(|| Hasher::new(self.algorithm()).finish()), len, 0)
    }

    fn len(&self) -> Result<u64> {
        let facts = self.source.facts();
        facts.len.ok_or_else(|| {
            let what = format!("{} does not say how long it is", facts.name);
            Error::new(Stage::Source, Kind::Source, what)
        })
    }

    fn algorithm(&self) -> Algorithm {
        self.digest.as_ref().map_or(Algorithm::Sha512, |digest| digest.algorithm)
    }

    fn judge(&self, digest: Digest, bytes: u64, resumed_bytes: u64) -> Result<Fetched> {
        let verified = match &self.digest {
            Ok(known) if *known == digest => Ok(()),
            Ok(known) => {
                let what = format!(
                    "{}: the {} of what came is {}…, and by its record it is {}…",
                    self.source.facts().name,
                    digest.algorithm.name(),
                    digest.hex.get(..16).unwrap_or_default(),
                    known.hex.get(..16).unwrap_or_default()
                );
                return Err(Error::new(Stage::Source, Kind::SourceChanged, what)
                    .advise("run this again; if it happens again, the stored image is damaged"));
            }
            Err(why) => Err(why.clone()),
        };
        Ok(Fetched { bytes, resumed_bytes, digest, verified })
    }

    /// Reads from `from` on, in a thread of its own, and lands it here.
    fn run(&self, from: u64, len: u64, landing: &mut dyn Landing) -> Result<()> {
        if from >= len {
            return Ok(());
        }
        let unit = unit();
        let wanted = match from {
            0 => Wanted::All,
            _ => {
                let rest = (from >> unit.bits())..unit.clusters_for(len);
                Wanted::Runs(Arc::new(std::iter::once(rest).collect()))
            }
        };
        let (to, chunks) = async_channel::bounded(self.buffers);
        // The second pool is for what encoding yields; memory that nobody writes to takes no room.
        let pools = [(); 2].map(|()| Pool::new(self.buffers, CHUNK_BYTES));
        let stop = {
            let (chunks, pools) = (chunks.clone(), pools.clone());
            move || {
                chunks.close();
                pools.iter().for_each(Pool::close);
            }
        };
        let [bytes, rooms] = pools;
        let mut outlet = Outlet::new(to, bytes, rooms, unit, Arc::clone(&self.counters.source_bytes))
            .find_zeros(scan::zero::is_zero);
        let _guard = self.cancel.on_trigger(stop.clone());
        std::thread::scope(|scope| {
            let source = &self.source;
            let reading = scope.spawn(move || source.read(&wanted, &mut outlet));
            let landed = land(&chunks, len, landing);
            stop();
            let read = reading.join().unwrap_or_else(|_| {
                Err(Error::new(Stage::Source, Kind::Other, "the reading thread panicked")
                    .advise("please report this"))
            });
            self.cancel.check(Stage::Source)?;
            let end = landed?;
            read?;
            if end != len {
                let what = format!("{} has {len} bytes, but {end} came", self.source.facts().name);
                return Err(Error::new(Stage::Source, Kind::SourceChanged, what).advise("run this again"));
            }
            self.source.settle()
        })
    }
}

fn unit() -> ClusterSize {
    ClusterSize::from_bits(UNIT_BITS).unwrap_or(ClusterSize::DEFAULT)
}

/// Lands chunks until there are no more; gives the offset behind the last one.
fn land(chunks: &async_channel::Receiver<Chunk>, len: u64, landing: &mut dyn Landing) -> Result<u64> {
    let unit = unit();
    let mut end = 0;
    while let Ok(chunk) = chunks.recv_blocking() {
        let start = unit.start_of(chunk.first).0;
        let count = match chunk.body {
            Body::Hole => {
                let count = (chunk.clusters << unit.bits()).min(len.saturating_sub(start));
                landing.zeros(count)?;
                count
            }
            Body::Zeros { len } => {
                landing.zeros(len as u64)?;
                len as u64
            }
            Body::Data { bytes, len, .. } => {
                landing.data(&bytes[..len])?;
                len as u64
            }
            Body::Unread { from, len, mut bytes, .. } => {
                from.read_at(&mut bytes[..len], start)?;
                landing.data(&bytes[..len])?;
                len as u64
            }
        };
        end = start + count;
    }
    Ok(end)
}

/// Gives bytes on as runs of data and of zeros.
fn sparsely(bytes: &[u8], mut to: impl FnMut(&[u8], bool) -> Result<()>) -> Result<()> {
    let block = ClusterSize::from_bits(HOLE_BITS).unwrap_or(ClusterSize::DEFAULT);
    let whole = bytes.len() - bytes.len() % block.size();
    for run in scan::runs(&bytes[..whole], block) {
        let begin = run.first * block.size();
        to(&bytes[begin..begin + run.clusters * block.size()], run.is_data)?;
    }
    let rest = &bytes[whole..];
    if rest.is_empty() { Ok(()) } else { to(rest, !scan::zero::is_zero(rest)) }
}

/// Lands in a file; tells who follows how far it came.
struct PartLanding<'a> {
    part: &'a mut Part,
    follower: &'a Follower,
    counters: &'a Counters,
}

impl Landing for PartLanding<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        sparsely(bytes, |run, is_data| {
            if is_data {
                return self.part.put(run);
            }
            Counters::add(&self.counters.zero_bytes, run.len() as u64);
            self.part.put_zeros(run.len() as u64)
        })?;
        Counters::add(&self.counters.guest_bytes, bytes.len() as u64);
        self.follower.reached(self.part.len());
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        self.part.put_zeros(count)?;
        Counters::add(&self.counters.zero_bytes, count);
        Counters::add(&self.counters.guest_bytes, count);
        self.follower.reached(self.part.len());
        Ok(())
    }
}

/// Lands in a stream, zeros too.
pub struct StreamLanding<'a> {
    stream: &'a mut dyn Write,
    name: &'a str,
    sent: u64,
    hasher: Option<Hasher>,
    counters: Arc<Counters>,
}

impl<'a> StreamLanding<'a> {
    /// A stream; `name` is for messages.
    pub fn new(stream: &'a mut dyn Write, name: &'a str, counters: Arc<Counters>) -> Self {
        Self { stream, name, sent: 0, hasher: None, counters }
    }

    /// Flushes; gives the hash, if one was made.
    fn finish(mut self) -> Result<Option<Digest>> {
        self.stream.flush().map_err(|error| self.failed(error))?;
        Ok(self.hasher.take().map(Hasher::finish))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        let closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        let kind = if closed { Kind::ClosedPipe } else { Kind::Local };
        let what = format!("write to {} at offset {}", self.name, self.sent);
        Error::new(Stage::Sink, kind, what).because(error)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|error| self.failed(error))?;
        self.sent += bytes.len() as u64;
        Counters::add(&self.counters.sink_bytes, bytes.len() as u64);
        Ok(())
    }
}

impl Landing for StreamLanding<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hash_data(hasher, bytes);
            Counters::add(&self.counters.guest_bytes, bytes.len() as u64);
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
        while count > 0 {
            let take = count.min(ZEROS.len() as u64);
            self.put(&ZEROS[..take as usize])?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update_zeros(take);
                Counters::add(&self.counters.guest_bytes, take);
            }
            count -= take;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
