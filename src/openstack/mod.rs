//! The cloud: takes a name of a cloud (or an endpoint and a token), gives images as data, their
//! bytes as streams, and takes bytes back; holds one token, no image byte beyond the frame in hand.
//!
//! The story: [`CloudOptions`] and the environment choose a cloud (`config`), a login turns its
//! credentials into a token and the address of Glance (`auth`), every request goes through one loop
//! that repeats what may be repeated and renews the token (`http`, `answer`). On top of it stand the
//! JSON calls (`image`, `listing`, `create`, `update`, `members`, `projects`, `usage`, `record`) and the two streams (`transfer`, `body`). No disk format is
//! known here: what is inside the bytes is the business of others.
//!
//! Every future here runs on a current-thread runtime. A [`Cloud`] may be cloned into threads that
//! have a runtime each: connections are kept per runtime, the token is shared.

mod answer;
mod auth;
mod body;
mod client;
mod compute;
mod config;
mod create;
mod health;
mod http;
mod image;
mod keystone;
mod listing;
mod members;
mod projects;
mod record;
mod transfer;
mod update;
mod usage;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use reqwest::Url;
use secrecy::SecretString;

use crate::error::{Error, Kind, Result, Stage};
use crate::retry::Retry;

pub use body::Body;
pub use compute::{Compute, Microversion, Server};
pub use config::{CloudOptions, TlsOptions};
pub use create::{Created, NewImage};
pub use health::{ConfigFiles, Greeting, Store, config_files};
pub use image::Deleted;
pub use listing::{ImageFilter, Listed};
pub use members::{Member, MemberStatus};
pub use projects::Project;
pub use record::{Image, copyable_properties, why_not_convertible};
pub use transfer::{Download, Settled, Upload};
pub use update::ImageChanges;
pub use usage::{Quota, Usage};

/// Replaced tokens that are remembered, to be taken out of messages.
const EARLIER_TOKENS: usize = 8;

/// A project in a cloud whose Glance can be asked: endpoint, token, and the way to a new token.
///
/// Cheap to clone; usable from any thread and any runtime.
#[derive(Clone)]
pub struct Cloud {
    shared: Arc<Shared>,
    /// Who is named in errors.
    stage: Stage,
    retry: Retry,
}

/// What all clones have in common.
struct Shared {
    /// Glance's root, without the version.
    endpoint: Url,
    label: String,
    project: Option<String>,
    tls: client::Tls,
    /// How to get a new token; `None` where only a token was given.
    login: Option<auth::Login>,
    token: RwLock<Arc<Token>>,
    /// Tokens that were replaced, the last few: a service may still repeat one of them.
    earlier: Mutex<VecDeque<Arc<Token>>>,
    /// One login at a time: whoever waits here takes the token that the holder fetched.
    renewing: tokio::sync::Mutex<()>,
    /// hyper's connections live and die with their runtime, so each runtime has a client of its own.
    clients: Mutex<Vec<(tokio::runtime::Id, client::Way, reqwest::Client)>>,
    /// Nova's address, looked at only when it is asked for.
    compute: auth::Lookup,
    /// Answers that said «too much to do», 429 and 503.
    refusals: AtomicU64,
}

/// A token and its age by our own clock: the server's clock may differ from ours.
struct Token {
    secret: SecretString,
    /// Counts the logins, so that a renewal asked for by two requests happens once.
    generation: u64,
    since: Instant,
    /// How long it was valid when it came; `None` where nobody said.
    life: Option<Duration>,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud")
            .field("label", &self.shared.label)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Cloud {
    /// Chooses a cloud (see [`CloudOptions`]), logs in and finds its Glance.
    ///
    /// # Errors
    /// Of `stage`; [`Kind::Login`] for an unknown cloud, incomplete settings, refused credentials or
    /// a catalogue without Glance; [`Kind::Network`] for a Keystone that cannot be reached or whose
    /// certificate nobody vouches for.
    pub async fn connect(options: &CloudOptions, stage: Stage) -> Result<Self> {
        Self::connect_with(options, &|name| std::env::var(name).ok(), stage).await
    }

    /// The same with other variables than the process's: for callers that serve several users.
    ///
    /// # Errors
    /// As [`Cloud::connect`].
    pub async fn connect_with(
        options: &CloudOptions,
        var: &(dyn Fn(&str) -> Option<String> + Sync),
        stage: Stage,
    ) -> Result<Self> {
        let chosen = config::choose(options, &config::Env::with(var), stage)?;
        Self::connect_chosen(chosen, stage, options.retry).await
    }

    async fn connect_chosen(chosen: config::Chosen, stage: Stage, retry: Retry) -> Result<Self> {
        let tls = client::Tls::load(&chosen.tls, stage)?;
        if let (Some(token), Some(endpoint)) = (&chosen.bare_token, &chosen.image_endpoint) {
            let endpoint = auth::endpoint_root(endpoint, stage)?;
            let compute = chosen.compute_endpoint.ok_or_else(no_catalogue);
            return Ok(Self::assemble(
                endpoint,
                compute,
                chosen.label,
                None,
                tls,
                None,
                Token::bare(token.clone()),
                stage,
                retry,
            ));
        }
        let login = auth::Login::new(chosen);
        let session = login.run(&tls, retry, stage).await?;
        let token = Token::new(session.token, 0, session.life);
        let label = login.label().to_owned();
        let (endpoint, project, login) = (session.endpoint, session.project, Some(login));
        Ok(Self::assemble(endpoint, session.compute, label, project, tls, login, token, stage, retry))
    }

    /// A Glance that is spoken to with one given token and without Keystone: the token is never renewed.
    ///
    /// # Errors
    /// [`Kind::Login`] if the endpoint is no http or https address, [`Kind::Local`] for an unreadable
    /// CA file.
    pub fn with_token(
        image_endpoint: &str,
        token: SecretString,
        tls: &TlsOptions,
        stage: Stage,
    ) -> Result<Self> {
        let endpoint = auth::endpoint_root(image_endpoint, stage)?;
        let label = endpoint.host_str().unwrap_or("this cloud").to_owned();
        let tls = client::Tls::load(tls, stage)?;
        let (compute, token) = (Err(no_catalogue()), Token::bare(token));
        Ok(Self::assemble(endpoint, compute, label, None, tls, None, token, stage, Retry::default()))
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all parts meet")]
    fn assemble(
        endpoint: Url,
        compute: auth::Lookup,
        label: String,
        project: Option<String>,
        tls: client::Tls,
        login: Option<auth::Login>,
        token: Token,
        stage: Stage,
        retry: Retry,
    ) -> Self {
        let token = RwLock::new(Arc::new(token));
        let renewing = tokio::sync::Mutex::new(());
        let clients = Mutex::new(Vec::new());
        Self {
            shared: Arc::new(Shared {
                endpoint,
                label,
                project,
                tls,
                login,
                token,
                earlier: Mutex::default(),
                renewing,
                clients,
                compute,
                refusals: AtomicU64::new(0),
            }),
            stage,
            retry,
        }
    }

    /// The same cloud whose errors name another stage.
    #[must_use]
    pub fn for_stage(&self, stage: Stage) -> Self {
        Self { shared: Arc::clone(&self.shared), stage, retry: self.retry }
    }

    /// The same cloud with other bounds for what is tried again.
    #[must_use]
    pub fn with_retry(&self, retry: Retry) -> Self {
        Self { shared: Arc::clone(&self.shared), stage: self.stage, retry }
    }

    /// The project whose images these are; `None` where only a token was given.
    pub fn project_id(&self) -> Option<&str> {
        self.shared.project.as_deref()
    }

    /// The address of Glance without a version, for messages and for telling two clouds apart.
    pub fn image_endpoint(&self) -> &str {
        self.shared.endpoint.as_str()
    }

    /// Whether any certificate is taken for this cloud's.
    pub fn is_insecure(&self) -> bool {
        self.shared.tls.insecure
    }

    /// What messages call this cloud: its name in `clouds.yaml`, or the host of its endpoint.
    pub fn label(&self) -> &str {
        &self.shared.label
    }

    /// A login by the same credentials whose token is new. One login serves all who ask at once.
    ///
    /// # Errors
    /// As [`Cloud::connect`]; [`Kind::Login`] where only a token was given.
    pub async fn renew(&self) -> Result<()> {
        self.renew_after(self.token().generation).await
    }

    /// Renews unless somebody else did since the token of `generation` was taken.
    async fn renew_after(&self, generation: u64) -> Result<()> {
        let Some(login) = &self.shared.login else {
            return Err(Error::new(
                self.stage,
                Kind::Login,
                format!("get a new token for `{}`: only a token was given", self.label()),
            )
            .advise("give a fresh token, or a cloud with credentials by --os-cloud"));
        };
        let _one_at_a_time = self.shared.renewing.lock().await;
        if self.token().generation != generation {
            return Ok(());
        }
        let session = login.run(&self.shared.tls, self.retry, self.stage).await?;
        let token = Arc::new(Token::new(session.token, generation + 1, session.life));
        let replaced =
            std::mem::replace(&mut *self.shared.token.write().unwrap_or_else(PoisonError::into_inner), token);
        let mut earlier = self.shared.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.push_back(replaced);
        if earlier.len() > EARLIER_TOKENS {
            earlier.pop_front();
        }
        Ok(())
    }

    /// Renews a token of which less than half the life is left: a stream's token is looked at only
    /// when it starts, but a stream that is refused half way through its body costs the whole body.
    /// A failure is not reported: the old token may still do, and if not, the 401 will say so.
    async fn freshen(&self) {
        let token = self.token();
        let stale = token.life.is_some_and(|life| token.since.elapsed() * 2 > life);
        if stale
            && self.shared.login.is_some()
            && let Err(error) = self.renew_after(token.generation).await
        {
            tracing::debug!(%error, "the token was not renewed ahead of time");
        }
    }

    fn token(&self) -> Arc<Token> {
        Arc::clone(&self.shared.token.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn no_catalogue() -> (String, &'static str) {
    let why = "only a token and Glance's address were given, so there is no catalogue to find Nova in";
    (why.into(), "log in with credentials, or set OS_COMPUTE_ENDPOINT_OVERRIDE")
}

impl Token {
    fn new(secret: SecretString, generation: u64, life: Option<Duration>) -> Self {
        Self { secret, generation, since: Instant::now(), life }
    }

    fn bare(secret: SecretString) -> Self {
        Self::new(secret, 0, None)
    }
}

#[cfg(test)]
#[path = "loop_tests.rs"]
mod tests;
