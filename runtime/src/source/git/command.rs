//! Runs the `git` program cut off from the machine's and the user's configuration.
//!
//! Repositories and their addresses come from strangers. So nothing is configured but what stands
//! here, no hook, helper or prompt runs, and git may speak only protocols that reach the network:
//! neither the paths of this machine nor `ext::` commands can be named, not even by a submodule.

use std::{
    env,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::{GitError, Means};

/// The protocols that git may speak, in the syntax of `GIT_ALLOW_PROTOCOL`.
const PROTOCOLS: &str = "https:http:ssh:git";
/// What is taken over from the environment: proxies and certificate authorities.
const KEPT: [&str; 12] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];
/// A host that was never seen is trusted as git users do at the prompt; a changed key is not. The only
/// keys are those of the agent that the build was given.
const SSH: &str = "ssh -F /dev/null -o IdentityFile=none -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
                   -o ConnectTimeout=20";
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "init.defaultBranch=master",
    "init.templateDir=",
    "advice.detachedHead=false",
    // A server that sends less than this many bytes a second for that many seconds hangs.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];
/// Most bytes of an answer that are kept.
const MAX_OUTPUT: u64 = 256 << 20;
/// How often a running git is looked after.
const POLL: Duration = Duration::from_millis(5);
/// Permissions that new files lose, whatever the user's own umask is.
const UMASK: u32 = 0o022;

/// Where git works, and how it is stopped.
pub(super) struct Git<'a> {
    /// The repository, if there is one yet.
    pub(super) repository: Option<PathBuf>,
    /// The folder with the checked out files.
    pub(super) work_tree: Option<PathBuf>,
    pub(super) means: Means<'a>,
}

impl Git<'_> {
    /// Runs a git command and gives what it prints.
    ///
    /// # Errors
    /// [`GitError::Failed`] with what git says, for another exit code than 0.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, GitError> {
        let mut child = self.command(arguments).spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => GitError::NoGit,
            _ => GitError::Start(e),
        })?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let status = self.wait(&mut child)?;
        let text = |thread: Option<thread::JoinHandle<Vec<u8>>>| {
            let bytes = thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        if status.success() {
            return Ok(stdout);
        }
        let said: Vec<&str> = stderr.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        Err(GitError::Failed {
            command: arguments.first().copied().unwrap_or_default().to_owned(),
            message: shown(&said.join("\n")),
        })
    }

    fn wait(&self, child: &mut Child) -> Result<std::process::ExitStatus, GitError> {
        loop {
            if let Some(status) = child.try_wait().map_err(GitError::Start)? {
                return Ok(status);
            }
            if (self.means.is_cancelled)() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(GitError::Cancelled);
            }
            thread::sleep(POLL);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        for name in KEPT {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_SSH_COMMAND", SSH)
            .env("LC_ALL", "C");
        if let Some(agent) = self.means.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let mut place: Option<&Path> = None;
        if let Some(work_tree) = &self.work_tree {
            command.arg("--work-tree").arg(work_tree);
            place = Some(work_tree);
        }
        if let Some(repository) = &self.repository {
            command.arg("--git-dir").arg(repository);
            place = place.or(Some(repository));
        }
        // Never in the folder that rbc was started in: it may be a repository of its own.
        command.current_dir(place.unwrap_or(Path::new("/")));
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: umask is a system call that is safe between fork and exec, and cannot fail.
        unsafe {
            command.pre_exec(|| {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
                Ok(())
            });
        }
        command
    }
}

/// Reads a pipe to its end, so that git never waits for a reader.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = io::copy(&mut pipe, &mut io::sink());
        bytes
    })
}

/// What git says, fit for a terminal: no passwords of addresses, no control characters.
fn shown(text: &str) -> String {
    let clean: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).take(4000).collect();
    clean
        .split_inclusive(char::is_whitespace)
        .map(|word| {
            let bare = word.trim_start_matches(['\'', '"']);
            format!("{}{}", &word[..word.len() - bare.len()], crate::source::redact(bare))
        })
        .collect()
}
