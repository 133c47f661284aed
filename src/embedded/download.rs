//! `GET /v2/images/ID/file`: the bytes of an image go out, whole or a range of them.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Refused, empty, header};
use super::data::{FRAME_BYTES, ImageData, frame};
use super::faults::{Cut, Floor, RangeAnswer, Stall, occur};
use super::glance::Call;
use super::record::Entry;
use super::wire::Control;

/// By how much [`RangeAnswer::Shifted`] misses, in bytes.
const SHIFT_BYTES: u64 = 512;

/// Starts a download. `permit` is the only worker, where there is only one: kept to the last byte.
pub(super) fn download(
    call: &Call,
    id: &str,
    headers: &HeaderMap,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Response, Refused> {
    let Some((data, checksum)) = call.shared.store.download(id)? else {
        return Ok(empty(StatusCode::NO_CONTENT));
    };
    let mut faults = call.shared.faults.lock();
    if occur(&mut faults.download_no_content).is_some() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let len = data.len();
    let mut parts = Parts { status: StatusCode::OK, range: 0..len, content_range: None };
    if let Some(asked) = headers.get("range") {
        let asked = asked.to_str().unwrap_or_default();
        match occur(&mut faults.range_answer) {
            None => parts = ranged(asked, len, call.shared.options.ranges)?,
            Some(fault) => parts = ranged(asked, len, true)?.spoilt(fault, len),
        }
    }
    let without_length = occur(&mut faults.download_without_length).is_some();
    let flow = Flow {
        at: parts.range.start,
        end: parts.range.end,
        sent: 0,
        began: Instant::now(),
        cut: occur(&mut faults.download_cut),
        stall: occur(&mut faults.download_stall),
        flip: occur(&mut faults.download_flip),
        rate: faults.download_rate,
        data,
        entry: Arc::clone(&call.entry),
        control: call.control.clone(),
        _permit: permit,
    };
    if let Some(floor) = faults.download_floor {
        tokio::spawn(watch(floor, Arc::downgrade(&call.entry), call.control.clone()));
    }
    drop(faults);
    let length = (parts.range.end - parts.range.start).to_string();
    let mut response = Response::new(Body::from_stream(futures_util::stream::unfold(flow, Flow::next)));
    *response.status_mut() = parts.status;
    header(&mut response, "content-type", "application/octet-stream");
    if let Some(checksum) = checksum {
        // Of the whole image, even on a 206: Glance does so.
        header(&mut response, "content-md5", &checksum);
    }
    if let Some(content_range) = parts.content_range {
        header(&mut response, "content-range", &content_range);
    }
    if !without_length {
        header(&mut response, "content-length", &length);
    }
    Ok(response)
}

/// What an answer is made of.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    status: StatusCode,
    range: Range<u64>,
    content_range: Option<String>,
}

impl Parts {
    fn partial(range: Range<u64>, len: u64) -> Self {
        let content_range = Some(format!("bytes {}-{}/{len}", range.start, range.end - 1));
        Self { status: StatusCode::PARTIAL_CONTENT, range, content_range }
    }

    /// The right answer turned into a wrong one.
    fn spoilt(self, fault: RangeAnswer, len: u64) -> Self {
        let Range { start, end } = self.range.clone();
        let shift =
            if end + SHIFT_BYTES <= len { SHIFT_BYTES as i64 } else { -((start.min(SHIFT_BYTES)) as i64) };
        let moved = start.saturating_add_signed(shift)..end.saturating_add_signed(shift);
        match fault {
            RangeAnswer::WholeBodyAs206 => Self { range: 0..len, ..self },
            RangeAnswer::Whole200 => Self { status: StatusCode::OK, range: 0..len, content_range: None },
            RangeAnswer::Shifted => Self::partial(moved, len),
            RangeAnswer::WrongContentRange => {
                Self { content_range: Self::partial(moved, len).content_range, ..self }
            }
        }
    }
}

/// The answer to a `Range` header, by a store that can or cannot read at random.
fn ranged(asked: &str, len: u64, able: bool) -> Result<Parts, Refused> {
    let unsatisfiable = || Refused::new(416, "The requested range is not satisfiable.");
    let (start, end) =
        asked.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')).ok_or_else(unsatisfiable)?;
    if asked.contains(',') {
        return Err(Refused::new(400, "Only one range per request is supported."));
    }
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| unsatisfiable());
    let range = match (start.trim(), end.trim()) {
        ("", last) => len.saturating_sub(number(last)?)..len,
        (first, "") => number(first)?..len,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(len),
    };
    if range.start >= range.end {
        return Err(unsatisfiable());
    }
    if !able {
        let text = format!(
            "Getting images randomly from this store is not supported. Offset: {}, length: {}",
            range.start,
            range.end - range.start
        );
        return Err(Refused::new(400, text));
    }
    Ok(Parts::partial(range, len))
}

/// A body on its way out.
struct Flow {
    data: Arc<dyn ImageData>,
    at: u64,
    end: u64,
    sent: u64,
    began: Instant,
    cut: Option<Cut>,
    stall: Option<Stall>,
    flip: Option<u64>,
    rate: Option<u64>,
    entry: Arc<Entry>,
    control: Control,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Flow {
    /// The next piece of the body.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if let Some(stall) = self.stall.take_if(|stall| self.sent >= stall.after_bytes) {
            tokio::time::sleep(stall.duration).await;
        }
        if self.cut.is_some_and(|cut| self.sent >= cut.after_bytes) {
            self.flushed().await;
            if self.cut.is_some_and(|cut| cut.reset) {
                self.control.reset();
            }
            return Some((Err(io::ErrorKind::ConnectionReset.into()), self));
        }
        if self.at >= self.end {
            self.entry.note(|record| record.finished = true);
            return None;
        }
        let len = self.piece();
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64((self.sent + len) as f64 / rate.max(1) as f64);
            tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
        }
        let mut bytes = frame(&*self.data, self.at, len as usize);
        if let Some(flip) = self.flip.and_then(|flip| flip.checked_sub(self.at)).filter(|&flip| flip < len) {
            let mut changed = bytes.to_vec();
            changed[flip as usize] ^= 1;
            bytes = Bytes::from(changed);
        }
        self.at += len;
        self.sent += len;
        // hyper drops a body with a known length after its last byte, without asking for the end.
        self.entry.note(|record| {
            record.sent_bytes = self.sent;
            record.finished = self.at >= self.end;
        });
        Some((Ok(bytes), self))
    }

    /// How many bytes to send at once: up to the next event, and small enough for an even flow where
    /// a rate is set.
    fn piece(&self) -> u64 {
        let mut len = (self.end - self.at).min(FRAME_BYTES as u64);
        for event in [self.stall.map(|stall| stall.after_bytes), self.cut.map(|cut| cut.after_bytes)] {
            len = len.min(event.map_or(len, |event| event - self.sent));
        }
        len.min(self.rate.map_or(len, |rate| (rate / 20).max(1)))
    }

    /// Waits until what was handed over is in the socket, a second at most, so that a cut comes
    /// where it was asked for.
    async fn flushed(&self) {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            // The headers count as well, and are longer than nothing.
            if self.entry.taken() > self.sent {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Resets a download whose client takes too little; ends with the request.
async fn watch(floor: Floor, entry: std::sync::Weak<Entry>, control: Control) {
    let mut before = 0;
    loop {
        tokio::time::sleep(floor.window).await;
        let Some(entry) = entry.upgrade() else { return };
        let taken = entry.taken();
        if entry.is_finished() {
            return;
        }
        if taken - before < floor.bytes {
            control.reset();
            return;
        }
        before = taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_answered_as_glance_does() {
        for (asked, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..100),
            ("bytes=-7", 93..100),
            ("bytes=-700", 0..100),
            ("bytes=50-5000", 50..100),
        ] {
            let parts = ranged(asked, 100, true).expect(asked);
            let content_range = format!("bytes {}-{}/100", range.start, range.end - 1);
            assert_eq!(
                parts,
                Parts { status: StatusCode::PARTIAL_CONTENT, range, content_range: Some(content_range) }
            );
            assert_eq!(ranged(asked, 100, false).expect_err(asked).status, 400);
        }
        for (asked, status) in
            [("bytes=100-", 416), ("abc", 416), ("bytes=5-2", 416), ("bytes=x-", 416), ("bytes=0-0,5-9", 400)]
        {
            assert_eq!(ranged(asked, 100, true).expect_err(asked).status, status, "{asked}");
        }
    }

    #[test]
    fn wrong_ranges_are_wrong_within_the_image() {
        let right = || ranged("bytes=600-1000", 2000, true).expect("a range");
        assert_eq!(right().spoilt(RangeAnswer::WholeBodyAs206, 2000).range, 0..2000);
        assert_eq!(right().spoilt(RangeAnswer::Shifted, 2000).range, 1112..1513);
        assert_eq!(right().spoilt(RangeAnswer::Shifted, 1100).range, 88..489);
        let wrong = right().spoilt(RangeAnswer::WrongContentRange, 2000);
        assert_eq!((wrong.range, wrong.content_range.as_deref()), (600..1001, Some("bytes 1112-1512/2000")));
    }
}
