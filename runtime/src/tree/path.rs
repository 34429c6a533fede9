//! Paths inside a tree: cleaning, and resolving symlinks against the root of the tree.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use super::{Kind, SourceTree, TreeError};

/// As many links as the kernel follows before it gives up would be 40; BuildKit allows 255.
const MAX_LINKS: u32 = 255;

/// What to do with a symlink that is the last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// Follow it.
    Follow,
    /// Take the link itself.
    Keep,
}

/// The path without `.`, `..`, doubled or leading slashes. `..` cancels the name before it and stops
/// at the root, whatever is on disk.
pub fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.as_ref().components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Replaces each symlink in `path` by its target, as if the root of the tree were `/`. Names that
/// do not exist are kept as they are, so the result may name nothing.
pub fn resolve(tree: &dyn SourceTree, path: &Path, last: LastLink) -> Result<PathBuf, TreeError> {
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(&name);
        if todo.is_empty() && last == LastLink::Keep {
            break;
        }
        match tree.lookup(&done)? {
            Some(entry) if entry.kind == Kind::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::LinkLoop(TreeError::shown(path)));
                }
                let target = tree.read_link(&done, &entry)?;
                if target.is_absolute() {
                    done.clear();
                } else {
                    done.pop();
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    todo.push_front(name);
                }
            }
            Some(entry) if !entry.is_dir() && !todo.is_empty() => {
                return Err(TreeError::NotADirectory(TreeError::shown(&done)));
            }
            Some(_) => {}
            None => {
                // Below what is missing there are no links: the rest is taken by its names.
                for name in todo {
                    if name == ".." {
                        done.pop();
                    } else {
                        done.push(name);
                    }
                }
                break;
            }
        }
    }
    Ok(done)
}

/// The names of a path, with `..` kept.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
