//! `rbc explain` and `rbc diff`: why steps ran, and how two graphs differ.

use std::io::{self, Write};

use rbc_ir::{Change, Digest, Graph};
use rbc_runtime::{
    explain::{Explanation, Why, explain_graphs, explain_past},
    history::{Builds, Place, Record, StepRecord, StepState},
    store::Store,
};
use serde_json::json;

use super::{Failure, Outcome, graph, history};
use crate::{
    cli::{DiffArgs, ExplainArgs, ReportFormat},
    inspect::clean,
    report::executed,
};

pub fn explain(store: &Store, args: &ExplainArgs) -> Outcome {
    let builds = Builds::of(store);
    let listings = |old: &Digest, new: &Digest| builds.listings_apart(old, new);
    let mut out = io::stdout().lock();
    if let [old, new] = args.graph.as_slice() {
        let (old, new) = (graph::read(old)?, graph::read(new)?);
        let why = explain_graphs(&old, &new, &listings);
        match args.format {
            ReportFormat::Json => writeln!(out, "{}", json!({ "steps": why.steps }))?,
            ReportFormat::Text if why.steps.is_empty() => {
                writeln!(out, "every step of the new graph is in the old one")?;
            }
            ReportFormat::Text => write_steps(&why, &mut out)?,
        }
        return Ok(());
    }
    let past = builds.past(&history::chosen(&builds, args.build.as_deref())?)?;
    let why = explain_past(&builds, &past)?;
    let record = &past.record;
    if args.format == ReportFormat::Json {
        let brought: Vec<_> = brought(record)
            .map(|(step, from)| json!({ "step": step.number, "name": step.name, "from": from }))
            .collect();
        let value = json!({
            "build": record.id,
            "compared_with": why.compared_with,
            "status": record.status,
            "cached": record.cached(),
            "ran": record.ran(),
            "failed": record.failed(),
            "brought": brought,
            "first": why.first(),
            "steps": why.steps,
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    write!(out, "build {} of {}", record.id, clean(&record.subject.dockerfile))?;
    match &why.compared_with {
        Some(earlier) => writeln!(out, ", compared with {earlier}")?,
        None => writeln!(out, ", the first one known")?,
    }
    let told = match why.steps.is_empty() {
        true => "every step was in the cache".to_owned(),
        false => {
            let steps = if record.cached() == 1 { "step" } else { "steps" };
            format!("{} {steps} cached, {}", record.cached(), executed(record))
        }
    };
    writeln!(out, "{told}")?;
    for (step, from) in brought(record) {
        let number = step.number.unwrap_or_default();
        writeln!(out, "#{number} {}: cached, from {}", clean(&step.name), clean(from))?;
    }
    if why.steps.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    write_steps(&why, &mut out)?;
    Ok(())
}

/// Steps whose results came from another cache, with its name.
fn brought(record: &Record) -> impl Iterator<Item = (&StepRecord, &str)> {
    let shown = record.steps.iter().filter(|step| step.number.is_some());
    shown.filter_map(|step| Some((step, step.origin.as_deref()?)))
}

fn write_steps(why: &Explanation, out: &mut impl Write) -> io::Result<()> {
    let first = why.first().map(|first| first.step);
    for step in &why.steps {
        let mark = if Some(step.step) == first { "first miss: " } else { "" };
        let place = step.place.as_ref().map(shown).unwrap_or_default();
        writeln!(out, "{mark}#{} {}{place}: {}", step.step, clean(&step.name), state(step))?;
        for cause in &step.causes {
            writeln!(out, "    {cause}")?;
        }
    }
    Ok(())
}

fn shown(place: &Place) -> String {
    format!(" ({}:{})", clean(&place.file), place.line)
}

/// What became of a step, in words.
pub fn state(step: &Why) -> &'static str {
    match step.state {
        StepState::Cached if step.same_content => "cached: inputs have the same content",
        StepState::Cached => "cached: another process made it meanwhile",
        StepState::Ran => "ran",
        StepState::Failed => "failed",
        StepState::Cancelled => "stopped",
        StepState::NotReached => "not in the cache",
        StepState::NotNeeded => "not needed",
    }
}

pub fn diff(args: &DiffArgs) -> Outcome {
    let (old, new) = (graph::read(&args.old)?, graph::read(&args.new)?);
    let diff = old.diff(&new);
    let mut out = io::stdout().lock();
    match args.format {
        ReportFormat::Json => {
            let step = |graph: &Graph, digest: &Digest| json!({ "node": digest, "name": graph.node_meta(digest).name });
            let list = |graph: &Graph, digests: &[Digest]| -> Vec<serde_json::Value> {
                digests.iter().map(|digest| step(graph, digest)).collect()
            };
            let changed: Vec<_> = diff.changed.iter().map(|c| change_json(&old, &new, c)).collect();
            let value = json!({
                "removed": list(&old, &diff.removed),
                "added": list(&new, &diff.added),
                "changed": changed,
            });
            writeln!(out, "{value}")?;
        }
        ReportFormat::Text => {
            for digest in &diff.removed {
                writeln!(out, "- {}", title(&old, digest))?;
            }
            for digest in &diff.added {
                writeln!(out, "+ {}", title(&new, digest))?;
            }
            for change in &diff.changed {
                writeln!(out, "~ {}", title(&new, &change.new))?;
                let (old, new) = (clean(&change.old_value), clean(&change.new_value));
                writeln!(out, "    {}: {old} → {new}", clean(&change.field))?;
            }
        }
    }
    if args.exit_code && !diff.is_empty() { Err(Failure::Negative) } else { Ok(()) }
}

fn change_json(old: &Graph, new: &Graph, change: &Change) -> serde_json::Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    json!({
        "old": change.old,
        "new": change.new,
        "old_name": old.node_meta(&change.old).name,
        "new_name": new.node_meta(&change.new).name,
        "field": change.field,
        "old_value": value(&change.old_value),
        "new_value": value(&change.new_value),
    })
}

/// The name of a node, or what it does, with its digest.
fn title(graph: &Graph, digest: &Digest) -> String {
    let at = graph.nodes.get_index_of(digest).unwrap_or(usize::MAX);
    format!("{} {}", digest.short(), crate::inspect::title(graph, at))
}
