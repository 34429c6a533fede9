//! Which sources of ADD and which contexts are git repositories, and what part of one they mean:
//! `https://host/repo.git?tag=v1&subdir=doc`, `git@host:repo.git#branch:subdir`, `git://…`.

use crate::path;

/// A git repository as ADD or a context names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// What to clone.
    pub remote: String,
    /// Branch, tag or commit; empty means the default branch.
    pub reference: String,
    /// Commit that must come out.
    pub checksum: Option<String>,
    /// Folder that becomes the root; empty means all.
    pub subdir: String,
    /// Whether `.git` is kept, if said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are checked out, if said.
    pub submodules: Option<bool>,
}

/// Why the part behind a repository's address makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GitRefError {
    /// A part of the query that needs a value has none.
    #[error("query {0:?} has no value")]
    NoValue(String),
    /// A part of the query is there twice.
    #[error("query {0:?} has multiple values")]
    Repeated(String),
    /// A value that is not one of those that there are.
    #[error("invalid {key} value: {value:?}")]
    Value {
        /// The part of the query.
        key: String,
        /// Its value.
        value: String,
    },
    /// A part of the query that means nothing.
    #[error("unexpected query {0:?}")]
    Unknown(String),
    /// Two parts contradict each other.
    #[error("{what} conflicts: {one:?} vs {other:?}")]
    Conflict {
        /// What is said twice.
        what: &'static str,
        /// What the one says.
        one: String,
        /// What the other says.
        other: String,
    },
}

/// Reads a source of ADD as a git repository; `None` if it is none (a path or a plain file
/// address). HTTP addresses are repositories only if their path ends in `.git`.
pub(crate) fn parse(source: &str) -> Option<Result<GitRef, GitRefError>> {
    if source.starts_with("./") || source.starts_with("../") {
        return None;
    }
    let (address, fragment) = source.split_once('#').unwrap_or((source, ""));
    let (remote, query) = address.split_once('?').unwrap_or((address, ""));
    let is_repository = match remote.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "git" | "ssh" => true,
            "http" | "https" => {
                rest.split_once('/').is_some_and(|(_, path)| path.ends_with(".git"))
            }
            _ => false,
        },
        None => is_scp_style(remote),
    };
    is_repository.then(|| read(remote, query, fragment))
}

/// Reads the address of a context as a git repository; `None` if it is none. Beside what ADD takes
/// this is `github.com/OWNER/NAME` without a scheme, which ADD takes for a path.
///
/// # Errors
/// If the part behind the repository's address makes no sense.
pub fn parse_context(text: &str) -> Option<Result<GitRef, GitRefError>> {
    if !text.starts_with("github.com/") {
        return parse(text);
    }
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (remote, query) = address.split_once('?').unwrap_or((address, ""));
    Some(read(&format!("https://{remote}"), query, fragment))
}

/// Whether a source is fetched as a file over HTTP(S).
pub(crate) fn is_http_file(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && parse(source).is_none()
}

/// `user@host:path`, as ssh and git take it.
fn is_scp_style(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    word(user, b"-_") && word(host, b".-") && !path.is_empty()
}

fn read(remote: &str, query: &str, fragment: &str) -> Result<GitRef, GitRefError> {
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let mut git = GitRef {
        remote: remote.to_owned(),
        reference: decode(reference),
        subdir: path::source(&decode(subdir)).trim_start_matches('/').to_owned(),
        ..GitRef::default()
    };
    let (mut tag, mut branch) = (None, None);
    let mut seen: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), decode(value));
        if seen.contains(&key) {
            return Err(GitRefError::Repeated(key));
        }
        seen.push(key.clone());
        let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
        if value.is_empty() && !is_switch {
            return Err(GitRefError::NoValue(key));
        }
        match key.as_str() {
            "ref" => set("ref", &mut git.reference, value)?,
            "subdir" => set("subdir", &mut git.subdir, value)?,
            "tag" => tag = Some(with_prefix("refs/tags/", value)),
            "branch" => branch = Some(with_prefix("refs/heads/", value)),
            "checksum" | "commit" => git.checksum = Some(value),
            "keep-git-dir" => git.keep_git_dir = Some(truth(&key, &value)?),
            "submodules" => git.submodules = Some(truth(&key, &value)?),
            "fetch-by-commit" => {
                truth(&key, &value)?;
            }
            "mtime" if matches!(value.as_str(), "checkout" | "commit") => {}
            "mtime" => return Err(GitRefError::Value { key, value }),
            _ => return Err(GitRefError::Unknown(key)),
        }
    }
    if let (Some(one), Some(other)) = (&tag, &branch) {
        let (one, other) = (one.clone(), other.clone());
        return Err(GitRefError::Conflict { what: "branch", one, other });
    }
    if let Some(named) = tag.or(branch) {
        set("ref", &mut git.reference, named)?;
    }
    Ok(git)
}

fn set(what: &'static str, place: &mut String, value: String) -> Result<(), GitRefError> {
    if !place.is_empty() && *place != value {
        return Err(GitRefError::Conflict { what, one: place.clone(), other: value });
    }
    *place = value;
    Ok(())
}

fn with_prefix(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

fn truth(key: &str, value: &str) -> Result<bool, GitRefError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitRefError::Value { key: key.to_owned(), value: value.to_owned() }),
    }
}

/// Undoes percent encoding; what is not well formed stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (first, tail) {
            (b'%', [a, b, after @ ..]) if hex(*a).is_some() && hex(*b).is_some() => {
                out.push(hex(*a).unwrap_or(0) << 4 | hex(*b).unwrap_or(0));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(source: &str) -> GitRef {
        parse(source).expect("a repository").expect("well formed")
    }

    #[test]
    fn repositories_are_told_from_files() {
        for source in
            ["https://h/r.git", "git://h/r", "git@h:r.git", "ssh://git@h/r", "http://h/a/r.git#m"]
        {
            assert!(parse(source).is_some(), "{source}");
        }
        for source in ["https://h/r", "r.git", "./git@h:r", "a@b", "ftp://h/r.git", "https://h.git"]
        {
            assert!(parse(source).is_none(), "{source}");
        }
        assert!(is_http_file("https://h/r.tgz"));
        assert!(!is_http_file("https://h/r.git"));
    }

    #[test]
    fn contexts_may_leave_out_the_scheme_of_github() {
        let found = parse_context("github.com/o/r#v1:d").expect("a repository").expect("fine");
        assert_eq!((found.remote.as_str(), found.subdir.as_str()), ("https://github.com/o/r", "d"));
        assert!(parse("github.com/o/r").is_none());
    }

    #[test]
    fn fragments_and_queries() {
        let found = git("https://h/r.git#v1:a/../b");
        assert_eq!((found.reference.as_str(), found.subdir.as_str()), ("v1", "b"));
        let found = git("https://h/r.git?tag=v1&subdir=d&keep-git-dir&checksum=abc");
        assert_eq!(found.remote, "https://h/r.git");
        assert_eq!(found.reference, "refs/tags/v1");
        assert_eq!(found.keep_git_dir, Some(true));
        assert_eq!(found.checksum.as_deref(), Some("abc"));
    }

    #[test]
    fn queries_that_make_no_sense_are_named() {
        for (source, word) in [
            ("https://h/r.git?foo=1", "foo"),
            ("https://h/r.git?ref=a#b", "conflicts"),
            ("https://h/r.git?tag=a&branch=b", "conflicts"),
            ("https://h/r.git?submodules=maybe", "maybe"),
            ("https://h/r.git?tag=", "no value"),
        ] {
            let error = parse(source).expect(source).expect_err(source).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
