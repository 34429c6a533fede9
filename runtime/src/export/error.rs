//! Why an output cannot be written.

use std::{io, path::PathBuf};

use rbc_ir::Digest;

use crate::{image::ImageError, store::StoreError, tree::TreeError};

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The destination of an archive is a folder.
    #[error("cannot write {}: it is a folder", .0.display())]
    IsFolder(PathBuf),
    /// An archive would go to a person's screen.
    #[error("standard output is a terminal: give a file with dest=FILE, or redirect the output")]
    Terminal,
    /// A folder cannot be written to a pipe.
    #[error("a folder cannot be written to standard output: give dest=DIR")]
    FolderToStdout,
    /// A Docker archive holds one platform only.
    #[error("type=docker cannot hold several platforms: use type=oci, or give one --platform")]
    OnePlatformOnly,
    /// What was asked for holds no statements about its image.
    #[error("{0} cannot hold attestations: leave it out, or --provenance and --sbom")]
    NoAttestations(&'static str),
    /// Annotations of an index for an image of one platform.
    #[error(
        "annotations of the index need an index, which an image for one platform does not have: \
         annotate the manifest, or give several platforms"
    )]
    NoIndex,
    /// Several platforms would be written over each other.
    #[error("several platforms cannot share one folder: leave out platform-split=false")]
    PlatformsMix,
    /// A base layer's blob is gone.
    #[error(
        "the blob {blob} of a base image's layer is no longer in the store: load or pull the image \
         again"
    )]
    BaseLayerGone {
        /// The blob.
        blob: Digest,
    },
    /// A layer cannot be packed.
    #[error("cannot pack layer {layer}: {reason}")]
    Layer {
        /// The layer.
        layer: String,
        /// What failed.
        reason: String,
    },
    /// A stored blob is not what its name says.
    #[error("blob {want} in the store is damaged: its content has the digest {got}")]
    Damaged {
        /// The name.
        want: Digest,
        /// What it is.
        got: Digest,
    },
    /// An image time is out of range.
    #[error("SOURCE_DATE_EPOCH {0} is not a time that an image can have")]
    Epoch(i64),
    /// The user stopped it.
    #[error("cancelled")]
    Stopped,
    /// The files cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// An image in the store cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The state folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ExportError {
    /// For `map_err` on writes.
    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}
