//! The login: takes a chosen cloud, gives a token, its life and the address of Glance; holds the
//! credentials for the next login.
//!
//! What is said to Keystone stands in [`super::keystone`].

use std::time::Duration;

use openstack_sdk_core::config::CloudConfig;
use reqwest::{StatusCode, Url};
use secrecy::SecretString;
use serde_json::Value;

use super::answer::{self, Answer};
use super::client::{Reuse, Tls};
use super::config::Chosen;
use super::http::{self, JSON_WAIT};
use super::keystone::{self, Endpoint, Granted};
use crate::error::{Error, Kind, Result, Stage};
use crate::retry::{Attempts, Retry};

const NOT_KEYSTONE: &str = "check `auth_url`: it must be Keystone's, and version 3";

/// Credentials, and how to find Glance and Nova in the catalogue they open.
pub(super) struct Login {
    label: String,
    config: CloudConfig,
    region: Option<String>,
    interface: String,
    image_endpoint: Option<String>,
    compute_endpoint: Option<String>,
}

/// A service that a cloud may do without: its address, or why there is none and what to do about it.
pub(super) type Lookup = std::result::Result<String, (String, &'static str)>;

/// What a login yields.
pub(super) struct Session {
    pub(super) token: SecretString,
    /// From issue to expiry by Keystone's own clock.
    pub(super) life: Option<Duration>,
    pub(super) project: Option<String>,
    pub(super) endpoint: Url,
    /// Nova, which is asked for only by those who need it.
    pub(super) compute: Lookup,
}

impl Login {
    pub(super) fn new(chosen: Chosen) -> Self {
        let Chosen { label, config, region, interface, image_endpoint, compute_endpoint, .. } = chosen;
        Self { label, config, region, interface, image_endpoint, compute_endpoint }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Keystone's API of version 3.
    pub(super) fn identity(&self) -> Option<Url> {
        keystone::identity_root(self.address())
    }

    fn address(&self) -> &str {
        self.config.auth.as_ref().and_then(|auth| auth.auth_url.as_deref()).unwrap_or_default()
    }

    /// Logs in afresh.
    pub(super) async fn run(&self, tls: &Tls, retry: Retry, stage: Stage) -> Result<Session> {
        let (url, body) = self.request(stage)?;
        let client = tls.client(&url, Reuse::No, stage)?;
        let what = format!("log in to `{}`", self.label);
        let mut attempts = Attempts::new(retry);
        loop {
            let request = client.post(url.clone()).json(&body);
            let (error, asked) = match http::once(request, JSON_WAIT, false, stage, &what).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return self.read(&answer, stage),
                Ok(answer) => (self.explain(&answer, &what, stage), answer.retry_after),
                Err(error) => (error, None),
            };
            if !error.is_retryable() {
                return Err(error);
            }
            let Some(pause) = attempts.after_failure(asked) else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    fn request(&self, stage: Stage) -> Result<(Url, Value)> {
        if let Some(missing) = keystone::missing(&self.config) {
            let advice = format!("set `{missing}` in clouds.yaml, or OS_{}", missing.to_ascii_uppercase());
            return Err(self.refuse(stage, format_args!("there is no `{missing}`")).advise(advice));
        }
        let address = self.address();
        let Some(url) = keystone::tokens_url(address) else {
            let said =
                if address.is_empty() { "there is no auth_url" } else { "its auth_url is no http address" };
            return Err(self.refuse(stage, said).advise("set `auth_url` in clouds.yaml, or OS_AUTH_URL"));
        };
        let Some(body) = keystone::request(&self.config) else {
            let kind = answer::one_line(self.config.auth_type.as_deref().unwrap_or_default());
            return Err(self
                .refuse(stage, format_args!("there is no login of the kind `{kind}` here"))
                .advise("use a password, a token or an application credential, or give OS_TOKEN"));
        };
        Ok((url, body))
    }

    fn read(&self, answer: &Answer, stage: Stage) -> Result<Session> {
        let granted = serde_json::from_slice::<Granted>(&answer.body);
        let (Some(token), Ok(Granted { token: grant })) = (answer.subject_token.clone(), granted) else {
            return Err(self.refuse(stage, "the answer holds no token").advise(NOT_KEYSTONE));
        };
        let life =
            grant.issued_at.and_then(|issued| grant.expires_at.signed_duration_since(issued).to_std().ok());
        let project = grant.project.map(|project| project.id);
        let find = |kind: &'static str, given: &Option<String>| match given {
            Some(endpoint) => Ok(with_project(endpoint, project.as_deref())),
            None => {
                let services = grant.catalog.iter().filter(|service| service.kind == kind);
                self.find(kind, &services.flat_map(|service| &service.endpoints).collect::<Vec<_>>())
            }
        };
        let compute = find("compute", &self.compute_endpoint);
        let endpoint = find("image", &self.image_endpoint)
            .map_err(|(why, advice)| self.refuse(stage, why).advise(advice))?;
        let endpoint = endpoint_root(&endpoint, stage)?;
        Ok(Session { token, life, project, endpoint, compute })
    }

    fn refuse(&self, stage: Stage, why: impl std::fmt::Display) -> Error {
        Error::new(stage, Kind::Login, format!("log in to `{}`: {why}", self.label))
    }

    /// Keystone's refusal, with every secret of the configuration taken out of its text.
    fn explain(&self, answer: &Answer, what: &str, stage: Stage) -> Error {
        let text = answer::message(&answer.body, &self.config.get_sensitive_values());
        let status = answer.status;
        if answer::may_pass(status) {
            let what = format!("{what}: Keystone answers {}: {text}", status.as_u16());
            return Error::new(stage, Kind::Network, what).advise("try again later").retry();
        }
        if matches!(status.as_u16(), 400 | 401 | 403) {
            return self
                .refuse(stage, text)
                .advise("check user, password, project and domain, or the application credential");
        }
        Error::new(stage, Kind::Network, format!("{what}: {} {text}", status.as_u16())).advise(NOT_KEYSTONE)
    }

    /// A service's address in the catalogue, by region and interface.
    fn find(&self, kind: &str, all: &[&Endpoint]) -> Lookup {
        let interface = self.interface.strip_suffix("URL").unwrap_or(&self.interface);
        let region_fits = |region: &Option<String>| self.region.is_none() || *region == self.region;
        let hit =
            all.iter().find(|endpoint| endpoint.interface == interface && region_fits(&endpoint.region));
        if let Some(endpoint) = hit {
            return Ok(endpoint.url.clone());
        }
        let mut offers: Vec<String> = all
            .iter()
            .map(|endpoint| {
                format!("{} of {}", endpoint.interface, endpoint.region.as_deref().unwrap_or("no region"))
            })
            .collect();
        offers.sort();
        offers.dedup();
        let offers = if offers.is_empty() {
            format!("no {kind} service")
        } else {
            answer::one_line(&offers.join(", "))
        };
        let region = self.region.as_ref().map(|region| format!(" of region `{region}`")).unwrap_or_default();
        let why = format!("no `{interface}` {kind} endpoint{region} in the catalogue, which has: {offers}");
        let advice = match kind {
            _ if !all.is_empty() => "correct --os-region-name or --os-interface",
            "image" => "name a project (`project_name`, OS_PROJECT_NAME), or set `image_endpoint_override`",
            _ => "use a cloud with Nova, or set `compute_endpoint_override`",
        };
        Err((why, advice))
    }
}

/// Fills the place that some clouds leave for the project in an override.
fn with_project(endpoint: &str, project: Option<&str>) -> String {
    let project = project.unwrap_or_default();
    ["%(project_id)s", "$(project_id)s", "%(tenant_id)s", "$(tenant_id)s"]
        .iter()
        .fold(endpoint.to_owned(), |text, place| text.replace(place, project))
}

/// Glance's root: catalogues give it with and without `/v2` at the end.
pub(super) fn endpoint_root(endpoint: &str, stage: Stage) -> Result<Url> {
    let Some(mut url) = keystone::http_root(endpoint) else {
        return Err(Error::new(
            stage,
            Kind::Login,
            format!("use the image endpoint `{}`: it is no http address", answer::one_line(endpoint)),
        )
        .advise("correct `image_endpoint_override` or the catalogue"));
    };
    let path = url.path().trim_end_matches('/').to_owned();
    let root = match path.rsplit_once('/') {
        Some((root, "v1" | "v2" | "v2.0")) => root.to_owned(),
        _ => path,
    };
    url.set_path(&root);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_cut_from_an_endpoint() {
        for (given, root) in [
            ("http://g:9292", "http://g:9292/"),
            ("http://g:9292/v2/", "http://g:9292/"),
            ("https://g/image/v2.0?x=1#y", "https://g/image"),
            ("https://g/image/", "https://g/image"),
            ("http://g/av2", "http://g/av2"),
        ] {
            assert_eq!(endpoint_root(given, Stage::Plan).unwrap().as_str(), root);
        }
        for given in ["", "g:9292", "file:///etc/passwd", "http://", "data:x"] {
            assert_eq!(endpoint_root(given, Stage::Plan).unwrap_err().kind(), Kind::Login, "{given}");
        }
    }

    #[test]
    fn glance_is_found_by_region_and_interface_and_its_absence_explained() {
        let offer = |interface: &str, region: &str, url: &str| Endpoint {
            interface: interface.into(),
            region: Some(region.into()),
            url: url.into(),
        };
        let catalog = [
            offer("public", "R1", "http://one"),
            offer("internal", "R1", "http://in"),
            offer("public", "R2", "http://two"),
        ];
        let login = |region: Option<&str>, interface: &str| Login {
            label: "c".into(),
            config: CloudConfig::default(),
            region: region.map(str::to_owned),
            interface: interface.into(),
            image_endpoint: None,
            compute_endpoint: None,
        };
        let offers: Vec<&Endpoint> = catalog.iter().collect();
        let find = |region, interface| login(region, interface).find("image", &offers);
        assert_eq!(find(Some("R2"), "public").unwrap(), "http://two");
        assert_eq!(find(None, "internalURL").unwrap(), "http://in");
        let (why, advice) = find(Some("R9"), "public").unwrap_err();
        assert!(
            why.contains("`R9`") && why.contains("public of R2") && advice.contains("--os-region-name"),
            "{why}"
        );
        let (why, advice) = login(None, "public").find("image", &[]).unwrap_err();
        assert!(why.contains("no image service") && advice.contains("project_name"), "{why}");
        let (why, advice) = login(None, "public").find("compute", &[]).unwrap_err();
        assert!(why.contains("no compute service") && advice.contains("compute_endpoint"), "{why}");
    }
}
