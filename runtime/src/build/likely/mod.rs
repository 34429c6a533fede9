//! The likely cause of a command that failed, where it can be known from what the command was, how
//! it ended, what it printed last, and the files that it saw.
//!
//! The kernel says `ENOENT` whether the program, the interpreter of a script or the loader of a
//! binary is missing, and shells add little to it. The files tell which it was ([`program`]); what
//! programs say of disks, names and permissions is understood by [`said`]. No cause is better than a
//! wrong one: what only looks like an error message counts for nothing.

mod program;
mod said;

use std::path::Path;

use libc::{SIGILL, SIGKILL, SIGPIPE, SIGSYS};
use rbc_ir::Exec;

use super::signal_name;
use crate::{
    sandbox::{Exit, SandboxError, SetupError},
    tree::LayerStack,
};

/// Less free space than this is none.
const LITTLE_SPACE: u64 = 1 << 20;

/// What is known of a command that failed.
pub(super) struct Failure<'a> {
    pub exec: &'a Exec,
    /// The root as the command left it.
    pub root: &'a LayerStack,
    /// What the command printed last.
    pub lines: &'a [String],
    /// Free bytes where the command wrote.
    pub free: Option<u64>,
    pub out_of_memory: OutOfMemory,
}

/// What is known of processes that the kernel killed for want of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutOfMemory {
    /// None since the build began.
    No,
    /// Some process of this machine.
    Somewhere,
    /// One of the step, in the control group that was made for it.
    InGroup,
}

/// How it failed.
pub(super) enum Ending<'a> {
    /// It ran and ended like this.
    Exit(Exit),
    /// It could not be run.
    NotRun(&'a SandboxError),
}

impl Failure<'_> {
    /// The likely cause, in a sentence.
    pub(super) fn likely_cause(&self, ending: &Ending<'_>) -> Option<String> {
        match ending {
            Ending::NotRun(SandboxError::Setup(SetupError::Program(_))) => {
                let name = self.exec.args.first()?;
                self.why_not_started(name).or_else(|| self.permission()).or_else(|| self.full())
            }
            Ending::NotRun(_) => self.full(),
            Ending::Exit(exit) => self
                .no_space()
                .or_else(|| self.signal(*exit))
                .or_else(|| self.network())
                .or_else(|| self.library())
                .or_else(|| self.said_by_shell(exit.code()))
                .or_else(|| self.bad_script())
                .or_else(|| self.read_only())
                .or_else(|| self.permission())
                .or_else(|| self.full()),
        }
    }

    /// Whether the disk is full, whatever the command says.
    fn full(&self) -> Option<String> {
        let free = self.free.filter(|free| *free < LITTLE_SPACE)?;
        Some(format!(
            "the disk with the state folder is full: {free} bytes are free; `rbc prune` removes \
             what can be made again"
        ))
    }

    fn signal(&self, exit: Exit) -> Option<String> {
        match exit.code() - 128 {
            SIGKILL => Some(
                match self.out_of_memory {
                    OutOfMemory::InGroup => {
                        "the kernel killed a process of the step because the limit on memory of \
                         its control group (--cgroup-parent) was reached"
                    }
                    OutOfMemory::Somewhere => {
                        "the kernel killed a process for want of memory: there is too little in \
                         this machine, or in the container or control group that rbc runs in"
                    }
                    OutOfMemory::No => {
                        "a process was killed with SIGKILL; most often that is a limit on memory \
                         of the container or machine that rbc runs in"
                    }
                }
                .to_owned(),
            ),
            SIGILL => Some("the program uses instructions that this processor lacks".to_owned()),
            SIGSYS => Some("the program used a system call that steps may not use".to_owned()),
            SIGPIPE => Some(
                "a program wrote to a pipe whose reader, such as head, had ended (SIGPIPE)"
                    .to_owned(),
            ),
            // Some programs end with 129 and 130 by themselves.
            signal if matches!(exit, Exit::Code(_)) && signal > libc::SIGINT => {
                let name = signal_name(signal)?;
                Some(format!("a program that it ran was killed by signal {signal} ({name})"))
            }
            _ => None,
        }
    }
}

/// How many processes the kernel has killed for want of memory since it was started.
pub(super) fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Free bytes of the file system that holds a folder; none where there is no room for a new file.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    // File systems without a table of inodes say that they have none.
    if facts.f_files > 0 && facts.f_favail == 0 {
        return Some(0);
    }
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
mod tests;
