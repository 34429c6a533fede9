//! The likely cause of a command that failed, where it can be known from what the command was, how
//! it ended, what it printed last, and the files that it saw.
//!
//! The kernel says `ENOENT` whether the program, the interpreter of a script or the loader of a
//! binary is missing, and shells add little to it. The files tell which it was.

use std::{
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use libc::{SIGILL, SIGKILL, SIGSYS};
use rbc_ir::{Exec, Network};

use super::signal_name;
use crate::{
    sandbox::{Exit, SandboxError, SetupError},
    start::{self, Start},
    tree::{LastLink, LayerStack, SourceTree, clean, resolve},
};

/// `PATH` where the environment has none, as in the sandbox.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
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
    /// Whether the kernel has killed a process for want of memory since the build began.
    pub out_of_memory: bool,
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
                self.why_not_started(name).or_else(|| self.disk())
            }
            Ending::NotRun(_) => self.disk(),
            Ending::Exit(exit) => self
                .says("no space left on device")
                .then(|| self.disk())
                .flatten()
                .or_else(|| self.signal(*exit))
                .or_else(|| self.network())
                .or_else(|| self.library())
                .or_else(|| self.said_by_shell(exit.code()))
                .or_else(|| self.permission())
                // Not every program says that it could not write.
                .or_else(|| self.disk()),
        }
    }

    fn disk(&self) -> Option<String> {
        let said = self.says("no space left on device");
        let free = self.free?;
        if free < LITTLE_SPACE {
            return Some(format!(
                "the disk with the state folder is full: {free} bytes are free; `rbc prune` removes \
                 what can be made again"
            ));
        }
        said.then(|| {
            let free = free / 1_000_000;
            format!(
                "a disk was full; that of the state folder has {free} MB free now, and a tmpfs or \
                 /dev/shm of the step may be too small (--shm-size)"
            )
        })
    }

    fn signal(&self, exit: Exit) -> Option<String> {
        match exit.code() - 128 {
            SIGKILL if self.out_of_memory => {
                Some("the machine ran out of memory and the kernel killed a process".to_owned())
            }
            SIGKILL => Some(
                "it was killed from outside; most often that is a limit on memory of the \
                 container or machine that rbc runs in"
                    .to_owned(),
            ),
            SIGILL => Some("the program uses instructions that this processor lacks".to_owned()),
            SIGSYS => Some("the program used a system call that steps may not use".to_owned()),
            signal if matches!(exit, Exit::Code(_)) => {
                let name = signal_name(signal)?;
                Some(format!("a program that it ran was killed by signal {signal} ({name})"))
            }
            _ => None,
        }
    }

    fn network(&self) -> Option<String> {
        /// What resolvers of C libraries, curl, apt, apk, Go and git say.
        const NO_NAME: [&str; 9] = [
            "could not resolve",
            "temporary failure in name resolution",
            "temporary failure resolving",
            "name or service not known",
            "bad address",
            "no such host",
            "name does not resolve",
            "network is unreachable",
            "unable to resolve",
        ];
        let unresolved = NO_NAME.iter().any(|text| self.says(text));
        unresolved.then(|| match self.exec.network {
            Network::None => "the step has no network: it runs with --network=none".to_owned(),
            _ => "a name was not found, or the network not reached: steps use the network of this \
                  machine and its /etc/resolv.conf"
                .to_owned(),
        })
    }

    /// What the loaders of glibc and musl say of libraries.
    fn library(&self) -> Option<String> {
        self.lines.iter().rev().find_map(|line| {
            let glibc = line.split_once("error while loading shared libraries: ");
            let musl = line.split_once("Error loading shared library ");
            if let Some((_, rest)) = glibc.or(musl) {
                let library = rest.split(':').next()?.trim();
                return Some(format!(
                    "the image has no library {library}, which the program was linked with: \
                     install its package in this stage, or link statically"
                ));
            }
            let (_, rest) = line.split_once(": version `GLIBC_")?;
            let version = rest.split('\'').next()?;
            Some(format!(
                "the program needs glibc {version} or newer, and that of the image is older: \
                 build on the same base image, or link statically"
            ))
        })
    }

    /// Somebody else's files.
    fn permission(&self) -> Option<String> {
        let user = self.exec.user.as_str();
        let is_root = ["", "0", "root"].contains(&user.split(':').next()?);
        (!is_root && self.says("permission denied")).then(|| {
            format!(
                "the step runs as USER {user}, who may not do this: give the files to that user \
                 (COPY --chown={user}), or do it before USER"
            )
        })
    }

    /// What a shell means by 126 and 127.
    fn said_by_shell(&self, code: i32) -> Option<String> {
        if code != 127 && code != 126 {
            return None;
        }
        const COMPLAINTS: [&str; 5] = [
            ": not found",
            ": command not found",
            ": No such file or directory",
            ": Permission denied",
            ": Exec format error",
        ];
        let name = self.lines.iter().rev().find_map(|line| {
            let line = line.trim_end();
            // bash names the interpreter behind: `x: /bin/y: bad interpreter: …`.
            let line = line.split(": bad interpreter").next()?;
            let line = line.split(": cannot execute").next()?;
            let before = COMPLAINTS.iter().find_map(|text| line.strip_suffix(text));
            let before =
                before.or_else(|| (line.len() < 4096 && line.contains(": ")).then_some(line));
            Some(before?.rsplit(": ").next()?.trim().to_owned())
        })?;
        let name = name.strip_suffix('\r').unwrap_or(&name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        self.why_not_started(name)
    }

    /// Why the file that a command names could not be started.
    fn why_not_started(&self, name: &str) -> Option<String> {
        if name.trim() != name || (name.contains(' ') && self.find(name).is_none()) {
            return Some(format!(
                "{name:?} is taken as the name of one program: in the exec form each word is a \
                 string of its own"
            ));
        }
        let Some(path) = self.find(name) else { return Some(self.missing(name)) };
        let shown = shown(&path);
        let entry = self.root.lookup(&path).ok()??;
        if entry.is_dir() {
            return Some(format!("{shown} is a folder"));
        }
        if entry.mode & 0o111 == 0 {
            return Some(format!(
                "{shown} is not executable (mode {:04o}): chmod +x it, or COPY --chmod=755",
                entry.mode
            ));
        }
        let mut file = self.root.open(&path, &entry).ok()?;
        let mut head = Vec::new();
        (&mut file).take(512).read_to_end(&mut head).ok()?;
        file.rewind().ok()?;
        if let Some(machine) = start::machine(&head) {
            let host = rbc_ir::Platform::host().architecture;
            let little =
                matches!((host.as_str(), machine.as_str()), ("amd64", "386") | ("arm64", "arm"));
            if machine != host && !little {
                return Some(format!("{shown} is a program for {machine}, this machine is {host}"));
            }
        } else if head.starts_with(b"#!") {
            let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
            if line.ends_with(b"\r") {
                let interpreter = String::from_utf8_lossy(&line[2..line.len() - 1]);
                return Some(format!(
                    "the lines of {shown} end in CR LF, so the kernel looks for \
                     {:?}: save it with LF alone (git: `* text=auto eol=lf`, or dos2unix)",
                    format!("{}\r", interpreter.trim())
                ));
            }
        } else if !head.is_empty() {
            return Some(format!(
                "{shown} is neither a program nor a script that begins with #! and its interpreter"
            ));
        } else {
            return Some(format!("{shown} is empty"));
        }
        match start::read(&mut file).ok()? {
            Start::Dynamic(loader) if !self.exists(&loader) => {
                let loader = loader.display();
                Some(format!(
                    "{shown} needs the loader {loader}, which the image does not have: it was \
                     linked for another C library; link it statically or use a base image with it"
                ))
            }
            Start::Script(interpreter, _) if !self.exists(&interpreter) => Some(format!(
                "{shown} is a script for {}, which the image does not have",
                interpreter.display()
            )),
            Start::Script(interpreter, rest)
                if interpreter.ends_with("env") && !rest.starts_with('-') =>
            {
                let program = rest.split_whitespace().next()?;
                let missing = !program.contains('/') && self.find(program).is_none();
                missing.then(|| {
                    format!("{shown} is a script for {program}, which is not in the image's PATH")
                })
            }
            _ => None,
        }
    }

    fn missing(&self, name: &str) -> String {
        const BUILTINS: [&str; 8] =
            ["cd", "export", "source", ".", "set", "alias", "ulimit", "umask"];
        if name == "/bin/sh" && self.exec.args.first().is_some_and(|first| first == name) {
            return "the image has no shell: write RUN in the exec form, as a list of strings, or \
                    use a base image with /bin/sh"
                .to_owned();
        }
        if name.contains('/') {
            return format!("the image has no {name}");
        }
        if BUILTINS.contains(&name) {
            return format!("{name} is a command of shells, not a program: use the shell form");
        }
        let path = self.path();
        format!("no folder of PATH ({path}) has a program {name:?}: is its package installed?")
    }

    fn path(&self) -> &str {
        let set = self.exec.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        set.unwrap_or(DEFAULT_PATH)
    }

    /// The file that a command names, with symlinks resolved.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let there = |path: &Path| {
            let real = resolve(self.root, &clean(path), LastLink::Follow).ok()?;
            self.root.lookup(&real).ok()?.map(|_| real)
        };
        if name.contains('/') {
            return there(&Path::new(&self.exec.cwd).join(name));
        }
        self.path().split(':').find_map(|dir| there(&Path::new(dir).join(name)))
    }

    fn exists(&self, path: &Path) -> bool {
        self.find(&path.to_string_lossy()).is_some()
    }

    fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.to_ascii_lowercase().contains(text))
    }
}

fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}

/// How many processes the kernel has killed for want of memory since it was started.
pub(super) fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Free bytes of the file system that holds a folder.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(folder).ok()?;
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, u32, &[u8])]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, mode, data) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, data).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self(dir)
        }

        fn ask(&self, args: &[&str], lines: &[&str], exit: Option<Exit>) -> String {
            let exec = Exec {
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/work".to_owned(),
                network: Network::None,
                ..super::super::testing::plain_exec()
            };
            let root = LayerStack::new(vec![self.0.path().to_owned()]);
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let failure = Failure {
                exec: &exec,
                root: &root,
                lines: &lines,
                free: Some(5_000_000_000),
                out_of_memory: false,
            };
            let error = SandboxError::Setup(SetupError::Program(String::new()));
            let ending = exit.map_or(Ending::NotRun(&error), Ending::Exit);
            failure.likely_cause(&ending).unwrap_or_default()
        }
    }

    fn elf(machine: u8) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = machine;
        head
    }

    #[test]
    fn files_tell_why_a_program_did_not_start() {
        let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
        let root = Root::new(&[
            ("bin/foreign", 0o755, &elf(foreign)),
            ("bin/crlf", 0o755, b"#!/bin/sh\r\necho\r\n"),
            ("bin/script", 0o755, b"#!/usr/bin/python3\n"),
            ("bin/env", 0o755, b"x"),
            ("bin/lost", 0o755, b"#!/bin/env node\n"),
            ("work/text", 0o755, b"echo hello\n"),
            ("work/plain", 0o644, b"#!/bin/sh\n"),
        ]);
        let ask = |name: &str| root.ask(&[name], &[], None);
        assert!(ask("foreign").contains("is a program for"), "{}", ask("foreign"));
        assert!(ask("crlf").contains("CR LF"), "{}", ask("crlf"));
        assert_eq!(
            ask("script"),
            "/bin/script is a script for /usr/bin/python3, which the image does not have"
        );
        assert!(ask("lost").contains("a script for node, which is not"), "{}", ask("lost"));
        assert!(ask("./text").contains("neither a program nor a script"), "{}", ask("./text"));
        assert!(ask("./plain").contains("not executable (mode 0644)"), "{}", ask("./plain"));
        assert!(ask("cd").contains("a command of shells"), "{}", ask("cd"));
        assert!(ask("ls -l").contains("each word is a string"), "{}", ask("ls -l"));
        assert!(ask("nosuch").contains("no folder of PATH (/bin) has"), "{}", ask("nosuch"));
        assert!(ask("/bin/sh").contains("has no shell"), "{}", ask("/bin/sh"));
    }

    #[test]
    fn what_shells_say_is_understood() {
        let root =
            Root::new(&[("bin/crlf", 0o755, b"#!/bin/sh\r\n"), ("run.sh", 0o755, b"#!/no\n")]);
        let sh = ["/bin/sh", "-c", "x"];
        for (code, line, want) in [
            (127, "/bin/sh: make: not found", "has a program \"make\""),
            (127, "/bin/sh: 1: make: not found", "has a program \"make\""),
            (127, "bash: line 1: make: command not found", "has a program \"make\""),
            (127, "/bin/sh: crlf: not found", "CR LF"),
            (126, "bash: /run.sh: /no: bad interpreter: No such file or directory", "/no"),
            (127, "/bin/sh: 1: /run.sh: not found", "is a script for /no"),
        ] {
            let said = root.ask(&sh, &["noise", line], Some(Exit::Code(code)));
            assert!(said.contains(want), "{line}: {said}");
        }
        assert_eq!(root.ask(&sh, &["make: not found"], Some(Exit::Code(1))), "");
    }

    #[test]
    fn what_loaders_say_is_understood() {
        let root = Root::new(&[]);
        let sh = ["/bin/sh", "-c", "x"];
        for (line, want) in [
            (
                "app: error while loading shared libraries: libpq.so.5: cannot open shared object \
                 file: No such file or directory",
                "no library libpq.so.5",
            ),
            (
                "Error loading shared library libpq.so.5: No such file or directory (needed by /app)",
                "no library libpq.so.5",
            ),
            (
                "app: /lib/libc.so.6: version `GLIBC_2.38' not found (required by app)",
                "needs glibc 2.38",
            ),
        ] {
            let said = root.ask(&sh, &[line, "noise"], Some(Exit::Code(127)));
            assert!(said.contains(want), "{line}: {said}");
        }
    }

    #[test]
    fn memory_network_and_disk() {
        let root = Root::new(&[]);
        let sh = ["/bin/sh", "-c", "x"];
        let killed = root.ask(&sh, &[], Some(Exit::Signal(9)));
        assert!(killed.contains("memory"), "{killed}");
        assert_eq!(killed, root.ask(&sh, &[], Some(Exit::Code(137))), "through a shell");
        let lines = ["wget: bad address 'example.org'"];
        let network = root.ask(&sh, &lines, Some(Exit::Code(1)));
        assert!(network.contains("--network=none"), "{network}");
        let disk = root.ask(&sh, &["cp: x: No space left on device"], Some(Exit::Code(1)));
        assert!(disk.contains("5000 MB free"), "{disk}");
    }
}
