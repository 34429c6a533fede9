//! Compares the node of a step that missed with the node at its place in an earlier graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use rbc_ir::{Change, Digest, Graph, Node, Op, Source};
use serde::Serialize;

use super::{
    Listings,
    files::{self, FileChange},
};
use crate::{
    history::{Miss, Past, StepRecord, StepState},
    progress::StepId,
};

/// Why a key gave no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Cause {
    /// The cache was not to be asked.
    NoCache,
    /// Nothing was built before that this could be compared with.
    FirstBuild,
    /// The earlier build had no such step.
    NewStep,
    /// The earlier build had this very result, and it has been removed since.
    Evicted,
    /// The earlier build had this very step but did not finish it.
    Unfinished {
        /// What became of it there.
        state: StepState,
    },
    /// What it is made from has been made anew since.
    Remade,
    /// Another step missed, and this one uses what it makes.
    Input {
        /// Number of the other step.
        step: StepId,
        /// Its name.
        name: String,
    },
    /// Files of a build context changed.
    Files {
        /// Name of the context; empty for the main one.
        context: String,
        /// The digest of the selected files, before and now.
        old: Digest,
        /// Digest of the selection now.
        new: Digest,
        /// The files; `None` if it is not known which they are.
        changes: Option<Vec<FileChange>>,
    },
    /// The instruction was written differently.
    Instruction {
        /// The old text.
        old: String,
        /// The new text.
        new: String,
    },
    /// Values of ARG or ENV changed.
    Variables {
        /// The variables.
        changes: Vec<VariableChange>,
    },
    /// The base image is another one.
    Image {
        /// The old reference.
        old_reference: String,
        /// The new reference.
        new_reference: String,
        /// Digest of the old manifest.
        old: Digest,
        /// Digest of the new manifest.
        new: Digest,
    },
    /// A git repository is at another commit.
    Git {
        /// Its address.
        url: String,
        /// The old commit.
        old: String,
        /// The new commit.
        new: String,
    },
    /// A downloaded file changed.
    Download {
        /// Its address.
        url: String,
        /// Digest of the old content.
        old: Digest,
        /// Digest of the new content.
        new: Digest,
    },
    /// Something else, named by its field in the JSON form of the graph.
    Field {
        /// The field.
        field: String,
        /// Its old value as JSON; empty if there was none.
        old: String,
        /// Its new value as JSON; empty if there is none.
        new: String,
    },
}

/// A variable with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VariableChange {
    /// Its name.
    pub name: String,
    /// The old value, if it was set.
    pub old: Option<String>,
    /// The new value, if it is set.
    pub new: Option<String>,
}

/// A cause, and the step it lies in if that is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepCause {
    /// Name of the step that changed, if it is one before this one that is cached itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The cause.
    #[serde(flatten)]
    pub cause: Cause,
}

impl From<Cause> for StepCause {
    fn from(cause: Cause) -> Self {
        Self { at: None, cause }
    }
}

/// Two graphs, and what is known of the steps of both.
pub(super) struct Comparison<'a> {
    now: &'a Graph,
    past: &'a Past,
    then: HashMap<Digest, &'a StepRecord>,
    /// Steps of the new build that missed.
    missed: &'a HashMap<Digest, &'a StepRecord>,
    /// Nodes of the new graph that have another node at their place in the old one.
    pairs: HashMap<Digest, Change>,
    listings: Listings<'a>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        now: &'a Graph,
        past: &'a Past,
        missed: &'a HashMap<Digest, &'a StepRecord>,
        listings: Listings<'a>,
    ) -> Self {
        let pairs = past.graph.diff(now).changed.into_iter();
        Self {
            now,
            past,
            then: past.record.steps.iter().map(|step| (step.node, step)).collect(),
            missed,
            pairs: pairs.map(|change| (change.new, change)).collect(),
            listings,
        }
    }

    /// Why a step missed.
    pub(super) fn causes(&self, step: &StepRecord) -> Vec<StepCause> {
        let mut causes = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![step.node];
        while let Some(digest) = pending.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let is_step = |node: &Node| !crate::build::is_transparent(&node.op);
            let at = (digest != step.node && self.now.nodes.get(&digest).is_some_and(is_step))
                .then(|| self.now.node_meta(&digest).name.clone())
                .filter(|name| !name.is_empty());
            let found = self.own_causes(&digest, step.miss);
            let is_rewritten = found.iter().any(|cause| matches!(cause, Cause::Instruction { .. }));
            let has_own = !found.is_empty();
            causes.extend(found.into_iter().map(|cause| StepCause { at: at.clone(), cause }));
            for input in self.changed_inputs(&digest) {
                match self.missed.get(&input) {
                    Some(StepRecord { number: Some(number), name, .. }) => {
                        causes.push(Cause::Input { step: *number, name: name.clone() }.into());
                    }
                    // A detail of this step: its cause is the step's own.
                    Some(_) if is_rewritten => {}
                    // The input is cached, so what it differs in is of no account beside a cause
                    // that lies in this step.
                    None if has_own && self.now.nodes.get(&input).is_some_and(is_step) => {}
                    _ => pending.push(input),
                }
            }
        }
        // What a COPY selects follows from what it says.
        let is_selection = |one: &StepCause| {
            matches!(&one.cause, Cause::Field { field, .. }
                if field.starts_with("op.source.context.selection"))
        };
        if causes.iter().any(|one| !is_selection(one)) {
            causes.retain(|one| !is_selection(one));
        }
        if causes.is_empty() {
            causes.push(Cause::NewStep.into());
        }
        causes
    }

    /// What of a node itself, not of its inputs, makes it miss.
    fn own_causes(&self, digest: &Digest, miss: Option<Miss>) -> Vec<Cause> {
        let Some(node) = self.now.nodes.get(digest) else { return Vec::new() };
        if self.past.graph.nodes.contains_key(digest) {
            let state = self.then.get(digest).map(|step| step.state);
            let is_missed = self.missed.contains_key(digest);
            return match (is_missed, miss, state) {
                (false, ..) => Vec::new(),
                (_, Some(Miss::Remade), _) => vec![Cause::Remade],
                (_, _, Some(StepState::Cached | StepState::Ran)) => vec![Cause::Evicted],
                (_, _, Some(state)) => vec![Cause::Unfinished { state }],
                (_, _, None) => Vec::new(),
            };
        }
        match self.pairs.get(digest) {
            None => vec![Cause::NewStep],
            Some(change) => self.differences(change, node),
        }
    }

    fn differences(&self, change: &Change, new: &Node) -> Vec<Cause> {
        let Some(old) = self.past.graph.nodes.get(&change.old) else { return Vec::new() };
        let mut causes = Vec::new();
        match (&old.op, &new.op) {
            (Op::Source(Source::Image(old)), Op::Source(Source::Image(new)))
                if (&old.reference, old.manifest) != (&new.reference, new.manifest) =>
            {
                return vec![Cause::Image {
                    old_reference: old.reference.clone(),
                    new_reference: new.reference.clone(),
                    old: old.manifest,
                    new: new.manifest,
                }];
            }
            (Op::Source(Source::Git(old)), Op::Source(Source::Git(new)))
                if old.url == new.url && old.commit != new.commit =>
            {
                let (old, now) = (old.commit.clone(), new.commit.clone());
                return vec![Cause::Git { url: new.url.clone(), old, new: now }];
            }
            (Op::Source(Source::Http(old)), Op::Source(Source::Http(new)))
                if old.url == new.url && old.checksum != new.checksum =>
            {
                let url = new.url.clone();
                return vec![Cause::Download { url, old: old.checksum, new: new.checksum }];
            }
            (Op::Source(Source::Context(old)), Op::Source(Source::Context(new)))
                if old.selection == new.selection && old.digest != new.digest =>
            {
                let both = (self.listings)(&old.digest, &new.digest);
                return vec![Cause::Files {
                    context: new.name.clone(),
                    old: old.digest,
                    new: new.digest,
                    changes: both.map(|(old, new)| files::changes(&old, &new)),
                }];
            }
            _ => {}
        }
        let texts = (text_of(&self.past.graph, &change.old), text_of(self.now, &change.new));
        if let (Some(old), Some(new)) = texts
            && old != new
        {
            causes.push(Cause::Instruction { old, new });
        }
        if let (Op::Exec(old), Op::Exec(new)) = (&old.op, &new.op) {
            let changes = variables(&old.env, &new.env);
            if !changes.is_empty() {
                causes.push(Cause::Variables { changes });
            }
        }
        let is_own = !change.field.starts_with("inputs") && !change.field.is_empty();
        if causes.is_empty() && is_own {
            causes.push(Cause::Field {
                field: change.field.clone(),
                old: change.old_value.clone(),
                new: change.new_value.clone(),
            });
        }
        causes
    }

    /// The inputs of a node that its pendant in the old graph does not have.
    fn changed_inputs(&self, digest: &Digest) -> Vec<Digest> {
        let Some(node) = self.now.nodes.get(digest) else { return Vec::new() };
        let Some(change) = self.pairs.get(digest) else {
            // The same node as before may miss because of an input that was removed.
            let missing = |input: &Digest| self.missed.contains_key(input);
            return node.inputs.iter().map(|input| input.node).filter(missing).collect();
        };
        let old: HashSet<Digest> = match self.past.graph.nodes.get(&change.old) {
            Some(old) => old.inputs.iter().map(|input| input.node).collect(),
            None => HashSet::new(),
        };
        node.inputs.iter().map(|input| input.node).filter(|input| !old.contains(input)).collect()
    }
}

/// The text of a node's instruction.
fn text_of(graph: &Graph, digest: &Digest) -> Option<String> {
    let span = graph.node_meta(digest).span?;
    let text = &graph.meta.files.get(span.file as usize)?.text;
    text.get(span.start as usize..span.end as usize).map(|text| text.trim().to_owned())
}

fn variables(old: &[String], new: &[String]) -> Vec<VariableChange> {
    let map = |env: &[String]| -> BTreeMap<String, String> {
        env.iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let (old, new) = (map(old), map(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| VariableChange {
            name: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}
