//! Certificates by host, as Docker and Podman keep them: `certs.d/HOST[:PORT]/` with authorities in
//! `*.crt` and ours in `*.cert` beside `*.key` (containers-certs.d(5)).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{SettingsError, containers::is_absent};

/// What proves a host to us and us to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostCertificates {
    /// Files with certificate authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// Our certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl HostCertificates {
    /// Adds others; a client certificate that is there already stays.
    pub(super) fn add(&mut self, other: Self) {
        self.authorities.extend(other.authorities);
        self.client = self.client.take().or(other.client);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.client.is_none()
    }
}

/// The certificates in a host's folder, which need not exist.
pub(super) fn of_host(dir: &Path) -> Result<HostCertificates, SettingsError> {
    let failed = |source| SettingsError::Io { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(HostCertificates::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let mut found = HostCertificates::default();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.push(path),
            Some("cert") if found.client.is_none() => {
                let key = path.with_extension("key");
                if !key.exists() {
                    return Err(SettingsError::NoKey { certificate: path, key });
                }
                found.client = Some((path, key));
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_hosts_are_read() {
        let dir = tempfile::tempdir().expect("folder");
        let write = |name: &str| fs::write(dir.path().join(name), "").expect("write");
        assert!(of_host(&dir.path().join("none")).expect("absent").is_empty());
        for name in ["b.crt", "a.crt", "me.cert", "readme"] {
            write(name);
        }
        let error = of_host(dir.path()).expect_err("no key").to_string();
        assert!(error.ends_with("me.cert: its key me.key is missing"), "{error}");
        write("me.key");
        let found = of_host(dir.path()).expect("read");
        let path = |name: &str| dir.path().join(name);
        assert_eq!(found.authorities, [path("a.crt"), path("b.crt")]);
        assert_eq!(found.client, Some((path("me.cert"), path("me.key"))));
    }
}
