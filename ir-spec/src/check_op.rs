//! The rules that the fields of an operation keep (`SPEC.md`, "Validity").
//!
//! The runtime hands these fields to system calls, to `git` and to paths in a root, so a graph.bin
//! from elsewhere must not hold what no Dockerfile can say.

use crate::{
    CopyAction, Exec, FileAction, GitSource, HttpSource, ImageLocation, ModeChange, Mount,
    MountKind, Op, Owner, Selection, Source, Ulimit, UserRef,
};

type Check = Result<(), String>;

/// Checks an operation of a node with `inputs` inputs; the error says what is wrong with it.
pub(crate) fn check(op: &Op, inputs: usize) -> Check {
    let at_least = |want: usize| match inputs >= want {
        true => Ok(()),
        false => Err(format!("has {inputs} inputs, wants at least {want}")),
    };
    match op {
        Op::Source(_) if inputs > 0 => {
            Err(format!("a source has no inputs, this one has {inputs}"))
        }
        Op::Source(source) => check_source(source),
        Op::Exec(exec) => {
            at_least(1)?;
            check_exec(exec)?;
            exec.mounts.iter().try_for_each(|mount| check_mount(mount, inputs))
        }
        Op::File(file) => {
            at_least(1)?;
            file.actions.iter().try_for_each(|action| check_action(action, inputs))
        }
        Op::Merge => at_least(2),
        Op::Diff if inputs != 2 => Err(format!("a diff has two inputs, this one has {inputs}")),
        Op::Diff => Ok(()),
    }
}

fn check_source(source: &Source) -> Check {
    match source {
        Source::Scratch => Ok(()),
        Source::Image(image) => {
            not_empty("the image reference", &image.reference)?;
            match &image.location {
                ImageLocation::StoreOrRegistry => Ok(()),
                ImageLocation::OciLayout(name) => not_empty("the name of the OCI layout", name),
            }
        }
        Source::Context(context) => {
            no_nul("the name of a context", &context.name)?;
            check_selection(&context.selection)
        }
        Source::Git(git) => check_git(git),
        Source::Http(http) => check_http(http),
    }
}

fn check_selection(selection: &Selection) -> Check {
    selection.paths.iter().try_for_each(|path| no_nul("a selected path", &path.path))?;
    selection.exclude.iter().try_for_each(|pattern| no_nul("an exclude pattern", pattern))
}

fn check_git(git: &GitSource) -> Check {
    for (what, text) in [("the git URL", &git.url), ("the git reference", &git.reference)] {
        no_nul(what, text)?;
        // `git` would take it for an option.
        if text.starts_with('-') {
            return Err(format!("{what} {text:?} starts with \"-\""));
        }
    }
    not_empty("the git URL", &git.url)?;
    no_nul("the git folder", &git.subdir)?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match matches!(git.commit.len(), 40 | 64) && git.commit.bytes().all(is_digit) {
        true => Ok(()),
        false => Err(format!("{:?} is not the id of a git commit", git.commit)),
    }
}

fn check_http(http: &HttpSource) -> Check {
    no_nul("the URL", &http.url)?;
    if !["http://", "https://"].iter().any(|scheme| http.url.starts_with(scheme)) {
        return Err(format!("{:?} is not an http or https URL", http.url));
    }
    no_nul("the file name", &http.filename)?;
    if matches!(http.filename.as_str(), "" | "." | "..") || http.filename.contains('/') {
        return Err(format!("{:?} is not the name of a file", http.filename));
    }
    mode_bits(http.mode)
}

fn check_exec(exec: &Exec) -> Check {
    if exec.args.is_empty() {
        return Err("exec without a command".to_owned());
    }
    exec.args.iter().try_for_each(|arg| no_nul("an argument", arg))?;
    for entry in &exec.env {
        no_nul("an environment entry", entry)?;
        if entry.find('=').is_none_or(|at| at == 0) {
            return Err(format!("environment entry {entry:?} is not NAME=value"));
        }
    }
    absolute("the working directory", &exec.cwd)?;
    no_nul("the user", &exec.user)?;
    no_nul("the host name", &exec.hostname)?;
    for secret in &exec.secret_env {
        not_empty("the id of a secret", &secret.id)?;
        not_empty("the variable of a secret", &secret.name)?;
        if secret.name.contains('=') {
            return Err(format!("{:?} is not the name of a variable", secret.name));
        }
    }
    for entry in &exec.extra_hosts {
        for (what, text) in [("an extra host", &entry.host), ("an extra host's address", &entry.ip)]
        {
            not_empty(what, text)?;
            // It would add lines or names to /etc/hosts.
            if text.contains(char::is_whitespace) {
                return Err(format!("{what} {text:?} contains white space"));
            }
        }
    }
    exec.ulimits.iter().try_for_each(check_ulimit)
}

fn check_ulimit(limit: &Ulimit) -> Check {
    let Ulimit { name, soft, hard } = limit;
    not_empty("the name of a ulimit", name)?;
    // -1 is unlimited, so above all others.
    let rank = |value: i64| if value == -1 { i64::MAX } else { value };
    match *soft >= -1 && *hard >= -1 && rank(*soft) <= rank(*hard) {
        true => Ok(()),
        false => Err(format!("ulimit {name}={soft}:{hard} is out of order")),
    }
}

fn check_mount(mount: &Mount, inputs: usize) -> Check {
    absolute("a mount target", &mount.target)?;
    if mount.target.bytes().all(|byte| byte == b'/') {
        return Err("a mount covers the whole root".to_owned());
    }
    match &mount.kind {
        MountKind::Bind { input, source } => {
            no_nul("a mount source", source)?;
            within("a mount", *input, inputs)
        }
        MountKind::Cache { id, sharing: _, input, source, mode, uid: _, gid: _ } => {
            not_empty("the id of a cache", id)?;
            no_nul("a mount source", source)?;
            mode_bits(*mode)?;
            input.map_or(Ok(()), |input| within("a mount", input, inputs))
        }
        MountKind::Tmpfs { size: _ } => Ok(()),
        MountKind::Secret { id, mode, .. } => {
            not_empty("the id of a secret", id)?;
            mode_bits(*mode)
        }
        MountKind::Ssh { id, mode, .. } => {
            not_empty("the id of an ssh agent", id)?;
            mode_bits(*mode)
        }
    }
}

fn check_action(action: &FileAction, inputs: usize) -> Check {
    match action {
        FileAction::Copy(copy) => check_copy(copy, inputs),
        FileAction::Mkdir(mkdir) => {
            absolute("a folder to make", &mkdir.path)?;
            mode_bits(mkdir.mode)?;
            check_owner(&mkdir.owner)
        }
        FileAction::Mkfile(mkfile) => {
            absolute("a file to write", &mkfile.path)?;
            mode_bits(mkfile.mode)?;
            check_owner(&mkfile.owner)
        }
        FileAction::Remove(remove) => absolute("a path to remove", &remove.path),
        FileAction::Symlink(link) => {
            absolute("a symlink", &link.path)?;
            not_empty("the target of a symlink", &link.target)?;
            check_owner(&link.owner)
        }
    }
}

fn check_copy(copy: &CopyAction, inputs: usize) -> Check {
    within("a copy", copy.input, inputs)?;
    no_nul("a copy's source", &copy.source)?;
    absolute("a copy's destination", &copy.dest)?;
    copy.exclude.iter().try_for_each(|pattern| no_nul("an exclude pattern", pattern))?;
    match &copy.mode {
        Some(ModeChange::Octal(mode)) => mode_bits(*mode)?,
        Some(ModeChange::Symbolic(change)) => not_empty("a mode change", change)?,
        None => {}
    }
    check_owner(&copy.owner)
}

fn check_owner(owner: &Option<Owner>) -> Check {
    let Some(owner) = owner else { return Ok(()) };
    for part in std::iter::once(&owner.user).chain(&owner.group) {
        if let UserRef::Name(name) = part {
            not_empty("the name of an owner", name)?;
        }
    }
    Ok(())
}

fn within(what: &str, index: u32, inputs: usize) -> Check {
    match (index as usize) < inputs {
        true => Ok(()),
        false => Err(format!("{what} names input {index}, but there are {inputs}")),
    }
}

fn no_nul(what: &str, text: &str) -> Check {
    match text.contains('\0') {
        false => Ok(()),
        true => Err(format!("{what} {text:?} contains a NUL")),
    }
}

fn not_empty(what: &str, text: &str) -> Check {
    match text.is_empty() {
        false => no_nul(what, text),
        true => Err(format!("{what} is empty")),
    }
}

fn absolute(what: &str, path: &str) -> Check {
    match path.starts_with('/') {
        true => no_nul(what, path),
        false => Err(format!("{what} {path:?} is not an absolute path")),
    }
}

fn mode_bits(mode: u32) -> Check {
    match mode & !0o7777 {
        0 => Ok(()),
        _ => Err(format!("{mode:#o} are not permission bits")),
    }
}
