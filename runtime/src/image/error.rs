//! What can be wrong with an image.

use std::{io, path::PathBuf};

use rbc_ir::{Digest, Platform};

use super::ReferenceError;

/// Why an image cannot be read, stored or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A name is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A manifest or index cannot be understood.
    #[error("manifest {digest}: {reason}")]
    BadManifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// An image config cannot be understood.
    #[error("image config {digest}: {reason}")]
    BadConfig {
        /// The config.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// Content is not what its digest says.
    #[error("blob {want} is damaged: its content has the digest {got}")]
    WrongDigest {
        /// The digest it is known by.
        want: Digest,
        /// The digest it has.
        got: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("blob {digest} has {got} bytes, its descriptor says {want}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Bytes as described.
        want: u64,
        /// Bytes there are (or read until it was clear).
        got: u64,
    },
    /// A document is larger than rbc reads.
    #[error("blob {digest} of {size} bytes is larger than the limit of {limit} for its kind")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size by its descriptor.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something refers to a blob that is not there.
    #[error("blob {digest} is missing")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// Manifest and config disagree on the number of layers.
    #[error("manifest {manifest} lists {layers} layers, but its config has {diff_ids} diff IDs")]
    LayerCount {
        /// The manifest.
        manifest: Digest,
        /// Layers of the manifest.
        layers: usize,
        /// Diff IDs of the config.
        diff_ids: usize,
    },
    /// An unpacked layer is not what the config says.
    #[error("layer {blob} unpacks to the diff ID {got}, but the image config says {want}")]
    WrongDiffId {
        /// The layer's blob.
        blob: Digest,
        /// By the config.
        want: Digest,
        /// What it is.
        got: Digest,
    },
    /// An index holds nothing for the platform.
    #[error("{name}: no image for {wanted}; there is {offered}")]
    NoPlatform {
        /// What was looked up.
        name: String,
        /// What was asked for.
        wanted: Platform,
        /// What the index lists.
        offered: String,
    },
    /// Indexes in indexes in indexes.
    #[error("{name}: its indexes are nested too deeply")]
    TooNested {
        /// What was looked up.
        name: String,
    },
    /// The store has no such image.
    #[error("{name}: no such image in the local store")]
    NoSuchImage {
        /// What was looked up.
        name: String,
    },
    /// A short identifier fits several images.
    #[error("{id}: several images begin with this identifier; give more digits")]
    Ambiguous {
        /// What was given.
        id: String,
    },
    /// An image archive is damaged or of an unknown kind.
    #[error("{archive}: {reason}")]
    Archive {
        /// The file or folder.
        archive: String,
        /// What is wrong.
        reason: String,
    },
    /// A layer cannot be read or written.
    #[error("layer {blob}: {reason}")]
    Layer {
        /// The layer's blob or diff ID.
        blob: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The state folder fails.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A registry could not be read.
    #[error(transparent)]
    Remote(Box<crate::registry::RegistryError>),
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
