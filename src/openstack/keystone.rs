//! Keystone's way to log in, `POST /v3/auth/tokens` (Identity API v3, «Authentication and token
//! management»): takes a cloud's settings, gives the request's body and reads the answer; holds nothing.
//!
//! openstack_sdk's session could do this, but on every login it makes `~/.osc`, and it throws other
//! programs' old files out of it, even with its cache off (`State::new` of openstack_sdk_core 0.22.8);
//! it loses the cause of a failed connection, and it reads answers without a bound.

use chrono::{DateTime, Utc};
use openstack_sdk_core::config::{Auth, CloudConfig};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The kinds of login there are, by the names of `auth_type`.
pub(super) const PASSWORD: &str = "v3password";
/// A token that is exchanged for one of the wanted scope.
pub(super) const TOKEN: &str = "v3token";
/// A credential with a scope of its own.
pub(super) const APPLICATION_CREDENTIAL: &str = "v3applicationcredential";

/// The answer to a login, as far as it is needed.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) token: Grant,
}

#[derive(Deserialize)]
pub(super) struct Grant {
    pub(super) issued_at: Option<DateTime<Utc>>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) project: Option<Project>,
    #[serde(default)]
    pub(super) catalog: Vec<Service>,
}

#[derive(Deserialize)]
pub(super) struct Project {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Service {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
pub(super) struct Endpoint {
    pub(super) interface: String,
    pub(super) region: Option<String>,
    pub(super) url: String,
}

/// An address of a service, without query and fragment; `None` if it is no http address.
pub(super) fn http_root(text: &str) -> Option<Url> {
    let mut url = Url::parse(text.trim()).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// Where to log in: clouds give Keystone's address with and without the version at its end.
pub(super) fn tokens_url(auth_url: &str) -> Option<Url> {
    let mut url = identity_root(auth_url)?;
    url.path_segments_mut().ok()?.extend(["auth", "tokens"]);
    Some(url)
}

/// Keystone's API of version 3, to which the parts of a path can be added.
pub(super) fn identity_root(auth_url: &str) -> Option<Url> {
    let mut url = http_root(auth_url)?;
    let path = url.path().trim_end_matches('/');
    let root = path.strip_suffix("/v3").or_else(|| path.strip_suffix("/v2.0")).unwrap_or(path).to_owned();
    url.set_path(&format!("{root}/v3"));
    Some(url)
}

/// The name of a setting that the login needs and that nobody gave.
pub(super) fn missing(config: &CloudConfig) -> Option<&'static str> {
    let auth = config.auth.as_ref()?;
    let user = auth.username.is_some() || auth.user_id.is_some();
    match config.auth_type.as_deref() {
        Some(PASSWORD) if !user => Some("username"),
        Some(PASSWORD) if auth.password.is_none() => Some("password"),
        Some(TOKEN) if auth.token.is_none() => Some("token"),
        Some(APPLICATION_CREDENTIAL) if auth.application_credential_secret.is_none() => {
            Some("application_credential_secret")
        }
        Some(APPLICATION_CREDENTIAL) if auth.application_credential_id.is_some() => None,
        Some(APPLICATION_CREDENTIAL) if auth.application_credential_name.is_none() => {
            Some("application_credential_id")
        }
        // Its name is unique only among those of its user.
        Some(APPLICATION_CREDENTIAL) if !user => Some("username"),
        _ => None,
    }
}

/// The body of the request; `None` for a kind of login that there is not.
pub(super) fn request(config: &CloudConfig) -> Option<Value> {
    let auth = config.auth.as_ref()?;
    let (method, credentials) = match config.auth_type.as_deref()? {
        PASSWORD => {
            let mut user = user(auth);
            user.insert("password".into(), exposed(auth.password.as_ref()));
            ("password", json!({ "user": user }))
        }
        TOKEN => ("token", json!({ "id": exposed(auth.token.as_ref()) })),
        APPLICATION_CREDENTIAL => ("application_credential", application_credential(auth)),
        _ => return None,
    };
    let mut body = json!({ "identity": { "methods": [method], method: credentials } });
    if let Some(scope) = scope(auth).filter(|_| method != "application_credential") {
        body["scope"] = scope;
    }
    Some(json!({ "auth": body }))
}

fn exposed(secret: Option<&SecretString>) -> Value {
    secret.map(|secret| secret.expose_secret().into()).unwrap_or_default()
}

fn application_credential(auth: &Auth) -> Value {
    let secret = exposed(auth.application_credential_secret.as_ref());
    match &auth.application_credential_id {
        Some(id) => json!({ "id": id, "secret": secret }),
        None => json!({ "name": auth.application_credential_name, "secret": secret, "user": user(auth) }),
    }
}

fn user(auth: &Auth) -> Map<String, Value> {
    match &auth.user_id {
        Some(id) => Map::from_iter([("id".into(), id.as_str().into())]),
        None => named(auth.username.as_deref(), domain(&auth.user_domain_id, &auth.user_domain_name)),
    }
}

/// Names are unique within a domain.
fn named(name: Option<&str>, domain: Option<Value>) -> Map<String, Value> {
    let name = Some(("name".to_owned(), name.into()));
    name.into_iter().chain(domain.map(|domain| ("domain".to_owned(), domain))).collect()
}

fn domain(id: &Option<String>, name: &Option<String>) -> Option<Value> {
    id.as_ref().map(|id| json!({ "id": id })).or_else(|| name.as_ref().map(|name| json!({ "name": name })))
}

/// What the token is to be good for; without a scope it is good for nothing but another login.
fn scope(auth: &Auth) -> Option<Value> {
    let project = auth.project_id.as_ref().map(|id| json!({ "id": id })).or_else(|| {
        let name = auth.project_name.as_deref()?;
        Some(named(Some(name), domain(&auth.project_domain_id, &auth.project_domain_name)).into())
    });
    project
        .map(|project| json!({ "project": project }))
        .or_else(|| Some(json!({ "domain": domain(&auth.domain_id, &auth.domain_name)? })))
        .or_else(|| auth.system_scope.as_ref().map(|system| json!({ "system": { system: true } })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: &str, auth: Auth) -> Value {
        let config = CloudConfig { auth: Some(auth), auth_type: Some(kind.into()), ..CloudConfig::default() };
        assert_eq!(missing(&config), None);
        request(&config).unwrap()["auth"].take()
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn keystones_address_is_taken_with_and_without_its_version() {
        for (given, url) in [
            ("http://k:5000/v3", "http://k:5000/v3/auth/tokens"),
            ("http://k:5000", "http://k:5000/v3/auth/tokens"),
            (" https://k/identity/ ", "https://k/identity/v3/auth/tokens"),
            ("https://k/identity/v2.0/?x#y", "https://k/identity/v3/auth/tokens"),
        ] {
            assert_eq!(tokens_url(given).unwrap().as_str(), url, "{given}");
        }
        for given in ["", "k:5000/v3", "file:///v3", "http://"] {
            assert_eq!(tokens_url(given), None, "{given}");
        }
    }

    #[test]
    fn a_user_is_known_by_id_or_by_name_and_domain() {
        let auth = Auth {
            username: text("u"),
            user_domain_name: text("D"),
            password: Some("p".into()),
            project_name: text("x"),
            project_domain_id: text("default"),
            ..Auth::default()
        };
        let body = asked(PASSWORD, auth.clone());
        let user = json!({ "name": "u", "domain": { "name": "D" }, "password": "p" });
        assert_eq!(body["identity"], json!({ "methods": ["password"], "password": { "user": user } }));
        assert_eq!(body["scope"], json!({ "project": { "name": "x", "domain": { "id": "default" } } }));
        let by_id = asked(PASSWORD, Auth { user_id: text("7"), project_id: text("9"), ..auth });
        assert_eq!(by_id["identity"]["password"]["user"], json!({ "id": "7", "password": "p" }));
        assert_eq!(by_id["scope"], json!({ "project": { "id": "9" } }));
    }

    #[test]
    fn an_application_credential_goes_by_id_or_by_name_and_user_and_brings_its_scope() {
        let auth = Auth {
            application_credential_name: text("n"),
            application_credential_secret: Some("s".into()),
            username: text("u"),
            user_domain_id: text("default"),
            project_id: text("9"),
            ..Auth::default()
        };
        let by_name = asked(APPLICATION_CREDENTIAL, auth.clone());
        let user = json!({ "name": "u", "domain": { "id": "default" } });
        let credential = json!({ "name": "n", "secret": "s", "user": user });
        assert_eq!(by_name["identity"]["application_credential"], credential);
        assert_eq!(by_name["scope"], Value::Null);
        let by_id = asked(APPLICATION_CREDENTIAL, Auth { application_credential_id: text("i"), ..auth });
        assert_eq!(by_id["identity"]["application_credential"], json!({ "id": "i", "secret": "s" }));
    }

    #[test]
    fn other_scopes_and_missing_settings() {
        let token = Auth { token: Some("t".into()), ..Auth::default() };
        assert_eq!(asked(TOKEN, token.clone())["scope"], Value::Null);
        let domain = asked(TOKEN, Auth { domain_name: text("D"), ..token.clone() });
        assert_eq!(domain["scope"], json!({ "domain": { "name": "D" } }));
        let system = asked(TOKEN, Auth { system_scope: text("all"), ..token.clone() });
        assert_eq!(system["scope"], json!({ "system": { "all": true } }));
        let config = |kind: &str, auth: Auth| CloudConfig {
            auth: Some(auth),
            auth_type: Some(kind.into()),
            ..CloudConfig::default()
        };
        assert_eq!(missing(&config(PASSWORD, token)), Some("username"));
        let name = Auth {
            application_credential_name: text("n"),
            application_credential_secret: Some("s".into()),
            ..Auth::default()
        };
        assert_eq!(missing(&config(APPLICATION_CREDENTIAL, name)), Some("username"));
        assert!(request(&config("v3oidcpassword", Auth::default())).is_none());
    }
}
