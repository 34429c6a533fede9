//! The socket between [`run`](super::run) and a step's child: the parent sends the task, the child
//! answers with the outcome.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::{Exit, SandboxError, SetupError, Step};

/// What the child is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Task<S> {
    /// The step itself.
    pub step: S,
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

/// Sends a task and the seccomp filters. A child that is gone is no error here: there will be no
/// outcome.
pub(super) fn send(
    mut socket: &UnixStream,
    task: &Task<&Step>,
    filters: &[Vec<u8>],
) -> Result<(), SandboxError> {
    let json = serde_json::to_vec(task).map_err(|e| SandboxError::Describe(e.to_string()))?;
    let size = json.len() + filters.iter().map(|f| 8 + f.len()).sum::<usize>() + 16;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&(filters.len() as u64).to_le_bytes());
    for filter in filters {
        bytes.extend_from_slice(&(filter.len() as u64).to_le_bytes());
        bytes.extend_from_slice(filter);
    }
    match socket.write_all(&bytes) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(SandboxError::Start(e)),
        _ => Ok(()),
    }
}

/// Waits for a task, in the child. None if the parent has ended without one.
pub(super) fn receive(mut socket: &UnixStream) -> Option<(Task<Step>, Vec<Vec<u8>>)> {
    let json = take(&mut socket)?;
    let task = serde_json::from_slice(&json).ok()?;
    let mut filters = Vec::new();
    for _ in 0..take_length(&mut socket)? {
        filters.push(take(&mut socket)?);
    }
    Some((task, filters))
}

fn take_length(socket: &mut &UnixStream) -> Option<u64> {
    let mut length = [0; 8];
    socket.read_exact(&mut length).ok()?;
    Some(u64::from_le_bytes(length))
}

fn take(socket: &mut &UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(take_length(socket)?).ok()?];
    socket.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Sends the outcome. Nobody could be told of a failure: the parent then finds nothing and says
/// that the child was killed.
pub(super) fn answer(mut socket: &UnixStream, outcome: &Outcome) {
    if let Ok(json) = serde_json::to_vec(outcome) {
        let _ = socket.write_all(&json);
    }
}

/// The first outcome that was sent, in the parent, once the child has ended.
pub(super) fn outcome(mut socket: &UnixStream) -> Option<Outcome> {
    // What comes is there already; whatever else has the other end open is not waited for.
    socket.set_nonblocking(true).ok()?;
    let mut bytes = Vec::new();
    // It ends with an error if somebody has.
    let _ = socket.read_to_end(&mut bytes);
    serde_json::Deserializer::from_slice(&bytes).into_iter().next()?.ok()
}
