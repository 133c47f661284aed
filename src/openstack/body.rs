//! Bytes on their way in: takes a response, gives its frames while it counts them; holds the frame
//! in hand and what the kernel and hyper buffer (under 1 MiB).

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::http::broken;
use crate::error::{Error, Kind, Result, Stage};

/// The body of a download, held to the length that was announced or asked for. Dropping it closes
/// the connection.
#[derive(Debug)]
pub struct Body {
    response: Option<Response>,
    expected: Option<u64>,
    received: u64,
    idle: Duration,
    stage: Stage,
    what: String,
}

impl Body {
    /// `idle` is how long the stream may be silent.
    pub(super) fn new(
        response: Response,
        expected: Option<u64>,
        idle: Duration,
        stage: Stage,
        what: &str,
    ) -> Self {
        Self { response: Some(response), expected, received: 0, idle, stage, what: what.to_owned() }
    }

    /// Closes the connection: nothing more comes.
    pub fn close(&mut self) {
        self.response = None;
    }

    /// The number of bytes that will come, if the service said it.
    pub fn announced(&self) -> Option<u64> {
        self.expected
    }

    /// The number of bytes that came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next frame, of any size; `None` after the last byte.
    ///
    /// # Errors
    /// [`Kind::Network`]: retryable if the stream broke, fell silent or ended early; not retryable if
    /// more bytes came than were announced (then the server does not do what it says).
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let Ok(chunk) = tokio::time::timeout(self.idle, response.chunk()).await else {
            self.response = None;
            return Err(self.fault(format!("no byte came for {} s", self.idle.as_secs_f64())).retry());
        };
        match chunk {
            Ok(Some(bytes)) => self.take(bytes).map(Some),
            Ok(None) => {
                self.response = None;
                match self.expected {
                    Some(expected) if self.received < expected => {
                        Err(self.fault("it ended early".to_owned()).retry())
                    }
                    _ => Ok(None),
                }
            }
            Err(error) => {
                self.response = None;
                let at = format!("{}: after {} bytes", self.what, self.received);
                Err(broken(self.stage, &at, error).retry())
            }
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<Bytes> {
        self.received += bytes.len() as u64;
        if self.expected.is_some_and(|expected| self.received > expected) {
            self.response = None;
            return Err(self.fault("more came than was announced".to_owned()));
        }
        Ok(bytes)
    }

    fn fault(&self, why: String) -> Error {
        let of = self.expected.map(|expected| format!(" of {expected}")).unwrap_or_default();
        Error::new(
            self.stage,
            Kind::Network,
            format!("{}: after {}{of} bytes: {why}", self.what, self.received),
        )
        .advise("run it again; if it happens again, ask the operator about the proxy before Glance")
    }
}
