//! Who we are to a registry: the credential files of Docker and Podman.
//!
//! [`CredentialFiles`] knows where the files are, `file` reads and edits one of them, `helper` talks
//! to the programs that keep secrets elsewhere. Files are read when a registry asks who is there,
//! not before, so a build without a registry never starts a helper.

mod file;
mod helper;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

pub use file::{CredentialFile, Kept};

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A user name and a password, or a token in place of the password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token (`identitytoken`), exchanged at the registry's token service.
    IdentityToken(String),
    /// A bearer token (`registrytoken`), sent as it is.
    RegistryToken(String),
}

/// Never shows what is secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password of {user:?}"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

impl Secret {
    /// Who it is, for messages.
    pub(super) fn who(&self) -> String {
        match self {
            Self::Password { user, .. } => format!("user {user:?}"),
            Self::IdentityToken(_) | Self::RegistryToken(_) => "the owner of a token".to_owned(),
        }
    }
}

/// A secret and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The secret.
    pub secret: Secret,
    /// The file or helper it comes from, for messages; may be empty.
    pub origin: String,
}

/// Why credentials cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file cannot be read or written.
    #[error("cannot {doing} the credentials in {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("cannot read the credentials in {}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A helper cannot be used.
    #[error("the credential helper {program}, which {} names, {reason}", path.display())]
    Helper {
        /// Name of the program.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no place for the file.
    #[error("HOME is not set: say with REGISTRY_AUTH_FILE where credentials are kept")]
    NoHome,
}

/// The credential files of this user, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    files: Vec<CredentialFile>,
}

impl CredentialFiles {
    /// No files: every registry is asked anonymously.
    pub fn none() -> Self {
        Self::default()
    }

    /// The files that the environment names.
    ///
    /// `REGISTRY_AUTH_FILE` goes first, then Docker's `$DOCKER_CONFIG/config.json` (else
    /// `~/.docker/config.json`), then Podman's `$XDG_RUNTIME_DIR/containers/auth.json` (else below
    /// `/run/containers/UID`) and `$XDG_CONFIG_HOME/containers/auth.json` (else below
    /// `~/.config`). The first one with something for the repository counts.
    pub fn from_environment() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::named_by(&|name| std::env::var_os(name), uid)
    }

    fn named_by(variable: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let path = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let in_home = |place: &str| home.as_ref().map(|home| home.join(place));
        let mut files = Vec::new();
        files.extend(path("REGISTRY_AUTH_FILE").map(CredentialFile::podman));
        files.extend(docker_config(&path).map(CredentialFile::docker));
        files.push(match path("XDG_RUNTIME_DIR") {
            Some(dir) => CredentialFile::podman(dir.join("containers/auth.json")),
            None => CredentialFile::podman(format!("/run/containers/{uid}/auth.json").into()),
        });
        let config = path("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
        files.extend(config.map(|dir| CredentialFile::podman(dir.join("containers/auth.json"))));
        let named = usize::from(path("REGISTRY_AUTH_FILE").is_some());
        let implied = files.split_off(named + usize::from(path("DOCKER_CONFIG").is_some()));
        // What nobody named may belong to somebody else, as a home folder does after `sudo -u`.
        files.extend(implied.into_iter().map(CredentialFile::unreadable_is_absent));
        Self { files }
    }

    /// Only this file, in Podman's form if it is called `auth.json` and in Docker's otherwise.
    pub fn only(path: PathBuf) -> Self {
        Self { files: vec![CredentialFile::by_name(path)] }
    }

    /// The file that `login` writes: `REGISTRY_AUTH_FILE`, else Docker's.
    ///
    /// # Errors
    /// If the environment does not say where that is.
    pub fn for_login() -> Result<CredentialFile, CredentialError> {
        let path = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        match path("REGISTRY_AUTH_FILE") {
            Some(file) => Ok(CredentialFile::podman(file)),
            None => docker_config(&path).map(CredentialFile::docker).ok_or(CredentialError::NoHome),
        }
    }

    /// All files, in the order in which they are asked.
    pub fn files(&self) -> &[CredentialFile] {
        &self.files
    }

    /// What to tell the registry `domain` (`docker.io`, `localhost:5000`) about its repository
    /// `path`. `None` if no file has anything for it.
    ///
    /// # Errors
    /// If a file exists but cannot be read, or a helper fails.
    pub fn find(&self, domain: &str, path: &str) -> Result<Option<Credentials>, CredentialError> {
        for file in &self.files {
            if let Some(found) = file.find(domain, path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn docker_config(path: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let dir = path("DOCKER_CONFIG").or_else(|| Some(path("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

fn malformed(path: &Path, reason: impl fmt::Display) -> CredentialError {
    CredentialError::Malformed { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_files() {
        let files = |pairs: &[(&str, &str)]| {
            let lookup = |name: &str| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            let files = CredentialFiles::named_by(&lookup, 1000);
            let paths: Vec<String> =
                files.files().iter().map(|file| file.path().display().to_string()).collect();
            paths.join(" ")
        };
        let all = [
            ("HOME", "/h"),
            ("DOCKER_CONFIG", "/d"),
            ("REGISTRY_AUTH_FILE", "/r.json"),
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("XDG_CONFIG_HOME", "/c"),
        ];
        assert_eq!(
            files(&all),
            "/r.json /d/config.json /run/u/containers/auth.json /c/containers/auth.json"
        );
        assert_eq!(
            files(&[("HOME", "/h"), ("DOCKER_CONFIG", "")]),
            "/h/.docker/config.json /run/containers/1000/auth.json /h/.config/containers/auth.json"
        );
        assert_eq!(files(&[]), "/run/containers/1000/auth.json");
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::Password { user: "bob".to_owned(), password: "hush".to_owned() };
        assert_eq!(format!("{secret:?}"), "Password of \"bob\"");
    }
}
