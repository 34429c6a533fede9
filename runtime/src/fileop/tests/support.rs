//! Runs file operations over trees that are written as text.

use std::path::Path;

use rbc_ir::{CopyAction, FileAction, FileOp};

use crate::{
    fileop::{FileOpError, FileOpOptions, run},
    tree::{
        LayerStack, SourceTree,
        fixture::{World, listing},
    },
};

/// Runs actions over the layer `base` and lists the outcome, or gives the error.
pub fn outcome(
    world: &mut World,
    base: &str,
    source: &dyn SourceTree,
    actions: Vec<FileAction>,
) -> String {
    let base = if base.trim().is_empty() { Vec::new() } else { vec![world.tree(base)] };
    let upper = world.folder();
    match run_over(&LayerStack::new(base.clone()), source, actions, &upper) {
        Ok(()) => listing(&LayerStack::new(base.into_iter().chain([upper]).collect())),
        Err(error) => format!("error: {error}"),
    }
}

/// Runs actions with `source` as input 1.
pub fn run_over(
    base: &LayerStack,
    source: &dyn SourceTree,
    actions: Vec<FileAction>,
    upper: &Path,
) -> Result<(), FileOpError> {
    run(&FileOp { actions }, base, &[None, Some(source)], upper, &FileOpOptions::default())
}

/// A COPY of the instruction's usual form.
pub fn copy(source: &str, dest: &str) -> CopyAction {
    CopyAction {
        input: 1,
        source: source.into(),
        dest: dest.into(),
        owner: None,
        mode: None,
        wildcard: true,
        follow_symlinks: true,
        unpack: false,
        parents: false,
        exclude: Vec::new(),
        allow_missing: false,
    }
}

/// Several plain COPY sources to one destination.
pub fn copies(sources: &[&str], dest: &str) -> Vec<FileAction> {
    sources.iter().map(|source| FileAction::Copy(copy(source, dest))).collect()
}
