//! What goes wrong, when, and how often: everything that a real Glance, a proxy before it or the
//! network does to its clients now and then, on demand.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::lock;

/// Which calls of the API a fault is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2/images`
    List,
    /// `GET /v2/images/ID`
    Show,
    /// `POST /v2/images`
    Create,
    /// `PATCH /v2/images/ID`
    Update,
    /// `DELETE /v2/images/ID`
    Delete,
    /// `GET /v2/images/ID/file`
    Download,
    /// `PUT /v2/images/ID/file`
    Upload,
    /// Anything else.
    Other,
}

/// A fault and the occasions on which it happens.
#[derive(Clone, Debug)]
pub struct Fault<T> {
    /// Occasions that pass in good health first.
    pub skip: u32,
    /// Occasions after those on which it happens; `u32::MAX` stands for «for ever».
    pub times: u32,
    /// What happens.
    pub what: T,
}

impl<T: Clone> Fault<T> {
    /// Every time.
    pub fn always(what: T) -> Self {
        Self { skip: 0, times: u32::MAX, what }
    }

    /// On the first `times` occasions.
    pub fn first(times: u32, what: T) -> Self {
        Self { skip: 0, times, what }
    }

    /// From the second occasion on.
    pub fn from_second(what: T) -> Self {
        Self { skip: 1, times: u32::MAX, what }
    }

    /// Counts an occasion; what happens on it, if anything.
    fn occur(&mut self) -> Option<T> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.times == 0 {
            return None;
        }
        if self.times != u32::MAX {
            self.times -= 1;
        }
        Some(self.what.clone())
    }
}

/// An answer in place of the right one.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Text of the HTML body.
    pub text: String,
    /// Seconds for a `Retry-After` header.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// An answer without `Retry-After`.
    pub fn status(status: u16) -> Self {
        Self { status, text: "A fault that was asked for.".into(), retry_after: None }
    }
}

/// The body of a download ends early although `Content-Length` announced all of it.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Bytes of the body that are sent before.
    pub after_bytes: u64,
    /// Whether the connection is reset (RST); otherwise it is closed (FIN), a short body.
    pub reset: bool,
}

/// A transfer that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// Bytes that pass before.
    pub after_bytes: u64,
    /// For how long.
    pub duration: Duration,
}

/// Wrong answers to a download with a `Range` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeAnswer {
    /// 206 with the right `Content-Range`, but the whole image as its body.
    WholeBodyAs206,
    /// 200 and the whole image: the header was ignored.
    Whole200,
    /// 206, the right length, but bytes and `Content-Range` of a place one sector further
    /// (or before, at the end).
    Shifted,
    /// 206 and the right bytes under a `Content-Range` that says otherwise.
    WrongContentRange,
}

/// How the answer to a request that was carried out is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostAnswer {
    /// The connection is reset.
    Reset,
    /// A proxy answers with this status (502, 504) instead.
    Status(u16),
}

/// An upload that is refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status: 413 for a quota, 415 for a format.
    pub status: u16,
    /// Text of the HTML body.
    pub text: String,
    /// Refused as soon as this many bytes are in; `None`: after the last byte, as Glance's
    /// inspector does it.
    pub after_bytes: Option<u64>,
}

/// A reader that is cut off when it is too slow, as uWSGI does it after 4 s.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Bytes that the client has to take …
    pub bytes: u64,
    /// … in any stretch of time of this length.
    pub window: Duration,
}

/// What is wrong with `os_hash_value` of an image that has been uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// It is the hash of something else; so is `checksum`.
    Wrong,
    /// It, `os_hash_algo` and `checksum` are null, as for a Ceph direct snapshot.
    Missing,
}

/// All faults; none by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Answers instead of the right ones: 401, 429, 500, 503 … on a route (`None`: on any).
    /// The first entry that happens wins; a failing DELETE is one of these.
    pub answers: Vec<(Option<Route>, Fault<Answer>)>,
    /// One request at a time; the others wait until the answer's last byte is out.
    pub single_worker: bool,

    /// A download's body ends early.
    pub download_cut: Option<Fault<Cut>>,
    /// A download stands still.
    pub download_stall: Option<Fault<Stall>>,
    /// Downloads get at most this many bytes a second.
    pub download_rate: Option<u64>,
    /// The lowest bit of the byte at this offset of the image is flipped.
    pub download_flip: Option<Fault<u64>>,
    /// 204 without a body for an image that is active.
    pub download_no_content: Option<Fault<()>>,
    /// No `Content-Length`: the body comes chunked.
    pub download_without_length: Option<Fault<()>>,
    /// Wrong answers to a `Range`; an occasion is a request that has one.
    pub range_answer: Option<Fault<RangeAnswer>>,
    /// Readers slower than this are reset.
    pub download_floor: Option<Floor>,

    /// The connection is reset when this many bytes of an upload are in; the image is `queued` again.
    pub upload_cut: Option<Fault<u64>>,
    /// The server stops reading an upload for a while.
    pub upload_stall: Option<Fault<Stall>>,
    /// Uploads are read at no more than this many bytes a second.
    pub upload_rate: Option<u64>,
    /// An upload that is silent for longer gets 500 and a closed connection, as from uWSGI.
    pub upload_silence: Option<Duration>,
    /// An upload is refused.
    pub upload_refused: Option<Fault<Refusal>>,
    /// Between an upload's last byte and its answer; the image is `saving` meanwhile.
    pub upload_finish_delay: Option<Duration>,
    /// The data is stored, the image active, the answer lost.
    pub upload_lost: Option<Fault<LostAnswer>>,
    /// The new image's hash is not the one of its data.
    pub upload_hash: Option<Fault<HashFault>>,

    /// The image is created, the answer lost.
    pub create_lost: Option<Fault<LostAnswer>>,
    /// Properties that nobody may set: 403, at create and at update.
    pub forbidden_properties: Vec<String>,
}

/// Counts an occasion of a fault that may not be set at all.
pub(super) fn occur<T: Clone>(fault: &mut Option<Fault<T>>) -> Option<T> {
    fault.as_mut().and_then(Fault::occur)
}

impl Faults {
    /// The answer that replaces the right one on this route, now.
    pub(super) fn answer(&mut self, route: Route) -> Option<Answer> {
        let mut meant = self.answers.iter_mut().filter(|(only, _)| only.is_none_or(|only| only == route));
        meant.find_map(|(_, fault)| fault.occur())
    }
}

/// The faults of a running server; clones are the same faults.
#[derive(Clone, Debug, Default)]
pub struct FaultsHandle(Arc<Mutex<Faults>>);

impl FaultsHandle {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    /// Replaces all of them, from the next request on; counts begin anew.
    pub fn set(&self, faults: Faults) {
        *self.lock() = faults;
    }

    /// Changes some of them, from the next request on.
    pub fn update(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Faults> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_on_the_occasions_they_are_meant_for() {
        let happened = |mut fault: Fault<()>| (0..4).map(|_| fault.occur().is_some()).collect::<Vec<_>>();
        assert_eq!(happened(Fault::always(())), [true; 4]);
        assert_eq!(happened(Fault::first(2, ())), [true, true, false, false]);
        assert_eq!(happened(Fault::from_second(())), [false, true, true, true]);
        assert_eq!(happened(Fault { skip: 1, times: 1, what: () }), [false, true, false, false]);
    }

    #[test]
    fn answers_are_for_their_route() {
        let mut faults = Faults::default();
        faults.answers.push((Some(Route::Delete), Fault::first(1, Answer::status(500))));
        faults.answers.push((None, Fault::first(1, Answer::status(401))));
        assert_eq!(faults.answer(Route::Delete).expect("first").status, 500);
        assert_eq!(faults.answer(Route::Delete).expect("any").status, 401);
        assert!(faults.answer(Route::Delete).is_none());
    }
}
