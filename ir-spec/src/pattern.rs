//! Path patterns with the meaning Docker gives them: Go's `filepath.Match` for COPY sources and
//! moby's `patternmatcher` for ignore files and `--exclude`.

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(pub String);
