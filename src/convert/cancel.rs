//! Ending a run from outside.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Kind, Result, Stage};

/// A switch that ends a run: whoever waits is woken, whoever looks is told. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Default)]
struct State {
    signal: AtomicI32,
    next: std::sync::atomic::AtomicU64,
    wakers: Mutex<Vec<(u64, Waker)>>,
}

type Waker = Box<dyn Fn() + Send>;

/// Forgets its waker when dropped.
#[must_use]
pub struct Guard {
    cancel: Cancel,
    id: u64,
}

impl Cancel {
    /// A switch that nobody has touched.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run because of a signal, by its number.
    pub fn trigger(&self, signal: i32) {
        self.0.signal.store(signal, Ordering::SeqCst);
        if let Ok(wakers) = self.0.wakers.lock() {
            wakers.iter().for_each(|(_, wake)| wake());
        }
    }

    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Calls `wake` when the run is ended, at once if it is already, until the guard is dropped.
    pub fn on_trigger(&self, wake: impl Fn() + Send + 'static) -> Guard {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut wakers) = self.0.wakers.lock() {
            if self.signal().is_some() {
                wake();
            }
            wakers.push((id, Box::new(wake)));
        }
        Guard { cancel: self.clone(), id }
    }

    /// Fails if the run has been ended.
    ///
    /// # Errors
    /// [`Kind::Interrupted`].
    pub fn check(&self, stage: Stage) -> Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(signal) => Err(Error::new(stage, Kind::Interrupted(signal), "interrupted by a signal")),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut wakers) = self.cancel.0.wakers.lock() {
            wakers.retain(|(id, _)| *id != self.id);
        }
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cancel({:?})", self.signal())
    }
}
