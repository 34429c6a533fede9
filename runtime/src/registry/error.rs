//! What can go wrong between rbc and a registry.

use std::{io, path::PathBuf, time::Duration};

use super::CredentialError;
use crate::image::ImageError;

/// Why something could not be pulled or pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry has no such manifest or blob.
    #[error("{what}: not found{}", said(.message))]
    NotFound {
        /// Reference or blob.
        what: String,
        /// What the registry said; may be empty.
        message: String,
    },
    /// The registry does not let us.
    #[error(transparent)]
    Denied(Box<Denial>),
    /// Another answer than the wanted one.
    #[error("{what}: {host} answered {status}{}{}", said(.message), asked_back(.retry_after))]
    Status {
        /// Reference or blob.
        what: String,
        /// The registry.
        host: String,
        /// HTTP status code with its meaning.
        status: String,
        /// What the registry said; may be empty.
        message: String,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
        /// Whether it may work later.
        temporary: bool,
    },
    /// No answer at all.
    #[error("{what}: cannot reach {host}: {reason}")]
    Unreachable {
        /// Reference or blob.
        what: String,
        /// The registry.
        host: String,
        /// What failed.
        reason: String,
        /// Whether it may work later.
        temporary: bool,
    },
    /// The connection broke while a blob or manifest was read.
    #[error("{what}: the connection to {host} broke off: {reason}")]
    Broken {
        /// Reference or blob.
        what: String,
        /// The registry.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The answer makes no sense.
    #[error("{what}: {reason}")]
    Protocol {
        /// Reference or blob.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What arrived is no image, or not the right one.
    #[error("{what}: {source}")]
    Image {
        /// Reference.
        what: String,
        /// What is wrong.
        source: Box<ImageError>,
    },
    /// Credentials cannot be had.
    #[error("{what}: {source}")]
    Credentials {
        /// Reference or registry.
        what: String,
        /// What is wrong.
        source: Box<CredentialError>,
    },
    /// A file of this machine cannot be used.
    #[error("{what}: cannot read {}: {source}", path.display())]
    Local {
        /// Reference or registry.
        what: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A part of what is to be pushed is not here.
    #[error("{what}: the local store lacks {part} of this image: load or pull it whole")]
    Incomplete {
        /// Reference.
        what: String,
        /// The part.
        part: String,
    },
    /// The settings cannot be used.
    #[error("{what}: {source}")]
    Settings {
        /// Reference or registry.
        what: String,
        /// What is wrong.
        source: Box<SettingsError>,
    },
    /// The settings forbid it.
    #[error("{what}: {} blocks its registry", file.display())]
    Blocked {
        /// Reference.
        what: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// Neither a mirror nor the registry works.
    #[error("{last} (before that: {})", mirrors.join("; "))]
    Everywhere {
        /// What happened at the registry.
        last: Box<RegistryError>,
        /// What happened at its mirrors.
        mirrors: Vec<String>,
    },
    /// The user wants everything to end.
    #[error("cancelled")]
    Stopped,
}

/// Why settings of registries cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A certificate without its key.
    #[error(
        "{}: its key {} is missing",
        certificate.display(), key.file_name().unwrap_or_default().display()
    )]
    NoKey {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
}

/// Who was not let in where.
#[derive(Debug, thiserror::Error)]
#[error("{what}: access denied by {host}{}{}", asked_as(.who, .domain), said(.message))]
pub struct Denial {
    /// Reference or blob.
    pub what: String,
    /// The registry or its token service.
    pub host: String,
    /// The registry's name, for `rbc login`.
    pub domain: String,
    /// As whom we asked; `None` if anonymously.
    pub who: Option<String>,
    /// What the registry said; may be empty.
    pub message: String,
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// When to come back, if that is longer than anybody waits for. Whole units, rounded up.
fn asked_back(wait: &Option<Duration>) -> String {
    let seconds = wait.map_or(0, |wait| wait.as_secs());
    let (amount, unit) = match seconds {
        0..60 => return String::new(),
        60..3600 => (seconds.div_ceil(60), "minutes"),
        _ => (seconds.div_ceil(3600), "hours"),
    };
    format!(" (it wants to be asked again in {amount} {unit})")
}

fn asked_as(who: &Option<String>, domain: &str) -> String {
    match who {
        Some(who) => format!(" to {who}"),
        None => {
            format!(": it does not exist, or needs authentication (`rbc login {domain}`)")
        }
    }
}

impl RegistryError {
    /// Whether trying again may help.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Status { temporary, .. } | Self::Unreachable { temporary, .. } => *temporary,
            Self::Broken { .. } => true,
            _ => false,
        }
    }

    /// How long the registry asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
