//! Finds the files that the source of a COPY names: wildcards, symlinks, the pivot of `--parents`.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rbc_ir::{
    Selection,
    pattern::{BadPattern, Glob},
};

use super::{Entry, LastLink, SourceTree, TreeError, clean, resolve};

/// One file or folder that a source names.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The path that was named or matched. Its last name is the one that a copy gets.
    pub named: PathBuf,
    /// Where it is after following symlinks.
    pub path: PathBuf,
    /// What is there.
    pub entry: Entry,
}

/// What the paths of a selection name, in order. With `parents` these are the folders from which
/// the parents count: the root, or what is before the pivot.
///
/// A pattern may match nothing; a plain path that is missing is [`TreeError::NotFound`].
pub fn select(tree: &dyn SourceTree, selection: &Selection) -> Result<Vec<Selected>, TreeError> {
    let last = if selection.follow_symlinks { LastLink::Follow } else { LastLink::Keep };
    if selection.paths.is_empty() {
        return sources(tree, "", Wildcards::Literal, last);
    }
    let mut found = Vec::new();
    for path in &selection.paths {
        let wildcards = if path.wildcard { Wildcards::Match } else { Wildcards::Literal };
        if selection.parents {
            found.extend(pivots(tree, &path.path, wildcards, last)?);
        } else {
            found.extend(sources(tree, &path.path, wildcards, last)?);
        }
    }
    Ok(found)
}

/// Whether `*`, `?` and `[` have a meaning in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wildcards {
    /// They match.
    Match,
    /// They are names.
    Literal,
}

/// Whether a pattern of Go's `filepath.Match` has any wildcard.
pub fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a source of `--parents` into the folder from which parents count and the pattern below
/// it, which is clean and relative.
pub fn split_pivot(source: &str) -> (&str, String) {
    let (root, pattern) = source.split_once("/./").unwrap_or(("", source));
    let pattern = clean(pattern).into_os_string().into_string().unwrap_or_default();
    (root, pattern)
}

/// The folders from which a source of `--parents` counts; fails if a path without wildcards is
/// missing below.
pub(crate) fn pivots(
    tree: &dyn SourceTree,
    source: &str,
    wildcards: Wildcards,
    last: LastLink,
) -> Result<Vec<Selected>, TreeError> {
    let (root, pattern) = split_pivot(source);
    if !has_wildcards(root) && !has_wildcards(&pattern) {
        let required = clean(root).join(&pattern);
        let at = resolve(tree, &required, LastLink::Keep)?;
        if tree.lookup(&at)?.is_none() {
            return Err(not_found(tree, &required));
        }
    }
    sources(tree, root, wildcards, last)
}

/// What one source names, in the order of names.
pub(crate) fn sources(
    tree: &dyn SourceTree,
    source: &str,
    wildcards: Wildcards,
    last: LastLink,
) -> Result<Vec<Selected>, TreeError> {
    let cleaned = clean(source);
    let named = match wildcards {
        Wildcards::Match => expand(tree, &cleaned, last)?,
        Wildcards::Literal => None,
    };
    let found = named.unwrap_or_else(|| vec![cleaned]).into_iter().map(|named| {
        let path = match resolve(tree, &named, last) {
            Err(TreeError::NotADirectory(_)) => return Err(not_found(tree, &named)),
            path => path?,
        };
        match tree.lookup(&path)? {
            Some(entry) => Ok(Selected { named, path, entry }),
            None => Err(not_found(tree, &named)),
        }
    });
    found.collect()
}

fn not_found(tree: &dyn SourceTree, path: &Path) -> TreeError {
    TreeError::NotFound(TreeError::shown(path), tree.why_missing(path).unwrap_or_default())
}

/// The paths that a pattern matches; `None` if it is no pattern.
pub(crate) fn expand(
    tree: &dyn SourceTree,
    pattern: &Path,
    last: LastLink,
) -> Result<Option<Vec<PathBuf>>, TreeError> {
    // Patterns come from text, so nothing is lost here.
    let names: Vec<_> = pattern.iter().map(|name| name.to_string_lossy()).collect();
    let Some(first) = names.iter().position(|name| has_wildcards(name)) else { return Ok(None) };
    let tail = names[first..].join("/");
    let whole = Glob::new(&tail)?;
    let globs: Result<Vec<_>, BadPattern> =
        names[first..].iter().map(|name| Glob::new(name)).collect();
    // Only a class with a slash in it is a pattern as a whole and none in parts; it matches nothing
    // that a file could be called.
    let Ok(globs) = globs else { return Ok(Some(Vec::new())) };

    let literal: PathBuf = pattern.iter().take(first).collect();
    let base = resolve(tree, &literal, last)?;
    let mut found = Vec::new();
    if !tree.lookup(&base)?.is_some_and(|entry| entry.is_dir()) {
        return Ok(Some(found));
    }
    let mut todo = vec![(PathBuf::new(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        if depth == globs.len() {
            if whole.matches(dir.as_os_str().as_bytes()) {
                found.push(base.join(dir));
            }
            continue;
        }
        let is_last = depth + 1 == globs.len();
        let entries = tree.read_dir(&base.join(&dir))?;
        let matching = entries.iter().filter(|(name, entry)| {
            (is_last || entry.is_dir()) && globs[depth].matches(name.as_bytes())
        });
        let below: Vec<_> = matching.map(|(name, _)| (dir.join(name), depth + 1)).collect();
        todo.extend(below.into_iter().rev());
    }
    Ok(Some(found))
}
