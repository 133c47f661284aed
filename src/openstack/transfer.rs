//! The two streams: takes an image's ID and a range, gives a [`Body`]; takes a body of known length,
//! gives what became of it. Holds nothing of either.
//!
//! Glance honours `Range` only where its store reads at random; others answer 400, and some
//! older servers answer 206 with the whole image. So an answer to a range is held against the question.

use std::ops::Range;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};

use super::answer::{self, one_line};
use super::client::Reuse;
use super::http::once;
use super::record::Image;
use super::{Body, Cloud};
use crate::error::{Error, Kind, Result};
use crate::retry::Attempts;

/// How long the head of a download may take: a store may have to wake a tape or a cache.
const HEAD_WAIT: Duration = Duration::from_secs(120);
/// The probe's range, in bytes.
const PROBE_BYTES: u64 = 4096;
/// A whole PUT, with the time that Glance takes to flush to its store: 2 TB at 3.5 MB/s.
const UPLOAD_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a GET of an image's data came to.
#[derive(Debug)]
pub enum Download {
    /// All of the image, from its first byte.
    Whole(Body),
    /// Exactly the range that was asked for.
    Part(Body),
    /// The service does not serve this range: refused, ignored, or answered with something else.
    NoRange,
    /// There is no data (204): the image is still `queued`.
    NoData,
}

/// What a PUT of an image's data came to.
#[derive(Debug)]
pub enum Upload {
    /// Glance has taken it all.
    Done,
    /// The outcome is unknown or may be better next time (connection broke, 5xx, 429, 401, or our own
    /// body failed): ask [`Cloud::settle`], then send again from byte 0, not before the time for which the service
    /// asked.
    Lost(Error, Option<Duration>),
    /// Glance does not want it (403, 404, 409, 413, 415, …): another try will not help.
    Refused(Error),
}

/// What became of an image after the answer to its PUT was lost.
#[derive(Debug)]
pub enum Settled {
    /// It is `active`: compare its hash.
    Active(Box<Image>),
    /// It is `queued` again: it can be sent again, from byte 0.
    Queued,
    /// It is deleted, killed, or in another state it will not come back from; its status.
    Gone(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Whole,
    Part,
    NoRange,
    NoData,
    Refused,
}

/// What an answer means for the question; `length` is `Content-Length`.
fn classify(
    status: StatusCode,
    content_range: Option<&str>,
    length: Option<u64>,
    asked: Option<&Range<u64>>,
) -> Class {
    match (status.as_u16(), asked) {
        (204, _) => Class::NoData,
        (200, None) => Class::Whole,
        (206, Some(asked)) => {
            let exact = content_range.and_then(parse_content_range).is_some_and(|found| found == *asked);
            let fits = length.is_none_or(|length| length == asked.end - asked.start);
            if exact && fits { Class::Part } else { Class::NoRange }
        }
        (200 | 400 | 405 | 416 | 501, Some(_)) => Class::NoRange,
        _ => Class::Refused,
    }
}

/// `bytes 0-9/100` or `bytes 0-9/*` as a half-open range.
fn parse_content_range(text: &str) -> Option<Range<u64>> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1)?;
    let total_fits = total == "*" || total.parse::<u64>().is_ok_and(|total| end <= total);
    (first < end && total_fits).then_some(first..end)
}

fn header_text(response: &Response, name: reqwest::header::HeaderName) -> Option<&str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

impl Cloud {
    /// Begins to read an image's data, all of it or one range. Tried again until the head of an answer
    /// is there; what breaks after that is the reader's to take up with another range.
    ///
    /// # Errors
    /// Not found, forbidden (a deactivated image), or no answer after all tries.
    pub async fn download(&self, id: &str, range: Option<Range<u64>>) -> Result<Download> {
        self.download_within(id, range, &mut Attempts::new(self.retry)).await
    }

    /// The same with tries that the reader counts on when the body breaks.
    ///
    /// # Errors
    /// As [`Cloud::download`].
    pub async fn download_within(
        &self,
        id: &str,
        range: Option<Range<u64>>,
        attempts: &mut Attempts,
    ) -> Result<Download> {
        let mut what = format!("download image `{}` from `{}`", one_line(id), self.label());
        if let Some(range) = &range {
            if range.is_empty() {
                return Err(Error::new(
                    self.stage,
                    Kind::Other,
                    format!("{what}: an empty range was asked for"),
                ));
            }
            what = format!("{what}, bytes {} to {}", range.start, range.end - 1);
        }
        let url = self.url(["images", id, "file"]);
        let answer = self
            .ask_with(&what, HEAD_WAIT, attempts, true, |client| {
                let request = client.get(url.clone());
                match &range {
                    Some(range) => request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1)),
                    None => request,
                }
            })
            .await?;
        let stream = answer.stream.as_ref();
        let content_range = stream.and_then(|response| header_text(response, CONTENT_RANGE));
        let length = stream
            .and_then(|response| header_text(response, CONTENT_LENGTH))
            .and_then(|text| text.parse().ok());
        let class = classify(answer.status, content_range, length, range.as_ref());
        let asked = range.map(|range| range.end - range.start);
        match (class, answer.stream) {
            (Class::Whole, Some(response)) => {
                Ok(Download::Whole(Body::new(response, length, self.retry.silence, self.stage, &what)))
            }
            (Class::Part, Some(response)) => {
                Ok(Download::Part(Body::new(response, asked, self.retry.silence, self.stage, &what)))
            }
            (Class::NoData, _) => Ok(Download::NoData),
            (Class::NoRange, _) => Ok(Download::NoRange),
            (_, stream) => {
                let refused = answer::Answer { stream, ..answer };
                Err(self.refuse(&refused, &what))
            }
        }
    }

    /// Whether ranges of this image can be read: asks for a few KiB in its middle and counts what
    /// comes. Never reads a whole image, whatever the service sends.
    ///
    /// # Errors
    /// As [`Cloud::download`]. An image of fewer than two bytes has no ranges to speak of: `false`.
    pub async fn probe_range(&self, id: &str, size: u64) -> Result<bool> {
        if size < 2 {
            return Ok(false);
        }
        let start = size / 2;
        let range = start..size.min(start + PROBE_BYTES);
        let Download::Part(mut body) = self.download(id, Some(range)).await? else { return Ok(false) };
        loop {
            match body.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                // Too many bytes or too few: a server whose ranges cannot be relied on.
                Err(error) => {
                    tracing::debug!(%error, "the range was not served as asked");
                    return Ok(false);
                }
            }
        }
    }

    /// Sends an image's data: one PUT of exactly `len` bytes, into `store` or Glance's default one.
    /// The token is renewed before, if it is not fresh. It may take a week, for Glance answers only when its store is
    /// done: watch the body's progress from outside.
    ///
    /// The body fails the PUT if it ends early; of a longer one only `len` bytes are sent.
    pub async fn upload(&self, id: &str, len: u64, store: Option<&str>, body: reqwest::Body) -> Upload {
        self.freshen().await;
        let what = format!("upload image `{}` to `{}`", one_line(id), self.label());
        let token = self.token();
        let (client, header) = match (self.client(Reuse::No), self.token_header(&token)) {
            (Ok(client), Ok(header)) => (client, header),
            (Err(error), _) | (_, Err(error)) => return Upload::Refused(error),
        };
        // `x-openstack-image-size` lets Glance 33 and later refuse a body that was cut; older ones do
        // not know it.
        let mut request = client
            .put(self.url(["images", id, "file"]))
            .header("X-Auth-Token", header)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, len)
            .header("x-openstack-image-size", len)
            .body(body);
        if let Some(store) = store {
            request = request.header("x-image-meta-store", store);
        }
        let answer = match once(request, UPLOAD_WAIT, false, self.stage, &what).await {
            Ok(answer) => answer,
            Err(error) if error.is_retryable() => return Upload::Lost(error, None),
            Err(error) => return Upload::Refused(error),
        };
        if answer.status.is_success() {
            return Upload::Done;
        }
        let error = self.refuse(&answer, &what);
        if answer.status == 401 && self.shared.login.is_some() {
            return match self.renew_after(token.generation).await {
                Ok(()) => Upload::Lost(error.retry(), None),
                Err(error) => Upload::Refused(error),
            };
        }
        if answer::may_pass(answer.status) {
            Upload::Lost(error, answer.retry_after)
        } else {
            Upload::Refused(error)
        }
    }

    /// Asks for an image's status until it is clear what became of a PUT whose answer was lost:
    /// patiently while it is `saving`, at most for `patience`.
    ///
    /// # Errors
    /// [`Kind::Network`], retryable, if it is still not clear then.
    pub async fn settle(&self, id: &str, patience: Duration) -> Result<Settled> {
        let what = format!("ask for the status of image `{}` in `{}`", one_line(id), self.label());
        let begun = Instant::now();
        let mut pause = self.retry.first / 2;
        let mut queued = 0;
        loop {
            let seen = match self.peek(id, &what).await {
                Ok(Some(image)) => image,
                Ok(None) => return Ok(Settled::Gone("deleted".to_owned())),
                Err(error) if error.is_retryable() && begun.elapsed() < patience => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match seen.status.as_str() {
                "active" => return Ok(Settled::Active(Box::new(seen))),
                // Seen twice: a proxy may give up while Glance has not yet begun to read.
                "queued" if queued > 0 => return Ok(Settled::Queued),
                "queued" => queued += 1,
                "saving" | "uploading" | "importing" => queued = 0,
                other => return Ok(Settled::Gone(one_line(other))),
            }
            if begun.elapsed() >= patience {
                let why = format!("{what}: it is still `{}` after {} s", seen.status, patience.as_secs());
                return Err(Error::new(self.stage, Kind::Network, why)
                    .advise("look at it with `openstack image show`")
                    .retry());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(
        status: u16,
        content_range: Option<&str>,
        length: Option<u64>,
        asked: Option<Range<u64>>,
    ) -> Class {
        classify(StatusCode::from_u16(status).unwrap(), content_range, length, asked.as_ref())
    }

    #[test]
    fn only_the_range_that_was_asked_for_is_a_part() {
        let asked = Some(10..20);
        assert_eq!(class(206, Some("bytes 10-19/100"), Some(10), asked.clone()), Class::Part);
        assert_eq!(class(206, Some("bytes 10-19/*"), None, asked.clone()), Class::Part);
        for (content_range, length) in [
            (None, Some(10)),
            (Some("bytes 0-99/100"), Some(100)),
            (Some("bytes 10-19/100"), Some(100)),
            (Some("bytes 10-18/100"), None),
            (Some("bytes 10-19/15"), None),
            (Some("bytes 10-18446744073709551615/*"), None),
            (Some("bytes 19-10/100"), None),
            (Some("bytes */100"), None),
            (Some("10-19/100"), None),
            (Some(""), None),
            (Some("bytes -5-19/100"), None),
        ] {
            assert_eq!(
                class(206, content_range, length, asked.clone()),
                Class::NoRange,
                "{content_range:?} {length:?}"
            );
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in [200, 400, 405, 416, 501] {
            assert_eq!(class(status, None, Some(100), Some(10..20)), Class::NoRange, "{status}");
        }
        assert_eq!(class(200, None, None, None), Class::Whole);
        assert_eq!(class(204, None, None, None), Class::NoData);
        assert_eq!(class(204, None, None, Some(0..1)), Class::NoData);
        assert_eq!(class(206, Some("bytes 0-9/10"), Some(10), None), Class::Refused);
        for status in [301, 401, 403, 404, 410] {
            assert_eq!(class(status, None, None, Some(0..1)), Class::Refused, "{status}");
        }
        assert_eq!(class(400, None, None, None), Class::Refused);
    }
}
