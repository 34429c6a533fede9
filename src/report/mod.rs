//! `rbc report`: one page about one build, with nothing outside of it.
//!
//! [`gather()`] puts together what the page shows: the record of the build, why steps missed, logs,
//! and what is left of the layers in the store. [`page`] writes it. Everything that comes from a
//! Dockerfile, a file name or a log goes through [`Escaped`](crate::picture::Escaped), and the page
//! forbids itself all scripts and styles but its own.

mod gather;
mod page;
mod steps;
mod timeline;

pub use gather::gather;
pub use page::write;

use std::collections::HashMap;

use rbc_runtime::{
    explain::Explanation,
    history::{Past, Record, StepRecord, StepState},
    layer::{LayerSurvey, Survey},
};

/// All that a page shows.
pub struct Report {
    pub past: Past,
    pub why: Explanation,
    /// The end of each step's log, by position in the record.
    pub logs: Vec<Option<Log>>,
    /// What is in the layers of the first target.
    pub survey: Option<Survey>,
    /// For each of these layers, the position of its step in the record.
    pub layer_steps: Vec<usize>,
    /// What is in the layers of steps that are no part of the first target, by position.
    pub others: HashMap<usize, Vec<LayerSurvey>>,
    /// Positions of the steps on the critical path.
    pub critical: Vec<usize>,
}

/// The end of a log.
pub struct Log {
    pub text: String,
    /// Whether there is more before it.
    pub is_cut: bool,
}

impl Report {
    /// The layers that a step adds.
    fn layers_of(&self, step: usize) -> Vec<&LayerSurvey> {
        let survey = self.survey.iter().flat_map(|survey| &survey.layers);
        let of_image = self.layer_steps.iter().zip(survey).filter(|(of, _)| **of == step);
        let others = self.others.get(&step).into_iter().flatten();
        of_image.map(|(_, layer)| layer).chain(others).collect()
    }

    /// Bytes that a step adds, if they are known.
    fn bytes_of(&self, step: usize) -> Option<u64> {
        let layers = self.layers_of(step);
        match layers.is_empty() {
            false => Some(layers.iter().map(|layer| layer.size.bytes).sum()),
            true => self.past.record.steps.get(step)?.size.map(|size| size.bytes),
        }
    }

    /// How a step is called.
    fn title(&self, step: usize) -> String {
        match self.past.record.steps.get(step) {
            Some(StepRecord { number: Some(number), name, .. }) => format!("#{number} {name}"),
            Some(step) if step.name.is_empty() => step.node.short(),
            Some(step) => step.name.clone(),
            None => "?".to_owned(),
        }
    }
}

/// The state of a step as a class and in a word, with a sign so that it is not told by colour alone.
fn look(step: &StepRecord) -> (&'static str, &'static str) {
    use rbc_runtime::history::Found;
    match (step.state, step.found) {
        (StepState::Cached, Some(Found::Content)) => ("same", "≈ same content"),
        (StepState::Cached, _) => ("cached", "= cached"),
        (StepState::Ran, _) => ("ran", "▶ ran"),
        (StepState::Failed, _) => ("failed", "✖ failed"),
        (StepState::Cancelled, _) => ("stopped", "■ stopped"),
        (StepState::NotReached, _) => ("stopped", "· not reached"),
        (StepState::NotNeeded, _) => ("stopped", "· not needed"),
    }
}

/// How many steps were executed, and how many of them failed.
pub fn executed(record: &Record) -> String {
    match record.failed() {
        0 => format!("{} ran", record.ran()),
        failed => format!("{} ran, {failed} failed", record.ran()),
    }
}

/// Bytes in decimal units.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Milliseconds in the unit that fits.
fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}
