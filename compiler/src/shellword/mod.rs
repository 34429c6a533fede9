//! Expansion of words: quotes, escapes, `$NAME` and `${NAME…}` with all modifiers.
//!
//! Used on the words of an instruction once its variables are known, and by [`crate::syntax`] to
//! find heredocs. The rules are those of BuildKit's `frontend/dockerfile/shell`.

mod expand;
mod pattern;

use std::{collections::HashMap, ops::Range};

use indexmap::IndexMap;

/// Where variables come from.
pub trait Variables {
    /// The value of a variable; `None` if it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Variables for IndexMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl Variables for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// No variable at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// What happens to quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotes {
    /// They quote and are removed.
    #[default]
    Remove,
    /// They quote and stay.
    Keep,
    /// They are letters like all others; so in heredoc bodies.
    Literal,
}

/// What happens to escape characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escapes {
    /// They escape and are removed.
    #[default]
    Remove,
    /// They escape and stay.
    Keep,
}

/// What becomes of a variable that is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// Nothing, as in a shell.
    #[default]
    Empty,
    /// Its reference stays as it is written.
    Keep,
}

/// How words are expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expander {
    /// The file's escape character.
    pub escape: char,
    /// What happens to quotes.
    pub quotes: Quotes,
    /// What happens to escape characters.
    pub escapes: Escapes,
    /// What becomes of unset variables.
    pub unset: Unset,
}

impl Expander {
    /// The rules for the words of an instruction: quotes and escapes are removed, unset variables
    /// are empty.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::default(),
            escapes: Escapes::default(),
            unset: Unset::default(),
        }
    }

    /// The rules for heredoc bodies of COPY and ADD: quotes are letters, `\` escapes.
    pub fn for_heredoc() -> Self {
        Self { quotes: Quotes::Literal, ..Self::new('\\') }
    }

    /// Expands a word. What it yields is bounded in size, and so is the depth of substitutions.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        expand::expand(*self, word, variables)
    }
}

/// A word after expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text as one word.
    pub text: String,
    /// The text split at spaces that are not quoted.
    pub words: Vec<String>,
    /// Variables that were read and are set, each once, in order of first use.
    pub used: Vec<String>,
    /// Variables that were read and are not set, each once, in order of first use.
    pub unset: Vec<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind}")]
pub struct ExpandError {
    /// What is wrong.
    pub kind: ExpandErrorKind,
    /// The bytes of the word that are meant; see [`crate::syntax::Word::part`].
    pub range: Range<usize>,
}

/// The ways in which a word can be wrong.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpandErrorKind {
    /// `'` without its end.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// `"` without its end.
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    /// `${` without its end.
    #[error("syntax error: missing '}}' of ${{{0}")]
    MissingBrace(String),
    /// `${NAME/` without a second slash.
    #[error("syntax error: missing second '/' in ${{{0}/")]
    MissingSlash(String),
    /// `${}`, `${:…` or `${{…`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A modifier that does not exist.
    #[error("unsupported modifier ({modifier}) in substitution of {name:?}")]
    Modifier {
        /// The modifier.
        modifier: String,
        /// The variable.
        name: String,
    },
    /// `${NAME:?message}` of a variable that is unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the text says about it.
        message: String,
    },
    /// A backslash in a pattern before a character that needs none.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The escaped character; empty at the pattern's end.
        escaped: String,
    },
    /// More substitutions inside each other than anyone writes.
    #[error("substitutions are nested more than {0} deep")]
    TooDeep(usize),
    /// More text than any file or variable holds.
    #[error("the word expands to more than {0} bytes")]
    TooLong(usize),
}
