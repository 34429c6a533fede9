//! The socket between [`run`](super::run) and a step: rbc sends the task; the runner tells why it
//! failed, or the keeper how the command ended.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::{Exit, SandboxError, SetupError, Step};

/// What the runner is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Task<S> {
    /// The step itself.
    pub step: S,
    /// Whether only one user exists.
    pub single_uid: bool,
    /// Whether standard output is a terminal for the command.
    pub on_terminal: bool,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Ended(Exit),
    Failed(SetupError),
}

/// Sends a task. A runner that is gone is no error here: there will be no outcome.
pub(super) fn send(mut socket: &UnixStream, task: &Task<&Step>) -> Result<(), SandboxError> {
    let json = serde_json::to_vec(task).map_err(|e| SandboxError::Describe(e.to_string()))?;
    let mut bytes = Vec::with_capacity(8 + json.len());
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&json);
    match socket.write_all(&bytes) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(SandboxError::Start(e)),
        _ => Ok(()),
    }
}

/// Waits for a task, in the runner. None if the parent has ended without one.
pub(super) fn receive(mut socket: &UnixStream) -> Option<Task<Step>> {
    let mut length = [0; 8];
    socket.read_exact(&mut length).ok()?;
    let mut json = vec![0; usize::try_from(u64::from_le_bytes(length)).ok()?];
    socket.read_exact(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Sends the outcome. Nobody could be told of a failure: the parent then finds nothing and says
/// that the child was killed.
pub(super) fn answer(mut socket: &UnixStream, outcome: &Outcome) {
    if let Ok(json) = serde_json::to_vec(outcome) {
        let _ = socket.write_all(&json);
    }
}

/// The first outcome in what was answered.
pub(super) fn outcome(answer: &[u8]) -> Option<Outcome> {
    serde_json::Deserializer::from_slice(answer).into_iter().next()?.ok()
}
