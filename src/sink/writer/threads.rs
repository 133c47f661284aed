//! Threads that `pwrite`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Output, Preallocated, WriteError, Writer};
use crate::buffers::Slice;

/// Two keep a disk busy; more only compete with the encoders.
pub(super) const THREADS: usize = 2;

pub(in crate::sink) struct Threads {
    output: Arc<Output>,
    shared: Arc<Shared>,
    work: async_channel::Sender<(u64, Slice)>,
    started: usize,
    preallocated: Preallocated,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    failed: Option<WriteError>,
}

impl Threads {
    pub(in crate::sink) fn new(output: Arc<Output>, threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let (work, orders) = async_channel::bounded::<(u64, Slice)>(threads);
        let spawn = |index: usize| {
            let (orders, shared, output) = (orders.clone(), Arc::clone(&shared), Arc::clone(&output));
            let run = move || {
                while let Ok((offset, extent)) = orders.recv_blocking() {
                    let result = output.write_plainly(offset, &extent);
                    drop(extent);
                    shared.done(result);
                }
            };
            std::thread::Builder::new().name(format!("write-{index}")).spawn(run)
        };
        let started = (0..threads).filter(|&index| spawn(index).is_ok()).count();
        Self { output, shared, work, started, preallocated: Preallocated::default() }
    }
}

impl Shared {
    fn done(&self, result: Result<(), WriteError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way -= 1;
        if let Err(error) = result {
            state.failed.get_or_insert(error);
        }
        self.written.notify_all();
    }
}

impl Writer for Threads {
    fn submit(&mut self, offset: u64, extent: Slice) -> Result<(), WriteError> {
        self.preallocated.reach(&self.output, offset + extent.len() as u64);
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.take().map_or(Ok(()), Err)?;
        state.under_way += 1;
        drop(state);
        if self.started > 0 && self.work.send_blocking((offset, extent)).is_ok() {
            return Ok(());
        }
        let cause = std::io::Error::other("no thread to write with could be started");
        Err(WriteError { offset, cause })
    }

    fn drain(&mut self) -> Result<(), WriteError> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.under_way > 0 {
            state = self.shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.take().map_or(Ok(()), Err)
    }

    fn method(&self) -> &'static str {
        "pwrite"
    }
}
