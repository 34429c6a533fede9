//! The parent's side of a step: gives it to a keeper, streams its output, waits or cancels.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use rbc_ir::Security;

use super::keeper::Keepers;
use super::message::{self, Outcome, Task};
use super::seccomp::{self, Ownership};
use super::{Exit, SandboxError, Step, session};

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
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
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
    keepers: &Keepers,
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
    let filters = filters_for(step)?;
    let mut keeper = keepers.take()?;
    message::send(&keeper.socket, &task, filters)?;
    keepers.refill();
    let drained = drain(&mut keeper.child, output, cancel);
    let reaped = keeper.child.wait();
    if drained.map_err(SandboxError::Start)? == Drained::Cancelled {
        return Err(SandboxError::Cancelled);
    }
    reaped.map_err(SandboxError::Start)?;
    killed_or(message::outcome(&keeper.socket))
}

/// The seccomp filters of a step.
pub(super) fn filters_for(step: &Step) -> Result<&'static [Vec<u8>], SandboxError> {
    Ok(match (step.exec.security, session::single_uid()) {
        (Security::Sandbox, false) => seccomp::filters(Ownership::Real)?,
        (Security::Sandbox, true) => seccomp::filters(Ownership::Pretended)?,
        (Security::Insecure, true) => seccomp::ownership_filter()?,
        (Security::Insecure, false) => &[],
    })
}

/// What the child has answered.
pub(super) fn killed_or(outcome: Option<Outcome>) -> Result<Exit, SandboxError> {
    match outcome {
        Some(Outcome::Ended(exit)) => Ok(exit),
        Some(Outcome::Failed(error)) => Err(SandboxError::Setup(error)),
        None => Err(SandboxError::Killed),
    }
}

#[derive(PartialEq, Eq)]
enum Drained {
    Ended,
    Cancelled,
}

/// Hands on output until both streams and the child have ended.
fn drain(
    child: &mut Child,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> io::Result<Drained> {
    let pid = Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let mut running = true;
    let mut cancelled = false;
    let mut buffer = vec![0u8; 64 * 1024];
    while running || stdout.is_some() || stderr.is_some() {
        // A negative descriptor has no safe type: watch the child twice where there is
        // nothing else to watch, and ignore the copies.
        let idle = ended.as_fd();
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let quiet = || PollFd::from_borrowed_fd(idle, PollFlags::empty());
        let mut fds = [
            stdout.as_ref().map_or_else(quiet, |s| watch(s.as_fd())),
            stderr.as_ref().map_or_else(quiet, |s| watch(s.as_fd())),
            if running { watch(idle) } else { quiet() },
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
        if ready[2] {
            running = false;
        }
        if ready[3] && !cancelled {
            cancelled = true;
            child.kill()?;
        }
    }
    Ok(if cancelled { Drained::Cancelled } else { Drained::Ended })
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
