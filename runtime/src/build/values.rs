//! What is known of each node while a build runs, and what of it is still needed.
//!
//! Without a limit to the state folder this is a table. Where there is one, a build holds apart from
//! its caller what its nodes have made: a running step holds what it looks up itself, and when it has
//! ended the layers of its result are held here, in the moment in which others can see the result. So
//! at any time it can be told what is needed: the inputs of steps that have not ended, and what goes
//! out. All the rest may go as soon as room is short ([`Spare`]), and if that is not enough, results
//! may be given up that other steps wait for, which are then made again
//! ([`Values::give_up_for`]).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rbc_ir::{Digest, Graph, Op, Source};

use super::plan::{Fate, Plan, Standing, is_transparent};
use crate::{
    image::reach,
    store::{Blobs, CachedResult, LayerId, Result, Spare, Store},
};

/// What is known of a node that is done.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Layers, with the identity of the result they are.
    Result(CachedResult),
    /// An empty root.
    Scratch,
    /// Files of a context, read in place.
    Context,
}

/// The values of all nodes of a graph, by position.
pub(super) struct Values {
    state: Mutex<State>,
    /// Only where there is a limit.
    needs: Option<Needs>,
}

struct State {
    values: Vec<Option<Value>>,
    /// Layers of contexts that are not read in place.
    contexts: HashMap<usize, Vec<LayerId>>,
    /// Nodes whose results were given up once.
    given_up: Vec<bool>,
}

/// What tells which layers are needed.
struct Needs {
    /// Holds what the values consist of.
    store: Store,
    /// The blobs as the caller holds them.
    outside: Blobs,
    /// For each node those that it reads.
    inputs: Vec<Vec<usize>>,
    /// Whether the build runs the node.
    runs: Vec<bool>,
    /// Whether the node's layers go out.
    kept: Vec<bool>,
    /// Layers that go out and of which the build needs nothing else.
    aside: Vec<LayerId>,
    /// Whether the node has the same result whenever it runs.
    is_same: Vec<bool>,
    /// What the node is unpacked from: the manifest of an image, a file of the web.
    blobs: Vec<Option<Digest>>,
}

impl Values {
    /// What is known once it is planned what happens to each node. `ground` holds what was looked up
    /// for that apart from `store`, if there is a limit; `kept` are the nodes whose layers go out.
    pub(super) fn new(
        store: &Store,
        ground: Option<Store>,
        graph: &Graph,
        plan: &Plan,
        kept: Vec<bool>,
    ) -> Arc<Self> {
        let value = |fate: &Fate| match fate {
            Fate::Cached(result) => Some(Value::Result(result.clone())),
            Fate::Run | Fate::Unneeded => None,
        };
        let state = State {
            values: plan.fates.iter().map(value).collect(),
            contexts: HashMap::new(),
            given_up: vec![false; plan.fates.len()],
        };
        let needs = ground.map(|ground| Needs::new(store, ground, graph, plan, kept));
        Arc::new(Self { state: Mutex::new(state), needs })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the node at a position; `None` until it is done.
    pub(super) fn get(&self, at: usize) -> Option<Value> {
        self.state().values[at].clone()
    }

    /// The store for one step, if steps hold what they look up apart from each other. It must live
    /// until the step's value is set.
    pub(super) fn store_of_step(self: &Arc<Self>) -> Result<Option<Store>> {
        let spare = || Arc::clone(self) as Arc<dyn Spare>;
        self.needs.as_ref().map(|needs| needs.store.apart(Some(spare()))).transpose()
    }

    /// Notes that a node is done.
    pub(super) fn set(&self, at: usize, value: Value) {
        let mut state = self.state();
        if let (Some(needs), Value::Result(result)) = (&self.needs, &value) {
            needs.hold(&result.stored.layers);
            if let (true, Some(blob)) = (needs.kept[at], needs.blobs[at]) {
                // An image that stands on it needs it as it came.
                needs.outside.has(&blob);
            }
        }
        state.values[at] = Some(value);
    }

    /// Notes the layers of a context, which are needed until the nodes that read it are done.
    pub(super) fn set_context(&self, at: usize, layers: &[LayerId]) {
        let Some(needs) = &self.needs else { return };
        let mut state = self.state();
        needs.hold(layers);
        state.contexts.insert(at, layers.to_vec());
    }

    /// Gives up results that were made and are still needed, but not by the node at a position, and
    /// gives the nodes that have to run again. Each is given up once only.
    pub(super) fn give_up_for(&self, at: usize) -> Vec<usize> {
        let Some(needs) = &self.needs else { return Vec::new() };
        let mut state = self.state();
        let given_up = needs.not_for(at, &state);
        for &node in &given_up {
            state.values[node] = None;
            state.given_up[node] = true;
        }
        given_up
    }

    /// Lets the caller's store hold what goes out, at the end of the build.
    pub(super) fn hand_over(&self, store: &Store) {
        let Some(needs) = &self.needs else { return };
        let state = self.state();
        needs.outgoing(&state).iter().for_each(|id| {
            store.has_layer(id);
        });
    }
}

impl Spare for Values {
    fn let_go(&self) -> Result<bool> {
        let Some(needs) = &self.needs else { return Ok(false) };
        // Nobody can begin to rely on a value in the meantime.
        let state = self.state();
        let mut needed = needs.outgoing(&state);
        let wanted = needs.wanted(&state);
        for at in (0..wanted.len()).filter(|at| wanted[*at]) {
            needed.extend(state.layers(at));
        }
        let layers = needs.store.keep_only(&needed)?;
        if needs.let_go_of_blobs(&state)? || layers {
            return Ok(true);
        }
        needs.let_go_of_tars(&state)
    }
}

impl State {
    /// The layers that are known of a node.
    fn layers(&self, at: usize) -> &[LayerId] {
        match &self.values[at] {
            Some(Value::Result(result)) => &result.stored.layers,
            Some(Value::Context) => self.contexts.get(&at).map_or(&[], Vec::as_slice),
            Some(Value::Scratch) | None => &[],
        }
    }
}

impl Needs {
    fn new(store: &Store, ground: Store, graph: &Graph, plan: &Plan, kept: Vec<bool>) -> Self {
        let position = |node| graph.nodes.get_index_of(node);
        let inputs = graph
            .nodes
            .values()
            .map(|node| node.inputs.iter().filter_map(|input| position(&input.node)).collect());
        let blobs = graph.nodes.values().map(|node| match &node.op {
            Op::Source(Source::Image(source)) => Some(source.manifest),
            Op::Source(Source::Http(source)) => Some(source.checksum),
            _ => None,
        });
        let is_same = graph.nodes.values().map(|node| {
            matches!(node.op, Op::Source(Source::Image(_))) || is_transparent(&node.op)
        });
        let nodes = plan.fates.iter().zip(&plan.standings).zip(&kept);
        let aside = nodes.filter_map(|pair| match pair {
            ((Fate::Unneeded, Standing::Valid(result)), true) => Some(&result.stored.layers),
            _ => None,
        });
        Self {
            outside: store.blobs().clone(),
            inputs: inputs.collect(),
            runs: plan.fates.iter().map(|fate| *fate == Fate::Run).collect(),
            aside: aside.flatten().cloned().collect(),
            is_same: is_same.collect(),
            blobs: blobs.collect(),
            store: ground,
            kept,
        }
    }

    /// Holds layers that a step holds as well, so that they are there.
    fn hold(&self, layers: &[LayerId]) {
        layers.iter().for_each(|id| {
            self.store.has_layer(id);
        });
    }

    /// For each node whether one that has not ended reads it.
    fn wanted(&self, state: &State) -> Vec<bool> {
        let mut wanted = vec![false; self.inputs.len()];
        for (at, inputs) in self.inputs.iter().enumerate() {
            if self.runs[at] && state.values[at].is_none() {
                inputs.iter().for_each(|&input| wanted[input] = true);
            }
        }
        wanted
    }

    /// The layers that go out, as far as they are there.
    fn outgoing<'a>(&'a self, state: &'a State) -> HashSet<&'a LayerId> {
        let kept = (0..self.kept.len()).filter(|&at| self.kept[at]);
        kept.flat_map(|at| state.layers(at)).chain(&self.aside).collect()
    }

    /// Lets go of what was unpacked or copied and is not needed as it came: of an image, all that its
    /// manifest leads to.
    fn let_go_of_blobs(&self, state: &State) -> Result<bool> {
        let is_needed = |at: usize| self.kept[at] || (self.runs[at] && state.values[at].is_none());
        let of = |needed: bool| -> HashSet<Digest> {
            let nodes = (0..self.blobs.len()).filter(|at| is_needed(*at) == needed);
            let roots = nodes.filter_map(|at| self.blobs[at]);
            roots.flat_map(|root| reach(&self.store, &root, &|_| false).blobs).collect()
        };
        let needed = of(true);
        let mut any = false;
        for blob in of(false).difference(&needed) {
            any |= self.outside.let_go_of(blob)?;
        }
        // What layers were unpacked from that another cache had, fetched while this was planned.
        let outgoing = self.outgoing(state);
        for blob in self.tars(|layer| !outgoing.contains(layer))? {
            any |= self.store.blobs().let_go_of(&blob)?;
        }
        Ok(any)
    }

    /// Lets go of what was packed while the build runs. The export packs it again.
    fn let_go_of_tars(&self, state: &State) -> Result<bool> {
        let outgoing = self.outgoing(state);
        let mut any = false;
        for blob in self.tars(|layer| !layer.is_of_image() && outgoing.contains(layer))? {
            any |= self.outside.let_go_of(&blob)?;
        }
        Ok(any)
    }

    /// The tars that the index knows of layers.
    fn tars(&self, of: impl Fn(&LayerId) -> bool) -> Result<Vec<Digest>> {
        let rows = self.store.layer_blob_rows()?.into_iter();
        let rows = rows.filter(|row| row.layer.as_ref().is_some_and(&of));
        Ok(rows.filter_map(|row| Some(row.digests?.0)).collect())
    }

    /// The nodes that can run again and have layers that others than the node at a position need.
    fn not_for(&self, at: usize, state: &State) -> Vec<usize> {
        let mut stay = self.outgoing(state);
        self.inputs[at].iter().for_each(|&input| stay.extend(state.layers(input)));
        let count = self.inputs.len();
        let is_done = |node: usize| state.values[node].is_some();
        let mut may_go: Vec<bool> = (0..count)
            .map(|node| {
                let is_spent = self.runs[node] && is_done(node) && !self.kept[node];
                is_spent
                    && !state.given_up[node]
                    && !state.layers(node).iter().all(|id| stay.contains(id))
            })
            .collect();
        let mut has_changed = true;
        while std::mem::take(&mut has_changed) {
            for node in 0..count {
                if may_go[node] {
                    // It cannot run again without what it was made from.
                    let is_there = |input: usize| {
                        may_go[input]
                            || !is_done(input)
                            || self.store.has_layers(state.layers(input))
                    };
                    may_go[node] = self.inputs[node].iter().all(|&input| is_there(input));
                    has_changed |= !may_go[node];
                } else if self.runs[node] && is_done(node) {
                    // Another run may make something else, and nothing may be made from both.
                    for &input in self.inputs[node].iter().filter(|input| !self.is_same[**input]) {
                        has_changed |= std::mem::take(&mut may_go[input]);
                    }
                }
            }
        }
        let mut goes = self.wanted(state);
        for node in (0..count).rev() {
            if goes[node] && may_go[node] {
                self.inputs[node].iter().for_each(|&input| goes[input] = true);
            }
        }
        (0..count).filter(|&node| goes[node] && may_go[node]).collect()
    }
}

#[cfg(test)]
mod tests;
