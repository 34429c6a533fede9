//! What git asks a server: which commit a reference is, and the commit itself.

use rbc_ir::GitSource;

use super::{Git, GitError, is_commit, redact};

/// A reference as the server has it.
pub(super) struct Found {
    /// Its full name, for example `refs/heads/main`.
    pub(super) name: String,
    /// The commit, or the annotated tag.
    pub(super) id: String,
    /// The commit that an annotated tag is of.
    pub(super) tagged: Option<String>,
}

/// Asks which commit a reference is; empty means the default branch. A branch goes before a tag of
/// the same name.
pub(super) fn look_up(git: &Git<'_>, url: &str, reference: &str) -> Result<Found, GitError> {
    let default;
    let reference = match reference {
        "" => {
            default = default_branch(git, url)?;
            default.as_str()
        }
        named => named,
    };
    let peeled = format!("{reference}^{{}}");
    let answer =
        git.run(&["ls-remote", "--", url, reference, &peeled]).map_err(|error| error.at(url))?;
    let id_of = |name: &str| {
        let found = answer.lines().filter_map(|line| line.split_once('\t'));
        found.into_iter().find(|(_, n)| *n == name).map(|(id, _)| id.to_owned())
    };
    let below = |folder: &str| format!("{folder}{}", reference.trim_start_matches(folder));
    for name in [below("refs/"), below("refs/heads/"), below("refs/tags/")] {
        if let Some(id) = id_of(&name).filter(|id| is_commit(id)) {
            let tagged = id_of(&format!("{name}^{{}}")).filter(|id| is_commit(id));
            return Ok(Found { name, id, tagged });
        }
    }
    Err(GitError::NoReference { url: redact(url), reference: reference.to_owned() })
}

fn default_branch(git: &Git<'_>, url: &str) -> Result<String, GitError> {
    let answer =
        git.run(&["ls-remote", "--symref", "--", url, "HEAD"]).map_err(|error| error.at(url))?;
    let name = answer
        .lines()
        .filter_map(|line| line.strip_prefix("ref:")?.split_once('\t'))
        .find(|(_, what)| *what == "HEAD")
        .map(|(name, _)| name.trim().to_owned());
    match name {
        Some(name) => super::check_reference(&name).map(|()| name),
        None => Err(GitError::NoDefault(redact(url))),
    }
}

/// Makes the repository and fetches the pinned commit into it: alone if the server gives single
/// commits, else by the reference it came from, else with all branches and tags.
pub(super) fn fetch(
    git: &Git<'_>,
    source: &GitSource,
    with_work_tree: bool,
) -> Result<(), GitError> {
    let format = if source.commit.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={format}");
    if with_work_tree {
        git.run(&["init", "--quiet", &format])?;
        git.run(&["config", "core.bare", "false"])?;
    } else {
        git.run(&["init", "--quiet", "--bare", &format])?;
    }
    // Relative addresses of submodules start from this one.
    git.run(&["config", "remote.origin.url", &source.url])?;
    let (commit, reference) = (source.commit.as_str(), source.reference.as_str());
    let mut ways: Vec<Vec<&str>> = vec![vec!["--depth=1", "origin", commit]];
    if !reference.is_empty() && !is_commit(reference) {
        ways.push(vec!["--depth=1", "origin", reference]);
        ways.push(vec!["origin", reference]);
        if with_work_tree {
            // A kept repository has the annotated tag as well, which only its name brings.
            ways.swap(0, 1);
        }
    }
    ways.push(vec!["origin", "+refs/heads/*:refs/rbc/heads/*", "+refs/tags/*:refs/rbc/tags/*"]);
    let object = format!("{commit}^{{commit}}");
    let mut failure = None;
    for way in ways {
        let arguments = [&["fetch", "--no-tags", "--quiet"][..], &way].concat();
        match git.run(&arguments) {
            Ok(_) if git.run(&["cat-file", "-e", &object]).is_ok() => return Ok(()),
            Ok(_) => failure = None,
            Err(error @ GitError::Failed { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    // The last way needs nothing of the server but that it is there.
    Err(match failure {
        Some(error) => error.at(&source.url),
        None => GitError::NoCommit { url: redact(&source.url), commit: commit.to_owned() },
    })
}

/// Leaves a kept repository as a clone of the reference would be: on the branch or at the tag that
/// was named, if it still is that commit, and without traces of the way there.
pub(super) fn settle(git: &Git<'_>, source: &GitSource) -> Result<(), GitError> {
    let named = if is_commit(&source.reference) {
        None
    } else {
        // The files are there; without an answer now the head is detached.
        look_up(git, &source.url, &source.reference).ok()
    };
    git.run(&["update-ref", "--no-deref", "HEAD", &source.commit])?;
    if let Some(found) = named {
        let present = git.run(&["cat-file", "-e", &found.id]).is_ok();
        let commit = found.tagged.as_ref().unwrap_or(&found.id);
        if present && *commit == source.commit {
            git.run(&["update-ref", &found.name, &found.id])?;
        }
    }
    git.run(&["config", "remote.origin.url", &redact(&source.url)])?;
    git.run(&["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"])?;
    git.run(&["reflog", "expire", "--all", "--expire=now"])?;
    for name in git.run(&["for-each-ref", "--format=%(refname)", "refs/rbc/"])?.lines() {
        git.run(&["update-ref", "-d", name])?;
    }
    // Spares a later `git status` the reading of all files; it may also find some changed.
    let _ = git.run(&["update-index", "-q", "--refresh"]);
    if let Some(repository) = &git.repository {
        let _ = std::fs::remove_file(repository.join("FETCH_HEAD"));
    }
    Ok(())
}
