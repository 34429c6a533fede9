//! The parent's side of a step: gives it to a runner, streams its output, waits or cancels.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::keeper::{Keeper, Runner, give_up, read_answer};
use super::message::{self, Outcome, Task};
use super::{Exit, SandboxError, Step, is_ready, session};

/// One of a command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Ends running steps from another thread or a signal handler. Clones share one state; once
/// cancelled, it stays so.
#[derive(Clone, Debug)]
pub struct Cancel {
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// A handle that nobody has cancelled yet.
    pub fn new() -> Result<Self, SandboxError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| SandboxError::Start(e.into()))?;
        Ok(Cancel { event: Arc::new(event) })
    }

    /// Cancels. Only makes one `write` call, so that a signal handler may do it.
    pub fn cancel(&self) {
        // It fails only if the counter is full, which means cancelled as well.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        is_ready(self).unwrap_or(false)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Runs a step and returns how its command ended. `output` receives what it writes, as it comes,
/// on the calling thread. May be called from many threads at once, after
/// [`enter`](super::enter).
pub fn run(
    step: &Step,
    keeper: &Keeper,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Exit, SandboxError> {
    if cancel.is_cancelled() {
        return Err(SandboxError::Cancelled);
    }
    if session::without_namespaces() {
        return Err(SandboxError::Confined);
    }
    let task = Task { step, single_uid: session::single_uid(), on_terminal: false };
    let runner = keeper.take(&step.shared)?;
    message::send(&runner.socket, &task)?;
    keeper.refill(&step.shared);
    let (answer, cancelled) = drain(runner, output, cancel).map_err(SandboxError::Start)?;
    if cancelled {
        return Err(SandboxError::Cancelled);
    }
    killed_or(message::outcome(&answer))
}

/// What the child has answered.
pub(super) fn killed_or(outcome: Option<Outcome>) -> Result<Exit, SandboxError> {
    match outcome {
        Some(Outcome::Ended(exit)) => Ok(exit),
        Some(Outcome::Failed(error)) => Err(SandboxError::Setup(error)),
        None => Err(SandboxError::Killed),
    }
}

/// Hands on output until both streams and the step have ended. Gives what was answered, and whether
/// the step was cancelled.
fn drain(
    runner: Runner,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> io::Result<(Vec<u8>, bool)> {
    let Runner { socket, stdout, stderr } = runner;
    let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
    let mut answer = Vec::new();
    let mut running = true;
    let mut cancelled = false;
    let mut buffer = vec![0u8; 64 * 1024];
    while running || stdout.is_some() || stderr.is_some() {
        // A negative descriptor has no safe type: watch the handle for nothing where there is
        // nothing to watch.
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let quiet = || PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::empty());
        let mut fds = [
            stdout.as_ref().map_or_else(quiet, |s| watch(s.as_fd())),
            stderr.as_ref().map_or_else(quiet, |s| watch(s.as_fd())),
            if running { watch(socket.as_fd()) } else { quiet() },
            if cancelled { quiet() } else { watch(cancel.as_fd()) },
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = fds.map(|fd| !fd.revents().is_empty());
        if ready[0] && pass_on(&mut stdout, &mut buffer, &mut |b| output(Stream::Stdout, b))? {
            stdout = None;
        }
        if ready[1] && pass_on(&mut stderr, &mut buffer, &mut |b| output(Stream::Stderr, b))? {
            stderr = None;
        }
        if ready[2] && read_answer(&socket, &mut answer)? {
            running = false;
        }
        if ready[3] && !cancelled {
            cancelled = true;
            give_up(&socket);
        }
    }
    Ok((answer, cancelled))
}

/// Reads once and hands on. Returns whether the stream has ended.
fn pass_on(
    stream: &mut Option<impl Read>,
    buffer: &mut [u8],
    output: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let Some(stream) = stream else {
        return Ok(false);
    };
    match stream.read(buffer) {
        Ok(0) => Ok(true),
        Ok(n) => {
            output(&buffer[..n]);
            Ok(false)
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}
