//! Carries out COPY, ADD and the other file operations of a graph.
//!
//! The result is a layer in overlayfs format, written straight into its folder without any mount:
//! `target` is the base with the changes so far, `copy` and `unpack` decide what goes where
//! as BuildKit does, `data` moves the bytes.

mod copy;
mod data;
mod lineage;
mod mode;
mod owner;
mod simple;
mod target;
#[cfg(test)]
mod tests;
mod unpack;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use lineage::{Copied, Lineage};
use rbc_ir::{FileAction, FileOp};

use crate::tree::{LayerStack, SourceTree, TreeError};
use target::Target;

/// How [`run`] works.
#[derive(Clone, Copy, Default)]
pub struct FileOpOptions<'a> {
    /// What happens to files that are copied unchanged from a layer.
    pub sharing: Sharing,
    /// What the same operation made before.
    pub lineage: Option<&'a Lineage<'a>>,
}

/// Whether layers share files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// A file of a layer that is copied with all its facts becomes a hard link, where the file
    /// system allows it.
    #[default]
    HardLink,
    /// All data is copied.
    Copy,
}

/// Why a file operation fails. The texts of the first few are BuildKit's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileOpError {
    /// A source or the base cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A folder is needed where something else is.
    #[error("mkdir {}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A folder of the source meets something else.
    #[error("cannot copy to non-directory: {}", .0.display())]
    OntoNonDirectory(PathBuf),
    /// A file of the source meets a folder.
    #[error("cannot replace to directory {} with file", .0.display())]
    OntoDirectory(PathBuf),
    /// A path that has to exist does not.
    #[error("{}: no such file or directory", .0.display())]
    Missing(PathBuf),
    /// A name has to be looked up in a stage without files.
    #[error("invalid user index: {0:?} cannot be looked up in an empty stage; use a number")]
    NoUsers(String),
    /// `--chmod` has a value that is no mode.
    #[error(
        "invalid chmod parameter: '{0}'. it should be octal, such as 0755, or symbolic, such as u=rwX,go=rX"
    )]
    BadMode(String),
    /// An action names an input that the node does not have.
    #[error("the operation has no input {0}")]
    NoInput(u32),
    /// The operating system refuses to make or change a path of the result.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// An archive cannot be unpacked.
    #[error("cannot unpack {}: {}", .0.display(), .1)]
    Archive(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Carries out the actions of `op` one after the other and leaves the changes in `upper`, an empty
/// folder that becomes an overlayfs upper directory (`userxattr` convention).
///
/// `base` is input 0. `inputs` are the trees by input index; at 0 there may be none, as it is the
/// base. Folders that are made and files that are written without a source keep the current time as
/// their mtime; the commit of the layer marks these.
pub fn run(
    op: &FileOp,
    base: &LayerStack,
    inputs: &[Option<&dyn SourceTree>],
    upper: &Path,
    opts: &FileOpOptions<'_>,
) -> Result<(), FileOpError> {
    let mut target = Target::new(base, upper)?;
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => {
                let given = usize::try_from(copy.input)
                    .ok()
                    .and_then(|input| inputs.get(input).copied().flatten());
                let source = match given {
                    Some(source) => source,
                    None if copy.input == 0 => base,
                    None => return Err(FileOpError::NoInput(copy.input)),
                };
                copy::run(&mut target, source, copy, opts)?;
            }
            FileAction::Mkdir(mkdir) => simple::mkdir(&mut target, mkdir)?,
            FileAction::Mkfile(mkfile) => simple::mkfile(&mut target, mkfile)?,
            FileAction::Remove(remove) => simple::remove(&mut target, remove)?,
            FileAction::Symlink(symlink) => simple::symlink(&mut target, symlink)?,
        }
    }
    target.finish()
}
