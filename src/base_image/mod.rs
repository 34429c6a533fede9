//! `rbc base-image`: a small base image made of programs of this machine, so that RUN steps work
//! without any registry.
//!
//! Every program comes with what it needs to start: its loader and shared libraries, as the loader
//! itself lists them ([`libraries`]), or the interpreter of a script. [`tree`] keeps the folders
//! and symlinks on the way (`/bin` may be `usr/bin`, `sh` may be `busybox`), [`archive`] packs it
//! all for `rbc load`.

mod archive;
mod libraries;
mod tree;

use std::{
    collections::{BTreeSet, VecDeque},
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rbc_runtime::start::{self, Start};
use tree::Tree;

/// `PATH` of the image.
const IMAGE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is taken if no program is named, as far as this machine has it.
const USUAL: &str = "\
    awk basename cat chmod chown cp cut date dirname echo env expr false find grep gzip head \
    id ln ls mkdir mktemp mv printf pwd readlink rm rmdir sed seq sha256sum sleep sort stat \
    tail tar tee test touch tr true uname uniq wc xargs";

/// Folders that many distributions have merged into `/usr`, as symlinks. Programs are found under
/// one of the names and called by the other one.
const MERGED_DIRS: &[&str] = &["/bin", "/sbin", "/lib", "/lib64"];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
";

const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Makes the image `name` of `programs` (names looked up on `PATH`, or paths) and of `sh`, and
/// writes it to `archive` as an OCI layout tar. Without `programs` it holds the usual small tools.
///
/// # Errors
/// If a program that was named, the shell or one of their libraries is missing, or a file cannot
/// be read or written. The message names it.
pub fn make(programs: &[String], archive: &Path, name: &str) -> anyhow::Result<()> {
    archive::write(&collect(programs)?, IMAGE_PATH, name, archive)
}

fn collect(programs: &[String]) -> anyhow::Result<Tree> {
    let mut wanted = BTreeSet::from([find("sh")?]);
    for program in programs {
        wanted.insert(find(program)?);
    }
    if programs.is_empty() {
        wanted.extend(USUAL.split(' ').filter_map(|name| find(name).ok()));
    }
    let mut tree = Tree::default();
    for dir in MERGED_DIRS.iter().map(Path::new).filter(|dir| dir.is_symlink() && dir.is_dir()) {
        tree.add(dir)?;
    }
    for path in &wanted {
        add_program(&mut tree, path)?;
    }
    for path in &wanted {
        make_reachable(&mut tree, path);
    }
    tree.link("/bin/sh", &find("sh")?);
    for (dir, mode) in [
        ("/etc", 0o755),
        ("/home", 0o755),
        ("/root", 0o700),
        ("/tmp", 0o1777),
        ("/var/tmp", 0o1777),
    ] {
        tree.dir(dir, mode);
    }
    tree.text("/etc/passwd", PASSWD);
    tree.text("/etc/group", GROUP);
    Ok(tree)
}

/// Adds a program and everything that starting it takes.
fn add_program(tree: &mut Tree, path: &Path) -> anyhow::Result<()> {
    let mut todo = VecDeque::from([path.to_owned()]);
    let mut seen = BTreeSet::new();
    while let Some(path) = todo.pop_front() {
        let real = tree.add(&path)?;
        if !seen.insert(real.clone()) {
            continue;
        }
        let failed = || format!("cannot read {}", real.display());
        let mut file = fs::File::open(&real).with_context(failed)?;
        match start::read(&mut file).with_context(failed)? {
            Start::Alone => {}
            Start::Dynamic(loader) => libraries::add(tree, &loader, &real)?,
            Start::Script(interpreter, argument) => {
                if interpreter.file_name().is_some_and(|name| name == "env") {
                    todo.extend(env_program(&argument).map(find).transpose()?);
                }
                todo.push_back(interpreter);
            }
        }
    }
    Ok(())
}

/// The program that `env` with this argument starts: `python3`, or `-S python3 -u`.
fn env_program(argument: &str) -> Option<&str> {
    argument.split_whitespace().find(|word| !word.starts_with('-') && !word.contains('='))
}

/// A program that lies outside the image's `PATH` (in `/nix/store`, `/opt`) gets a link inside.
fn make_reachable(tree: &mut Tree, path: &Path) {
    let on_path = path.parent().is_some_and(|dir| env::split_paths(IMAGE_PATH).any(|p| p == dir));
    if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| !on_path) {
        tree.link(&format!("/usr/local/bin/{name}"), path);
    }
}

/// The absolute path of a program. Where the image looks comes first: what a user keeps in their
/// own folders under a common name is rarely meant.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    if program.contains('/') {
        let path = std::path::absolute(program)?;
        if !is_program(&path) {
            bail!("{program} is not a program of this machine");
        }
        return Ok(path);
    }
    let own = env::var_os("PATH").unwrap_or_default();
    env::split_paths(IMAGE_PATH)
        .chain(env::split_paths(&own))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|path| is_program(path))
        .with_context(|| format!("program {program:?} is not on this machine's PATH"))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
