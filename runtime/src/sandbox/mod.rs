//! Runs one command of a build in isolation.
//!
//! `main` calls [`init`] before anything else: in a process that was started as a keeper it
//! never returns. A command that runs steps then calls [`enter`] while it still has one thread,
//! and [`run`] from as many threads as it likes.
//!
//! A build has one [`Keeper`]: this binary executed anew, which forks the *runner* of each step into
//! new namespaces and waits for it (`keep`). The runner, pid 1 of the step, puts the root together
//! (`root`), gives up its privileges (`privilege`) and becomes the command. The step's description and
//! the outcome travel through a socket (`message`); until the description comes, the runner can get
//! ready (`kit`), so one is started while the step before still runs. Since mounts and processes live
//! in namespaces of the runner, nothing outlives it; since it dies with the keeper, which ends when
//! its socket to rbc does, nothing outlives rbc.

mod bpf;
mod calls32;
mod cgroup;
mod devices;
mod error;
mod identity;
mod keep;
mod keeper;
mod kit;
mod launch;
mod message;
mod mount;
mod network;
mod points;
mod privilege;
mod program;
mod root;
mod runner;
mod seccomp;
mod session;
mod terminal;

use std::{os::fd::AsFd, path::PathBuf};

use rbc_ir::Exec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

pub use cgroup::Cgroup;
pub use error::{SandboxError, SetupError};
pub use keeper::Keeper;
pub use launch::{Cancel, Stream, run};
pub use session::{Session, enter, is_rootless, single_uid};
pub(crate) use terminal::run_on_terminal;

/// The host name of a step that asks for none, as in BuildKit.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Takes over the process if it was started as a keeper. Must come first in `main`, before
/// any thread is started.
pub fn init() {
    if std::env::args_os().next().is_some_and(|name| name == KEEPER_NAME) {
        keep::keep();
    }
}

/// Whether something can be read now, an end included.
fn is_ready(file: impl AsFd) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(&file, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut fds, Some(&now))? > 0)
}

/// The `argv[0]` that makes [`init`] take over.
const KEEPER_NAME: &str = "rbc-step";

/// All that a step needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The root's layers in overlay format, lowest first; none means an empty root.
    pub lowers: Vec<PathBuf>,
    /// An empty directory that receives the step's changes in overlay format, and nothing else:
    /// no mount point is ever made in it.
    pub upper: PathBuf,
    /// A directory on the same file system that no other step has. What is made in it is worthless
    /// once the step ended; the caller removes it.
    pub work: PathBuf,
    /// A directory on the same file system for what steps can share: places to mount on, each step
    /// in its own namespace, and mount points that roots lack. The caller removes it in the end.
    pub shared: PathBuf,
    /// The command. Its `mounts` and `secret_env` are not looked at: the caller has resolved them
    /// to `mounts` and `extra_env`.
    pub exec: Exec,
    /// What is mounted over the root; sorted by target before use.
    pub mounts: Vec<HostMount>,
    /// Further environment as `NAME=value` (secrets, proxies); wins over the command's own.
    pub extra_env: Vec<String>,
    /// Folders of control groups that it joins, see [`Cgroup`].
    pub cgroups: Vec<PathBuf>,
}

/// Something of the host that a step sees at `target`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostMount {
    /// Absolute path in the step. Made for the time of the step if it does not exist.
    pub target: String,
    /// What is mounted.
    pub source: HostSource,
    /// Whether the step may write.
    pub access: Access,
}

/// Whether a step may write to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Writing fails.
    ReadOnly,
    /// Writing works.
    ReadWrite,
}

/// What a [`HostMount`] shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum HostSource {
    /// A file, directory or socket of the host as it is; what the step writes stays there.
    Path(PathBuf),
    /// A path inside the merged view of layers (or plain directories), lowest first. What the
    /// step writes is dropped.
    Layers {
        /// The directories.
        lowers: Vec<PathBuf>,
        /// The path inside; symlinks never lead out.
        path: String,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Size limit in bytes; 0 means the kernel's default.
        size: u64,
    },
    /// A file in memory, for secrets.
    File {
        /// Content.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// Through this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code as shells count it: 128 and the number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    /// Whether the command succeeded.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }
}
