//! Path patterns with the meaning Docker gives them: Go's `filepath.Match` for the sources of COPY
//! and ADD ([`Glob`], [`match_path`]), and moby's `patternmatcher` for ignore files and `--exclude`
//! ([`PatternMatcher`]).
//!
//! Names come from file systems and archives, so they are bytes; patterns are text. Matching takes
//! time in proportion to pattern times name, whatever the pattern, and never recurses.

mod glob;
mod matcher;
mod regex;

pub use glob::{Glob, match_path};
pub use matcher::{ParentMatch, PatternMatcher};

/// A pattern that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadPattern {
    /// The pattern breaks the syntax: an open class, a backslash at the end and the like.
    #[error("syntax error in pattern {0:?}")]
    Syntax(String),
    /// An exception without a pattern behind its `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
}

/// The shortest path that means the same, as Go's `filepath.Clean` finds it on Linux: single
/// slashes, no `.`, no `..` but at the start of a relative path, no slash at the end. Symlinks are
/// not looked at. The empty path becomes `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The first character of `bytes` and its length, as Go decodes it: a byte that starts no valid
/// UTF-8 sequence counts as U+FFFD. `None` at the end.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let &first = bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let sequence = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(sequence) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&sequence[..error.valid_up_to()]).unwrap_or_default(),
    };
    let decoded = valid.chars().next().map(|c| (c, c.len_utf8()));
    Some(decoded.unwrap_or((char::REPLACEMENT_CHARACTER, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_gives_the_shortest_path() {
        for (path, want) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("a", "a"),
            ("a/", "a"),
            ("./a//b/./c/", "a/b/c"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/..", "/"),
            ("/../a", "/a"),
            ("/a/../../b", "/b"),
            ("a/b/../../../c", "../c"),
        ] {
            assert_eq!(clean(path), want, "{path:?}");
        }
    }

    #[test]
    fn characters_are_decoded_as_go_does() {
        assert_eq!(first_char(b""), None);
        assert_eq!(first_char(b"ab"), Some(('a', 1)));
        assert_eq!(first_char("é!".as_bytes()), Some(('é', 2)));
        assert_eq!(first_char("🦀x".as_bytes()), Some(('🦀', 4)));
        assert_eq!(first_char(b"\xffab"), Some(('\u{fffd}', 1)));
        assert_eq!(first_char(b"\xc3"), Some(('\u{fffd}', 1)));
        assert_eq!(first_char("é\u{301}".as_bytes()), Some(('é', 2)));
    }
}
