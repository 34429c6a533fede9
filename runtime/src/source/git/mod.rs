//! Git repositories.
//!
//! [`resolve`] asks a server which commit a reference is; [`checkout`] fetches that commit, and no
//! more than the server makes necessary, and puts its files into a folder. Both use the `git`
//! program (see `command`). The rules are those of BuildKit's git source.

mod command;
mod fetch;

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use rbc_ir::GitSource;

use super::redact;
use command::Git;

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// There is no git on this machine.
    #[error("git sources need the program git, which is not in PATH: install it")]
    NoGit,
    /// Git cannot be run.
    #[error("cannot run git: {0}")]
    Start(io::Error),
    /// The build was stopped.
    #[error("cancelled")]
    Cancelled,
    /// Git failed.
    #[error("git {command}: {message}")]
    Failed {
        /// Git's command.
        command: String,
        /// What git says.
        message: String,
    },
    /// The repository cannot be asked or fetched.
    #[error("failed to fetch remote {url}: {source}")]
    Remote {
        /// The repository.
        url: String,
        /// What failed.
        source: Box<GitError>,
    },
    /// An address that git must not see.
    #[error("invalid git address {0:?}: want https, http, ssh or git://")]
    Address(String),
    /// A repository behind ssh, and no agent to log in with.
    #[error("{0} is reached through ssh, and no ssh agent was given: use --ssh default")]
    NoAgent(String),
    /// A reference that git would take for an option, or that is none.
    #[error("invalid git ref {0:?}")]
    Reference(String),
    /// The server has no such branch or tag.
    #[error("repository {url} does not contain ref {reference}")]
    NoReference {
        /// The repository.
        url: String,
        /// What was asked for.
        reference: String,
    },
    /// The server names no default branch.
    #[error("could not find default branch for repository: {0}")]
    NoDefault(String),
    /// The checksum is no commit.
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    Checksum(String),
    /// Another commit than the wanted one.
    #[error("expected checksum to match {expected}, got {actual}")]
    Mismatch {
        /// What was asked for.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The pinned commit is not to be had.
    #[error("repository {url} does not have the commit {commit} any more")]
    NoCommit {
        /// The repository.
        url: String,
        /// The commit.
        commit: String,
    },
    /// A folder that the commit does not have.
    #[error("invalid subdir {subdir}: {reason}")]
    Subdir {
        /// The folder as it was asked for.
        subdir: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The files cannot be put in place.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl GitError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    fn at(self, url: &str) -> Self {
        match self {
            Self::Failed { .. } => Self::Remote { url: redact(url), source: Box::new(self) },
            other => other,
        }
    }
}

/// What git works with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The socket of the ssh agent. Without one, nothing is fetched through ssh: what a build may
    /// use of the user's keys is said with `--ssh`.
    pub agent: Option<&'a Path>,
    /// Asked now and then; git is killed once it says yes.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

impl Means<'_> {
    fn check(&self, url: &str) -> Result<(), GitError> {
        if is_ssh(url) && self.agent.is_none() {
            return Err(GitError::NoAgent(redact(url)));
        }
        Ok(())
    }
}

/// Whether a repository is reached through ssh: `ssh://…` or `user@host:path`.
#[must_use]
pub fn is_ssh(url: &str) -> bool {
    match url.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
        None => {
            url.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'))
        }
    }
}

/// The commit (40 or 64 hexadecimal digits) that `reference`, a branch, tag or commit, is in the
/// repository at `url`; empty means the default branch. A `checksum` is the beginning of the commit
/// or annotated tag that must come out.
///
/// # Errors
/// If the repository cannot be asked, has no such reference, or another commit for it.
pub fn resolve(
    url: &str,
    reference: &str,
    checksum: Option<&str>,
    agent: Option<&Path>,
) -> Result<String, GitError> {
    check_address(url)?;
    check_reference(reference)?;
    if let Some(checksum) = checksum
        && (checksum.is_empty() || !checksum.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Err(GitError::Checksum(checksum.to_owned()));
    }
    if is_commit(reference) {
        return match checksum {
            Some(checksum) if !reference.starts_with(checksum) => Err(GitError::Mismatch {
                expected: checksum.to_owned(),
                actual: reference.to_owned(),
            }),
            _ => Ok(reference.to_owned()),
        };
    }
    let means = Means { agent, is_cancelled: &|| false };
    means.check(url)?;
    let git = Git { repository: None, work_tree: None, means };
    let found = fetch::look_up(&git, url, reference)?;
    let accepted = |id: &String| checksum.is_none_or(|checksum| id.starts_with(checksum));
    let ids = [Some(&found.id), found.tagged.as_ref()];
    if !ids.into_iter().flatten().any(accepted) {
        let all: Vec<&str> = ids.into_iter().flatten().map(String::as_str).collect();
        return Err(GitError::Mismatch {
            expected: checksum.unwrap_or_default().to_owned(),
            actual: all.join(" or "),
        });
    }
    Ok(found.tagged.unwrap_or(found.id))
}

/// Puts the files of the commit that `source` pins into the folder `dest`. `work` is a folder on
/// the same file system for what is needed on the way, `tree` and `repository`.
///
/// # Errors
/// If the commit or its submodules cannot be fetched, or the folder is not in it.
pub fn checkout(
    source: &GitSource,
    dest: &Path,
    work: &Path,
    means: &Means<'_>,
) -> Result<(), GitError> {
    check_address(&source.url)?;
    means.check(&source.url)?;
    check_reference(&source.reference)?;
    let subdir = subdir_parts(&source.subdir)?;
    // BuildKit keeps the repository of a whole checkout only.
    let keeps_repository = source.keep_git_dir && subdir.is_empty();
    let tree = if subdir.is_empty() { dest.to_owned() } else { work.join("tree") };
    fs::create_dir_all(&tree).map_err(GitError::io(&tree))?;
    let repository = if keeps_repository { dest.join(".git") } else { work.join("repository") };
    fs::create_dir(&repository).map_err(GitError::io(&repository))?;
    let mut git = Git { repository: Some(repository.clone()), work_tree: None, means: *means };
    fetch::fetch(&git, source, keeps_repository)?;

    git.work_tree = Some(tree.clone());
    git.run(&["read-tree", &source.commit])?;
    git.run(&["checkout-index", "--all", "--force"])?;
    // Git itself refuses to read the file through a symlink.
    let has_submodules =
        fs::symlink_metadata(tree.join(".gitmodules")).is_ok_and(|facts| facts.is_file());
    if source.submodules && has_submodules {
        update_submodules(&git, &source.url)?;
        if !keeps_repository {
            remove_links(&tree)?;
        }
    }
    if keeps_repository {
        fetch::settle(&git, source)?;
    }
    if !subdir.is_empty() {
        move_out(&tree, &subdir, source, dest)?;
    }
    Ok(())
}

fn update_submodules(git: &Git<'_>, url: &str) -> Result<(), GitError> {
    let update = ["submodule", "update", "--init", "--recursive"];
    let shallow = [&update[..], &["--depth=1"]].concat();
    match git.run(&shallow) {
        // Servers of plain files cannot cut history off.
        Err(GitError::Failed { message, .. })
            if message.contains("shallow") || message.contains("depth") =>
        {
            git.run(&update).map(drop)
        }
        other => other.map(drop),
    }
    .map_err(|error| error.at(url))
}

/// Removes the `.git` files by which submodules point into the repository that is not kept.
fn remove_links(tree: &Path) -> Result<(), GitError> {
    let mut pending = vec![tree.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(GitError::io(&folder))? {
            let entry = entry.map_err(GitError::io(&folder))?;
            let kind = entry.file_type().map_err(GitError::io(&entry.path()))?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if entry.file_name() == ".git" {
                fs::remove_file(entry.path()).map_err(GitError::io(&entry.path()))?;
            }
        }
    }
    Ok(())
}

/// Moves what is in a folder of the tree to its place.
fn move_out(tree: &Path, subdir: &[&str], source: &GitSource, dest: &Path) -> Result<(), GitError> {
    let mut folder = tree.to_owned();
    for part in subdir {
        folder.push(part);
        let reason = match fs::symlink_metadata(&folder) {
            Ok(facts) if facts.is_dir() => continue,
            Ok(_) => "it is not a folder",
            Err(_) => "the repository does not have it",
        };
        return Err(GitError::Subdir { subdir: source.subdir.clone(), reason });
    }
    for entry in fs::read_dir(&folder).map_err(GitError::io(&folder))? {
        let entry = entry.map_err(GitError::io(&folder))?;
        let to = dest.join(entry.file_name());
        fs::rename(entry.path(), &to).map_err(GitError::io(&to))?;
    }
    Ok(())
}

/// The names on the way to a folder of the repository.
fn subdir_parts(subdir: &str) -> Result<Vec<&str>, GitError> {
    let mut parts = Vec::new();
    for component in Path::new(subdir).components() {
        match component {
            Component::Normal(name) => parts.extend(name.to_str()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let reason = "it leads out of the repository";
                return Err(GitError::Subdir { subdir: subdir.to_owned(), reason });
            }
        }
    }
    Ok(parts)
}

/// Lets through addresses with a protocol of the network and `user@host:path`.
fn check_address(url: &str) -> Result<(), GitError> {
    let is_fine = match url.split_once("://") {
        Some((scheme, rest)) => {
            matches!(scheme.to_ascii_lowercase().as_str(), "https" | "http" | "ssh" | "git")
                // Ssh would take such a host for an option.
                && !rest.is_empty() && !rest.starts_with('-')
        }
        None => url.split_once('@').is_some_and(|(user, rest)| {
            let host = rest.split(':').next().unwrap_or_default();
            !user.is_empty()
                && !user.contains(['/', ':'])
                && rest.contains(':')
                && !host.is_empty()
                && !host.contains('/')
                && !host.starts_with('-')
        }),
    };
    if is_fine && !url.starts_with('-') && !url.contains(char::is_control) {
        Ok(())
    } else {
        Err(GitError::Address(redact(url)))
    }
}

/// Refuses what is no name of a reference (git-check-ref-format) as far as it could mean something
/// else to git: options, patterns, refspecs.
fn check_reference(reference: &str) -> Result<(), GitError> {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if reference.starts_with(['-', '+']) || reference.contains("..") || reference.contains(odd) {
        return Err(GitError::Reference(reference.to_owned()));
    }
    Ok(())
}

/// Whether a text is the full id of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_network_reach_git() {
        for url in ["https://h/r.git", "git://h/r", "ssh://git@h:22/r", "git@h:r", "HTTP://h/r.git"]
        {
            assert!(check_address(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "/srv/r.git",
            "file:///srv/r.git",
            "ext::sh -c id",
            "-upload-pack=x@h:r",
            "ssh://-oProxyCommand=id/r",
            "git@-oProxyCommand=id:r",
            "./git@h:r",
            "https://h/r\n.git",
        ] {
            assert!(check_address(url).is_err(), "{url}");
        }
    }

    #[test]
    fn references_are_names() {
        for reference in ["", "main", "refs/tags/v1.0", "feature/a-b", "v1"] {
            assert!(check_reference(reference).is_ok(), "{reference}");
        }
        for reference in ["--upload-pack=id", "-x", "+main", "a..b", "a:b", "a b", "main^{}", "*"] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
    }

    #[test]
    fn commits_need_no_server() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let ask = |checksum| resolve("https://h.invalid/r.git", id, checksum, None);
        assert_eq!(ask(None).expect("known"), id);
        assert_eq!(ask(Some("01234")).expect("known"), id);
        assert!(matches!(ask(Some("1")), Err(GitError::Mismatch { .. })));
        assert!(matches!(ask(Some("--x")), Err(GitError::Checksum(_))));
    }

    #[test]
    fn folders_stay_in_the_repository() {
        assert_eq!(subdir_parts("/a//b/./c").expect("inside"), ["a", "b", "c"]);
        assert!(subdir_parts("a/../..").is_err());
    }
}
