//! The ssh agents of a build: sockets of running ones, or key files that OpenSSH's agent serves for
//! as long as the build takes.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tempfile::TempDir;

use crate::{cli::SshSpec, commands::Failure};

/// The agent that git sources use, and mounts that name none.
const DEFAULT: &str = "default";
/// How long a new agent may take to listen.
const START: Duration = Duration::from_secs(10);
/// More than any key.
const MAX_KEY: u64 = 1 << 20;

/// The agents of one build. Those that serve key files end with it.
#[derive(Default)]
pub struct Agents {
    sockets: HashMap<String, PathBuf>,
    served: Vec<Served>,
}

impl Agents {
    /// Finds or starts what `--ssh` names. Where it names nothing and `context` is fetched through
    /// ssh, the user's own agent is taken, as buildx does.
    pub fn start(specs: &[SshSpec], context: &str) -> Result<Self, Failure> {
        let mut agents = Self::default();
        if specs.is_empty() && rbc_runtime::source::git::is_ssh(context) {
            agents.sockets.extend(own_agent().map(|socket| (DEFAULT.to_owned(), socket)));
        }
        for spec in specs {
            let socket = match spec.paths.as_slice() {
                [] => own_agent().ok_or_else(|| {
                    Failure::Usage("--ssh needs an agent, but SSH_AUTH_SOCK is not set".to_owned())
                })?,
                [path] if is_socket(path) => std::path::absolute(path)?,
                paths => {
                    if let Some(socket) = paths.iter().find(|path| is_socket(path)) {
                        return Err(Failure::Usage(format!(
                            "--ssh {}: {} is an agent, which goes with no other agent or key",
                            spec.id,
                            socket.display()
                        )));
                    }
                    let served =
                        Served::start(paths).with_context(|| format!("--ssh {}", spec.id))?;
                    let socket = served.socket();
                    agents.served.push(served);
                    socket
                }
            };
            if !is_socket(&socket) {
                return Err(Failure::Usage(format!(
                    "--ssh {}: {} is no socket of an ssh agent",
                    spec.id,
                    socket.display()
                )));
            }
            agents.sockets.insert(spec.id.clone(), socket);
        }
        Ok(agents)
    }

    /// The agent of git sources.
    pub fn of_git(&self) -> Option<&Path> {
        self.sockets.get(DEFAULT).map(PathBuf::as_path)
    }

    /// Sockets by id.
    pub fn sockets(&self) -> &HashMap<String, PathBuf> {
        &self.sockets
    }
}

/// The user's own agent.
pub fn own_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|name| !name.is_empty()).map(PathBuf::from)
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.file_type().is_socket())
}

/// An agent of our own with some keys, in a folder that nobody else may enter. OpenSSH's agent ends
/// soon after the command that it was started with; that is `cat`, which ends with its input and so
/// with this process, whatever becomes of it.
struct Served {
    folder: TempDir,
    watched: Child,
}

impl Served {
    fn start(keys: &[PathBuf]) -> anyhow::Result<Self> {
        let keys = keys.iter().map(|path| read_key(path)).collect::<anyhow::Result<Vec<_>>>()?;
        // The system's folder for such things, since names of sockets must be short.
        let folder = tempfile::Builder::new().prefix("rbc-ssh-").tempdir()?;
        let mut command = Command::new("ssh-agent");
        command.arg("-a").arg(folder.path().join("agent")).arg("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watched = command.spawn().map_err(|error| no_program("ssh-agent", error))?;
        let mut served = Self { folder, watched };
        served.wait()?;
        for key in keys {
            served.add(&key)?;
        }
        Ok(served)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_socket(&self.socket()) {
            if self.watched.try_wait()?.is_some() || began.elapsed() > START {
                return Err(anyhow!("ssh-agent does not start"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Hands a key over through standard input, where ssh-add asks neither for its owner nor for
    /// its mode.
    fn add(&self, key: &Key) -> anyhow::Result<()> {
        let mut command = Command::new("ssh-add");
        command.arg("-").env("SSH_AUTH_SOCK", self.socket());
        // Without these it would ask for a passphrase, at the terminal or in a window.
        command.env_remove("DISPLAY").env("SSH_ASKPASS_REQUIRE", "never");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| no_program("ssh-add", error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it does not read it complains about itself.
            let _ = stdin.write_all(&key.content);
        }
        let ended = child.wait_with_output()?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.trim().replace('\n', ": ");
        Err(anyhow!("{} is no private key without a passphrase ({said})", key.path.display()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.watched.kill();
        let _ = self.watched.wait();
    }
}

struct Key {
    path: PathBuf,
    content: Vec<u8>,
}

fn read_key(path: &Path) -> anyhow::Result<Key> {
    let what = || format!("cannot read the key {}", path.display());
    let facts = fs::metadata(path).with_context(what)?;
    if !facts.is_file() || facts.len() > MAX_KEY {
        return Err(anyhow!("{} is neither an ssh agent's socket nor a key file", path.display()));
    }
    let content = fs::read(path).with_context(what)?;
    if !content.windows(12).any(|text| text == b"PRIVATE KEY-") {
        return Err(anyhow!("{} is no private key", path.display()));
    }
    Ok(Key { path: path.to_owned(), content })
}

fn no_program(name: &str, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("key files need the program {name}, which is not in PATH: install OpenSSH")
        }
        _ => anyhow!("cannot start {name}: {error}"),
    }
}
