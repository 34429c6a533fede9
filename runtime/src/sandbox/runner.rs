//! A runner: the first process of a step (pid 1 of its pid namespace), which becomes the command.
//!
//! It has a single thread, so that everything is allowed between fork and exec. It does not print:
//! failures travel through the socket. Much of what it does needs no knowledge of the step, so it is
//! started before there is one.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rbc_ir::Network;
use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
};
use rustix::system::sethostname;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::error::{Context, SetupError};
use super::identity::{self, Identity};
use super::kit::{Kit, KitKind};
use super::{
    Step, cgroup, is_ready, message, network, privilege, program, root, seccomp, terminal,
};

/// More than any account file of an image; what is longer is not read.
const MAX_ACCOUNTS: u64 = 16 * 1024 * 1024;

fn die_with_parent() -> Result<(), SetupError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context(|| "set the parent-death signal".to_owned())
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only namespaces are unshared, not the file descriptor table.
    unsafe { unshare_unsafe(flags) }
}

/// Gets ready as pid 1 of a step, waits for the task and executes the command. Ends the process if
/// nobody is there any more to do it for.
pub(super) fn become_command(
    socket: &UnixStream,
    keeper_alive: &PipeReader,
    shared: &Path,
) -> Result<Infallible, SetupError> {
    die_with_keeper(keeper_alive)?;
    // The command must not read the task through /proc/1.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(|| "protect the memory".to_owned())?;
    setsid().context(|| "start a session".to_owned())?;
    umask(Mode::from_raw_mode(0o022));
    let kit = Kit::make(shared, KitKind::USUAL)?;
    let Some(task) = message::receive(socket) else {
        // There is nobody to do it for.
        std::process::exit(127);
    };
    let exec = &task.step.exec;
    if task.on_terminal {
        terminal::take().context(|| "take the terminal".to_owned())?;
    }
    cgroup::join(&task.step.cgroups)?;
    enter_namespaces(exec.network)?;
    sethostname(root::hostname(&exec.hostname).as_bytes())
        .context(|| "set the host name".to_owned())?;
    root::enter(&task.step, kit)?;
    privilege::limit(&exec.ulimits)?;
    let identity = look_up(&exec.user)?;
    let env = environment(&task.step, &identity);
    make_cwd(&exec.cwd, &identity, task.single_uid)?;
    let entered = std::env::set_current_dir(&exec.cwd);
    if !task.on_terminal {
        let null = File::open("/dev/null").context(|| "open /dev/null".to_owned())?;
        rustix::stdio::dup2_stdin(null).context(|| "redirect standard input".to_owned())?;
    }
    if let Some(filter) = seccomp::filter(exec.security, task.single_uid) {
        privilege::install(&filter)?;
    }
    privilege::drop_to(&identity, exec.security, task.single_uid)?;
    die_with_keeper(keeper_alive)?;
    if entered.is_err() {
        // Only the user may enter, for example on a network file system.
        std::env::set_current_dir(&exec.cwd).context(|| format!("chdir to {}", exec.cwd))?;
    }
    privilege::default_signals();
    privilege::close_on_exec();
    execute(&exec.args, &env)
}

/// Asks to be killed with the keeper and makes sure that it still lives: the end of the pipe that
/// it holds says otherwise.
fn die_with_keeper(keeper_alive: &PipeReader) -> Result<(), SetupError> {
    die_with_parent()?;
    match is_ready(keeper_alive) {
        Ok(false) => Ok(()),
        _ => std::process::exit(0),
    }
}

/// Enters the namespaces that depend on the task.
fn enter_namespaces(network: Network) -> Result<(), SetupError> {
    // Not every kernel has them, and nothing depends on them.
    let _ = unshare(UnshareFlags::NEWCGROUP);
    match network {
        Network::None => {
            unshare(UnshareFlags::NEWNET)
                .context(|| "unshare the step's network namespace".to_owned())?;
            network::loopback_up()
        }
        Network::Default | Network::Host => Ok(()),
    }
}

/// Looks the user up in the accounts of the root that the process has entered.
fn look_up(user: &str) -> Result<Identity, SetupError> {
    let passwd = read_accounts("/etc/passwd")?;
    let group = read_accounts("/etc/group")?;
    identity::resolve(user, &passwd, &group)
}

/// Reads an account file; without one, there are no accounts.
fn read_accounts(path: &str) -> Result<Vec<u8>, SetupError> {
    // An image may have put anything there, a FIFO for example.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(_) => return Ok(Vec::new()),
    };
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Ok(Vec::new());
    }
    let mut data = Vec::new();
    file.take(MAX_ACCOUNTS).read_to_end(&mut data).context(|| format!("read {path}"))?;
    Ok(data)
}

/// The command's environment: its own, then what the step adds, then `HOME`.
fn environment(step: &Step, identity: &Identity) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(step.exec.env.len() + 2);
    for entry in step.exec.env.iter().chain(&step.extra_env) {
        match env.iter_mut().find(|e| name(e) == name(entry)) {
            Some(earlier) => earlier.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// Makes the working directory if it is missing; like BuildKit, what is made belongs to the user.
fn make_cwd(cwd: &str, identity: &Identity, single_uid: bool) -> Result<(), SetupError> {
    let what = || format!("make the working directory {cwd}");
    let mut path = PathBuf::from("/");
    for part in Path::new(cwd).components() {
        path.push(part);
        if fs::metadata(&path).is_ok() {
            continue;
        }
        fs::DirBuilder::new().mode(0o755).create(&path).context(what)?;
        if !single_uid {
            chown(&path, Some(identity.uid), Some(identity.gid)).context(what)?;
        }
    }
    Ok(())
}

fn execute(args: &[String], env: &[String]) -> Result<Infallible, SetupError> {
    let Some(name) = args.first() else {
        return Err(SetupError::Invalid("no command to run".to_owned()));
    };
    let path = program::find(name, env)?;
    let shown = path.display().to_string();
    let strings = |all: &[String]| -> Result<Vec<CString>, SetupError> {
        all.iter().map(program::c_string).collect()
    };
    let (path, args, env) = (program::c_string(&path)?, strings(args)?, strings(env)?);
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let errno = privilege::execute(&path, &args, &env);
    Err(program::failure(name, &shown, errno))
}
