//! Early cutoff: ends the wave of misses that a change sets off where it makes no difference.
//!
//! A node that misses by its definition key may still have been executed before on inputs of the
//! same content: a builder stage ran again and made the same program, a base image was updated but
//! not the path that is copied from it. [`Executor::same_content`] finds such a result. And a step
//! that ran again may have made the layer that it made before; [`Executor::same_layer`] finds that
//! one, so that whatever was built on it stands.
//!
//! Inputs are compared by what the operation reads of them, and only against results of the same
//! operation, so a build in which nothing like that happens pays one look-up for each miss.

use std::path::Path;

use rbc_ir::{
    CopyAction, Digest, Exec, FileAction, FileOp, MountKind, Node, Op, SelectPath, Selection,
};

use super::{BuildError, execute::Executor, schedule::on_cpu_pool};
use crate::{
    layer,
    store::{CachedResult, InputContent, LayerId, Store, StoredResult},
    tree::{
        self, LastLink, LayerStack, Names, SourceTree, TreeError, clean, resolve, same_selection,
    },
};

/// A layer of copies with more entries than this is not compared to earlier ones: their inputs
/// changed, so it rarely pays. It does for wildcards, behind which only a name may have changed.
const MAX_COPIED_ENTRIES: usize = 256;

/// What an operation reads of one input.
enum Reads {
    /// All of it: the root that it works on.
    Root,
    /// A selection.
    Part(Selection, Names),
}

impl Executor<'_> {
    /// What the inputs of a node whose inputs are done consist of.
    pub(super) fn contents(
        &self,
        store: &Store,
        node: &Node,
    ) -> Result<Vec<InputContent>, BuildError> {
        let content = |input| match self.is_pinned(input) {
            true => Ok(InputContent::Pinned(input.node)),
            false => self.layers_of(store, input).map(InputContent::Layers),
        };
        node.inputs.iter().map(content).collect()
    }

    /// A result of the same operation on inputs that had the same content.
    pub(super) fn same_content(
        &self,
        node: &Node,
        contents: &[InputContent],
        candidates: &[CachedResult],
    ) -> Result<Option<StoredResult>, BuildError> {
        let is_here = |layers: &[LayerId]| Ok(layers.iter().all(|id| self.store.peek_layer(id)));
        for candidate in candidates {
            if self.is_same(node, contents, &candidate.stored, &is_here)? {
                return Ok(Some(candidate.stored.clone()));
            }
        }
        Ok(None)
    }

    /// As [`Executor::same_content`], for results of other caches. Layers that have to be looked at
    /// are fetched, and those of the result if it fits; with it comes the name of its cache.
    pub(super) fn same_content_elsewhere(
        &self,
        store: &Store,
        node: &Node,
        operation: &Digest,
        contents: &[InputContent],
    ) -> Result<Option<(StoredResult, String)>, BuildError> {
        let Some(imports) = self.options.imports else { return Ok(None) };
        let fetching = super::fetching(store, self.options);
        let bring = |layers: &[LayerId]| Ok(imports.bring(&fetching, layers)?);
        for offer in imports.results_of_operation(operation) {
            let stored = &offer.result.stored;
            if self.is_same(node, contents, stored, &bring)? && bring(&stored.layers)? {
                return Ok(Some((stored.clone(), imports.origin(&offer).to_owned())));
            }
        }
        Ok(None)
    }

    /// An earlier layer that the finished folder `upper` has the same content as, made by the same
    /// operation on the same root.
    pub(super) fn same_layer(
        &self,
        op: &Op,
        root: &[LayerId],
        upper: &Path,
        candidates: &[CachedResult],
    ) -> Result<Option<LayerId>, BuildError> {
        let at_most = match op {
            Op::File(file) if !has_wildcards(file) => Some(MAX_COPIED_ENTRIES),
            _ => None,
        };
        for candidate in candidates {
            let Some((top, below)) = candidate.stored.layers.split_last() else { continue };
            if below != root {
                continue;
            }
            let known = self.store.layer_dir(top);
            if on_cpu_pool(|| layer::same_layer(upper, &known, at_most))? {
                return Ok(Some(top.clone()));
            }
        }
        Ok(None)
    }

    fn is_same(
        &self,
        node: &Node,
        contents: &[InputContent],
        earlier: &StoredResult,
        have: &dyn Fn(&[LayerId]) -> Result<bool, BuildError>,
    ) -> Result<bool, BuildError> {
        if contents.len() != earlier.contents.len() {
            return Ok(false);
        }
        for (at, pair) in contents.iter().zip(&earlier.contents).enumerate() {
            match pair {
                (now, then) if now == then => {}
                (InputContent::Layers(now), InputContent::Layers(then)) => {
                    // The root is read as a whole, so another one is another content.
                    if at == 0 || !have(then)? || !have(&earlier.layers)? {
                        return Ok(false);
                    }
                    let result = LayerStack::new(self.dirs(&earlier.layers));
                    let (now, then) =
                        (LayerStack::new(self.dirs(now)), LayerStack::new(self.dirs(then)));
                    for reads in reads(&node.op, at, &result) {
                        let Reads::Part(selection, names) = reads else { return Ok(false) };
                        if !on_cpu_pool(|| same_selection(&now, &then, &selection, names))? {
                            return Ok(false);
                        }
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// What an operation reads of the input at a position. `result` is what an earlier run has made.
fn reads(op: &Op, input: usize, result: &LayerStack) -> Vec<Reads> {
    match op {
        _ if input == 0 => vec![Reads::Root],
        Op::File(file) => {
            let alone = file.actions.len() == 1;
            let copies = file.actions.iter().filter_map(|action| match action {
                FileAction::Copy(copy) if copy.input as usize == input => Some(copy),
                _ => None,
            });
            copies.map(|copy| Reads::Part(selection_of(copy), names(copy, alone, result))).collect()
        }
        Op::Exec(exec) => mounted(exec, input),
        Op::Source(_) | Op::Merge | Op::Diff => vec![Reads::Root],
    }
}

/// Whether a copy of the operation selects by a pattern.
fn has_wildcards(file: &FileOp) -> bool {
    file.actions.iter().any(|action| {
        matches!(action, FileAction::Copy(copy)
            if copy.wildcard && tree::has_wildcards(&copy.source))
    })
}

fn mounted(exec: &Exec, input: usize) -> Vec<Reads> {
    let sources = exec.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { input: from, source } => (*from as usize == input).then_some(source),
        MountKind::Cache { input: from, source, .. } => {
            from.is_some_and(|from| from as usize == input).then_some(source)
        }
        MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
    });
    sources
        .map(|source| {
            let path = SelectPath { path: source.clone(), wildcard: false };
            let selection =
                Selection { paths: vec![path], follow_symlinks: true, ..Selection::default() };
            Reads::Part(selection, Names::DoNotCount)
        })
        .collect()
}

fn selection_of(copy: &CopyAction) -> Selection {
    Selection {
        paths: vec![SelectPath { path: copy.source.clone(), wildcard: copy.wildcard }],
        exclude: copy.exclude.clone(),
        follow_symlinks: copy.follow_symlinks,
        parents: copy.parents,
    }
}

/// Whether the names of what is copied show in the result. They do not if the only thing that the
/// operation did was to put one file where it was told to: the destination is a file then.
fn names(copy: &CopyAction, alone: bool, result: &LayerStack) -> Names {
    let is_file = || -> Result<bool, TreeError> {
        let at = resolve(result, &clean(&copy.dest), LastLink::Follow)?;
        Ok(result.lookup(&at)?.is_some_and(|entry| !entry.is_dir()))
    };
    if alone && !copy.dest.ends_with('/') && is_file().unwrap_or(false) {
        Names::DoNotCount
    } else {
        Names::Count
    }
}
