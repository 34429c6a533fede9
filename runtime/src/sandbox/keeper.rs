//! Keepers: the processes that steps are run by. Starting one takes longer than many a command, so
//! one can be started before its step is known.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{KEEPER_NAME, SandboxError};

/// A keeper that has its task or waits for one; killed and reaped when it is dropped.
pub(super) struct Keeper {
    pub child: Child,
    pub socket: UnixStream,
}

impl Keeper {
    pub(super) fn start(stdout: Stdio, stderr: Stdio) -> Result<Self, SandboxError> {
        let start = || {
            let (socket, theirs) = UnixStream::pair()?;
            let child = Command::new("/proc/self/exe")
                .arg0(KEEPER_NAME)
                .arg(std::process::id().to_string())
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(stdout)
                .stderr(stderr)
                // The terminal's Ctrl-C is for rbc, which then cancels.
                .process_group(0)
                .spawn()?;
            Ok(Self { child, socket })
        };
        start().map_err(|error: io::Error| SandboxError::Start(error))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The keepers of a build: one is ready while there are steps to come.
pub struct Keepers {
    state: Mutex<State>,
}

struct State {
    ready: Option<Keeper>,
    /// How many steps will ask for one.
    to_come: usize,
}

impl Keepers {
    /// For as many steps as will probably run. Starts the first keeper.
    pub fn new(steps: usize) -> Self {
        let keepers = Self { state: Mutex::new(State { ready: None, to_come: steps }) };
        keepers.refill();
        keepers
    }

    /// One for a step that begins now.
    pub(super) fn take(&self) -> Result<Keeper, SandboxError> {
        let ready = {
            let mut state = self.state();
            state.to_come = state.to_come.saturating_sub(1);
            state.ready.take()
        };
        ready.map_or_else(|| Keeper::start(Stdio::piped(), Stdio::piped()), Ok)
    }

    /// Starts the keeper of the next step, if there is one.
    pub(super) fn refill(&self) {
        let mut state = self.state();
        if state.to_come > 0 && state.ready.is_none() && !super::session::without_namespaces() {
            // The step that needs it tells why it cannot be had.
            state.ready = Keeper::start(Stdio::piped(), Stdio::piped()).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
