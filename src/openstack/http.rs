//! The one loop that every request goes through: takes a request and a patience, gives the answer,
//! after as many tries as are useful; holds one client per runtime and at most
//! [`answer::MOST_JSON_BYTES`] of a body.
//!
//! Repeated are refused and broken connections, 5xx, 408 and 429 (`Retry-After` is obeyed), with growing,
//! jittered pauses. A 401 renews the token once. Redirects are not followed: reqwest would
//! carry `X-Auth-Token` to another host. Bodies are taken as they are, whatever decoders another crate of the
//! program turns on in reqwest.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};

use super::Cloud;
use super::answer::{self, Answer};
use super::client::{Reuse, Way};
use crate::error::{Error, Kind, Result, Stage};
use crate::retry::{Attempts, Retry};

/// How long a JSON answer may take to begin, and to go on.
pub(super) const JSON_WAIT: Duration = Duration::from_secs(60);

impl Cloud {
    /// Glance's address of `path`, each part encoded.
    pub(super) fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.shared.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v2").extend(path);
        }
        url
    }

    /// This runtime's client. Must be called inside a runtime, as every request is.
    pub(super) fn client(&self, reuse: Reuse) -> Result<Client> {
        self.client_for(&self.shared.endpoint, reuse)
    }

    /// The same for a service at another address: whom to trust and whether to use a proxy depends on it.
    fn client_for(&self, url: &Url, reuse: Reuse) -> Result<Client> {
        let id = tokio::runtime::Handle::current().id();
        let way = Way::to(url, reuse);
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, client)) =
            clients.iter().find(|(runtime, known, _)| *runtime == id && *known == way)
        {
            return Ok(client.clone());
        }
        // Runtimes come and go with transfers; the oldest clients belong to those that are gone.
        if clients.len() >= 64 {
            clients.remove(0);
        }
        let client = self.shared.tls.client(url, reuse, self.stage)?;
        clients.push((id, way, client.clone()));
        Ok(client)
    }

    /// How often and for how long something that broke is tried again.
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// How often the service has answered that it has too much to do (429, 503).
    pub fn refusals(&self) -> u64 {
        self.shared.refusals.load(Ordering::Relaxed)
    }

    /// The token as a header that nobody prints.
    pub(super) fn token_header(&self, token: &super::Token) -> Result<HeaderValue> {
        let mut header = HeaderValue::from_str(token.secret.expose_secret()).map_err(|_| {
            Error::new(self.stage, Kind::Login, "use the token: it is not a valid header")
                .advise("check OS_TOKEN")
        })?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// An answer as an error, with our tokens taken out of the service's text: also with earlier ones, for
    /// another request may have renewed the token since this one was sent.
    pub(super) fn refuse(&self, answer: &Answer, what: &str) -> Error {
        let (token, earlier) = (self.token(), self.shared.earlier.lock());
        let earlier = earlier.unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<&str> =
            earlier.iter().chain([&token]).map(|token| token.secret.expose_secret()).collect();
        answer.error(self.stage, what, &secrets)
    }

    /// Asks until there is an answer that another try would not better, and reads it whole (JSON).
    pub(super) async fn ask(&self, what: &str, build: impl Fn(&Client) -> RequestBuilder) -> Result<Answer> {
        self.ask_with(what, JSON_WAIT, &mut Attempts::new(self.retry), false, build).await
    }

    /// The same with a patience of its own; `stream` leaves the body of a success alone.
    ///
    /// # Errors
    /// After the last try; a status that stands is an answer, not an error.
    pub(super) async fn ask_with(
        &self,
        what: &str,
        wait: Duration,
        attempts: &mut Attempts,
        stream: bool,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let client = self.client(if stream { Reuse::Yes } else { Reuse::No })?;
        self.ask_by(&client, what, wait, attempts, stream, build).await
    }

    /// Asks another service of the cloud than Glance (JSON). It may need another trust or another way than Glance.
    pub(super) async fn ask_service(
        &self,
        service: &Url,
        what: &str,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        self.ask_at(service, what, &mut Attempts::new(self.retry), build).await
    }

    /// The same with tries of its own.
    pub(super) async fn ask_at(
        &self,
        service: &Url,
        what: &str,
        attempts: &mut Attempts,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let client = self.client_for(service, Reuse::No)?;
        self.ask_by(&client, what, JSON_WAIT, attempts, false, build).await
    }

    async fn ask_by(
        &self,
        client: &Client,
        what: &str,
        wait: Duration,
        attempts: &mut Attempts,
        stream: bool,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let mut renewed = self.shared.login.is_none();
        loop {
            let token = self.token();
            let request = build(client).header("X-Auth-Token", self.token_header(&token)?);
            let (error, asked) = match once(request, wait, stream, self.stage, what).await {
                Ok(answer) if answer.status == 401 && !renewed => {
                    renewed = true;
                    self.renew_after(token.generation).await?;
                    continue;
                }
                Ok(answer) if answer::may_pass(answer.status) => {
                    if matches!(answer.status.as_u16(), 429 | 503) {
                        self.shared.refusals.fetch_add(1, Ordering::Relaxed);
                    }
                    (self.refuse(&answer, what), answer.retry_after)
                }
                Ok(answer) => return Ok(answer),
                Err(error) => (error, None),
            };
            if !error.is_retryable() {
                return Err(error);
            }
            let Some(pause) = attempts.after_failure(asked) else { return Err(error) };
            tracing::info!("{error}; trying again in {:.1} s", pause.as_secs_f64());
            tokio::time::sleep(pause).await;
        }
    }
}

/// One try of one request.
pub(super) async fn once(
    request: RequestBuilder,
    wait: Duration,
    stream: bool,
    stage: Stage,
    what: &str,
) -> Result<Answer> {
    let response = within(wait, stage, what, request.send()).await?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(Duration::from_secs);
    let subject_token = response
        .headers()
        .get("X-Subject-Token")
        .and_then(|value| value.to_str().ok())
        .map(SecretString::from);
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if stream && status.is_success() {
        let (stream, body) = (Some(response), Vec::new());
        return Ok(Answer { status, stream, body, retry_after, subject_token, location });
    }
    let body = read_body(response, stage, what).await?;
    Ok(Answer { status, stream: None, body, retry_after, subject_token, location })
}

/// The bounded body: of a success all of it, of anything else its beginning.
pub(super) async fn read_body(mut response: Response, stage: Stage, what: &str) -> Result<Vec<u8>> {
    let good = response.status().is_success();
    let most = if good { answer::MOST_JSON_BYTES } else { answer::MOST_ERROR_BYTES };
    let mut body = Vec::new();
    loop {
        match within(JSON_WAIT, stage, what, response.chunk()).await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            // The status of a refusal stands, however its explanation ends.
            Err(_) if !good => return Ok(body),
            Err(error) => return Err(error),
        }
        if body.len() > most {
            body.truncate(most);
            if good {
                return Err(Error::new(
                    stage,
                    Kind::Network,
                    format!("{what}: the answer is larger than {most} bytes"),
                )
                .advise("check that the image endpoint is Glance's"));
            }
            return Ok(body);
        }
    }
}

/// Waits for a step of reqwest's, at most `wait`.
pub(super) async fn within<T>(
    wait: Duration,
    stage: Stage,
    what: &str,
    step: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T> {
    match tokio::time::timeout(wait, step).await {
        Ok(done) => done.map_err(|error| broken(stage, what, error)),
        Err(_) => {
            Err(Error::new(stage, Kind::Network, format!("{what}: no answer within {} s", wait.as_secs()))
                .advise("check that the cloud is reachable from here")
                .retry())
        }
    }
}

/// Host and port, as people look for them in a configuration.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// A connection that did not come about or broke. A certificate that nobody vouches for will not
/// get better, so it is not tried again.
pub(super) fn broken(stage: Stage, what: &str, error: reqwest::Error) -> Error {
    let host = error.url().and_then(authority).map(|host| format!(" with `{host}`")).unwrap_or_default();
    let error = error.without_url();
    let mut texts = Vec::new();
    let mut cause: Option<&dyn StdError> = Some(&error);
    while let Some(next) = cause {
        texts.push(next.to_string());
        cause = next.source();
    }
    // The last text is the deepest cause; those above only say «error sending request».
    let deepest = texts.last().cloned().unwrap_or_default();
    if let Some(text) = texts.iter().find(|text| text.contains("invalid peer certificate")) {
        return Error::new(
            stage,
            Kind::Network,
            format!("{what}: the TLS certificate{} is not trusted", host.replace(" with", " of")),
        )
        .because(answer::one_line(text))
        .advise("give the CA's file by --os-cacert (or `cacert` in clouds.yaml)");
    }
    let problem = if error.is_builder() {
        "no request could be made"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    let failed = Error::new(stage, Kind::Network, format!("{what}: {problem}{host}"))
        .because(answer::one_line(&deepest));
    if error.is_builder() {
        failed
    } else {
        failed.advise("check the address and that the cloud is reachable from here").retry()
    }
}
