//! Layers: folders in overlayfs upper format on one side, OCI layer tars on the other.
//!
//! [`apply_tar`] makes a folder of a tar, [`write_tar`] a tar of a folder, [`Packer`] compresses it
//! on the way, and [`commit`] finishes a folder that a step has filled. Both directions are
//! deterministic: the same folder gives the same bytes, whatever the order of its entries on disk
//! and the number of threads.
//!
//! The folders follow overlayfs with the option `userxattr`: a whiteout is a character device 0:0,
//! an opaque folder has the attribute `user.overlay.opaque=y`.

mod apply;
mod commit;
mod header;
pub mod owner;
mod pack;
mod same;
mod survey;
mod usage;
mod write;

use std::{
    io,
    path::{Path, PathBuf},
};

use rbc_ir::Digest;

pub(crate) use apply::apply_tar_within;
pub use apply::{Applied, apply_tar};
pub use commit::{Size, Started, commit};
pub(crate) use header::{BLOCK, Head};
pub use pack::{Packed, Packer, Packing, Recipe};
pub(crate) use same::same_layer;
pub use survey::{Duplicate, LayerSurvey, Lost, Survey, shown, survey, survey_one};
pub use usage::{SharedFile, Usage};
pub use write::{TarOptions, write_tar};

use crate::archive::ArchiveError;

/// Nanoseconds that mark the mtime of what a build itself made. Such entries get the image's time
/// in layer tars, since the time of the run differs from run to run; their seconds stay, so that
/// tools that compare times (`make`) work in later steps.
pub const MADE_NSEC: u32 = 987_654_321;

/// The time of an image without `SOURCE_DATE_EPOCH`, in seconds since the epoch: 1980-02-01, since
/// zip archives know no year before 1980 in any time zone.
pub const DEFAULT_EPOCH: i64 = 318_211_200;

/// Marks an opaque folder.
const OPAQUE: &str = "user.overlay.opaque";

/// Holds the capabilities that a program has without being root.
const CAPABILITY: &str = "security.capability";

/// Why a layer cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A file of a layer cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tar cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The tar cannot be written to where it goes.
    #[error("cannot write the layer: {0}")]
    Output(#[source] io::Error),
    /// An entry of the tar cannot be a file of a layer.
    #[error("layer entry {path:?}: {reason}")]
    BadEntry {
        /// Name of the entry.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not what the image config says.
    #[error("layer has diff ID {actual}, but the image config says {expected}")]
    WrongDiffId {
        /// By the config.
        expected: Digest,
        /// Of the content.
        actual: Digest,
    },
}

impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Io { source, .. } => source,
            other => Self::other(other),
        }
    }
}

impl LayerError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn os(path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |errno| Self::Io { path, source: errno.into() }
    }
}

#[cfg(test)]
mod tests;
