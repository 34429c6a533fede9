//! Why a program could not be started, from the files of the root.

use std::{
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use super::Failure;
use crate::{
    start::{self, Start},
    tree::{LastLink, SourceTree, clean, resolve},
};

/// `PATH` where the environment has none, as in the sandbox.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of a script that are looked at.
const HEAD: u64 = 4096;
/// Words of a command that are looked at.
const MAX_WORDS: usize = 200;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const SAVE_WITH_LF: &str = "save it with LF alone (git: `* text=auto eol=lf`, or dos2unix)";

impl Failure<'_> {
    /// What a shell means by 126 and 127.
    pub(super) fn said_by_shell(&self, code: i32) -> Option<String> {
        if code != 127 && code != 126 {
            return None;
        }
        let (line, name) =
            self.lines.iter().rev().find_map(|line| Some((line, refused(line.trim_end())?)))?;
        // bash and env show a CR as two characters, others as it is.
        if name.ends_with('\r') || name.ends_with("\\r") {
            return self.bad_script().or_else(|| {
                Some(format!(
                    "the lines of a script end in CR LF, and the CR counts as a part of {:?}: \
                     {SAVE_WITH_LF}",
                    name.trim_end_matches('\r').trim_end_matches("\\r")
                ))
            });
        }
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let by = line.split(": ").next().unwrap_or_default();
        if Path::new(by).file_name().is_some_and(|by| by == "env") {
            // The interpreter of a script is what is missing; the script is better known.
            let is_script = |word: &String| {
                let head = self.find(word).and_then(|path| self.head(&path));
                head.is_some_and(|head| head.starts_with(b"#!"))
            };
            return (self.words().filter(is_script))
                .find_map(|script| self.why_not_started(&script))
                .or_else(|| self.why_not_started(&name));
        }
        self.why_not_started(&name)
    }

    /// A program for another machine that a shell took for a script, or a script whose lines end
    /// in CR LF: both give errors that speak of anything but that.
    pub(super) fn bad_script(&self) -> Option<String> {
        const SIGNS: [&str; 6] =
            ["syntax error", "not found", "illegal option", "invalid option", "unexpected", "\r"];
        if !SIGNS.iter().any(|sign| self.says(sign)) && !self.says("\\r'") {
            return None;
        }
        // Shells say first which script a complaint is about.
        let named = self.lines.iter().rev().filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let rest = rest.strip_prefix("line ").unwrap_or(rest);
            rest.starts_with(|c: char| c.is_ascii_digit()).then(|| name.to_owned())
        });
        let mut suspects: Vec<String> = named.take(10).collect();
        suspects.extend(self.words());
        suspects.iter().find_map(|name| {
            let path = self.find(name)?;
            let head = self.head(&path)?;
            let shown = shown(&path);
            if let Some(text) = foreign(&head, &shown) {
                return Some(text);
            }
            let is_script = head.starts_with(b"#!") || shown.ends_with("sh");
            let has_cr = head.windows(2).any(|pair| pair == b"\r\n");
            (is_script && has_cr && !head.contains(&0)).then(|| {
                format!(
                    "the lines of {shown} end in CR LF, and for the shell the CR is a part of the \
                     last word: {SAVE_WITH_LF}"
                )
            })
        })
    }

    /// Why the file that a command names could not be started.
    pub(super) fn why_not_started(&self, name: &str) -> Option<String> {
        if name.trim() != name || (name.contains(' ') && self.find(name).is_none()) {
            return Some(format!(
                "{name:?} is taken as the name of one program: in the exec form each word is a \
                 string of its own"
            ));
        }
        let Some(path) = self.find(name) else { return self.missing(name) };
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
        let head = self.head(&path)?;
        if start::machine(&head).is_some() {
            if let Some(text) = foreign(&head, &shown) {
                return Some(text);
            }
        } else if head.starts_with(b"#!") {
            let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
            if line.ends_with(b"\r") {
                let interpreter = String::from_utf8_lossy(&line[2..line.len() - 1]);
                return Some(format!(
                    "the lines of {shown} end in CR LF, so the kernel looks for {:?}: \
                     {SAVE_WITH_LF}",
                    format!("{}\r", interpreter.trim())
                ));
            }
        } else if head.is_empty() {
            return Some(format!("{shown} is empty"));
        } else if head.starts_with(BYTE_ORDER_MARK) {
            return Some(format!(
                "{shown} begins with a byte order mark, which hides its #!: save it as UTF-8 \
                 without one"
            ));
        } else {
            return Some(format!(
                "{shown} is neither a program nor a script that begins with #! and its interpreter"
            ));
        }
        let mut file = self.root.open(&path, &entry).ok()?;
        file.rewind().ok()?;
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

    /// What to say of a program that is not there. Nothing if it may be where only the command
    /// could see it.
    fn missing(&self, name: &str) -> Option<String> {
        const BUILTINS: [&str; 8] =
            ["cd", "export", "source", ".", "set", "alias", "ulimit", "umask"];
        if name == "/bin/sh" && self.exec.args.first().is_some_and(|first| first == name) {
            return Some(
                "the image has no shell: write RUN in the exec form, as a list of strings, or use \
                 a base image with /bin/sh"
                    .to_owned(),
            );
        }
        if name.contains('/') {
            let is_absolute = name.starts_with('/');
            if !is_absolute && self.words().any(|word| ["cd", "pushd"].contains(&word.as_str())) {
                return None;
            }
            let path = Path::new(&self.exec.cwd).join(name);
            return (!self.is_mounted(&path)).then(|| match is_absolute {
                true => format!("the image has no {name}"),
                false => format!("the image has no {name} in {}", self.exec.cwd),
            });
        }
        if BUILTINS.contains(&name) {
            return Some(format!(
                "{name} is a command of shells, not a program: use the shell form"
            ));
        }
        let here = Path::new(&self.exec.cwd).join(name);
        if self.find(&here.to_string_lossy()).is_some() {
            return Some(format!(
                "{} is there, but the working directory is not in PATH: write ./{name}",
                here.display()
            ));
        }
        let path = self.path();
        if path.split(':').any(|dir| self.is_mounted(Path::new(dir))) {
            return None;
        }
        Some(format!(
            "no folder of PATH ({path}) has a program {name:?}: is its package installed?"
        ))
    }

    fn path(&self) -> &str {
        let set = self.exec.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        set.unwrap_or(DEFAULT_PATH)
    }

    /// Whether a path is in a mount of the step, whose files are not in the root.
    fn is_mounted(&self, path: &Path) -> bool {
        let mounts = self.exec.mounts.iter().map(|mount| mount.target.as_str());
        mounts.chain(["/dev", "/proc", "/sys"]).any(|target| path.starts_with(target))
    }

    /// The file that a command names, with symlinks resolved. What the command itself makes its
    /// working directory counts too.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let there = |path: &Path| {
            let real = resolve(self.root, &clean(path), LastLink::Follow).ok()?;
            let found = self.root.lookup(&real).ok()?.is_some();
            (found && !self.is_mounted(path)).then_some(real)
        };
        if name.contains('/') {
            let cwd = Path::new(&self.exec.cwd);
            return there(&cwd.join(name)).or_else(|| {
                if name.starts_with('/') {
                    return None;
                }
                let words: Vec<String> = self.words().collect();
                let mut entered = words.windows(2).filter(|pair| pair[0] == "cd").rev();
                entered.find_map(|pair| there(&cwd.join(&pair[1]).join(name)))
            });
        }
        self.path().split(':').find_map(|dir| there(&Path::new(dir).join(name)))
    }

    fn exists(&self, path: &Path) -> bool {
        self.find(&path.to_string_lossy()).is_some()
    }

    /// The first bytes of a regular file.
    fn head(&self, path: &Path) -> Option<Vec<u8>> {
        let entry = self.root.lookup(path).ok()??;
        let file = self.root.open(path, &entry).ok()?;
        let mut head = Vec::new();
        file.take(HEAD).read_to_end(&mut head).ok()?;
        Some(head)
    }

    /// The words of the command, as far as they can be told without a shell.
    fn words(&self) -> impl Iterator<Item = String> {
        let breaks = |c: char| c.is_whitespace() || ";&|()<>\"'`".contains(c);
        let words = self.exec.args.iter().flat_map(move |arg| arg.split(breaks));
        words.filter(|word| !word.is_empty()).take(MAX_WORDS).map(str::to_owned)
    }
}

/// The name of what a shell could not start, as its complaint has it.
fn refused(line: &str) -> Option<String> {
    const COMPLAINTS: [&str; 5] = [
        ": not found",
        ": command not found",
        ": No such file or directory",
        ": Permission denied",
        ": Exec format error",
    ];
    // bash names the interpreter behind the script: `x: /bin/y: bad interpreter: …`.
    if let Some((before, _)) = line.split_once(": bad interpreter") {
        return before.rsplit(": ").nth(1).map(str::to_owned);
    }
    let before = match line.split_once(": cannot execute") {
        Some((before, _)) => before,
        None => COMPLAINTS.iter().find_map(|text| line.strip_suffix(text))?,
    };
    let name = before.rsplit(": ").next()?;
    let name = name.strip_prefix("can't execute ").unwrap_or(name);
    let name = name.strip_prefix('$').filter(|rest| rest.starts_with('\'')).unwrap_or(name);
    Some(name.trim_matches(['\'', '\u{2018}', '\u{2019}', ' ']).to_owned())
}

/// What to say of a program if it is for another machine.
fn foreign(head: &[u8], shown: &str) -> Option<String> {
    let machine = start::machine(head)?;
    let host = rbc_ir::Platform::host().architecture;
    let little = matches!((host.as_str(), machine.as_str()), ("amd64", "386") | ("arm64", "arm"));
    (machine != host && !little)
        .then(|| format!("{shown} is a program for {machine}, this machine is {host}"))
}

fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}
