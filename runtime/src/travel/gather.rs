//! Which results travel.

use std::collections::HashMap;

use rbc_ir::{Digest, Graph};

use super::Imports;
use crate::{
    build::{is_transparent, parts_of_targets},
    store::{Result, Store, StoredResult},
};

/// How much of a build travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The results that the targets consist of.
    #[default]
    Min,
    /// The results of all steps.
    Max,
}

/// Results by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// In the order of the graph, or of the keys.
    pub results: Vec<(Digest, StoredResult)>,
}

/// The results of a build that has ended: those of the store, and of the caches that it was offered,
/// so that what was not needed this time is not lost.
///
/// # Errors
/// If the state folder cannot be read.
pub fn of_build(
    store: &Store,
    graph: &Graph,
    imports: Option<&Imports<'_>>,
    mode: Mode,
) -> Result<Gathered> {
    let in_target = parts_of_targets(graph);
    let mut ids: HashMap<Digest, Digest> = HashMap::new();
    let mut results = Vec::new();
    for (at, (key, node)) in graph.nodes.iter().enumerate() {
        if is_transparent(&node.op) {
            continue;
        }
        let offered = || imports.map(|imports| imports.results(key)).unwrap_or_default();
        let candidates =
            store.result(key)?.into_iter().chain(offered().into_iter().map(|offer| offer.result));
        // A result that was made from what has been made anew since is of no use.
        let is_of_now = |inputs: &[(Digest, Digest)]| {
            inputs.iter().all(|(node, then)| ids.get(node).is_none_or(|now| now == then))
        };
        let Some(found) = candidates.into_iter().find(|found| is_of_now(&found.stored.inputs))
        else {
            continue;
        };
        ids.insert(*key, found.id);
        if mode == Mode::Max || in_target[at] {
            results.push((*key, found.stored));
        }
    }
    Ok(Gathered { results })
}

/// All results of the store.
///
/// # Errors
/// If the state folder cannot be read.
pub fn of_store(store: &Store) -> Result<Gathered> {
    let results = store.all_results()?.into_iter().map(|(key, found)| (key, found.stored));
    Ok(Gathered { results: results.collect() })
}
