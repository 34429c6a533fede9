//! A small test runner and a root to run steps in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rbc_ir::{Exec, Network, Security};
use rbc_runtime::sandbox::{self, Cancel, Exit, HostMount, Keeper, SandboxError, Step, Stream};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
/// Set for the run as an ordinary user: the directory it may write to.
const USER_DIR: &str = "RBC_TEST_USER_DIR";
/// Owner of nothing on most machines.
const USER: u32 = 65_534;

pub type Test = (&'static str, fn(&Base));

/// Runs the tests that the arguments select.
pub fn main(tests: &[Test]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if args.first().is_some_and(|a| a == "victim") {
        crate::steps::victim(Path::new(&args[1]));
    }
    let ignored = args.iter().any(|a| a == "--ignored");
    let filter: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    assert!(
        Path::new(BUSYBOX).exists(),
        "{BUSYBOX} is missing: install the package busybox-static"
    );
    let as_root = rustix::process::geteuid().is_root();
    let mut failed = 0;
    if as_root {
        failed += run_as_user(&args);
    }
    let session = sandbox::enter().expect("the test needs namespaces");
    let who = if session.is_rootless() { "user" } else { "root" };
    let base = Base::new();
    for (name, test) in tests {
        let selected = filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
        if !selected || name.starts_with("bench") != ignored {
            continue;
        }
        let started = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&base))).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("test {who}::{name} ... {word} ({:?})", started.elapsed());
        failed += usize::from(!passed);
    }
    drop(base);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{failed} failed");
        ExitCode::FAILURE
    }
}

/// Runs the same tests as an ordinary user; returns the number of failures (1 for any).
fn run_as_user(args: &[String]) -> usize {
    let dir = tempfile::tempdir().expect("a directory for the user");
    chown(dir.path(), Some(USER), Some(USER)).expect("give it away");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open it");
    // The build's own directory may be closed to other users.
    let exe = dir.path().join("sandbox-test");
    fs::copy("/proc/self/exe", &exe).expect("copy the test binary");
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let status = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&exe)
        .args(args)
        .env(USER_DIR, dir.path())
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .status()
        .expect("setpriv (package util-linux) runs");
    usize::from(!status.success())
}

/// A base layer with busybox, and room for steps.
pub struct Base {
    dir: TempDir,
    /// What steps share.
    shared: PathBuf,
    next: AtomicUsize,
}

impl Base {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().join("base");
        for sub in ["bin", "etc", "tmp"] {
            fs::create_dir_all(base.join(sub)).expect("make the base");
        }
        fs::copy(BUSYBOX, base.join("bin/busybox")).expect("copy busybox");
        let applets = "sh cat echo id ls mount stat sleep true false hostname ip grep wc touch \
                       mkdir rm sort tr df head mknod chown chmod ln test seq kill umask env \
                       mv printf ps dd yes su tail cut";
        for applet in applets.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet)).expect("link an applet");
        }
        fs::write(
            base.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nmail:x:8:8::/var/mail:/bin/false\n",
        )
        .expect("write passwd");
        fs::write(base.join("etc/group"), "root:x:0:\nmail:x:8:\nextra:x:777:mail\n")
            .expect("write group");
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).expect("make a directory");
        Base { dir, shared, next: AtomicUsize::new(0) }
    }

    /// The base layer.
    pub fn layer(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    /// A fresh empty directory.
    pub fn fresh(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("dir-{number}"));
        fs::create_dir(&dir).expect("make a directory");
        dir
    }

    /// A step that runs `script` in the shell.
    pub fn step(&self, script: &str) -> Step {
        Step {
            lowers: vec![self.layer()],
            upper: self.fresh(),
            work: self.fresh(),
            shared: self.shared.clone(),
            exec: exec(&["/bin/sh", "-c", script]),
            mounts: Vec::new(),
            extra_env: Vec::new(),
            cgroups: Vec::new(),
        }
    }

    /// Runs `script` and returns what it wrote; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        let ran = run(&self.step(script));
        assert_eq!(ran.exit, Exit::Code(0), "{script}: {}", ran.stderr);
        ran.stdout
    }

    /// The same with a mount.
    pub fn sh_with(&self, mount: HostMount, script: &str) -> (String, PathBuf) {
        let mut step = self.step(script);
        step.mounts.push(mount);
        let ran = run(&step);
        assert_eq!(ran.exit, Exit::Code(0), "{script}: {}", ran.stderr);
        (ran.stdout, step.upper)
    }
}

/// A command with the usual environment.
pub fn exec(args: &[&str]) -> Exec {
    Exec {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts: Vec::new(),
        secret_env: Vec::new(),
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_size: 0,
    }
}

/// How a step went.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

pub fn try_run(step: &Step) -> Result<Ran, SandboxError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    // Another one gets ready and is never used.
    let keeper = Keeper::new();
    keeper.announce(2, &step.shared);
    let exit = sandbox::run(step, &keeper, &mut output, &Cancel::new()?)?;
    Ok(Ran {
        exit,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

pub fn run(step: &Step) -> Ran {
    try_run(step).expect("the sandbox works")
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("read a directory")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
