//! Causes in words, each in one line.

use std::fmt;

use super::{Cause, FileChange, StepCause, Touch, VariableChange};
use crate::history::StepState;

/// How many changed files are named.
const MAX_FILES: usize = 5;
/// Longest quotation, in characters.
const MAX_QUOTE: usize = 160;

impl fmt::Display for StepCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(name) => write!(f, "{}: {}", one_line(name), self.cause),
            None => self.cause.fmt(f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCache => f.write_str("the cache was not to be used (--no-cache)"),
            Self::FirstBuild => f.write_str("never built before"),
            Self::NewStep => f.write_str("a new step: the earlier build had none like it"),
            Self::Evicted => {
                f.write_str("its result was removed from the cache since the earlier build")
            }
            Self::Unfinished { state } => f.write_str(match state {
                StepState::Failed => "it failed in the earlier build",
                StepState::Cancelled => "it was stopped in the earlier build",
                _ => "the earlier build did not need it or did not get to it",
            }),
            Self::Remade => f.write_str("what it is made from has been made anew since"),
            Self::Input { step, name } => write!(f, "follows from #{step} {}", one_line(name)),
            Self::Files { context, changes, .. } => files(f, context, changes.as_deref()),
            Self::Instruction { old, new } => {
                let (old, new) = different_lines(old, new);
                write!(f, "instruction changed from {} to {}", quote(old), quote(new))
            }
            Self::Variables { changes } => list(f, changes, variable),
            Self::Image { old_reference, new_reference, old, new } => {
                let (old, new) = (old.short(), new.short());
                let reference = one_line(new_reference);
                if old_reference == new_reference {
                    write!(f, "base image {reference} changed: {old} → {new}")
                } else {
                    let before = one_line(old_reference);
                    write!(f, "base image is {reference} ({new}) instead of {before} ({old})")
                }
            }
            Self::Git { url, old, new } => {
                let (old, new) = (head(old), head(new));
                write!(f, "git repository {} changed: {old} → {new}", one_line(url))
            }
            Self::Download { url, old, new } => {
                write!(f, "{} changed: {} → {}", one_line(url), old.short(), new.short())
            }
            Self::Field { field, old, new } => {
                let field = name_of(field);
                match (old.as_str(), new.as_str()) {
                    ("", new) => write!(f, "{field} is new: {}", clip(new)),
                    (old, "") => write!(f, "{field} is gone: it was {}", clip(old)),
                    (old, new) => write!(f, "{field} changed from {} to {}", clip(old), clip(new)),
                }
            }
        }
    }
}

/// Of two texts of several lines the first that differ.
fn different_lines<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    let same = old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count();
    match (old.lines().nth(same), new.lines().nth(same)) {
        (Some(old), Some(new)) if same > 0 => (old, new),
        _ => (old, new),
    }
}

/// What a field of the graph is called by people; fields that few know keep their path.
fn name_of(field: &str) -> &str {
    const NAMES: [(&str, &str); 15] = [
        ("op.exec.cwd", "working directory"),
        ("op.exec.user", "user"),
        ("op.exec.network", "network"),
        ("op.exec.security", "security"),
        ("op.exec.hostname", "host name"),
        ("op.exec.args", "command"),
        ("op.exec.mounts", "mount"),
        ("op.exec.extra_hosts", "line of /etc/hosts"),
        ("op.exec.ulimits", "ulimit"),
        ("op.exec.shm_size", "size of /dev/shm"),
        ("op.exec.secret_env", "secret"),
        ("op.source.context.selection", "selection of files"),
        ("platform", "platform"),
        ("op.file.actions[0].copy.source", "source"),
        ("op.file.actions[0].copy.dest", "destination"),
    ];
    let known = NAMES.iter().find(|(path, _)| {
        field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    known.map_or(field, |(_, name)| name)
}

fn files(f: &mut fmt::Formatter<'_>, context: &str, changes: Option<&[FileChange]>) -> fmt::Result {
    if !context.is_empty() {
        write!(f, "context {}: ", one_line(context))?;
    }
    match changes {
        None => f.write_str("files changed; which ones is not known"),
        Some([]) => f.write_str("names or hard links of the copied files changed"),
        Some(changes) => list(f, changes, file),
    }
}

/// The first items, and how many more there are.
fn list<T>(f: &mut fmt::Formatter<'_>, items: &[T], show: fn(&T) -> String) -> fmt::Result {
    let shown: Vec<String> = items.iter().take(MAX_FILES).map(show).collect();
    f.write_str(&shown.join(", "))?;
    match items.len().saturating_sub(MAX_FILES) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

fn file(change: &FileChange) -> String {
    let path = one_line(&change.path);
    let short =
        |digest: &Option<rbc_ir::Digest>| digest.map_or_else(|| "-".to_owned(), |d| d.short());
    match &change.change {
        Touch::Added { new: None } => format!("{path} added"),
        Touch::Added { new } => format!("{path} added ({})", short(new)),
        Touch::Removed { old: None } => format!("{path} removed"),
        Touch::Removed { old } => format!("{path} removed ({})", short(old)),
        Touch::Content { old, new } => {
            format!("{path} changed: {} → {}", short(old), short(new))
        }
        Touch::Mode { old, new } => format!("{path} mode changed: {old:04o} → {new:04o}"),
        Touch::Target { old, new } => {
            format!("{path} points to {} instead of {}", one_line(new), one_line(old))
        }
        Touch::Kind { old, new } => format!("{path} is a {new} instead of a {old}"),
    }
}

fn variable(change: &VariableChange) -> String {
    let name = one_line(&change.name);
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{name} changed from {} to {}", quote(old), quote(new)),
        (None, Some(new)) => format!("{name} is now set to {}", quote(new)),
        (Some(old), None) => format!("{name} is no longer set (it was {})", quote(old)),
        (None, None) => name,
    }
}

/// The first digits of a commit.
fn head(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn clip(text: &str) -> String {
    let mut text = one_line(text);
    if let Some((cut, _)) = text.char_indices().nth(MAX_QUOTE) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn quote(text: &str) -> String {
    format!("{:?}", clip(text))
}

/// Text without what would end the line or command the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
