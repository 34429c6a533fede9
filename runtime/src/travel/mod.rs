//! The cache on its way to another state folder: in an OCI layout, in a registry, or in an image.
//!
//! `format` says what travels (ARCHITECTURE.md, "The cache on its way", states it for others).
//! `gather` chooses the results of a build or of the whole store, `pack` makes blobs of their layers
//! and a manifest of all, `put` writes that somewhere. The other way round, `open` reads what
//! somebody else has written, and [`Imports`] offers it to a build, which fetches only the layers of
//! the results that it takes. `mounts` does the same for cache mounts.
//!
//! What is imported is a stranger's: names, numbers and digests are checked before they are used, a
//! layer is published only after the digests of its blob and of its tar were found right, and a
//! result whose layers cannot be had is as if it were not there.

mod format;
mod gather;
mod imports;
mod mounts;
mod open;
mod pack;
mod put;
mod spec;
mod times;

pub(crate) use format::IMAGE_KEY;
pub use gather::{Gathered, Mode, of_build, of_store};
pub(crate) use imports::Fetching;
pub use imports::{Imported, Imports, Offer, import_all};
pub use mounts::import_mounts;
pub use open::Travelled;
pub use pack::{Contents, Mounts, PackOptions, Packed, inline, pack};
pub use put::{put_layout, put_registry};
pub use spec::{CacheFrom, CacheSpecError, CacheTo, ExportPlace, FromPlace, ToPlace};

use crate::{
    export::ExportError, image::ImageError, layer::LayerError, registry::RegistryError,
    store::StoreError,
};

/// Why a cache cannot be taken along.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TravelError {
    /// What was read is no cache of rbc's, or a damaged one.
    #[error("{what}: {reason}")]
    Bad {
        /// Where it is.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no cache mount with this id.
    #[error("there is no cache mount {id:?}{}", listed(.known))]
    NoMount {
        /// What was asked for.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A cache that was read has lost a layer since then, and it cannot be written with what is
    /// packed. Packing again leaves it out.
    #[error("{what} has lost layers while it was used")]
    Lost {
        /// Where it was.
        what: String,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Stopped,
    /// A blob or manifest cannot be read or written.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// A registry does not do what it should.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// A layer cannot be made or read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Blobs or an archive cannot be made.
    #[error(transparent)]
    Export(Box<ExportError>),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(ids: &[String]) -> String {
    match ids {
        [] => ": there are none".to_owned(),
        ids => format!(": there are {}", ids.join(", ")),
    }
}

impl From<ImageError> for TravelError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<RegistryError> for TravelError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Stopped => Self::Stopped,
            other => Self::Registry(Box::new(other)),
        }
    }
}

impl From<ExportError> for TravelError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Stopped => Self::Stopped,
            other => Self::Export(Box::new(other)),
        }
    }
}
