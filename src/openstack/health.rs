//! What a cloud says of itself: takes nothing, gives how it answers, its stores, and which files describe it; holds
//! one answer.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::header::DATE;
use serde_json::Value;

use super::answer::one_line;
use super::client::Reuse;
use super::config::Env;
use super::http::{JSON_WAIT, within};
use super::{Cloud, config};
use crate::error::Result;

/// Stores that are listed at most.
const MOST_STORES: usize = 100;

/// How Glance answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// From a new connection to the end of the answer's head.
    pub latency: Duration,
    /// The newest version of its interface that it calls current, as `v2.17`.
    pub version: Option<String>,
    /// How far its clock is ahead of ours, in seconds, by the `Date` header; with half the latency taken off.
    pub clock_ahead_seconds: Option<i64>,
}

/// A store that images can be put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// What `--store` takes.
    pub id: String,
    /// Whether images go there unless another one is named.
    pub is_default: bool,
}

/// The files that describe clouds, and whether the variables do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFiles {
    /// The `clouds.yaml` that counts.
    pub clouds: Option<PathBuf>,
    /// The `secure.yaml` that is laid over it.
    pub secure: Option<PathBuf>,
    /// Whether the `OS_*` variables describe a cloud by themselves.
    pub by_variables: bool,
}

/// Looks for what [`Cloud::connect`] would read.
pub fn config_files() -> ConfigFiles {
    let var = |name: &str| std::env::var(name).ok();
    let env = Env::with(&var);
    let clouds = env.find("OS_CLIENT_CONFIG_FILE", None, "clouds");
    let beside = clouds.as_deref().and_then(std::path::Path::parent);
    let secure = clouds.as_ref().and_then(|_| env.find("OS_CLIENT_SECURE_FILE", beside, "secure"));
    ConfigFiles { secure, clouds, by_variables: config::has_credentials(&env) }
}

impl Cloud {
    /// What is left of the token's life, by our own clock; `None` where nobody said.
    pub fn token_left(&self) -> Option<Duration> {
        let token = self.token();
        token.life.map(|life| life.saturating_sub(token.since.elapsed()))
    }

    /// Asks Glance for its versions: whether it answers at all, and how soon.
    ///
    /// # Errors
    /// [`Kind::Network`](crate::error::Kind::Network) without an answer. Any answer is one.
    pub async fn greet(&self) -> Result<Greeting> {
        let what = format!("ask Glance of `{}` for its versions", one_line(self.label()));
        let mut url = self.shared.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("versions");
        }
        let begin = Instant::now();
        let request = self.client(Reuse::No)?.get(url).send();
        let response = within(JSON_WAIT, self.stage, &what, request).await?;
        let latency = begin.elapsed();
        let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
        let theirs = date.and_then(|text| chrono::DateTime::parse_from_rfc2822(text).ok());
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ours = ours.saturating_sub(latency / 2).as_secs();
        let clock_ahead_seconds =
            theirs.map(|theirs| theirs.timestamp().saturating_sub(i64::try_from(ours).unwrap_or(0)));
        let answer = super::http::read_body(response, self.stage, &what).await?;
        let version = serde_json::from_slice(&answer).ok().and_then(|json| version_of(&json));
        Ok(Greeting { latency, version, clock_ahead_seconds })
    }

    /// The stores that images can be put into; `None` where Glance has but one, or does not tell.
    ///
    /// # Errors
    /// Of the connection and the login only.
    pub async fn stores(&self) -> Result<Option<Vec<Store>>> {
        let what = format!("ask for the stores of `{}`", one_line(self.label()));
        let url = self.url(["info", "stores"]);
        let answer = self.ask(&what, |client| client.get(url.clone())).await?;
        match answer.status.as_u16() {
            200 => Ok(stores_of(&answer.json(self.stage, &what)?)),
            401 => Err(self.refuse(&answer, &what)),
            _ => Ok(None),
        }
    }
}

fn version_of(json: &Value) -> Option<String> {
    let versions = json.get("versions")?.as_array()?;
    let current = versions.iter().find(|version| version.get("status").is_some_and(|s| s == "CURRENT"))?;
    current.get("id")?.as_str().map(one_line)
}

fn stores_of(json: &Value) -> Option<Vec<Store>> {
    let stores = json.get("stores")?.as_array()?.iter().take(MOST_STORES);
    let found = stores.filter_map(|store| {
        let id = one_line(store.get("id")?.as_str()?);
        // Glance says `"default": "true"`, in quotes.
        let is_default = store.get("default").is_some_and(|value| value == "true" || value == true);
        Some(Store { id, is_default })
    });
    Some(found.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_and_stores_are_read_or_left() {
        let versions = json!({"versions": [
            {"id": "v2.17", "status": "CURRENT"}, {"id": "v2.16", "status": "SUPPORTED"},
        ]});
        assert_eq!(version_of(&versions).as_deref(), Some("v2.17"));
        let stores =
            json!({"stores": [{"id": "fast", "default": "true"}, {"id": "cheap\u{1b}[2J"}, {"x": 1}]});
        let found = stores_of(&stores).unwrap();
        assert_eq!((found.len(), found[0].is_default, found[1].is_default), (2, true, false));
        assert!(!found[1].id.contains('\u{1b}'));
        for strange in [json!([]), json!({"versions": {}, "stores": {}}), json!(null)] {
            assert_eq!((version_of(&strange), stores_of(&strange)), (None, None));
        }
    }
}
