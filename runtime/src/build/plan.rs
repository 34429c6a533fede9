//! Decides which nodes run and which are taken from the cache.
//!
//! A node's digest is its cache key, so one look-up a node tells all. Two things make a result
//! that is there unusable: the user asked for a new one (`--no-cache`), or something it was made
//! from has been made anew since, perhaps by another build.

use std::collections::HashMap;

use rbc_ir::{Digest, Graph, Input, Op, Source};

use crate::{
    history::Miss,
    store::{CachedResult, LookUp, Result, Store},
    travel::{Imports, Offer},
};

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing that runs needs it.
    Unneeded,
    /// Its cached result is used.
    Cached(CachedResult),
    /// It is executed.
    Run,
}

/// The fates of all nodes of a graph, by position.
pub(super) struct Plan {
    pub fates: Vec<Fate>,
    /// How each node stands in the cache, whether it is needed or not.
    pub standings: Vec<Standing>,
}

/// A node's standing in the cache, before it is known whether anything needs it.
pub(super) enum Standing {
    /// There is no result; the identity of the last one, if that is remembered.
    Missing(Option<Digest>),
    /// There is a result, or a wish for a new one, that makes older dependants unusable.
    Stale(Miss),
    Valid(CachedResult),
    /// Other caches have results.
    Offered(Vec<Offer>),
    /// Not a result of its own: scratch, or a context that is read in place.
    Transparent,
}

/// Whose results count when it is asked whether one was made anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Those of the store: what others made does not make its results stale.
    Store,
    /// Those of other caches too.
    All,
}

impl Standing {
    /// Whether a dependant that was made from the result `then` is no longer what would be made now.
    fn replaces(&self, then: &Digest, asked: Asked) -> bool {
        match self {
            Self::Valid(now) => now.id != *then,
            Self::Offered(offers) if asked == Asked::All => {
                offers.iter().all(|offer| offer.result.id != *then)
            }
            // Evicted, but still the one to have been made from.
            Self::Missing(Some(last)) => last != then,
            Self::Offered(_) | Self::Missing(None) | Self::Stale(_) | Self::Transparent => false,
        }
    }
}

/// Whether a node has no result of its own in the cache.
pub(crate) fn is_transparent(op: &Op) -> bool {
    matches!(op, Op::Source(Source::Scratch | Source::Context(_)))
}

/// For each node whether a target contains the layers of its result: targets themselves, and what
/// those stand on.
pub(crate) fn parts_of_targets(graph: &Graph) -> Vec<bool> {
    let position = |input: &Input| graph.nodes.get_index_of(&input.node);
    let mut parts = vec![false; graph.nodes.len()];
    let mut stack: Vec<usize> =
        graph.targets.iter().filter_map(|target| position(target.root.as_ref()?)).collect();
    while let Some(at) = stack.pop() {
        if std::mem::replace(&mut parts[at], true) {
            continue;
        }
        let node = &graph.nodes[at];
        let stands_on = match node.op {
            Op::Exec(_) | Op::File(_) => node.inputs.get(..1).unwrap_or_default(),
            Op::Merge => &node.inputs,
            Op::Source(_) | Op::Diff => &[],
        };
        stack.extend(stands_on.iter().filter_map(position));
    }
    parts
}

impl Plan {
    /// Looks up every node of the graph: in the store, and what that lacks in other caches.
    pub(super) fn new(graph: &Graph, store: &Store, imports: Option<&Imports<'_>>) -> Result<Self> {
        let mut standings: Vec<Standing> = Vec::with_capacity(graph.nodes.len());
        for (digest, node) in &graph.nodes {
            let inputs: Vec<usize> =
                node.inputs.iter().filter_map(|i| graph.nodes.get_index_of(&i.node)).collect();
            let standing = if is_transparent(&node.op) {
                Standing::Transparent
            } else if graph.node_meta(digest).no_cache {
                Standing::Stale(Miss::NoCache)
            } else if inputs.iter().any(|&i| matches!(standings[i], Standing::Stale(_))) {
                Standing::Stale(Miss::Remade)
            } else {
                let is_replaced = |result: &CachedResult, asked: Asked| {
                    let used: HashMap<Digest, Digest> =
                        result.stored.inputs.iter().copied().collect();
                    node.inputs.iter().zip(&inputs).any(|(input, &at)| {
                        used.get(&input.node)
                            .is_some_and(|then| standings[at].replaces(then, asked))
                    })
                };
                match store.look_up(digest)? {
                    LookUp::Hit(result) if is_replaced(&result, Asked::Store) => {
                        Standing::Stale(Miss::Remade)
                    }
                    LookUp::Hit(result) => Standing::Valid(result),
                    missing => {
                        let last = match missing {
                            LookUp::Lost(last) => Some(last),
                            LookUp::Hit(_) | LookUp::Unknown => None,
                        };
                        let mut offers =
                            imports.map(|imports| imports.results(digest)).unwrap_or_default();
                        offers.retain(|offer| !is_replaced(&offer.result, Asked::All));
                        match (offers.is_empty(), last) {
                            (false, _) => Standing::Offered(offers),
                            // What stands on it stands on something that was made anew.
                            (true, Some(last)) if is_replaced(&last, Asked::Store) => {
                                Standing::Stale(Miss::Remade)
                            }
                            (true, last) => Standing::Missing(last.map(|last| last.id)),
                        }
                    }
                }
            };
            standings.push(standing);
        }

        let mut fates = vec![Fate::Unneeded; standings.len()];
        let mut stack: Vec<usize> =
            graph.targets.iter().filter_map(|t| graph.nodes.get_index_of(&t.root?.node)).collect();
        while let Some(at) = stack.pop() {
            if fates[at] != Fate::Unneeded {
                continue;
            }
            fates[at] = match &standings[at] {
                Standing::Valid(result) => Fate::Cached(result.clone()),
                Standing::Offered(offers) if !offers.is_empty() => {
                    Fate::Cached(offers[0].result.clone())
                }
                Standing::Missing(_)
                | Standing::Stale(_)
                | Standing::Transparent
                | Standing::Offered(_) => {
                    let inputs = &graph.nodes[at].inputs;
                    stack.extend(inputs.iter().filter_map(|i| graph.nodes.get_index_of(&i.node)));
                    Fate::Run
                }
            };
        }
        Ok(Self { fates, standings })
    }

    /// The results of other caches that are used, by position.
    pub(super) fn taken(&self) -> impl Iterator<Item = (usize, &Offer)> {
        let fates = self.fates.iter().zip(&self.standings).enumerate();
        fates.filter_map(|(at, pair)| match pair {
            (Fate::Cached(_), Standing::Offered(offers)) => Some((at, offers.first()?)),
            _ => None,
        })
    }

    /// Where a node's result is from, if it is from another cache.
    pub(super) fn origin<'a>(
        &self,
        at: usize,
        imports: Option<&'a Imports<'_>>,
    ) -> Option<&'a str> {
        match &self.standings[at] {
            Standing::Offered(offers) => Some(imports?.origin(offers.first()?)),
            _ => None,
        }
    }
}
