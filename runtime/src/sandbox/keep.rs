//! The keeper's process: forks the runner of each step, waits for it and tells how it ended.
//!
//! It has a single thread, so that everything is allowed after a fork, and knows nothing of any step:
//! a runner gets its task by itself. It prints nothing.

use std::{
    ffi::OsStr,
    io::{self, PipeReader, PipeWriter},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::PathBuf,
};

use rbc_ir::Digest;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, IoSliceMut},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use super::{
    Exit,
    error::{Context, SetupError},
    message::{self, Outcome},
    runner,
};

/// How many files come with a request: the runner's socket and its two outputs.
pub(super) const FILES: usize = 3;
/// Longest path of the shared folder (PATH_MAX).
const MAX_PATH: usize = 4096;
/// What a runner has of its own.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// What a runner is made with.
struct Request {
    shared: PathBuf,
    socket: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// A runner that has not been waited for.
struct Running {
    pid: Pid,
    /// Can be read once it has ended.
    ended: OwnedFd,
    socket: UnixStream,
    /// Whether rbc gave it up.
    given_up: bool,
}

/// Acts as the keeper until rbc lets go of it. Then what still runs is killed, and nothing of it is left
/// when the keeper has ended.
pub(super) fn keep() -> ! {
    match take_control() {
        Some(control) => {
            let mut running = Vec::new();
            // Nobody could be told of a failure; every step finds that its socket ends.
            let _ = serve(&control, &mut running);
            // They ask for that when their parent dies, but programs may take it back.
            running.iter().for_each(Running::kill);
            for runner in running {
                let _ = wait_for(runner.pid);
            }
            std::process::exit(0)
        }
        None => {
            // Not started by `Keeper`.
            eprintln!("rbc: no step to run");
            std::process::exit(2)
        }
    }
}

/// Moves the socket away from standard input, where the commands would inherit it.
fn take_control() -> Option<OwnedFd> {
    rustix::net::sockopt::socket_type(io::stdin()).ok()?;
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).ok()?;
    let null = std::fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(null).ok()?;
    Some(control)
}

/// Serves until rbc lets go, and keeps in `running` what runs.
fn serve(control: &OwnedFd, running: &mut Vec<Running>) -> io::Result<()> {
    // Which instructions the processor has is found out here, once for all runners: in a virtual
    // machine that takes longer than the hash.
    let _ = Digest::of(b"");
    // Its end tells runners that the keeper is gone.
    let (alive, _keeper_alive): (PipeReader, PipeWriter) = io::pipe()?;
    loop {
        let mut fds = vec![PollFd::new(control, PollFlags::IN)];
        for runner in &*running {
            fds.push(PollFd::new(&runner.ended, PollFlags::IN));
            if !runner.given_up {
                fds.push(PollFd::new(&runner.socket, PollFlags::RDHUP));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready =
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        let asked = ready.next().unwrap_or(false);
        for mut runner in std::mem::take(running) {
            let ended = ready.next().unwrap_or(false);
            if !runner.given_up && ready.next().unwrap_or(false) {
                runner.given_up = true;
                runner.kill();
            }
            match ended {
                true => runner.settle(),
                false => running.push(runner),
            }
        }
        if asked {
            match receive(control)? {
                Asked::Runner(request) => running.extend(start(request, &alive)),
                Asked::Nothing => {}
                Asked::End => return Ok(()),
            }
        }
    }
}

/// What rbc wants.
enum Asked {
    Runner(Request),
    /// Files were lost on the way, as there are too many open. The socket among them ends, which tells
    /// the step.
    Nothing,
    End,
}

/// Waits for a request.
fn receive(control: &OwnedFd) -> io::Result<Asked> {
    let mut path = [0; MAX_PATH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut path)];
    let received = recvmsg(control, &mut bytes, &mut with, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(Asked::End);
    }
    let mut files = with.drain().flat_map(|part| match part {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let (Some(socket), Some(stdout), Some(stderr)) = (files.next(), files.next(), files.next())
    else {
        return Ok(Asked::Nothing);
    };
    let shared = OsStr::from_bytes(&path[..received.bytes]).into();
    Ok(Asked::Runner(Request { shared, socket, stdout, stderr }))
}

/// Starts a runner; if that fails, its socket has been told.
fn start(request: Request, alive: &PipeReader) -> Option<Running> {
    let Request { shared, socket, stdout, stderr } = request;
    let socket = UnixStream::from(socket);
    match fork() {
        Ok(None) => {
            let Err(error) = arrange(&socket, &stdout, &stderr, alive)
                .and_then(|()| runner::become_command(&socket, alive, &shared));
            message::answer(&socket, &Outcome::Failed(error));
            // SAFETY: `_exit` only ends the process.
            unsafe { libc::_exit(127) }
        }
        Ok(Some(pid)) => match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(ended) => Some(Running { pid, ended, socket, given_up: false }),
            Err(error) => {
                let _ = kill_process(pid, Signal::KILL);
                let _ = wait_for(pid);
                tell(&socket, error, "watch a process");
                None
            }
        },
        Err(error) => {
            tell(&socket, error, "start a process in new namespaces");
            None
        }
    }
}

fn tell(socket: &UnixStream, error: Errno, what: &str) {
    if let Err(error) = Err::<(), _>(error).context(|| what.to_owned()) {
        message::answer(socket, &Outcome::Failed(error));
    }
}

/// Forks into new namespaces, of whose processes the child is the first. None in the child.
fn fork() -> Result<Option<Pid>, Errno> {
    let flags = NAMESPACES | libc::SIGCHLD;
    let null = std::ptr::null::<libc::c_void>();
    // SAFETY: without CLONE_VM it is a fork, and as the process has one thread no lock is held that
    // the child could wait for. With no stack and nothing to store, the order in which architectures
    // take the rest does not matter. (The C library's fork() cannot make a pid namespace.)
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, null, null, null, null) };
    match pid {
        0 => Ok(None),
        pid => match i32::try_from(pid).ok().and_then(Pid::from_raw) {
            Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Some(pid)),
            _ => Err(super::mount::last_errno()),
        },
    }
}

/// Gives a runner its outputs and closes what is the keeper's, above all the sockets of other
/// runners, which would not end otherwise.
fn arrange(
    socket: &UnixStream,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
    alive: &PipeReader,
) -> Result<(), SetupError> {
    let what = || "arrange files".to_owned();
    rustix::stdio::dup2_stdout(stdout).context(what)?;
    rustix::stdio::dup2_stderr(stderr).context(what)?;
    let mut kept = [socket.as_raw_fd(), alive.as_raw_fd()];
    kept.sort_unstable();
    let ranges = [(3, kept[0] - 1), (kept[0] + 1, kept[1] - 1), (kept[1] + 1, libc::c_int::MAX)];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: whatever owns the descriptors is not used again: the process never returns from
        // being a runner.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(super::mount::last_errno()).context(what);
        }
    }
    Ok(())
}

impl Running {
    fn kill(&self) {
        // It fails only if it has ended.
        let _ = kill_process(self.pid, Signal::KILL);
    }

    /// Reaps it and tells how it ended. If it has failed before the command was there, it has told so
    /// already.
    fn settle(self) {
        match wait_for(self.pid) {
            Ok(exit) => message::answer(&self.socket, &Outcome::Ended(exit)),
            Err(error) => tell(&self.socket, error, "wait for the command"),
        }
    }
}

fn wait_for(pid: Pid) -> Result<Exit, Errno> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call; the pid is our own child's.
        if unsafe { libc::waitpid(pid.as_raw_nonzero().get(), &mut status, 0) } > 0 {
            break;
        }
        match super::mount::last_errno() {
            Errno::INTR => {}
            error => return Err(error),
        }
    }
    Ok(if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    })
}
