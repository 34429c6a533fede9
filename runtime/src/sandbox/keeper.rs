//! The keeper of a build, seen from rbc: the process that makes and watches the first process of
//! every step.
//!
//! Executing a program anew takes longer than many a command, so it is done once a build; what a step
//! takes is a fork of the keeper, a *runner*. One runner is always ready while there are steps to
//! come.

use std::{
    io::{self, PipeReader, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::{Errno, IoSlice},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair,
    },
};

use super::{KEEPER_NAME, SandboxError, is_ready, keep::FILES};

/// The processes for the steps of a build. All of them end when it is dropped, and when rbc ends.
#[derive(Default)]
pub struct Keeper {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Process>,
    ready: Option<Runner>,
    /// How many steps will ask for one.
    to_come: usize,
}

impl Keeper {
    /// A keeper whose process starts with the first step, or when steps are announced.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces how many steps will probably run, and gets a runner ready for the first. `shared` is
    /// the folder that they name as [`Step::shared`](super::Step::shared).
    pub fn announce(&self, steps: usize, shared: &Path) {
        self.state().to_come = steps;
        self.refill(shared);
    }

    /// A runner for a step that begins now.
    pub(super) fn take(&self, shared: &Path) -> Result<Runner, SandboxError> {
        let mut state = self.state();
        state.to_come = state.to_come.saturating_sub(1);
        // One that has something to tell failed to get ready, for want of processes perhaps.
        let ready = state.ready.take().filter(|runner| !runner.has_told());
        ready.map_or_else(|| state.runner(shared), Ok).map_err(SandboxError::Start)
    }

    /// Gets a runner ready for the next step, if there is one.
    pub(super) fn refill(&self, shared: &Path) {
        let mut state = self.state();
        if state.to_come > 0 && state.ready.is_none() && !super::session::without_namespaces() {
            // The step that needs it tells why it cannot be had.
            state.ready = state.runner(shared).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn runner(&mut self, shared: &Path) -> io::Result<Runner> {
        let process = match &mut self.process {
            Some(process) => process,
            none => none.insert(Process::start()?),
        };
        let ((stdout, out), (stderr, err)) = (io::pipe()?, io::pipe()?);
        let socket = process.fork(shared, out, err)?;
        Ok(Runner { socket, stdout, stderr })
    }
}

/// The first process of a step: it waits for a task. Nothing is left of it and its step once the
/// socket ends.
pub(super) struct Runner {
    pub socket: UnixStream,
    pub stdout: PipeReader,
    pub stderr: PipeReader,
}

impl Runner {
    /// Whether there is an answer already, or nobody to give one.
    fn has_told(&self) -> bool {
        is_ready(&self.socket).unwrap_or(false)
    }
}

/// The keeper's process.
pub(super) struct Process {
    child: Child,
    /// Takes a message for each runner: the path of the shared folder, and three files. Its end ends
    /// the keeper. `None` only while it is dropped.
    control: Option<OwnedFd>,
}

impl Process {
    pub(super) fn start() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = Command::new("/proc/self/exe")
            .arg0(KEEPER_NAME)
            // For people who look at processes.
            .arg(std::process::id().to_string())
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // The terminal's Ctrl-C is for rbc, which then cancels.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, control: Some(control) })
    }

    /// Has a runner made and gives the socket to it. What it prints goes to `stdout` and `stderr`.
    pub(super) fn fork(
        &self,
        shared: &Path,
        stdout: impl AsFd,
        stderr: impl AsFd,
    ) -> io::Result<UnixStream> {
        let (socket, theirs) = UnixStream::pair()?;
        let files = [theirs.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        with.push(SendAncillaryMessage::ScmRights(&files));
        let path = [IoSlice::new(shared.as_os_str().as_bytes())];
        let Some(control) = &self.control else { return Ok(socket) };
        match sendmsg(control, &path, &mut with, SendFlags::NOSIGNAL) {
            // It is gone: the runner's socket ends, which is understood.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It kills what still runs and ends.
        drop(self.control.take());
        // It fails only if it is gone already.
        let _ = self.child.wait();
    }
}

/// Reads what has come from a step's socket. Gives whether that was the end.
pub(super) fn read_answer(mut socket: &UnixStream, answer: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    match socket.read(&mut buffer) {
        Ok(0) => Ok(true),
        Ok(length) => {
            answer.extend_from_slice(&buffer[..length]);
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        // What it was sent was never read: its runner is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error),
    }
}

/// Has the keeper kill a step. The socket ends when it is gone.
pub(super) fn give_up(socket: &UnixStream) {
    // It fails only if the other end is gone.
    let _ = socket.shutdown(std::net::Shutdown::Write);
}
