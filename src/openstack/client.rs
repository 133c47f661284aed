//! The HTTP client: takes the options of trust and an address, gives a client that suits both; holds the
//! certificates of a CA file.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Url};

use super::TlsOptions;
use crate::error::{Error, Kind, Result, Stage};

/// How long a connection may take to come about.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether connections are used again. uWSGI closes each one after its answer without saying so; whoever
/// is quick sends the next request into the closing one. A GET is then simply repeated by hyper, but a
/// body that was begun, or a request that must not happen twice, is lost. So only downloads reuse them,
/// where a range after a range saves the handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    Yes,
    No,
}

/// What tells the clients of a runtime apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    reuse: Reuse,
    /// Without TLS.
    plain: bool,
    /// On this machine.
    near: bool,
}

/// Whom to trust, with the files already read.
pub(super) struct Tls {
    /// The certificates of a CA file; trusted beside the system's.
    authorities: Option<Vec<Certificate>>,
    pub(super) insecure: bool,
}

impl Tls {
    /// Reads the CA file.
    pub(super) fn load(options: &TlsOptions, stage: Stage) -> Result<Self> {
        let authorities = options.cacert.as_deref().map(|path| read_authorities(path, stage)).transpose()?;
        Ok(Self { authorities, insecure: options.insecure })
    }

    /// A client for servers like `url`: HTTP/1 only (one stream per connection is what ranges and
    /// flow control want), no total timeout.
    pub(super) fn client(&self, url: &Url, reuse: Reuse, stage: Stage) -> Result<Client> {
        let idle = if reuse == Reuse::Yes { usize::MAX } else { 0 };
        let mut builder = Client::builder()
            .user_agent(concat!("snapcow/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_gzip()
            .no_deflate()
            .no_brotli()
            .no_zstd()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            // Glance's servers drop idle connections after 2 to 75 s; a shorter life avoids the race.
            .pool_idle_timeout(Duration::from_secs(2))
            .pool_max_idle_per_host(idle);
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        if self.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if url.scheme() == "http" {
            // Plain HTTP needs no trust store, and a machine without one must not fail here.
            builder = builder.tls_certs_only([]);
        } else if let Some(authorities) = &self.authorities {
            builder = builder.tls_certs_merge(authorities.iter().cloned());
        }
        builder.build().map_err(|error| {
            Error::new(stage, Kind::Local, "set up the HTTP client")
                .because(error)
                .advise("install the system's CA certificates, or give --os-cacert FILE")
        })
    }
}

fn read_authorities(path: &Path, stage: Stage) -> Result<Vec<Certificate>> {
    let wrong = |cause: Box<dyn StdError + Send + Sync>| {
        Error::new(stage, Kind::Local, format!("read the CA certificates of `{}`", path.display()))
            .because(cause)
            .advise("give a file in PEM form by --os-cacert or `cacert`")
    };
    let pem = std::fs::read(path).map_err(|error| wrong(error.into()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.into()))?;
    if found.is_empty() { Err(wrong("no certificate in it".into())) } else { Ok(found) }
}

impl Way {
    pub(super) fn to(url: &Url, reuse: Reuse) -> Self {
        Self { reuse, plain: url.scheme() == "http", near: is_loopback(url) }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_proxy() {
        for (url, local) in [
            ("http://127.0.0.1:9292", true),
            ("http://[::1]/", true),
            ("http://localhost/x", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), local, "{url}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = TlsOptions { cacert: Some(file.path().to_owned()), insecure: false };
        let error = Tls::load(&options, Stage::Source).err().unwrap();
        assert_eq!(error.kind(), Kind::Local);
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
