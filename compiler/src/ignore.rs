//! Reads a `.dockerignore` file: text to patterns.
//!
//! The rules are those of moby's `ignorefile.ReadAll`. What a pattern matches is the business of
//! [`rbc_ir::pattern`].

/// Why an ignore file cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum IgnoreError {
    /// An exclamation mark without a pattern.
    #[error("line {line}: illegal exclusion pattern: \"!\" needs a pattern behind it")]
    EmptyException {
        /// Line, counted from 1.
        line: usize,
    },
}

/// A pattern of an ignore file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern as [`rbc_ir::pattern`] takes it.
    pub text: String,
    /// Its line, counted from 1.
    pub line: usize,
}

/// The patterns of an ignore file, in order: without comments and empty lines, trimmed, cleaned as
/// Go's `filepath.Clean` does it, without a leading slash; exceptions keep their `!`.
///
/// Bytes that are not UTF-8 are read as U+FFFD. Errors: a lone `!`.
pub fn read(bytes: &[u8]) -> Result<Vec<Pattern>, IgnoreError> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut patterns = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        // A comment starts at the very first byte; " #a" is a pattern.
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            return Err(IgnoreError::EmptyException { line: index + 1 });
        }
        let clean = clean(pattern);
        let relative = match clean.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => clean.as_str(),
        };
        patterns.push(Pattern { text: format!("{mark}{relative}"), line: index + 1 });
    }
    Ok(patterns)
}

/// The shortest path that means the same (Go's `path.Clean`): no empty, `.` or inner `..` elements.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => match elements.last() {
                Some(&last) if last != ".." => {
                    elements.pop();
                }
                _ if rooted => {}
                _ => elements.push(".."),
            },
            other => elements.push(other),
        }
    }
    let joined = elements.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{IgnoreError, Pattern, read};

    fn texts(bytes: &[u8]) -> Vec<String> {
        read(bytes).unwrap().into_iter().map(|pattern| pattern.text).collect()
    }

    #[test]
    fn patterns_are_trimmed_cleaned_and_made_relative() {
        let text = "\u{feff}# comment\n\n  a/b  \r\n/rooted/x\n!/kept\n! spaced\n./d//e/../f/\n # p\n/\n..//up\n*.md";
        assert_eq!(
            texts(text.as_bytes()),
            ["a/b", "rooted/x", "!kept", "!spaced", "d/f", "# p", "/", "../up", "*.md"]
        );
    }

    #[test]
    fn a_comment_after_the_byte_order_mark_is_a_comment() {
        let text = "\u{feff}#x\n\u{feff}y";
        assert_eq!(
            read(text.as_bytes()).unwrap(),
            [Pattern { text: "\u{feff}y".to_owned(), line: 2 }]
        );
    }

    #[test]
    fn a_lone_exclamation_mark_is_an_error_with_its_line() {
        let error = read(b"a\n\n !  \n").unwrap_err();
        assert_eq!(error, IgnoreError::EmptyException { line: 3 });
        assert!(error.to_string().starts_with("line 3: illegal exclusion pattern"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(patterns) = read(&bytes) {
                prop_assert!(patterns.iter().all(|pattern| !pattern.text.is_empty()));
            }
        }
    }
}
