//! Puts together what a report shows.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use rbc_ir::{Digest, Graph, Op};
use rbc_runtime::{
    explain::explain_past,
    history::{Builds, HistoryError, Past, Record, StepRecord},
    layer::{LayerSurvey, survey, survey_one},
    store::{LayerId, Store},
};

use super::{Log, Report};
use crate::{
    critical,
    render::{Colours, printable},
};

/// Bytes of the end of a log that are shown.
const LOG_TAIL: u64 = 64 << 10;
/// More layers than this are in no image that can be run.
const MAX_LAYERS: usize = 10_000;

/// Reads everything that is known of a build.
///
/// # Errors
/// If the record cannot be read. Logs and layers that are gone are left out.
pub fn gather(store: &Store, id: &str) -> Result<Report, HistoryError> {
    let builds = Builds::of(store);
    let past = builds.past(id)?;
    let why = explain_past(&builds, &past)?;
    let record = &past.record;
    let logs = record.steps.iter().map(|step| log(&builds, record, step)).collect();
    let layers = layers(&past);
    let there = layers.iter().all(|(_, id)| store.has_layer(id));
    let dirs: Vec<_> = layers.iter().map(|(_, id)| store.layer_dir(id)).collect();
    let survey = if there && !dirs.is_empty() { survey(&dirs).ok() } else { None };
    let in_image = layers.iter().map(|(step, _)| *step).collect();
    let others = others(store, record, &in_image);
    let layer_steps = layers.into_iter().map(|(step, _)| step).collect();
    let critical = critical_path(&past);
    Ok(Report { past, why, logs, survey, layer_steps, others, critical })
}

fn log(builds: &Builds<'_>, record: &Record, step: &StepRecord) -> Option<Log> {
    let path = builds.log_dir(&record.id).join(step.log.as_ref()?);
    let mut file = File::open(path).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(LOG_TAIL);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes).ok()?;
    Some(Log { text: plain(&String::from_utf8_lossy(&bytes)), is_cut: start > 0 })
}

/// A log as it would be left on a terminal, without colours.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(&printable(line, Colours::Drop));
        if line.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}

/// What steps that are no part of the image added, as far as it is still there.
fn others(
    store: &Store,
    record: &Record,
    in_image: &HashSet<usize>,
) -> HashMap<usize, Vec<LayerSurvey>> {
    let steps = record.steps.iter().enumerate().filter(|(at, _)| !in_image.contains(at));
    steps
        .map(|(at, step)| {
            let layers = step.layers();
            let there = layers.iter().filter(|id| store.has_layer(id));
            (at, there.filter_map(|id| survey_one(&store.layer_dir(id)).ok()).collect())
        })
        .collect()
}

/// The layers of the first target, lowest first, each with the position of its step.
fn layers(past: &Past) -> Vec<(usize, LayerId)> {
    enum Task {
        Enter(Digest),
        Emit(usize),
    }
    let steps: HashMap<Digest, usize> =
        past.record.steps.iter().enumerate().map(|(at, step)| (step.node, at)).collect();
    let graph: &Graph = &past.graph;
    let mut found = Vec::new();
    let mut visits = 0;
    let root = graph.targets.first().and_then(|target| target.root);
    let mut pending: Vec<Task> = root.map(|root| Task::Enter(root.node)).into_iter().collect();
    while let Some(task) = pending.pop() {
        visits += 1;
        if found.len() > MAX_LAYERS || visits > 100 * MAX_LAYERS {
            return Vec::new();
        }
        match task {
            Task::Emit(at) => {
                found.extend(past.record.steps[at].layers().into_iter().map(|id| (at, id)));
            }
            Task::Enter(digest) => {
                let Some(node) = graph.nodes.get(&digest) else { continue };
                pending.extend(steps.get(&digest).map(|at| Task::Emit(*at)));
                let below = match node.op {
                    Op::Merge => &node.inputs[..],
                    Op::Source(_) => &[],
                    Op::Exec(_) | Op::File(_) | Op::Diff => {
                        &node.inputs[..node.inputs.len().min(1)]
                    }
                };
                pending.extend(below.iter().rev().map(|input| Task::Enter(input.node)));
            }
        }
    }
    found
}

/// The steps that the build waited for, as positions in its record.
fn critical_path(past: &Past) -> Vec<usize> {
    let steps = &past.record.steps;
    let end = |step: &StepRecord| Some(step.start_ms? + step.millis?);
    let ends = steps.iter().filter_map(|step| Some((step.node, end(step)?))).collect();
    let by_node: HashMap<Digest, usize> =
        steps.iter().enumerate().map(|(at, step)| (step.node, at)).collect();
    let path = critical::path(&past.graph, &ends);
    path.iter().filter_map(|digest| by_node.get(digest).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn logs_lose_what_only_terminals_understand() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\n10%\r100%\r\nend"), "red\n100%\nend");
        assert_eq!(plain("cut \u{1b}["), "cut ");
    }
}
