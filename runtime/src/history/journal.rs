//! Notes what becomes of each step while a build runs.

use std::{
    fs::File,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rbc_ir::Graph;
use time::OffsetDateTime;

use super::{
    keep::{Builds, HistoryError},
    listing,
    record::{Record, Status, StepRecord, StepState, Subject, VERSION},
};
use crate::{build::Contexts, progress::StepId, store::Store};

/// The notes on one build. They become a record with [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    id: String,
    subject: Subject,
    tags: Vec<String>,
    begun: SystemTime,
    clock: Instant,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// By position in the graph.
    steps: Vec<StepRecord>,
    first_miss: Option<String>,
    compared_with: Option<String>,
    /// Locked as long as the build runs.
    running: Option<File>,
}

/// The name of the log of a step with a number, which stands at a position of the graph.
pub(crate) fn log_name(number: Option<StepId>, at: usize) -> String {
    format!("{}.log", number.unwrap_or(at))
}

/// How a build ended, for its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Why it failed, in a line.
    pub error: Option<String>,
}

impl Journal {
    /// Begins the notes on a build of `subject`, and names the build after the time.
    pub fn begin(subject: Subject, tags: Vec<String>) -> Self {
        let begun = SystemTime::now();
        let t = OffsetDateTime::from(begun);
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        let (hour, minute, second, millis) = (t.hour(), t.minute(), t.second(), t.millisecond());
        let id = format!(
            "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{millis:03}-{}",
            std::process::id()
        );
        let notes = Mutex::default();
        Self { id, subject, tags, begun, clock: Instant::now(), notes }
    }

    /// Name of the build. Names sort by time.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is built.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Milliseconds since the build began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        millis(self.clock.elapsed())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The notes on the steps as they are.
    pub(crate) fn steps(&self) -> Vec<StepRecord> {
        self.notes().steps.clone()
    }

    /// Takes the steps as they are planned, one for each node of the graph.
    pub(crate) fn planned(&self, steps: Vec<StepRecord>) {
        self.notes().steps = steps;
    }

    /// Changes the note on the step at a position of the graph.
    pub(crate) fn note(&self, at: usize, change: impl FnOnce(&mut StepRecord)) {
        if let Some(step) = self.notes().steps.get_mut(at) {
            change(step);
        }
    }

    /// Notes why the first step that is not in the cache is not.
    pub(crate) fn missed(&self, first_miss: String, compared_with: Option<String>) {
        let mut notes = self.notes();
        notes.first_miss = Some(first_miss);
        notes.compared_with = compared_with;
    }

    /// Why the first step that failed did.
    pub fn failure(&self) -> Option<String> {
        let notes = self.notes();
        let failed = notes.steps.iter().find(|step| step.state == StepState::Failed)?;
        let error = failed.error.clone().unwrap_or_default();
        Some(match failed.name.as_str() {
            "" => error,
            name => format!("{name}: {error}"),
        })
    }

    /// Whether a step has failed, rather than having been stopped.
    pub fn has_failure(&self) -> bool {
        self.notes().steps.iter().any(|step| step.state == StepState::Failed)
    }

    /// A record without anything of what becomes of the build.
    fn blank(&self) -> Record {
        Record {
            version: VERSION,
            id: self.id.clone(),
            subject: self.subject.clone(),
            tags: self.tags.clone(),
            begun_ms: self.begun.duration_since(UNIX_EPOCH).map_or(0, millis),
            millis: 0,
            status: Status::Running,
            error: None,
            first_miss: None,
            compared_with: None,
            steps: Vec::new(),
        }
    }

    /// Lets others know what is about to run, so that they find its logs before there is a record.
    ///
    /// # Errors
    /// If the state folder cannot be written. The build itself is not concerned.
    pub(crate) fn tell_running(&self, store: &Store, graph: &Graph) -> Result<(), HistoryError> {
        let nodes = graph.nodes.values().zip(self.steps()).enumerate();
        let steps: Vec<StepRecord> = nodes
            .filter(|(_, (node, step))| {
                step.state == StepState::NotReached && matches!(node.op, rbc_ir::Op::Exec(_))
            })
            .map(|(at, (_, step))| StepRecord { log: Some(log_name(step.number, at)), ..step })
            .collect();
        if steps.is_empty() {
            return Ok(());
        }
        let record = Record { steps, ..self.blank() };
        self.notes().running = Some(Builds::of(store).write_unfinished(&record)?);
        Ok(())
    }

    /// Writes the record.
    ///
    /// # Errors
    /// If the state folder cannot be written. The build itself is not concerned.
    pub fn close(
        self,
        store: &Store,
        graph: &Graph,
        contexts: &Contexts,
        outcome: Outcome,
    ) -> Result<(), HistoryError> {
        let millis = self.elapsed_ms();
        let blank = self.blank();
        let notes = self.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Scratch and contexts never have results, so there is nothing to say of them.
        let steps = graph.nodes.values().zip(notes.steps);
        let steps = steps.filter(|(node, _)| !crate::build::is_transparent(&node.op));
        let record = Record {
            millis,
            status: outcome.status,
            error: outcome.error,
            first_miss: notes.first_miss,
            compared_with: notes.compared_with,
            steps: steps.map(|(_, step)| step).collect(),
            ..blank
        };
        write_listings(store, graph, contexts)?;
        let bytes = graph
            .encode()
            .map_err(|e| HistoryError::Damaged { id: record.id.clone(), reason: e.to_string() })?;
        Builds::of(store).write(&record, &bytes)
    }
}

/// Writes the listings of the contexts of a graph that are not there yet, so that a later change
/// can be told as a change of files.
///
/// # Errors
/// If the state folder cannot be written.
pub fn write_listings(
    store: &Store,
    graph: &Graph,
    contexts: &Contexts,
) -> Result<(), HistoryError> {
    let builds = Builds::of(store);
    for node in graph.nodes.values() {
        if let rbc_ir::Op::Source(rbc_ir::Source::Context(source)) = &node.op {
            let encode = || contexts.listing(&source.digest, listing::encode);
            builds.write_listing(&source.digest, encode)?;
        }
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
