//! What the journal is told of steps.

use std::time::Duration;

use rbc_ir::{Digest, Graph, Node, Op};

use super::{
    BuildError,
    plan::{Fate, Plan, Standing, is_transparent},
};
use crate::{
    history::{Found, Miss, Place, StepRecord, StepState},
    progress::StepId,
    store::{CachedResult, LayerId},
    travel::Imports,
};

/// The steps of a graph that is not built, each in the state that `state` gives its key.
pub(crate) fn step_records(graph: &Graph, state: &dyn Fn(&Digest) -> StepState) -> Vec<StepRecord> {
    let numbers = super::step_numbers(graph);
    let mut steps = blank(graph, &numbers);
    for step in &mut steps {
        step.state = state(&step.node);
        step.found = (step.state == StepState::Cached).then_some(Found::Key);
    }
    let nodes = graph.nodes.values().zip(steps);
    nodes.filter(|(node, _)| !is_transparent(&node.op)).map(|(_, step)| step).collect()
}

/// The notes on all nodes of a graph once it is known what is in the cache.
pub(super) fn planned(
    graph: &Graph,
    plan: &Plan,
    numbers: &[Option<StepId>],
    imports: Option<&Imports<'_>>,
) -> Vec<StepRecord> {
    let mut notes = blank(graph, numbers);
    for (at, (note, node)) in notes.iter_mut().zip(graph.nodes.values()).enumerate() {
        (note.state, note.miss) = match (&plan.fates[at], &plan.standings[at]) {
            (_, Standing::Valid(result)) => {
                found(note, node, result, Found::Key);
                continue;
            }
            (Fate::Cached(result), Standing::Offered(_)) => {
                found(note, node, result, Found::Key);
                note.origin = plan.origin(at, imports).map(str::to_owned);
                continue;
            }
            (Fate::Run, Standing::Stale(miss)) => (StepState::NotReached, Some(*miss)),
            (Fate::Run, _) => (StepState::NotReached, Some(Miss::Absent)),
            (_, Standing::Stale(miss)) => (StepState::NotNeeded, Some(*miss)),
            (_, _) => (StepState::NotNeeded, Some(Miss::Absent)),
        };
    }
    notes
}

/// Notes on all nodes of a graph that say what they are and nothing of what became of them.
fn blank(graph: &Graph, numbers: &[Option<StepId>]) -> Vec<StepRecord> {
    let lines: Vec<Vec<usize>> = graph.meta.files.iter().map(|f| line_starts(&f.text)).collect();
    let place = |span: rbc_ir::Span| {
        let file = graph.meta.files.get(span.file as usize)?;
        let starts = lines.get(span.file as usize)?;
        let line = starts.partition_point(|start| *start <= span.start as usize);
        Some(Place { file: file.name.clone(), line })
    };
    let nodes = graph.nodes.keys().zip(numbers);
    nodes
        .map(|(digest, number)| {
            let meta = graph.node_meta(digest);
            StepRecord {
                node: *digest,
                number: *number,
                name: meta.name.clone(),
                stage: meta.stage.clone(),
                place: meta.span.and_then(place),
                state: StepState::NotReached,
                found: None,
                origin: None,
                miss: None,
                start_ms: None,
                millis: None,
                cost_ms: None,
                added: Vec::new(),
                size: None,
                error: None,
                log: None,
            }
        })
        .collect()
}

/// Notes that a result was found.
pub(super) fn found(note: &mut StepRecord, node: &Node, result: &CachedResult, how: Found) {
    note.state = StepState::Cached;
    // What it is made from ran again and came out as before, so its own key has it.
    let as_before = how == Found::Meanwhile && note.miss == Some(Miss::Remade);
    note.found = Some(if as_before { Found::Content } else { how });
    note.cost_ms = Some(millis(result.stored.elapsed));
    note.added = added(node, &result.stored.layers);
}

/// Notes that a result was made.
pub(super) fn made(note: &mut StepRecord, node: &Node, result: &CachedResult) {
    let took = millis(result.stored.elapsed);
    note.state = StepState::Ran;
    note.millis = Some(took);
    note.cost_ms = Some(took);
    note.added = added(node, &result.stored.layers);
}

/// Notes that a step failed or was stopped.
pub(super) fn failed(
    note: &mut StepRecord,
    error: &BuildError,
    likely: Option<&str>,
    elapsed: Duration,
) {
    note.state = match error {
        BuildError::Cancelled => StepState::Cancelled,
        _ => StepState::Failed,
    };
    note.millis = note.start_ms.map(|_| millis(elapsed));
    note.error = Some(match likely {
        Some(likely) => format!("{error} (likely cause: {likely})"),
        None => error.to_string(),
    });
}

/// The layers that a node adds to those of its first input.
fn added(node: &Node, layers: &[LayerId]) -> Vec<String> {
    let own = match node.op {
        Op::Exec(_) | Op::File(_) => &layers[layers.len().saturating_sub(1)..],
        Op::Source(_) => layers,
        Op::Merge | Op::Diff => &[],
    };
    own.iter().map(ToString::to_string).collect()
}

fn line_starts(text: &str) -> Vec<usize> {
    let after = |(at, byte): (usize, u8)| (byte == b'\n').then_some(at + 1);
    std::iter::once(0).chain(text.bytes().enumerate().filter_map(after)).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
