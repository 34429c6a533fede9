//! What can go wrong between rbc and a registry.

use std::time::Duration;

use crate::image::ImageError;

/// Why something could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry has no such manifest or blob.
    #[error("{what}: not found{}", said(.message))]
    NotFound {
        /// Reference or blob.
        what: String,
        /// What the registry said; may be empty.
        message: String,
    },
    /// The registry wants to know who asks.
    #[error(
        "{what}: pull access denied, the repository does not exist or needs authentication, which \
         rbc cannot give yet{}", said(.message)
    )]
    Denied {
        /// Reference or blob.
        what: String,
        /// What the registry said; may be empty.
        message: String,
    },
    /// Another answer than the wanted one.
    #[error("{what}: {host} answered {status}{}", said(.message))]
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
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
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
}
