//! Which cloud, and with whose credentials: takes the options, the environment and `clouds.yaml`,
//! gives one [`Chosen`] cloud; holds nothing of it afterwards.
//!
//! The order is openstacksdk's: `--os-cloud`, `OS_CLOUD`, the `OS_*` variables, the only cloud in the file.
//! Files are looked for as it does: `OS_CLIENT_CONFIG_FILE`, then `./`, `~/.config/openstack` and
//! `/etc/openstack` with `clouds.yaml`, `.yml` or `.json`; the first one found counts, and a `secure.yaml`
//! (beside it, or in the same places) is laid over it.

use std::path::{Path, PathBuf};

use openstack_sdk_core::config::{Auth, CloudConfig, ConfigFile};
use secrecy::SecretString;

use super::answer::one_line;
use crate::error::{Error, Kind, Result, Stage};
use crate::retry::Retry;

/// What the user said about the cloud; everything unsaid comes from the environment and `clouds.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudOptions {
    /// A name in `clouds.yaml`, or `envvars` for the `OS_*` variables.
    pub cloud: Option<String>,
    /// The region whose Glance is meant; before `OS_REGION_NAME` and the file.
    pub region_name: Option<String>,
    /// `public`, `internal` or `admin`; before `OS_INTERFACE` and the file.
    pub interface: Option<String>,
    /// CA certificates in PEM form, for Keystone and Glance; before `OS_CACERT` and the file.
    pub cacert: Option<PathBuf>,
    /// Take any certificate, of Keystone and Glance.
    pub insecure: bool,
    /// How often and for how long something that broke is tried again.
    pub retry: Retry,
}

/// Whom to trust on TLS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// CA certificates in PEM form, trusted beside the system's.
    pub cacert: Option<PathBuf>,
    /// Take any certificate.
    pub insecure: bool,
}

/// A cloud with everything that a login needs.
pub(super) struct Chosen {
    pub(super) label: String,
    pub(super) config: CloudConfig,
    pub(super) region: Option<String>,
    pub(super) interface: String,
    pub(super) tls: TlsOptions,
    /// Glance's address where the catalogue is not to be asked.
    pub(super) image_endpoint: Option<String>,
    /// Nova's, likewise.
    pub(super) compute_endpoint: Option<String>,
    /// A token to be used as it is, without Keystone.
    pub(super) bare_token: Option<SecretString>,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen")
            .field("label", &self.label)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Where settings come from; the tests have their own.
pub(super) struct Env<'a> {
    pub(super) var: &'a (dyn Fn(&str) -> Option<String> + Sync),
    pub(super) here: PathBuf,
    pub(super) system: PathBuf,
}

impl<'a> Env<'a> {
    /// The usual folders, with these variables.
    pub(super) fn with(var: &'a (dyn Fn(&str) -> Option<String> + Sync)) -> Self {
        Self { var, here: PathBuf::from("."), system: PathBuf::from("/etc/openstack") }
    }

    /// A variable that is set to something.
    fn get(&self, name: &str) -> Option<String> {
        (self.var)(name).filter(|value| !value.is_empty())
    }

    fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).map(SecretString::from)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(|value| truth(&value))
    }

    /// The folders that may hold `clouds.yaml`, first one first.
    fn folders(&self) -> Vec<PathBuf> {
        let home = self.get("HOME").map(|home| Path::new(&home).join(".config"));
        let config = self.get("XDG_CONFIG_HOME").map(PathBuf::from);
        let mut folders = vec![self.here.clone()];
        folders.extend([config, home].into_iter().flatten().map(|folder| folder.join("openstack")));
        folders.push(self.system.clone());
        folders
    }

    /// The first file of that name: as a variable says, in `beside`, in the usual folders.
    pub(super) fn find(&self, variable: &str, beside: Option<&Path>, stem: &str) -> Option<PathBuf> {
        let named = self.get(variable).map(|path| self.expand(&path));
        let folders = beside.map(Path::to_path_buf).into_iter().chain(self.folders());
        let usual = folders
            .flat_map(|folder| ["yaml", "yml", "json"].map(|end| folder.join(format!("{stem}.{end}"))));
        named.into_iter().chain(usual).find(|path| path.is_file())
    }

    fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.get("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Chooses the cloud and completes its settings.
pub(super) fn choose(options: &CloudOptions, env: &Env<'_>, stage: Stage) -> Result<Chosen> {
    let wanted = options.cloud.clone().or_else(|| env.get("OS_CLOUD"));
    let from_env = wanted.as_deref() == Some("envvars") || (wanted.is_none() && has_credentials(env));
    let config =
        if from_env { cloud_of_variables(env) } else { cloud_of_file(wanted.as_deref(), env, stage)? };
    let label = config.name.clone().unwrap_or_else(|| "OS_* variables".to_owned());
    Ok(complete(config, label, options, env))
}

/// Whether the variables alone describe a cloud.
pub(super) fn has_credentials(env: &Env<'_>) -> bool {
    env.get("OS_AUTH_URL").is_some()
        || (env.get("OS_TOKEN").is_some()
            && (env.get("OS_ENDPOINT").is_some() || env.get("OS_IMAGE_ENDPOINT_OVERRIDE").is_some()))
}

fn cloud_of_variables(env: &Env<'_>) -> CloudConfig {
    let auth = Auth {
        auth_url: env.get("OS_AUTH_URL"),
        endpoint: env.get("OS_ENDPOINT").or_else(|| env.get("OS_URL")),
        token: env.secret("OS_TOKEN").or_else(|| env.secret("OS_AUTH_TOKEN")),
        username: env.get("OS_USERNAME"),
        user_id: env.get("OS_USER_ID"),
        user_domain_name: env.get("OS_USER_DOMAIN_NAME"),
        user_domain_id: env.get("OS_USER_DOMAIN_ID"),
        password: env.secret("OS_PASSWORD"),
        passcode: env.secret("OS_PASSCODE"),
        domain_id: env.get("OS_DOMAIN_ID"),
        domain_name: env.get("OS_DOMAIN_NAME"),
        // The tenant is what the project was called before Keystone v3; old openrc files still say so.
        project_id: env.get("OS_PROJECT_ID").or_else(|| env.get("OS_TENANT_ID")),
        project_name: env.get("OS_PROJECT_NAME").or_else(|| env.get("OS_TENANT_NAME")),
        project_domain_id: env.get("OS_PROJECT_DOMAIN_ID"),
        project_domain_name: env.get("OS_PROJECT_DOMAIN_NAME"),
        application_credential_id: env.get("OS_APPLICATION_CREDENTIAL_ID"),
        application_credential_name: env.get("OS_APPLICATION_CREDENTIAL_NAME"),
        application_credential_secret: env.secret("OS_APPLICATION_CREDENTIAL_SECRET"),
        system_scope: env.get("OS_SYSTEM_SCOPE"),
        ..Auth::default()
    };
    let verify = env.flag("OS_VERIFY").or_else(|| env.flag("OS_INSECURE").map(|insecure| !insecure));
    CloudConfig { auth: Some(auth), auth_type: env.get("OS_AUTH_TYPE"), verify, ..CloudConfig::default() }
}

/// The named cloud, or the only one, of the first `clouds.yaml`.
fn cloud_of_file(wanted: Option<&str>, env: &Env<'_>, stage: Stage) -> Result<CloudConfig> {
    let refuse = |text: String| Error::new(stage, Kind::Login, text);
    let Some(clouds) = env.find("OS_CLIENT_CONFIG_FILE", None, "clouds") else {
        let looked: Vec<String> =
            env.folders().iter().map(|folder| format!("`{}`", folder.display())).collect();
        let what = wanted.map_or("choose a cloud".to_owned(), |name| format!("find cloud `{name}`"));
        return Err(refuse(format!("{what}: there is no clouds.yaml in {}", looked.join(", ")))
            .advise("put one there, name it in OS_CLIENT_CONFIG_FILE, or source an openrc file"));
    };
    let secure = env.find("OS_CLIENT_SECURE_FILE", clouds.parent(), "secure");
    let vendor = env.find("OS_CLIENT_VENDOR_FILE", clouds.parent(), "clouds-public");
    let mut builder = ConfigFile::builder();
    for path in vendor.iter().chain([&clouds]).chain(&secure) {
        // The parser quotes what it stumbles over, which may be a password.
        builder = builder.add_source(path).map_err(|error| {
            refuse(format!("read `{}`", path.display()))
                .because(one_line(&without_quoted(&error.to_string())))
        })?;
    }
    let file = builder.build().map_err(|error| {
        refuse(format!("read `{}`: {}", clouds.display(), without_quoted(&error.to_string())))
    })?;
    let mut names = file.get_available_clouds();
    names.sort();
    let name = match (wanted, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => {
            return Err(refuse(format!("choose a cloud: `{}` has {}", clouds.display(), listed(&names)))
                .advise("name one by --os-cloud or OS_CLOUD"));
        }
    };
    match file.get_cloud_config(name) {
        Ok(Some(config)) => Ok(config),
        _ => Err(refuse(format!("find cloud `{name}`: `{}` has {}", clouds.display(), listed(&names)))
            .advise("correct --os-cloud or OS_CLOUD")),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

/// A parser's message without what it quotes, but with the names of our own files and keys.
fn without_quoted(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('"').enumerate() {
        let known = part.contains('/') || index % 2 == 0;
        out.push_str(if known { part } else { "…" });
    }
    out
}

/// Lays options and variables over a cloud's own settings.
fn complete(mut config: CloudConfig, label: String, options: &CloudOptions, env: &Env<'_>) -> Chosen {
    let text = |key: &str, config: &CloudConfig| {
        config.options.get(key).and_then(|value| value.clone().into_string().ok())
    };
    let region = options
        .region_name
        .clone()
        .or_else(|| env.get("OS_REGION_NAME"))
        .or_else(|| config.region_name.clone());
    let interface = options
        .interface
        .clone()
        .or_else(|| env.get("OS_INTERFACE"))
        .or_else(|| env.get("OS_ENDPOINT_TYPE"))
        .or_else(|| text("endpoint_type", &config))
        .or_else(|| config.interface.clone())
        .unwrap_or_else(|| "public".to_owned());
    let cacert = options
        .cacert
        .clone()
        .or_else(|| env.get("OS_CACERT").or_else(|| config.cacert.clone()).map(|path| env.expand(&path)));
    let file_insecure = text("insecure", &config).and_then(|value| truth(&value)) == Some(true);
    let insecure = options.insecure || file_insecure || config.verify == Some(false);
    let image_endpoint =
        env.get("OS_IMAGE_ENDPOINT_OVERRIDE").or_else(|| text("image_endpoint_override", &config));
    let compute_endpoint =
        env.get("OS_COMPUTE_ENDPOINT_OVERRIDE").or_else(|| text("compute_endpoint_override", &config));
    let default_domain = text("default_domain", &config).or_else(|| env.get("OS_DEFAULT_DOMAIN"));
    let auth = config.auth.get_or_insert_default();
    auth.password = auth.password.take().or_else(|| env.secret("OS_PASSWORD"));
    let image_endpoint = image_endpoint.or_else(|| auth.endpoint.clone().filter(|_| auth.auth_url.is_none()));
    let no_keystone = auth.auth_url.is_none()
        || matches!(config.auth_type.as_deref(), Some("admin_token" | "token_endpoint" | "none"));
    let bare_token = auth.token.clone().filter(|_| no_keystone && image_endpoint.is_some());
    config.auth_type = Some(auth_type(config.auth_type.as_deref(), auth));
    fill_domains(auth, default_domain);
    if config.auth_type.as_deref() == Some("v3applicationcredential") {
        // It has a scope of its own, and Keystone refuses a second one.
        (auth.project_id, auth.project_name, auth.domain_id, auth.domain_name) = (None, None, None, None);
    }
    Chosen {
        label,
        config,
        region,
        interface,
        tls: TlsOptions { cacert, insecure },
        image_endpoint,
        compute_endpoint,
        bare_token,
    }
}

/// The kind of login, where it is said or else by what credentials there are.
fn auth_type(said: Option<&str>, auth: &Auth) -> String {
    match said {
        Some("v3applicationcredential" | "applicationcredential" | "application_credential") => {
            "v3applicationcredential"
        }
        Some("token" | "v3token") => "v3token",
        Some("password" | "v3password") => "v3password",
        Some(other) => other,
        None if auth.application_credential_secret.is_some() => "v3applicationcredential",
        None if auth.password.is_none() && auth.token.is_some() => "v3token",
        None => "v3password",
    }
    .to_owned()
}

/// Names are unique only within a domain; the OpenStack client takes the default one where none is named.
fn fill_domains(auth: &mut Auth, default: Option<String>) {
    let default = default.unwrap_or_else(|| "default".to_owned());
    if auth.username.is_some() && auth.user_domain_id.is_none() && auth.user_domain_name.is_none() {
        auth.user_domain_id =
            auth.domain_id.clone().filter(|_| auth.project_name.is_none()).or_else(|| Some(default.clone()));
    }
    let needs = auth.project_name.is_some() && auth.project_id.is_none();
    if needs && auth.project_domain_id.is_none() && auth.project_domain_name.is_none() {
        auth.project_domain_id = Some(default);
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
