//! What changed between two listings of a context selection.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use rbc_ir::Digest;
use serde::Serialize;

use crate::history::{Content, FileFacts, Listing};

/// One file that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Path in the context. Bytes that are no text are replaced.
    pub path: String,
    /// What happened to it.
    pub change: Touch,
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Touch {
    /// It is new.
    Added {
        /// Digest of its content, if it is a file.
        new: Option<Digest>,
    },
    /// It is gone.
    Removed {
        /// Digest of its content, if it was a file.
        old: Option<Digest>,
    },
    /// Its content changed.
    Content {
        /// Digest of the old content.
        old: Option<Digest>,
        /// Digest of the new content.
        new: Option<Digest>,
    },
    /// Its permission bits changed.
    Mode {
        /// The old ones.
        old: u32,
        /// The new ones.
        new: u32,
    },
    /// It points elsewhere.
    Target {
        /// The old target.
        old: String,
        /// The new target.
        new: String,
    },
    /// It became another kind of file.
    Kind {
        /// What it was.
        old: &'static str,
        /// What it is.
        new: &'static str,
    },
}

/// All that changed, by path.
pub(super) fn changes(old: &Listing, new: &Listing) -> Vec<FileChange> {
    let mut changes = Vec::new();
    let mut note = |path: &Path, change| {
        changes.push(FileChange { path: shown(path), change });
    };
    // Both are sorted, so one look at each entry is enough.
    let (mut old, mut new) = (old.files.iter().peekable(), new.files.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((then, _)), Some((now, _))) => then.cmp(now),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let then = if order.is_le() { old.next() } else { None };
        let now = if order.is_ge() { new.next() } else { None };
        match (then, now) {
            (Some((path, then)), None) => note(path, Touch::Removed { old: digest(then) }),
            (None, Some((path, now))) => note(path, Touch::Added { new: digest(now) }),
            (Some((path, then)), Some((_, now))) => {
                if let Some(change) = touch(then, now) {
                    note(path, change);
                }
            }
            (None, None) => {}
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

fn touch(then: &FileFacts, now: &FileFacts) -> Option<Touch> {
    if then.kind != now.kind {
        return Some(Touch::Kind { old: then.kind, new: now.kind });
    }
    match (&then.content, &now.content) {
        (Content::Target(old), Content::Target(new)) if old != new => {
            Some(Touch::Target { old: shown(old), new: shown(new) })
        }
        (old, new) if old != new => Some(Touch::Content { old: digest(then), new: digest(now) }),
        _ if then.mode != now.mode => Some(Touch::Mode { old: then.mode, new: now.mode }),
        _ => None,
    }
}

fn digest(facts: &FileFacts) -> Option<Digest> {
    match &facts.content {
        Content::Digest(digest) => Some(*digest),
        Content::None | Content::Target(_) => None,
    }
}

/// The root of a context is a dot.
fn shown(path: &Path) -> String {
    let empty = PathBuf::new();
    if *path == empty { ".".to_owned() } else { path.to_string_lossy().into_owned() }
}
