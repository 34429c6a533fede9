//! File trees that a build reads from: the merged view of a stack of layers and the build context.
//!
//! Both are read in user space through [`SourceTree`], without mounting anything. On top of it,
//! [`select`] finds what the source of a COPY means, [`walk`] lists what is below it, and
//! [`selection_digest`] pins it by content. [`crate::fileop`] copies what was selected.
//!
//! Paths inside a tree are relative, clean (no `.`, `..` or doubled slashes) and need not be UTF-8;
//! the empty path is the root. Symlinks are resolved here, against the root of the tree, and never
//! by the kernel, so no link can lead out of a tree.

mod context;
mod digest;
mod entry;
#[cfg(test)]
pub(crate) mod fixture;
mod index;
mod layers;
mod path;
mod same;
mod select;
mod walk;

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use context::ContextTree;
pub use digest::{ContentHashes, ItemContent, NoHashes, SelectedPart, selection_digest};
pub(crate) use digest::{content_digest, is_unchanged, selection_listing};
pub use entry::{Entry, Kind, Xattrs};
pub(crate) use entry::{is_kept, read_xattrs, read_xattrs_of};
pub use index::StatIndex;
pub use layers::LayerStack;
pub(crate) use layers::mark_opaque;
pub use path::{LastLink, clean, resolve};
pub(crate) use same::{Names, same_bytes, same_selection};
pub use select::{Selected, select};
pub(crate) use select::{Wildcards, expand, has_wildcards, pivots, sources, split_pivot};
pub use walk::{Filter, Role, Walk, WalkItem, walk};

use rbc_ir::pattern::BadPattern;

/// The entries of a folder, sorted by the bytes of their names.
pub type Entries = Arc<Vec<(OsString, Entry)>>;

/// A tree of files that can be read by path. Implementations never follow a symlink themselves:
/// a path that leads through one, or through anything else that is no folder, names nothing.
pub trait SourceTree: Sync {
    /// What `path` names, if anything.
    fn lookup(&self, path: &Path) -> Result<Option<Entry>, TreeError>;

    /// The entries of the folder `path`.
    fn read_dir(&self, path: &Path) -> Result<Entries, TreeError>;

    /// Opens the regular file `path` for reading. `entry` is what was listed for it; a file that no
    /// longer agrees with it is [`TreeError::Changed`].
    fn open(&self, path: &Path, entry: &Entry) -> Result<File, TreeError>;

    /// The target of the symlink `path`, as it is written.
    fn read_link(&self, path: &Path, entry: &Entry) -> Result<PathBuf, TreeError>;

    /// The extended attributes of a file or folder that a copy keeps, sorted by name.
    fn xattrs(&self, path: &Path, entry: &Entry) -> Result<Xattrs, TreeError>;

    /// The file on the host that holds the regular file `path`, if it will never change and may
    /// therefore be hard-linked instead of copied.
    fn immutable_file(&self, path: &Path, entry: &Entry) -> Option<PathBuf>;

    /// Why `path` is missing although the user may see a file there, as a remark for an error.
    fn why_missing(&self, path: &Path) -> Option<String> {
        let _ = path;
        None
    }
}

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The named path is not there. Holds the path with a leading slash and a remark or nothing.
    #[error("{0:?}: not found{1}")]
    NotFound(PathBuf, String),
    /// A path leads through something that is no folder.
    #[error("{0:?}: not a directory")]
    NotADirectory(PathBuf),
    /// Symlinks point at each other.
    #[error("{0:?}: too many levels of symbolic links")]
    LinkLoop(PathBuf),
    /// A pattern cannot be read.
    #[error("{0}")]
    Pattern(#[from] BadPattern),
    /// A file was changed while the build was reading it.
    #[error("{0:?} changed while it was being read; run the build again")]
    Changed(PathBuf),
    /// The operating system refused something.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
}

impl TreeError {
    /// The given path of a tree as users see it: with a leading slash.
    pub(crate) fn shown(path: &Path) -> PathBuf {
        Path::new("/").join(path)
    }

    /// An error of the operating system about a path inside a tree.
    pub(crate) fn io(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Io(Self::shown(path), error.into())
    }
}
