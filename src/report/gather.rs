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

/// Text without the sequences that colour it on a terminal, and with the last state of lines that
/// were written over.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let line = line.strip_suffix("\r\n").map_or(line, |_| line);
        let body = line.trim_end_matches(['\n', '\r']);
        let last = body.rsplit('\r').next().unwrap_or(body);
        let mut chars = last.chars();
        while let Some(c) = chars.next() {
            if c != '\u{1b}' {
                out.push(c);
            } else if chars.clone().next() == Some('[') {
                chars.next();
                // Parameters, up to the letter that ends them.
                let _ = chars.find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
        }
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

/// The steps that the build waited for: the last one to end, and before each the one of its inputs
/// that ended last. In the order of time.
fn critical_path(past: &Past) -> Vec<usize> {
    let steps = &past.record.steps;
    let end = |at: usize| {
        let step = &steps[at];
        Some(step.start_ms? + step.millis?)
    };
    let by_node: HashMap<Digest, usize> =
        steps.iter().enumerate().map(|(at, step)| (step.node, at)).collect();
    let mut path = Vec::new();
    let mut last = (0..steps.len()).filter(|&at| end(at).is_some()).max_by_key(|&at| end(at));
    while let Some(at) = last {
        path.push(at);
        // Inputs that did not run, and so took no time, are looked through.
        let mut seen = vec![steps[at].node];
        let mut next = None;
        let mut looked = 0;
        while let Some(digest) = seen.get(looked).copied() {
            looked += 1;
            let Some(node) = past.graph.nodes.get(&digest) else { continue };
            for input in &node.inputs {
                match by_node.get(&input.node).filter(|&&at| end(at).is_some()) {
                    Some(&ran) if next.is_none_or(|known| end(known) < end(ran)) => {
                        next = Some(ran);
                    }
                    Some(_) => {}
                    None if !seen.contains(&input.node) && seen.len() < 1000 => {
                        seen.push(input.node);
                    }
                    None => {}
                }
            }
        }
        last = next;
    }
    path.reverse();
    path
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
