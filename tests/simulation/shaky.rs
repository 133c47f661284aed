//! Sources and targets that go wrong on cue: wrappers around any other.

use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::{TryRecvError, bounded};
use bytes::Bytes;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{SinkFacts, SourceFacts};
use snapcow::flow::{Body, Chunk, Room};
use snapcow::sink::{Delivered, Delivery, InOrder, Produce, Writer};
use snapcow::source::{Outlet, Source, Wanted};

use crate::schedule::{Event, Trouble};
use crate::writer::Troubled;

/// SIGTERM, as `Cancel` has it.
const SIGNAL: i32 = 15;

/// A source whose chunks meet trouble on their way.
pub struct Shaky<S> {
    pub inner: S,
    pub events: Vec<Event>,
    pub cancel: Cancel,
    /// Passes so far.
    pub passes: AtomicU64,
}

impl<S: Source> Shaky<S> {
    fn meet(&self, pass: u64, number: u64, chunk: &mut Chunk) -> Result<()> {
        for event in self.events.iter().filter(|event| (event.round, event.at) == (pass, number)) {
            match event.what {
                Trouble::Fail => {
                    let what = format!("read chunk {number} of {}: a fault on cue", self.facts().name);
                    return Err(Error::new(Stage::Source, Kind::Source, what));
                }
                Trouble::Panic => panic!("a panic on cue"),
                Trouble::Flip(place) => {
                    if let Body::Data { bytes, len, .. } = &mut chunk.body
                        && *len > 0
                    {
                        bytes[(place % *len as u64) as usize] ^= 1 << (place >> 61);
                    }
                }
                Trouble::Signal => self.cancel.trigger(SIGNAL),
                Trouble::Pause(time) => std::thread::sleep(time),
                Trouble::Errno(_) => unreachable!("drawn for files only"),
            }
        }
        Ok(())
    }
}

impl<S: Source> Source for Shaky<S> {
    fn facts(&self) -> &SourceFacts {
        self.inner.facts()
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let pass = self.passes.fetch_add(1, Ordering::SeqCst);
        let (to, from) = bounded::<Chunk>(1);
        let mut diverted = outlet.divert(to);
        std::thread::scope(|scope| {
            // Also when this thread panics: the inner source must not wait for ever to be heard.
            let from = Closing(from);
            let reading = scope.spawn(move || self.inner.read(wanted, &mut diverted));
            let mut number = 0;
            let result = loop {
                // The other side may stop while the inner source has nothing to send.
                if outlet.is_stopped() {
                    break Ok(());
                }
                match from.0.try_recv() {
                    Ok(mut chunk) => {
                        let met = self.meet(pass, number, &mut chunk);
                        if let Err(error) = met.and_then(|()| Ok(outlet.forward(chunk)?)) {
                            break Err(error);
                        }
                        number += 1;
                    }
                    Err(TryRecvError::Empty) => std::thread::sleep(std::time::Duration::from_micros(50)),
                    Err(TryRecvError::Closed) => break Ok(()),
                }
            };
            drop(from);
            let read = reading.join().expect("the inner source does not panic");
            result.and(read)
        })
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
}

/// Hangs up when dropped.
struct Closing(async_channel::Receiver<Chunk>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A target whose bytes meet trouble on their way.
pub struct ShakyDelivery {
    pub inner: Box<dyn Delivery>,
    pub events: Vec<Event>,
    pub cancel: Cancel,
}

impl Delivery for ShakyDelivery {
    fn facts(&self) -> &SinkFacts {
        self.inner.facts()
    }

    fn deliver(&mut self, len: u64, produce: Produce<'_>) -> Result<Delivered> {
        let (events, cancel) = (&self.events, &self.cancel);
        let mut attempt = 0;
        self.inner.deliver(len, &mut |sink| {
            let mut on_the_way = OnTheWay { sink, events, cancel, attempt, at: 0 };
            attempt += 1;
            produce(&mut on_the_way)
        })
    }

    fn abandon(&mut self) -> Option<String> {
        self.inner.abandon()
    }
}

struct OnTheWay<'a> {
    sink: &'a mut dyn InOrder,
    events: &'a [Event],
    cancel: &'a Cancel,
    attempt: u64,
    at: u64,
}

impl InOrder for OnTheWay<'_> {
    fn put(&mut self, part: Bytes) -> Result<()> {
        let end = self.at + part.len() as u64;
        let here = |event: &&Event| event.round == self.attempt && (self.at..end).contains(&event.at);
        for event in self.events.iter().filter(here) {
            match event.what {
                Trouble::Fail => {
                    let what = format!("hand on byte {}: a fault on cue", event.at);
                    return Err(Error::new(Stage::Sink, Kind::Local, what));
                }
                Trouble::Signal => self.cancel.trigger(SIGNAL),
                Trouble::Pause(time) => std::thread::sleep(time),
                Trouble::Panic | Trouble::Flip(_) | Trouble::Errno(_) => unreachable!("not drawn for these"),
            }
        }
        self.at = end;
        self.sink.put(part)
    }

    fn hold_back(&mut self, bytes: u64) {
        self.sink.hold_back(bytes);
    }

    fn room(&self) -> Option<Room> {
        self.sink.room()
    }
}

/// A file whose extents meet trouble on their way to disk.
pub fn shaky_writer(inner: Box<dyn Writer>, events: Vec<Event>, cancel: Cancel) -> Box<dyn Writer> {
    Box::new(Troubled::new(inner, move |part| {
        for event in events.iter().filter(|event| part.contains(&event.at)) {
            match event.what {
                Trouble::Errno(errno) => return Err(errno.into()),
                Trouble::Signal => cancel.trigger(SIGNAL),
                Trouble::Pause(time) => std::thread::sleep(time),
                Trouble::Fail | Trouble::Panic | Trouble::Flip(_) => unreachable!("not drawn for files"),
            }
        }
        Ok(())
    }))
}
