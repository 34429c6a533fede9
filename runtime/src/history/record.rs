//! The form of a record.

use rbc_ir::Digest;
use serde::{Deserialize, Serialize};

use crate::{layer::Size, progress::StepId, store::LayerId};

/// Version of the form. A record of another version is passed over.
pub(super) const VERSION: u32 = 1;

/// What one build did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the form.
    pub version: u32,
    /// Name of the build; names sort by time.
    pub id: String,
    /// What was built.
    pub subject: Subject,
    /// Names that the image was given.
    pub tags: Vec<String>,
    /// When it began, in milliseconds since the epoch.
    pub begun_ms: u64,
    /// How long it took, in milliseconds, with exports.
    pub millis: u64,
    /// How it ended.
    pub status: Status,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The first step that was not in the cache, and why, in one line.
    pub first_miss: Option<String>,
    /// Name of the earlier build that it was compared with for that.
    pub compared_with: Option<String>,
    /// The nodes of the graph that can have results, in the graph's order.
    pub steps: Vec<StepRecord>,
}

/// What a build is of. Two builds with equal subjects are builds of the same thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The Dockerfile: an absolute path where it is a file of this machine.
    pub dockerfile: String,
    /// The build context: an absolute path or an address.
    pub context: String,
    /// Names of the graph's targets.
    pub targets: Vec<String>,
    /// Their platforms.
    pub platforms: Vec<String>,
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything was made.
    Succeeded,
    /// Something went wrong.
    Failed,
    /// The user stopped it.
    Cancelled,
    /// It has not ended yet.
    Running,
    /// Its process ended without a word.
    Killed,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Digest of its node: its key.
    pub node: Digest,
    /// Its number in the progress view; `None` for details that users do not see.
    pub number: Option<StepId>,
    /// Its name, for example `[build 2/4] RUN make`.
    pub name: String,
    /// Name or number of its stage.
    pub stage: String,
    /// Where its instruction stands.
    pub place: Option<Place>,
    /// What became of it.
    pub state: StepState,
    /// How its result was found, for one from the cache.
    pub found: Option<Found>,
    /// The cache that its result was brought from, if it is not from this state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Why its key alone did not give a result.
    pub miss: Option<Miss>,
    /// When it began, in milliseconds since the build did; `None` if it did not run.
    pub start_ms: Option<u64>,
    /// How long it ran in this build, in milliseconds.
    pub millis: Option<u64>,
    /// How long it took to make its result, in this build or an earlier one, in milliseconds.
    pub cost_ms: Option<u64>,
    /// The layers that it adds to those of its first input, lowest first.
    pub added: Vec<String>,
    /// What these hold, if it was counted.
    pub size: Option<Size>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Name of its log in the build's folder of logs, if it ran a command.
    pub log: Option<String>,
}

/// A line of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the Dockerfile as the user gave it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Its result was there.
    Cached,
    /// It was executed.
    Ran,
    /// It was executed and failed.
    Failed,
    /// It was stopped, by the user or because another step failed.
    Cancelled,
    /// The build ended before its turn.
    NotReached,
    /// There is no result, but nothing needed one.
    NotNeeded,
}

/// How a cached result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// By its key, before anything ran.
    Key,
    /// Its inputs have the same content as those of an earlier run.
    Content,
    /// Another process made it in the meantime.
    Meanwhile,
}

/// Why a key gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Miss {
    /// The cache was not to be asked (`--no-cache`).
    NoCache,
    /// There is none.
    Absent,
    /// There is one, made from a result that has been made anew since.
    Remade,
}

impl StepRecord {
    /// Whether its result was not found by its key alone.
    pub fn missed(&self) -> bool {
        match self.state {
            StepState::Cached => self.found != Some(Found::Key),
            StepState::Ran | StepState::Failed | StepState::Cancelled | StepState::NotReached => {
                true
            }
            StepState::NotNeeded => false,
        }
    }

    /// Whether there was a result at the end of the build.
    pub fn has_result(&self) -> bool {
        matches!(self.state, StepState::Cached | StepState::Ran)
    }

    /// The layers that it adds; those with a name that cannot be one are left out.
    pub fn layers(&self) -> Vec<LayerId> {
        self.added.iter().filter_map(|id| id.parse().ok()).collect()
    }
}

impl Record {
    /// A record of steps alone, for a graph that no build is known of.
    pub(crate) fn of_steps(steps: Vec<StepRecord>) -> Self {
        Self {
            version: VERSION,
            id: String::new(),
            subject: Subject::default(),
            tags: Vec::new(),
            begun_ms: 0,
            millis: 0,
            status: Status::Succeeded,
            error: None,
            first_miss: None,
            compared_with: None,
            steps,
        }
    }

    /// How many steps that users see were taken from the cache.
    pub fn cached(&self) -> usize {
        self.count(|state| matches!(state, StepState::Cached | StepState::NotNeeded))
    }

    /// How many steps that users see were executed and succeeded.
    pub fn ran(&self) -> usize {
        self.count(|state| state == StepState::Ran)
    }

    /// How many steps that users see failed.
    pub fn failed(&self) -> usize {
        self.count(|state| state == StepState::Failed)
    }

    fn count(&self, is: impl Fn(StepState) -> bool) -> usize {
        self.steps.iter().filter(|step| step.number.is_some() && is(step.state)).count()
    }
}
