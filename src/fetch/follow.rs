//! The hash of a file that grows, made close behind its end by a thread of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::SeekFrom;

use crate::convert::{Cancel, hash_data};
use crate::error::{Error, Kind, Result, Stage};
use crate::hash::{Algorithm, Digest, Hasher};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// See the module's text.
pub(super) struct Follower {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Digest>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// What lies before is as it will be.
    reached: u64,
    is_whole: bool,
    is_given_up: bool,
}

impl Follower {
    /// Begins at byte 0 of a file of which `reached` bytes are there.
    pub(super) fn start(file: Arc<File>, algorithm: Algorithm, cancel: Cancel, reached: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().reached = reached;
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || own.follow(&file, Hasher::new(algorithm), &cancel))
            .map_err(|error| {
                Error::new(Stage::Plan, Kind::Local, "start the thread `hash`").because(error)
            })?;
        Ok(Self { shared, thread })
    }

    /// Tells how far the file is as it will be.
    pub(super) fn reached(&self, len: u64) {
        self.shared.change(|state| state.reached = len);
    }

    /// Nobody wants the hash any more.
    pub(super) fn give_up(self) {
        self.shared.change(|state| state.is_given_up = true);
        let _ = self.thread.join();
    }

    /// The hash of all `len` bytes.
    pub(super) fn finish(self, len: u64) -> Result<Digest> {
        self.shared.change(|state| (state.reached, state.is_whole) = (len, true));
        self.thread.join().unwrap_or_else(|_| {
            Err(Error::new(Stage::Sink, Kind::Other, "the hashing thread panicked")
                .advise("please report this"))
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    fn follow(&self, file: &File, mut hasher: Hasher, cancel: &Cancel) -> Result<Digest> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        loop {
            let state = {
                let mut state = self.lock();
                while state.reached == at && !state.is_whole && !state.is_given_up {
                    state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                *state
            };
            cancel.check(Stage::Sink)?;
            if state.is_given_up || (state.is_whole && at == state.reached) {
                return Ok(hasher.finish());
            }
            let data = next_data(file, at).min(state.reached);
            hasher.update_zeros(data - at);
            let take = (state.reached - data).min(PIECE_BYTES as u64) as usize;
            file.read_exact_at(&mut piece[..take], data).map_err(|error| {
                let what = format!("read {take} bytes at offset {data} of what was written");
                Error::new(Stage::Sink, Kind::Local, what).because(error)
            })?;
            hash_data(&mut hasher, &piece[..take]);
            at = data + take as u64;
        }
    }
}

/// Where the next bytes begin that may be no zeros; `u64::MAX` if there are none. Who cannot tell has them here.
fn next_data(file: &File, at: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.max(at),
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        Err(_) => at,
    }
}
