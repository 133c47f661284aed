//! Nova: takes the name or ID of a server, gives its state, and orders what a snapshot needs; holds the address
//! and the version that were agreed upon.
//!
//! The calls are those of the Compute API v2.1 (docs.openstack.org/api-ref/compute). Servers are found and shown
//! here and in `server`, ordered about in `order`. The catalogue's entry for Nova is looked at only when
//! [`Cloud::compute`] is called: a cloud without Nova is as good for images as any other.

mod of_image;
mod order;
mod server;

use reqwest::{Client, RequestBuilder, Url};
use serde_json::Value;

use super::answer::{Answer, one_line};
use super::{Cloud, keystone};
use crate::error::{Error, Kind, Result};
use crate::retry::Attempts;

pub use server::Server;

/// The newest behaviour that is asked for: from 2.45 on `createImage` answers with the image's ID in its body.
const WANTED: Microversion = Microversion { major: 2, minor: 45 };
/// Servers asked for in one page.
const PAGE: &str = "100";
/// Pages read before a list that never ends is given up.
const MOST_PAGES: usize = 50;
/// More servers of one name than this are not listed.
const MOST_HITS: usize = 200;

/// A version of Nova's behaviour, such as 2.45.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion {
    major: u32,
    minor: u32,
}

impl std::fmt::Display for Microversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Microversion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// The Nova of a cloud. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Compute {
    cloud: Cloud,
    /// Where `servers` is.
    base: Url,
    /// What is asked for; `None` where Nova knows no versions.
    version: Option<Microversion>,
}

impl Cloud {
    /// The cloud's Nova: its endpoint in the catalogue, or `compute_endpoint_override` of `clouds.yaml`, or
    /// `OS_COMPUTE_ENDPOINT_OVERRIDE`; and the version that both sides know.
    ///
    /// # Errors
    /// [`Kind::Login`] for a catalogue without Nova, [`Kind::Network`] if it cannot be reached.
    pub async fn compute(&self) -> Result<Compute> {
        let refuse = |why: &str| {
            Error::new(self.stage, Kind::Login, format!("find Nova in `{}`: {why}", self.label()))
        };
        let endpoint = match &self.shared.compute {
            Ok(endpoint) => keystone::http_root(endpoint).ok_or_else(|| {
                refuse(&format!("`{}` is no http address", one_line(endpoint)))
                    .advise("correct `compute_endpoint_override` or the catalogue")
            })?,
            Err((why, advice)) => return Err(refuse(why).advise(*advice)),
        };
        let (versions, base) = roots(&endpoint);
        let what = format!("ask for the versions of Nova in `{}`", self.label());
        let answer = self
            .ask_at(&versions, &what, &mut Attempts::new(self.retry), |client| client.get(versions.clone()))
            .await?;
        let version = match answer.status.as_u16() {
            200 | 300 => serde_json::from_slice(&answer.body).ok().and_then(|json| agreed(&json)),
            // Some proxies hide it. What the API does without a version is known.
            _ => None,
        };
        tracing::info!("Nova is at {base}, version {}", version.map_or("2.1".into(), |own| own.to_string()));
        Ok(Compute { cloud: self.clone(), base, version })
    }
}

/// Where versions are told, and where servers are. Catalogues give Nova's address with the version, sometimes
/// with the project behind it, sometimes with neither.
fn roots(endpoint: &Url) -> (Url, Url) {
    let path = endpoint.path().trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let versioned = parts.iter().rposition(|part| matches!(*part, "v2.1" | "v2" | "v2.0"));
    let with = |path: &str| {
        let mut url = endpoint.clone();
        url.set_path(path);
        url
    };
    match versioned {
        Some(at) => (with(&format!("{}/", parts[..=at].join("/"))), with(&path)),
        None => (with(&format!("{path}/")), with(&format!("{path}/v2.1"))),
    }
}

/// The version to ask for, by what `GET /` or `GET /v2.1/` tells: at most [`WANTED`], or the least there is.
fn agreed(json: &Value) -> Option<Microversion> {
    let all = json.get("versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let own = all.iter().chain(json.get("version")).find(|version| version["id"] == "v2.1")?;
    let number = |key: &str| own.get(key).and_then(Value::as_str).and_then(Microversion::parse);
    let largest = number("version")?;
    Some(largest.min(WANTED).max(number("min_version").unwrap_or(WANTED.min(largest))))
}

impl Compute {
    /// The version that is asked for; `None` where Nova knows no versions.
    pub fn version(&self) -> Option<Microversion> {
        self.version
    }

    /// All servers that `name_or_id` may mean: the one with that ID, else those of the project with exactly that
    /// name.
    ///
    /// # Errors
    /// Of the request; not finding any is an empty list.
    pub async fn find_servers(&self, name_or_id: &str) -> Result<Vec<Server>> {
        if name_or_id.len() == 36
            && uuid::Uuid::try_parse(name_or_id).is_ok()
            && let Some(server) = self.show(name_or_id).await?
        {
            return Ok(vec![server]);
        }
        let what = format!("look for servers called `{}` in `{}`", one_line(name_or_id), self.cloud.label());
        let mut found = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let mut url = self.url(["servers", "detail"]);
            {
                let mut query = url.query_pairs_mut();
                query.append_pair("name", &format!("^{}$", escaped(name_or_id))).append_pair("limit", PAGE);
                marker.as_deref().map(|marker| query.append_pair("marker", marker));
            }
            let mut page = self.json(self.get(&url, &what).await?, &what)?;
            let Some(Value::Array(servers)) = page.get_mut("servers").map(Value::take) else {
                return Err(self.strange(&what, "there is no list of servers in it"));
            };
            let full = page.get("servers_links").is_some();
            let mut last = None;
            for json in servers {
                let server = Server::from_json(json).map_err(|why| self.strange(&what, &why))?;
                last = Some(server.id.clone());
                // Databases compare names without regard to case; we do not.
                found.extend(Some(server).filter(|server| server.name == name_or_id));
            }
            if found.len() > MOST_HITS {
                let error = Error::new(self.cloud.stage, Kind::Source, format!("{what}: there are too many"));
                return Err(error.advise("name the server by its ID"));
            }
            match last {
                Some(last) if full && marker.as_ref() != Some(&last) => marker = Some(last),
                _ => return Ok(found),
            }
        }
        Err(self.strange(&what, "the list does not end"))
    }

    /// A server as it is now; `None` if there is none.
    ///
    /// # Errors
    /// Of the request.
    pub async fn show(&self, id: &str) -> Result<Option<Server>> {
        let what = format!("look up server `{}` in `{}`", one_line(id), self.cloud.label());
        let answer = self.get(&self.url(["servers", id]), &what).await?;
        if matches!(answer.status.as_u16(), 404 | 410) {
            return Ok(None);
        }
        let mut json = self.json(answer, &what)?;
        let server = json.get_mut("server").map(Value::take).unwrap_or_default();
        Server::from_json(server).map(Some).map_err(|why| self.strange(&what, &why))
    }

    fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn get(&self, url: &Url, what: &str) -> Result<Answer> {
        self.ask(url, what, &mut Attempts::new(self.cloud.retry), |client| client.get(url.clone())).await
    }

    /// A request with the agreed version, by both of its names: the general one is known since 2.27.
    async fn ask(
        &self,
        url: &Url,
        what: &str,
        attempts: &mut Attempts,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let version = self.version;
        self.cloud
            .ask_at(url, what, attempts, |client| match version {
                Some(version) => build(client)
                    .header("OpenStack-API-Version", format!("compute {version}"))
                    .header("X-OpenStack-Nova-API-Version", version.to_string()),
                None => build(client),
            })
            .await
    }

    fn json(&self, answer: Answer, what: &str) -> Result<Value> {
        if answer.status.is_success() {
            answer.json(self.cloud.stage, what)
        } else {
            Err(self.refuse(&answer, what))
        }
    }

    /// Nova's refusal, with the next step for a server.
    fn refuse(&self, answer: &Answer, what: &str) -> Error {
        let error = self.cloud.refuse(answer, what);
        match answer.status.as_u16() {
            404 | 410 => error.advise("check the server with `openstack server list`"),
            409 => error.advise(
                "look at its status, task and lock with `openstack server show`, and try again when the task is done",
            ),
            413 => error.advise("make room in the quota of images or of their metadata, or ask for more"),
            403 if error.to_string().to_ascii_lowercase().contains("quota") => {
                error.advise("make room in the quota of images or of their metadata, or ask for more")
            }
            406 => error.advise("check that the compute endpoint is Nova's"),
            _ => error,
        }
    }

    fn strange(&self, what: &str, why: &str) -> Error {
        Error::new(self.cloud.stage, Kind::Network, format!("{what}: the answer is not Nova's: {why}"))
            .advise("check the compute endpoint")
    }
}

/// A name as a regular expression that means it, in every dialect that databases have.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if r"\.^$*+?()[]{}|".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_with_and_without_version_and_project() {
        for (given, versions, base) in [
            ("http://n:8774/v2.1", "http://n:8774/v2.1/", "http://n:8774/v2.1"),
            ("http://n/compute/v2.1/abc/", "http://n/compute/v2.1/", "http://n/compute/v2.1/abc"),
            ("http://n:8774", "http://n:8774/", "http://n:8774/v2.1"),
            ("https://n/compute/", "https://n/compute/", "https://n/compute/v2.1"),
            ("http://n/v2/abc", "http://n/v2/", "http://n/v2/abc"),
        ] {
            let (found, at) = roots(&Url::parse(given).unwrap());
            assert_eq!((found.as_str(), at.as_str()), (versions, base), "{given}");
        }
    }

    #[test]
    fn the_version_is_the_wanted_one_or_the_best_below_it() {
        let told = |largest: &str| {
            json!({"versions": [
                {"id": "v2.0", "version": "", "min_version": ""},
                {"id": "v2.1", "version": largest, "min_version": "2.1"},
            ]})
        };
        let found = |json: &Value| agreed(json).map(|version| version.to_string());
        assert_eq!(found(&told("2.96")).as_deref(), Some("2.45"));
        assert_eq!(found(&told("2.44")).as_deref(), Some("2.44"));
        assert_eq!(found(&told("2.1")).as_deref(), Some("2.1"));
        let later = json!({"version": {"id": "v2.1", "version": "2.200", "min_version": "2.60"}});
        assert_eq!(found(&later).as_deref(), Some("2.60"));
        for strange in
            [json!(null), json!({}), json!({"version": {"id": "v2.1", "version": ""}}), told("x.y")]
        {
            assert_eq!(agreed(&strange), None, "{strange}");
        }
    }

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escaped("a.b*[c]"), r"a\.b\*\[c\]");
        assert_eq!(escaped("plain ü-1"), "plain ü-1");
    }
}
