//! Operations in words.

use rbc_ir::{
    CacheSharing, CopyAction, FileAction, Graph, ModeChange, Mount, MountKind, Network, Node, Op,
    Owner, Security, Source, UserRef,
};

/// The longest text shown in one line.
const MAX_TEXT: usize = 200;

/// A text on one line, without control characters and not too long.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_TEXT {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' => out.push(' '),
            // Also the marks that turn the direction of writing.
            c if c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

/// The step's name, or else what the node does.
pub fn title(graph: &Graph, at: usize) -> String {
    let Some((digest, node)) = graph.nodes.get_index(at) else { return String::new() };
    let name = &graph.node_meta(digest).name;
    if name.is_empty() { kind(node).to_owned() } else { clean(name) }
}

/// The name of a step without its counter: `RUN make` of `[build 2/4] RUN make`.
pub fn step_text(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => name,
    }
}

/// One word for the operation.
pub fn kind(node: &Node) -> &'static str {
    match &node.op {
        Op::Source(Source::Scratch) => "scratch",
        Op::Source(Source::Image(_)) => "image",
        Op::Source(Source::Context(_)) => "context",
        Op::Source(Source::Git(_)) => "git",
        Op::Source(Source::Http(_)) => "http",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge => "merge",
        Op::Diff => "diff",
    }
}

/// What the operation does, a line each.
pub fn details(node: &Node) -> Vec<String> {
    let mut lines = match &node.op {
        Op::Source(Source::Scratch) | Op::Merge | Op::Diff => Vec::new(),
        Op::Source(Source::Image(image)) => {
            vec![format!("image {} manifest {}", image.reference, image.manifest)]
        }
        Op::Source(Source::Context(context)) => {
            let paths: Vec<&str> =
                context.selection.paths.iter().map(|p| p.path.as_str()).collect();
            let paths = if paths.is_empty() { "everything".to_owned() } else { paths.join(" ") };
            let name = if context.name.is_empty() { "main" } else { &context.name };
            vec![format!("context {name}: {paths}, content {}", context.digest)]
        }
        Op::Source(Source::Git(git)) => vec![format!("git {} commit {}", git.url, git.commit)],
        Op::Source(Source::Http(http)) => {
            vec![format!("download {} content {}", http.url, http.checksum)]
        }
        Op::Exec(exec) => {
            let mut lines = vec![format!("command {:?}", exec.args), format!("in {}", exec.cwd)];
            if !exec.user.is_empty() {
                lines.push(format!("as {}", exec.user));
            }
            if !exec.env.is_empty() {
                lines.push(format!("{} environment variables", exec.env.len()));
            }
            match exec.network {
                Network::Default => {}
                Network::Host => lines.push("on the host's network".to_owned()),
                Network::None => lines.push("without network".to_owned()),
            }
            if exec.security != Security::Sandbox {
                lines.push("without confinement".to_owned());
            }
            lines.extend(exec.mounts.iter().map(mount));
            lines
        }
        Op::File(file) => file.actions.iter().map(action).collect(),
    };
    if let Some(platform) = &node.platform {
        lines.push(format!("platform {platform}"));
    }
    lines.iter().map(|line| clean(line)).collect()
}

fn mount(mount: &Mount) -> String {
    let what = match &mount.kind {
        MountKind::Bind { input, source } => format!("bind of {source} of input {input}"),
        MountKind::Cache { id, sharing, .. } => {
            let sharing = match sharing {
                CacheSharing::Shared => "shared",
                CacheSharing::Private => "private",
                CacheSharing::Locked => "locked",
            };
            format!("cache {id}, {sharing}")
        }
        MountKind::Tmpfs { .. } => "tmpfs".to_owned(),
        MountKind::Secret { id, .. } => format!("secret {id}"),
        MountKind::Ssh { id, .. } => format!("ssh agent {id}"),
    };
    let access = if mount.read_only { ", read-only" } else { "" };
    format!("mount {}: {what}{access}", mount.target)
}

fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => copy_action(copy),
        FileAction::Mkdir(mkdir) => format!("mkdir {} {:04o}", mkdir.path, mkdir.mode),
        FileAction::Mkfile(file) => format!("write {} ({} bytes)", file.path, file.data.len()),
        FileAction::Remove(remove) => format!("remove {}", remove.path),
        FileAction::Symlink(link) => format!("symlink {} -> {}", link.path, link.target),
    }
}

fn copy_action(copy: &CopyAction) -> String {
    let verb = if copy.unpack { "add" } else { "copy" };
    let mut line = format!("{verb} {} of input {} to {}", copy.source, copy.input, copy.dest);
    if let Some(owner) = &copy.owner {
        line.push_str(&format!(", owner {}", owner_words(owner)));
    }
    match &copy.mode {
        None => {}
        Some(ModeChange::Octal(bits)) => line.push_str(&format!(", mode {bits:04o}")),
        Some(ModeChange::Symbolic(change)) => line.push_str(&format!(", mode {change}")),
    }
    line
}

/// `USER[:GROUP]` as `--chown` takes it.
fn owner_words(owner: &Owner) -> String {
    let word = |user: &UserRef| match user {
        UserRef::Id(id) => id.to_string(),
        UserRef::Name(name) => name.clone(),
    };
    match &owner.group {
        None => word(&owner.user),
        Some(group) => format!("{}:{}", word(&owner.user), word(group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(owner: Option<Owner>, mode: Option<ModeChange>) -> CopyAction {
        CopyAction {
            input: 1,
            source: "/x".to_owned(),
            dest: "/y".to_owned(),
            owner,
            mode,
            wildcard: false,
            follow_symlinks: true,
            unpack: false,
            parents: false,
            exclude: Vec::new(),
            allow_missing: false,
        }
    }

    #[test]
    fn owners_and_modes_read_as_they_are_written() {
        let owner = |user, group| Some(Owner { user, group });
        let name = |name: &str| UserRef::Name(name.to_owned());
        for (owner, mode, want) in [
            (None, None, "copy /x of input 1 to /y"),
            (None, Some(ModeChange::Octal(0o755)), "copy /x of input 1 to /y, mode 0755"),
            (
                owner(UserRef::Id(7), None),
                Some(ModeChange::Symbolic("u=rwX,go-w".to_owned())),
                "copy /x of input 1 to /y, owner 7, mode u=rwX,go-w",
            ),
            (
                owner(name("app"), Some(UserRef::Id(9))),
                None,
                "copy /x of input 1 to /y, owner app:9",
            ),
        ] {
            assert_eq!(copy_action(&copy(owner, mode)), want);
        }
    }
}
