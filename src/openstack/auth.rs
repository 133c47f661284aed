//! The login: takes a chosen cloud, gives a token, its life and the address of Glance; holds the
//! credentials for the next login.
//!
//! openstack_sdk does the talking to Keystone (password, token, application credential) with its
//! on-disk cache off, and is dropped after each login: nothing else of it is needed. Its errors lose
//! the cause of a failed connection, so Keystone is greeted by our own client first.

use std::error::Error as StdError;
use std::time::Duration;

use openstack_sdk::auth::AuthError;
use openstack_sdk::config::CloudConfig;
use openstack_sdk::{AsyncOpenStack, OpenStackError};
use reqwest::{Client, Url};
use secrecy::SecretString;

use super::config::Chosen;
use super::http::{self, Retry, Reuse, Tls};
use super::{answer, http::JSON_WAIT};
use crate::error::{Error, Kind, Result, Stage};

/// Credentials, and how to find Glance in the catalogue they open.
pub(super) struct Login {
    label: String,
    config: CloudConfig,
    region: Option<String>,
    interface: String,
    image_endpoint: Option<String>,
}

/// What a login yields.
pub(super) struct Session {
    pub(super) token: SecretString,
    /// From issue to expiry by Keystone's own clock.
    pub(super) life: Option<Duration>,
    pub(super) project: Option<String>,
    pub(super) endpoint: Url,
}

/// One address of Glance in the catalogue.
struct Offer {
    interface: String,
    region: Option<String>,
    url: String,
}

impl Login {
    pub(super) fn new(chosen: Chosen) -> Self {
        let Chosen { label, config, region, interface, image_endpoint, .. } = chosen;
        Self { label, config, region, interface, image_endpoint }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Logs in afresh.
    pub(super) async fn run(&self, tls: &Tls, retry: &Retry, stage: Stage) -> Result<Session> {
        link_plugins();
        self.complete(stage)?;
        self.greet(tls, retry, stage).await?;
        let mut failures = 0;
        let sdk = loop {
            // Its default is 30 s for a whole request and 5 s for a connection.
            let login = AsyncOpenStack::builder(&self.config)
                .disable_auth_cache(true)
                .renew_auth(true)
                .http_timeout(JSON_WAIT)
                .http_connect_timeout(http::CONNECT_TIMEOUT)
                .connect();
            let error = match login.await {
                Ok(sdk) => break sdk,
                Err(error) => self.explain(&error, stage),
            };
            failures += 1;
            if failures >= retry.tries || !error.is_retryable() {
                return Err(error);
            }
            tokio::time::sleep(retry.pause(failures, None)).await;
        };
        let (Some(token), Some(info)) = (sdk.get_auth_token(), sdk.get_auth_info()) else {
            return Err(self.refuse(stage, "Keystone gave no token"));
        };
        let life = info
            .token
            .issued_at
            .and_then(|issued| info.token.expires_at.signed_duration_since(issued).to_std().ok());
        let project = info.token.project.and_then(|project| project.id);
        let endpoint = match &self.image_endpoint {
            Some(endpoint) => with_project(endpoint, project.as_deref()),
            None => {
                let catalog = info.token.catalog.unwrap_or_default();
                let images = catalog.into_iter().filter(|service| service.service_type == "image");
                let offers: Vec<Offer> = images
                    .flat_map(|service| service.endpoints)
                    .map(|at| Offer { interface: at.interface, region: at.region, url: at.url })
                    .collect();
                self.find_glance(&offers, stage)?
            }
        };
        Ok(Session { token, life, project, endpoint: endpoint_root(&endpoint, stage)? })
    }

    /// Asks Keystone for its versions: nothing is wanted but a sound connection, for its errors' sake.
    async fn greet(&self, tls: &Tls, retry: &Retry, stage: Stage) -> Result<()> {
        let what = format!("log in to `{}`", self.label);
        let address = self.config.auth.as_ref().and_then(|auth| auth.auth_url.as_deref()).unwrap_or_default();
        let url =
            Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            let said =
                if address.is_empty() { "there is no auth_url" } else { "its auth_url is no http address" };
            return Err(self.refuse(stage, said).advise("set `auth_url` in clouds.yaml, or OS_AUTH_URL"));
        };
        let client: Client = tls.client(&url, Reuse::No, stage)?;
        let mut failures = 0;
        loop {
            let error = match http::once(client.get(url.clone()), JSON_WAIT, false, stage, &what).await {
                Ok(answer) if !answer::may_pass(answer.status) => return Ok(()),
                Ok(answer) => answer.error(stage, &what, ""),
                Err(error) => error,
            };
            failures += 1;
            if failures >= retry.tries || !error.is_retryable() {
                return Err(error);
            }
            tokio::time::sleep(retry.pause(failures, None)).await;
        }
    }

    /// Names a setting that the login needs and that nobody gave: the SDK would ask for it on a terminal.
    fn complete(&self, stage: Stage) -> Result<()> {
        let Some(auth) = &self.config.auth else { return Ok(()) };
        let user = auth.username.is_some() || auth.user_id.is_some();
        let missing = match self.config.auth_type.as_deref() {
            Some("v3password") if !user => "username",
            Some("v3password") if auth.password.is_none() => "password",
            Some("v3token") if auth.token.is_none() => "token",
            Some("v3applicationcredential") if auth.application_credential_secret.is_none() => {
                "application_credential_secret"
            }
            // The SDK does not look one up by its name.
            Some("v3applicationcredential") if auth.application_credential_id.is_none() => {
                "application_credential_id"
            }
            _ => return Ok(()),
        };
        let advice = format!("set `{missing}` in clouds.yaml, or OS_{}", missing.to_ascii_uppercase());
        Err(self.refuse(stage, format_args!("there is no `{missing}`")).advise(advice))
    }

    fn refuse(&self, stage: Stage, why: impl std::fmt::Display) -> Error {
        Error::new(stage, Kind::Login, format!("log in to `{}`: {why}", self.label))
    }

    /// The SDK's error as ours, with every secret of the configuration taken out of its text.
    fn explain(&self, error: &OpenStackError, stage: Stage) -> Error {
        let mut text = deepest(error);
        for secret in self.config.get_sensitive_values() {
            text = answer::redact(&text, secret);
        }
        let text = answer::one_line(&text);
        match error {
            OpenStackError::AuthError { source: AuthError::Identity(identity) } => {
                self.by_status(u64::from(identity.code), &text, stage)
            }
            OpenStackError::AuthError { source: AuthError::UnknownAuth { code, .. } } => {
                self.by_status(u64::from(*code), &text, stage)
            }
            OpenStackError::AuthError { source: AuthError::Reqwest { .. } }
            | OpenStackError::Communication { .. }
            | OpenStackError::Discovery { .. }
            | OpenStackError::Api { .. } => {
                Error::new(stage, Kind::Network, format!("log in to `{}`", self.label))
                    .because(text)
                    .advise("check `auth_url`: it must be Keystone's, and version 3")
                    .retry()
            }
            _ => self
                .refuse(stage, text)
                .advise("complete the cloud's settings in clouds.yaml or the OS_* variables"),
        }
    }

    fn by_status(&self, code: u64, text: &str, stage: Stage) -> Error {
        if code == 429 || code >= 500 {
            let what = format!("log in to `{}`: Keystone answers {code}: {text}", self.label);
            return Error::new(stage, Kind::Network, what).advise("try again later").retry();
        }
        self.refuse(stage, text)
            .advise("check user, password, project and domain, or the application credential")
    }

    /// Glance's address in the catalogue, by region and interface.
    fn find_glance(&self, all: &[Offer], stage: Stage) -> Result<String> {
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
            "no image service".to_owned()
        } else {
            answer::one_line(&offers.join(", "))
        };
        let region = self.region.as_ref().map(|region| format!(" of region `{region}`")).unwrap_or_default();
        let why = format!("no `{interface}` image endpoint{region} in the catalogue, which has: {offers}");
        let advice = if all.is_empty() {
            "name a project (`project_name`, OS_PROJECT_NAME), or set `image_endpoint_override`"
        } else {
            "correct --os-region-name or --os-interface"
        };
        Err(self.refuse(stage, why).advise(advice))
    }
}

/// Makes the linker keep the SDK's ways to log in. They register themselves before `main`, if they are linked
/// at all; the SDK's build script is to see to that, but in the published 0.22.8 it finds none of them,
/// since it reads a manifest that cargo has rewritten.
fn link_plugins() {
    std::hint::black_box(&openstack_sdk_auth_applicationcredential::ANCHOR);
    std::hint::black_box(&openstack_sdk_auth_password::ANCHOR);
}

/// The text of the last cause: the SDK's outer texts repeat it.
fn deepest(error: &OpenStackError) -> String {
    if let OpenStackError::AuthError { source: AuthError::UnknownAuth { code, message } } = error {
        return format!("{code}: {}", answer::message(message.as_deref().unwrap_or_default().as_bytes()));
    }
    let mut last: &dyn StdError = error;
    while let Some(next) = last.source() {
        last = next;
    }
    let text = last.to_string();
    match error {
        OpenStackError::AuthError { source: AuthError::AuthValueNotSupplied(name) } => {
            format!("`{name}` is not set")
        }
        _ => text.strip_prefix("authentication method error: ").unwrap_or(&text).to_owned(),
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
    let parsed = Url::parse(endpoint.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(mut url) = parsed else {
        return Err(Error::new(
            stage,
            Kind::Login,
            format!("use the image endpoint `{}`: it is no http address", answer::one_line(endpoint)),
        )
        .advise("correct `image_endpoint_override` or the catalogue"));
    };
    url.set_query(None);
    url.set_fragment(None);
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
        let offer = |interface: &str, region: &str, url: &str| Offer {
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
        };
        let find = |region, interface| login(region, interface).find_glance(&catalog, Stage::Source);
        assert_eq!(find(Some("R2"), "public").unwrap(), "http://two");
        assert_eq!(find(None, "internalURL").unwrap(), "http://in");
        let error = find(Some("R9"), "public").unwrap_err().to_string();
        assert!(
            error.contains("`R9`") && error.contains("public of R2") && error.contains("--os-region-name"),
            "{error}"
        );
        let none = login(None, "public").find_glance(&[], Stage::Source).unwrap_err().to_string();
        assert!(none.contains("no image service") && none.contains("project_name"), "{none}");
    }
}
