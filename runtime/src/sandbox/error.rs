//! What can go wrong around a step, in the words that the user reads.

use std::io;

use serde::{Deserialize, Serialize};

/// An error of the sandbox. A command that ran and failed is no error but an
/// [`Exit`](super::Exit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The private namespaces could not be made.
    #[error("cannot set up namespaces: {what}: {source}")]
    Namespace {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The program runs in a container that forbids namespaces and mounts.
    #[error(
        "this container may not make namespaces, and a command needs them: run it with \
         --security-opt seccomp=unconfined (and apparmor=unconfined), or as an ordinary user, or \
         privileged; builds without commands work as it is"
    )]
    Confined,
    /// The child that sets up the step could not be started.
    #[error("cannot start the sandbox: {0}")]
    Start(#[source] io::Error),
    /// The step's description could not be handed over.
    #[error("cannot describe the step to the sandbox: {0}")]
    Describe(String),
    /// The child failed before the command ran.
    #[error("{0}")]
    Setup(SetupError),
    /// The child vanished without a word.
    #[error("the sandbox was killed before the command ended")]
    Killed,
    /// The build was cancelled while the step ran.
    #[error("cancelled")]
    Cancelled,
}

/// A failure inside the step's child; it travels to the parent as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A system call failed.
    #[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// What was tried, naming the object.
        what: String,
        /// The error number.
        errno: i32,
    },
    /// The user or group is unknown.
    #[error("{0}")]
    User(String),
    /// The command cannot be run.
    #[error("{0}")]
    Program(String),
    /// The step asks for something impossible.
    #[error("{0}")]
    Invalid(String),
}

/// Names what was tried when a system call failed.
pub(super) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, SetupError>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|e| SetupError::System { what: what(), errno: e.raw_os_error() })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|e| match e.raw_os_error() {
            Some(errno) => SetupError::System { what: what(), errno },
            None => SetupError::Invalid(format!("{}: {e}", what())),
        })
    }
}
