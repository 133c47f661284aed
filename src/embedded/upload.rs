//! `PUT /v2/images/ID/file`: the bytes of a new image come in, in order, all or nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::answer::{Refused, empty};
use super::data::{FileData, ImageData as _};
use super::faults::{Faults, HashFault, LostAnswer, Refusal, Stall, occur};
use super::glance::Call;
use super::hash::Hasher;
use super::image::Attributes;
use super::inspect::{HEAD_BYTES, inspect};

/// How long the rest of a body is still read behind an answer that came early: nginx's `lingering_timeout`.
const LINGER: Duration = Duration::from_secs(5);

/// What goes wrong with this one upload.
struct Plan {
    cut: Option<u64>,
    stall: Option<Stall>,
    rate: Option<u64>,
    silence: Option<Duration>,
    refused: Option<Refusal>,
    finish_delay: Option<Duration>,
    lost: Option<LostAnswer>,
    hash: Option<HashFault>,
}

impl Plan {
    fn draw(faults: &mut Faults) -> Self {
        Self {
            cut: occur(&mut faults.upload_cut),
            stall: occur(&mut faults.upload_stall),
            rate: faults.upload_rate,
            silence: faults.upload_silence,
            refused: occur(&mut faults.upload_refused),
            finish_delay: faults.upload_finish_delay,
            lost: occur(&mut faults.upload_lost),
            hash: occur(&mut faults.upload_hash),
        }
    }
}

/// What has come in so far.
struct Intake {
    kept: FileData,
    hasher: Hasher,
    head: Vec<u8>,
    /// What the client said that it would send, and the most that is kept.
    declared: Option<u64>,
    limit: u64,
}

impl Intake {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let len = self.kept.len() + bytes.len() as u64;
        if let Some(declared) = self.declared.filter(|&declared| len > declared) {
            return Err(Refused::new(400, format!("Size exceeds: expected {declared} bytes")));
        }
        if len > self.limit {
            let text =
                format!("The size of the data {len} will exceed the limit. {} bytes allowed.", self.limit);
            return Err(Refused::new(413, text));
        }
        let missing = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        self.hasher.update(bytes);
        self.kept.push(bytes).map_err(|error| Refused::new(500, error.to_string()))
    }
}

/// Takes an upload.
pub(super) async fn upload(
    call: &Call,
    id: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    if headers.get("content-type").is_none_or(|kind| kind != "application/octet-stream") {
        return Err(Refused::new(415, "Unsupported Content-Type: it has to be application/octet-stream"));
    }
    let declared = match headers.get("x-openstack-image-size") {
        None => None,
        Some(text) => {
            let number = text.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            Some(number.ok_or_else(|| Refused::new(400, "Invalid value for x-openstack-image-size"))?)
        }
    };
    let saving = call.shared.store.begin_upload(id)?;
    let plan = Plan::draw(&mut call.shared.faults.lock());
    let kept = FileData::in_memory().map_err(|error| Refused::new(500, error.to_string()))?;
    let limit = call.shared.options.upload_limit_bytes;
    let mut intake = Intake { kept, hasher: Hasher::new(), head: Vec::new(), declared, limit };
    let mut body = body.into_data_stream();
    if let Err(refused) = receive(call, &plan, &mut body, &mut intake).await {
        linger(body);
        return Err(refused);
    }

    let len = intake.kept.len();
    if let Some(declared) = declared.filter(|&declared| declared != len) {
        return Err(Refused::new(400, format!("Size mismatch: expected {declared} bytes, got {len}")));
    }
    if let Some(refusal) = &plan.refused {
        return Err(Refused::new(refusal.status, &*refusal.text));
    }
    let virtual_size = inspect(&saving.disk_format, &intake.head, len)?;
    if let Some(delay) = plan.finish_delay {
        tokio::time::sleep(delay).await;
    }
    let mut attributes = Attributes::new();
    attributes.insert("size".into(), len.into());
    attributes.insert("virtual_size".into(), virtual_size.map_or(Value::Null, Value::from));
    match plan.hash {
        None => intake.hasher.finish().put(&mut attributes),
        Some(HashFault::Wrong) => Hasher::new().finish().put(&mut attributes),
        Some(HashFault::Missing) => {}
    }
    saving.finish(attributes, Arc::new(intake.kept))?;
    Ok(call.lose(plan.lost, empty(StatusCode::NO_CONTENT)))
}

/// Reads the body to its end, with the faults that strike on the way.
async fn receive(
    call: &Call,
    plan: &Plan,
    body: &mut BodyDataStream,
    intake: &mut Intake,
) -> Result<(), Refused> {
    let began = Instant::now();
    let mut stall = plan.stall;
    while let Some(bytes) = next(call, plan.silence, body).await? {
        intake.push(&bytes)?;
        let len = intake.kept.len();
        call.entry.note(|record| record.received_bytes = len);
        if plan.cut.is_some_and(|cut| len >= cut) {
            call.control.reset();
            return Err(Refused::new(500, "This answer is never seen."));
        }
        if let Some(refusal) = &plan.refused
            && refusal.after_bytes.is_some_and(|after| len >= after)
        {
            return Err(Refused::new(refusal.status, &*refusal.text));
        }
        if let Some(now) = stall.take_if(|stall| len >= stall.after_bytes) {
            tokio::time::sleep(now.duration).await;
        }
        if let Some(rate) = plan.rate {
            let due = Duration::from_secs_f64(len as f64 / rate.max(1) as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    Ok(())
}

/// Goes on reading, for a while and for nothing: closing a connection with unread bytes resets it, and a
/// reset destroys an early answer before its client has seen it (nginx: `lingering_close`).
fn linger(mut body: BodyDataStream) {
    tokio::spawn(async move {
        let drained = async { while let Some(Ok(_)) = body.next().await {} };
        let _ = tokio::time::timeout(LINGER, drained).await;
    });
}

/// The next bytes of the body; how long they were waited for goes into the record.
async fn next(
    call: &Call,
    silence: Option<Duration>,
    body: &mut BodyDataStream,
) -> Result<Option<Bytes>, Refused> {
    let began = Instant::now();
    let next = match silence {
        None => body.next().await,
        Some(limit) => match tokio::time::timeout(limit, body.next()).await {
            Ok(next) => next,
            Err(_) => return Err(Refused::new(500, "Timeout while reading the request's body")),
        },
    };
    let waited = began.elapsed();
    call.entry.note(|record| record.longest_silence = record.longest_silence.max(waited));
    next.transpose().map_err(|error| Refused::new(500, format!("The upload broke off: {error}")))
}

impl Call {
    /// The answer, or what is left of it when it is to be lost.
    pub(super) fn lose(&self, lost: Option<LostAnswer>, answer: Response) -> Response {
        match lost {
            None => answer,
            Some(LostAnswer::Status(status)) => {
                Refused::new(status, "The proxy lost the answer.").into_response()
            }
            Some(LostAnswer::Reset) => {
                self.control.reset();
                answer
            }
        }
    }
}
