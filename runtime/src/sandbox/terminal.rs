//! Runs a step's command on the user's terminal, for looking around in the state of a failed step.
//!
//! The command gets a terminal of its own (a pty), whose session it leads, so that job control and
//! Ctrl-C work inside and never reach rbc. The parent carries bytes between the two terminals, with
//! the user's one in raw mode.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use super::{
    Exit, SandboxError, Step,
    keeper::{Process, give_up, read_answer},
    launch::killed_or,
    message::{self, Task},
    session,
};

/// How often the size of the user's terminal is looked at.
const RESIZE_CHECK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The character that ends the input of a terminal (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// Runs a step with a terminal, connected to standard input and standard error. `stopped` is asked
/// a few times a second whether to give up.
///
/// # Errors
/// If the command cannot be run; [`SandboxError::Cancelled`] if it was given up.
pub fn run_on_terminal(step: &Step, stopped: &dyn Fn() -> bool) -> Result<Exit, SandboxError> {
    if session::without_namespaces() {
        return Err(SandboxError::Confined);
    }
    let (master, slave) = open_pty().map_err(SandboxError::Start)?;
    let task = Task { step, single_uid: session::single_uid(), on_terminal: true };
    let keeper = Process::start().map_err(SandboxError::Start)?;
    let socket = keeper.fork(&step.shared, &slave, &slave).map_err(SandboxError::Start)?;
    drop(slave);
    message::send(&socket, &task)?;
    let raw = RawMode::enter();
    let carried = carry(&master, &socket, stopped);
    drop(raw);
    if !matches!(carried, Ok(Carried::Ended)) {
        give_up(&socket);
    }
    let mut answer = Vec::new();
    while !read_answer(&socket, &mut answer).map_err(SandboxError::Start)? {}
    match carried.map_err(SandboxError::Start)? {
        Carried::Stopped => Err(SandboxError::Cancelled),
        Carried::Ended => killed_or(message::outcome(&answer)),
    }
}

enum Carried {
    Ended,
    Stopped,
}

/// Carries bytes until the command has ended.
fn carry(master: &File, ended: &UnixStream, stopped: &dyn Fn() -> bool) -> io::Result<Carried> {
    let stdin = io::stdin();
    let mut has_input = true;
    let mut buffer = [0; 4096];
    loop {
        copy_size(master);
        let events = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(master, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
            // What has ended is always ready: the command's end is watched twice instead.
            if has_input {
                PollFd::new(&stdin, events(true))
            } else {
                PollFd::new(ended, events(false))
            },
        ];
        match poll(&mut fds, Some(&RESIZE_CHECK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds.map(|fd| !fd.revents().is_empty());
        let more = ready[0] && show(master, &mut buffer)?;
        if ready[1] && !more {
            return Ok(Carried::Ended);
        }
        if has_input && ready[2] {
            let length = match rustix::io::read(&stdin, &mut buffer) {
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            has_input = length > 0;
            let input = if has_input { &buffer[..length] } else { &[END_OF_INPUT] };
            // A command that has just ended takes no more.
            let _ = (&mut &*master).write_all(input);
        }
        if stopped() {
            return Ok(Carried::Stopped);
        }
    }
}

/// Shows what the command has printed, once. Gives whether there may be more.
fn show(mut master: &File, buffer: &mut [u8]) -> io::Result<bool> {
    match master.read(buffer) {
        Ok(length) => io::stderr().write_all(&buffer[..length]).map(|()| true),
        // Nobody has the other end open: the command is ending, so there is little to wait for.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

/// Gives the command's terminal the size of the user's one.
fn copy_size(master: &File) {
    if let Ok(size) = tcgetwinsize(io::stderr()) {
        let same = tcgetwinsize(master)
            .is_ok_and(|now| (now.ws_row, now.ws_col) == (size.ws_row, size.ws_col));
        if !same {
            let _ = tcsetwinsize(master, size);
        }
    }
}

/// Both ends of a new terminal.
fn open_pty() -> io::Result<(File, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int, which outlives the call.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let slave_flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags by value and returns a new descriptor or -1.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, slave_flags) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok((File::from(master), slave))
}

/// Makes the terminal on standard output the controlling one of this session and its input, in the
/// process that becomes the command.
pub(super) fn take() -> io::Result<()> {
    let terminal = io::stdout();
    // SAFETY: the request takes an int by value.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::stdio::dup2_stdin(terminal)?)
}

/// The user's terminal in raw mode; as it was before, once dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &raw);
        Self(Some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}
