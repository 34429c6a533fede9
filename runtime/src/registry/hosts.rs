//! What is special about single hosts: plain HTTP, certificates.

use std::{collections::HashMap, path::PathBuf};

/// How a host is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Without TLS.
    pub plain_http: bool,
    /// With TLS whoever the host is, and without TLS where it has none.
    pub insecure: bool,
    /// Files with further certificate authorities, in PEM form.
    pub authorities: Vec<PathBuf>,
    /// Our certificate and its key, in PEM form.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The registries that something is known of.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    hosts: HashMap<String, HostSettings>,
}

impl Registries {
    /// Sets how a host (`host[:port]`) is spoken to.
    pub fn set(&mut self, host: &str, settings: HostSettings) {
        self.hosts.insert(host.to_owned(), settings);
    }

    /// How a host is spoken to.
    pub fn host(&self, host: &str) -> HostSettings {
        let name = if host == HUB_API { HUB } else { host };
        self.hosts.get(name).cloned().unwrap_or_default()
    }
}

/// Docker Hub's name.
const HUB: &str = "docker.io";
/// The host that serves Docker Hub's API.
const HUB_API: &str = "registry-1.docker.io";

/// One place that a repository may be at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]` of the API.
    pub(super) host: String,
    /// The repository on that host.
    pub(super) repository: String,
    /// The registry's name, for credentials and messages.
    pub(super) domain: String,
}

impl Endpoint {
    /// The registry itself.
    pub(super) fn origin(domain: &str, repository: &str) -> Self {
        let host = if domain == HUB { HUB_API } else { domain };
        Self { host: host.to_owned(), repository: repository.to_owned(), domain: domain.to_owned() }
    }
}
