//! Why steps were not in the cache: compares a build with an earlier one of the same thing.
//!
//! A key covers everything that a step depends on, so a key that is new differs from the old one in
//! something that can be named: the instruction, a variable, a file of the context, the base image,
//! or an input that is new itself. [`explain`] names it for each step that missed.

mod causes;
mod files;
mod text;

use std::collections::{HashMap, HashSet};

use rbc_ir::{Digest, Graph};
use serde::Serialize;

pub use causes::{Cause, StepCause, VariableChange};
pub use files::{FileChange, Touch};

use crate::{
    history::{Builds, HistoryError, Listing, Miss, Past, Place, StepRecord, StepState},
    progress::StepId,
};

/// A build that is explained: its graph and what became of the steps.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The steps, in the graph's order.
    pub steps: &'a [StepRecord],
}

/// Finds the files behind the digests of an old and a new context selection. What is the same in
/// both may be left out.
pub type Listings<'a> = &'a dyn Fn(&Digest, &Digest) -> Option<(Listing, Listing)>;

/// Why steps missed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Name of the earlier build that was compared with.
    pub compared_with: Option<String>,
    /// The steps that users see whose key gave no result, in the graph's order.
    pub steps: Vec<Why>,
}

/// Why one step missed.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    /// Its number.
    pub step: StepId,
    /// Its name.
    pub name: String,
    /// Its key.
    pub node: Digest,
    /// Where its instruction stands.
    pub place: Option<Place>,
    /// What became of it.
    pub state: StepState,
    /// Whether a result was found all the same, since its inputs have the same content.
    pub same_content: bool,
    /// Why it missed.
    pub causes: Vec<StepCause>,
}

impl Why {
    /// Whether it missed only because other steps did.
    pub fn follows(&self) -> bool {
        !self.causes.is_empty()
            && self.causes.iter().all(|cause| matches!(cause.cause, Cause::Input { .. }))
    }
}

impl Explanation {
    /// The first step that missed, and for a reason of its own.
    pub fn first(&self) -> Option<&Why> {
        self.steps.iter().find(|why| !why.follows())
    }
}

/// Explains the misses of a build by comparing it with an earlier one.
pub fn explain(now: Subject<'_>, earlier: Option<&Past>, listings: Listings<'_>) -> Explanation {
    let missed: HashMap<Digest, &StepRecord> =
        now.steps.iter().filter(|step| step.missed()).map(|step| (step.node, step)).collect();
    let visible = now.steps.iter().filter(|step| step.missed());
    let visible = visible.filter_map(|step| step.number.map(|number| (number, step)));
    let comparison =
        earlier.map(|past| causes::Comparison::new(now.graph, past, &missed, listings));
    let mut steps: Vec<Why> = visible
        .map(|(number, step)| Why {
            step: number,
            name: step.name.clone(),
            node: step.node,
            place: step.place.clone(),
            state: step.state,
            same_content: step.found == Some(crate::history::Found::Content),
            causes: match (step.miss, &comparison) {
                (Some(Miss::NoCache), _) => vec![Cause::NoCache.into()],
                (_, None) => vec![Cause::FirstBuild.into()],
                (_, Some(comparison)) => comparison.causes(step),
            },
        })
        .collect();
    drop_echoes(&mut steps);
    Explanation { compared_with: earlier.map(|past| past.record.id.clone()), steps }
}

/// Explains a past build by the newest one before it of the same thing.
///
/// # Errors
/// If the state folder cannot be read.
pub fn explain_past(builds: &Builds<'_>, past: &Past) -> Result<Explanation, HistoryError> {
    let earlier = builds.earlier(&past.record.id, &past.record.subject)?;
    let now = Subject { graph: &past.graph, steps: &past.record.steps };
    Ok(explain(now, earlier.as_ref(), &|old, new| builds.listings_apart(old, new)))
}

/// Explains how one graph differs from another as if the old one had just been built.
pub fn explain_graphs(old: &Graph, new: &Graph, listings: Listings<'_>) -> Explanation {
    let steps = |graph: &Graph, state: &dyn Fn(&Digest) -> StepState| {
        crate::build::step_records(graph, state)
    };
    let built = steps(old, &|_| StepState::Cached);
    let wanted = steps(new, &|digest| match old.nodes.contains_key(digest) {
        true => StepState::Cached,
        false => StepState::NotReached,
    });
    let past = Past { record: crate::history::Record::of_steps(built), graph: old.clone() };
    let mut explanation = explain(Subject { graph: new, steps: &wanted }, Some(&past), listings);
    explanation.compared_with = None;
    explanation
}

/// Drops causes that a step names twice: it may reach one change on two ways.
fn drop_echoes(steps: &mut [Why]) {
    for why in steps {
        let mut seen = HashSet::new();
        why.causes.retain(|cause| seen.insert(cause.to_string()));
    }
}
