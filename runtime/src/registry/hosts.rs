//! What is special about single registries: where else their repositories are, how their hosts are
//! spoken to, which must not be used at all.
//!
//! rbc's own settings come in by [`Registries::set`] and [`Registries::set_mirrors`]; `containers`
//! adds the rules of registries.conf, `certificates` the folders of certs.d.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    RegistryError, SettingsError,
    certificates::{self, HostCertificates},
    containers::{self, Rule},
    retry::Patience,
};
use crate::image::Reference;

/// Docker Hub's name.
const HUB: &str = "docker.io";
/// The host that serves Docker Hub's API.
const HUB_API: &str = "registry-1.docker.io";

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

/// A host, and perhaps a folder on it, that has what a registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// `host[:port]`.
    pub host: String,
    /// What goes before the name of a repository there; may be empty.
    pub folder: String,
    /// What it is asked for.
    pub serves: Serves,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// Everything.
    #[default]
    All,
    /// Images named by their digest.
    Digests,
    /// Images named by a tag only.
    Tags,
}

impl Mirror {
    /// Reads `host[:port][/folder]`; `None` if it is no such thing.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('/');
        let (host, folder) = text.split_once('/').unwrap_or((text, ""));
        // A host alone is one that `Reference` takes for a host too.
        let name: Reference = format!("{host}/{}x", with_slash(folder)).parse().ok()?;
        (name.domain() == host || host == "index.docker.io").then(|| Self {
            host: host.to_owned(),
            folder: folder.to_owned(),
            serves: Serves::All,
        })
    }

    fn endpoint(&self, rest: &str) -> Endpoint {
        let repository = match (self.folder.as_str(), rest) {
            ("", rest) => rest.to_owned(),
            (folder, "") => folder.to_owned(),
            (folder, rest) => format!("{folder}/{rest}"),
        };
        Endpoint { patience: Patience::Short, ..Endpoint::origin(&self.host, &repository) }
    }

    fn fits(&self, reference: &Reference) -> bool {
        match self.serves {
            Serves::All => true,
            Serves::Digests => reference.digest().is_some(),
            Serves::Tags => reference.digest().is_none(),
        }
    }
}

fn with_slash(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

/// The registries that something is known of.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    hosts: HashMap<String, HostSettings>,
    mirrors: HashMap<String, Vec<Mirror>>,
    /// By registries.conf.
    rules: Vec<Rule>,
    /// Folders with a folder for each host.
    certificate_dirs: Vec<PathBuf>,
}

impl Registries {
    /// Sets how a host (`host[:port]`) is spoken to.
    pub fn set(&mut self, host: &str, settings: HostSettings) {
        self.hosts.insert(host.to_owned(), settings);
    }

    /// Sets the mirrors of a registry, in the order in which they are asked. They go before those of
    /// registries.conf.
    pub fn set_mirrors(&mut self, registry: &str, mirrors: Vec<Mirror>) {
        self.mirrors.insert(registry.to_owned(), mirrors);
    }

    /// Adds what containers' registries.conf says: the files that the environment names.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn add_containers_conf(&mut self) -> Result<(), SettingsError> {
        for file in containers::files() {
            self.add_containers_file(&file)?;
        }
        Ok(())
    }

    /// Adds what one registries.conf says. Of two rules for a prefix the later one counts.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn add_containers_file(&mut self, file: &Path) -> Result<(), SettingsError> {
        for rule in containers::read(file)? {
            for (host, insecure) in rule.hosts() {
                if insecure {
                    self.hosts.entry(host.to_owned()).or_insert_with(|| HostSettings {
                        insecure: true,
                        ..HostSettings::default()
                    });
                }
            }
            self.rules.retain(|other| other.prefix != rule.prefix);
            self.rules.push(rule);
        }
        // The longest prefix is the most special one.
        self.rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Ok(())
    }

    /// Adds a folder like `/etc/docker/certs.d`, with a folder of certificates for each host.
    pub fn add_certificates(&mut self, dir: PathBuf) {
        self.certificate_dirs.push(dir);
    }

    /// How a host is spoken to, apart from certificates.
    pub(super) fn host(&self, host: &str) -> HostSettings {
        self.hosts.get(registry_of(host)).cloned().unwrap_or_default()
    }

    /// The certificates for a host, of the settings and of the folders.
    pub(super) fn certificates(&self, host: &str) -> Result<HostCertificates, SettingsError> {
        let settings = self.host(host);
        let mut found = HostCertificates {
            authorities: settings.authorities,
            client: settings.client_certificate,
        };
        for dir in &self.certificate_dirs {
            found.add(certificates::of_host(&dir.join(registry_of(host)))?);
        }
        Ok(found)
    }

    /// Where a repository may be: mirrors first, the registry itself last.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
        let (domain, path) = (reference.domain(), reference.path());
        let own = self.mirrors.get(domain).map(Vec::as_slice).unwrap_or_default();
        let mut endpoints: Vec<Endpoint> =
            own.iter().filter(|m| m.fits(reference)).map(|mirror| mirror.endpoint(path)).collect();
        let name = reference.name();
        let rule = self.rules.iter().find_map(|rule| Some((rule, rule.rest_of(&name)?)));
        let Some((rule, rest)) = rule else {
            endpoints.push(Endpoint::origin(domain, path));
            return Ok(endpoints);
        };
        if rule.blocked {
            return Err(RegistryError::Blocked {
                what: reference.familiar(),
                file: rule.file.clone(),
            });
        }
        let mirrors = rule.mirrors.iter().filter(|mirror| mirror.fits(reference));
        endpoints.extend(mirrors.map(|mirror| mirror.endpoint(rest)));
        endpoints.push(match &rule.location {
            // Where the registry has moved to is no mirror of it.
            Some(location) => Endpoint { patience: Patience::Long, ..location.endpoint(rest) },
            None => Endpoint::origin(domain, path),
        });
        Ok(endpoints)
    }
}

/// The registry that a host belongs to.
fn registry_of(host: &str) -> &str {
    if host == HUB_API { HUB } else { host }
}

/// One place that a repository may be at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]` of the API.
    pub(super) host: String,
    /// The repository on that host.
    pub(super) repository: String,
    /// The registry's name, for credentials and messages.
    pub(super) domain: String,
    /// How long it is waited for.
    pub(super) patience: Patience,
}

impl Endpoint {
    /// The registry itself.
    pub(super) fn origin(domain: &str, repository: &str) -> Self {
        let host = if domain == HUB { HUB_API } else { domain };
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            domain: domain.to_owned(),
            patience: Patience::Long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(registries: &Registries, name: &str) -> String {
        match registries.endpoints(&name.parse().expect("name")) {
            Ok(endpoints) => {
                let places = endpoints.iter().map(|e| format!("{}/{}", e.host, e.repository));
                places.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn mirrors_go_before_the_registry() {
        let mut registries = Registries::default();
        let mirrors = ["mirror:5000", "harbor.example/hub/"].map(|m| Mirror::parse(m).expect(m));
        registries.set_mirrors("docker.io", mirrors.to_vec());
        assert_eq!(
            shown(&registries, "alpine"),
            "mirror:5000/library/alpine harbor.example/hub/library/alpine \
             registry-1.docker.io/library/alpine"
        );
        assert_eq!(shown(&registries, "ghcr.io/a/b"), "ghcr.io/a/b");
        for wrong in ["", "team", "a b", "h.x//y", "h.x/Y"] {
            assert_eq!(Mirror::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rules_of_containers_move_and_block_prefixes() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("registries.conf");
        let text = r#"
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "cache.example/hub"
[[registry]]
prefix = "docker.io/library"
location = "official.example/images"
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.bad.example"
blocked = true
[[registry]]
prefix = "plain.example"
location = "plain.example"
insecure = true
"#;
        std::fs::write(&file, text).expect("write");
        let mut registries = Registries::default();
        registries.add_containers_file(&file).expect("read");
        let digest = format!("alpine@{}", rbc_ir::Digest::of(b"x"));
        let lines = [
            shown(&registries, "alpine"),
            shown(&registries, &digest),
            shown(&registries, "me/app"),
            shown(&registries, "x.bad.example/a"),
            shown(&registries, "bad.example/a"),
        ]
        .join("\n")
        .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(lines, @r"
        official.example/images/alpine
        digests.example/alpine official.example/images/alpine
        cache.example/hub/me/app registry-1.docker.io/me/app
        x.bad.example/a:latest: DIR/registries.conf blocks its registry
        bad.example/a
        ");
        assert!(registries.host("plain.example").insecure);
        assert!(!registries.host("cache.example").insecure);
    }
}
