//! The memory file between [`run`](super::run) and a step's child: the parent writes the task
//! before it starts the child, the child writes the outcome behind it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{Exit, SandboxError, SetupError, Step};

/// What the child is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Task<S> {
    /// The step itself.
    pub step: S,
    /// The process that started the child, which must outlive it.
    pub parent: i32,
    /// Whether the child runs in a user namespace of rbc's.
    pub rootless: bool,
    /// Whether only one user exists.
    pub single_uid: bool,
    /// Whether standard output is a terminal for the command.
    pub on_terminal: bool,
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Ended(Exit),
    Failed(SetupError),
}

const MAGIC: &[u8; 8] = b"rbcstep1";
/// Magic, length of the JSON, number of filters.
const HEADER: usize = 8 + 2 * 8;

/// Where the outcome goes: the file and the offset behind the task.
pub(super) struct Channel {
    pub file: File,
    pub offset: u64,
}

/// Writes a task and the seccomp filters to a new memory file.
pub(super) fn write(task: &Task<&Step>, filters: &[Vec<u8>]) -> Result<Channel, SandboxError> {
    let json = serde_json::to_vec(task).map_err(|e| SandboxError::Describe(e.to_string()))?;
    let mut bytes = Vec::with_capacity(HEADER + json.len() + 16 * 1024);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(filters.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&json);
    for filter in filters {
        bytes.extend_from_slice(&(filter.len() as u64).to_le_bytes());
        bytes.extend_from_slice(filter);
    }
    let memory: OwnedFd = memfd_create(c"rbc-step", MemfdFlags::CLOEXEC)
        .map_err(|e| SandboxError::Start(e.into()))?;
    let file = File::from(memory);
    file.write_all_at(&bytes, 0).map_err(SandboxError::Start)?;
    Ok(Channel { file, offset: bytes.len() as u64 })
}

/// Reads a task back, in the child. None if the file holds no task.
pub(super) fn read(file: File) -> Option<(Task<Step>, Vec<Vec<u8>>, Channel)> {
    let size = usize::try_from(file.metadata().ok()?.len()).ok()?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?;
    let (json_len, rest) = take_length(rest)?;
    let (count, rest) = take_length(rest)?;
    let (json, mut rest) = rest.split_at_checked(json_len)?;
    let task = serde_json::from_slice(json).ok()?;
    let mut filters = Vec::new();
    for _ in 0..count {
        let (len, after) = take_length(rest)?;
        let (filter, after) = after.split_at_checked(len)?;
        filters.push(filter.to_vec());
        rest = after;
    }
    let offset = (size - rest.len()) as u64;
    Some((task, filters, Channel { file, offset }))
}

fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    Some((usize::try_from(u64::from_le_bytes(*length)).ok()?, rest))
}

impl Channel {
    /// Writes the outcome. Nobody could be told of a failure: the parent then finds nothing and
    /// says that the child was killed.
    pub(super) fn answer(&self, outcome: &Outcome) {
        if let Ok(json) = serde_json::to_vec(outcome) {
            let _ = self.file.write_all_at(&json, self.offset);
        }
    }

    /// Whether there is an outcome already.
    pub(super) fn answered(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.len() > self.offset)
    }

    /// Reads the outcome, in the parent.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let size = self.file.metadata().ok()?.len().checked_sub(self.offset)?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        self.file.read_exact_at(&mut bytes, self.offset).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
