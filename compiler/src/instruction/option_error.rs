//! What is wrong with the options of `RUN --mount` and `RUN --device`, and where.

use crate::{
    shellword::ExpandError,
    syntax::{Span, Word},
};

/// Why the options of a mount or device are not accepted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// Quotes or emptiness that comma-separated values do not allow.
    #[error("failed to parse comma-separated options: {0}")]
    Csv(&'static str),
    /// A variable where none is expanded.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    /// A variable that cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A key without value.
    #[error("invalid field '{0}': must be a key=value pair")]
    NoValue(String),
    /// A key that does not exist.
    #[error("unexpected key '{key}' in '{field}'{}", did_you_mean(.suggestion))]
    UnknownKey {
        /// The key.
        key: String,
        /// The key with its value.
        field: String,
        /// A key that is nearly the same.
        suggestion: Option<&'static str>,
    },
    /// A key that this type of mount does not take.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyOfOtherType {
        /// The key.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// A type that does not exist.
    #[error("unsupported mount type {value:?}{}", did_you_mean(.suggestion))]
    UnknownType {
        /// The type.
        value: String,
        /// A type that is nearly the same.
        suggestion: Option<&'static str>,
    },
    /// A sharing mode that does not exist.
    #[error("unsupported sharing value {value:?}{}", did_you_mean(.suggestion))]
    UnknownSharing {
        /// The mode.
        value: String,
        /// A mode that is nearly the same.
        suggestion: Option<&'static str>,
    },
    /// A value that does not fit its key.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
    /// A cache option elsewhere.
    #[error("invalid cache sharing set for {0} mount")]
    SharingOfOtherType(&'static str),
    /// `mode`, `uid` or `gid` of a mount that has none.
    #[error("{key} not allowed for {kind:?} type mounts")]
    OwnerOfOtherType {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A device named twice.
    #[error("device name already set to {0}")]
    DeviceNameTwice(String),
}

impl OptionError {
    /// The place in `word` that is wrong; all of it if that cannot be told.
    pub fn place(&self, word: &Word) -> Span {
        let culprit = match self {
            Self::NoValue(field) => field,
            // The key as it is written stands at the field's start.
            Self::UnknownKey { key, field, .. } => field.get(..key.len()).unwrap_or(field),
            Self::KeyOfOtherType { key, .. } => key,
            Self::UnknownType { value, .. }
            | Self::UnknownSharing { value, .. }
            | Self::Value { value, .. } => value,
            Self::OwnerOfOtherType { key, .. } => key,
            Self::FromVariable => field_of("from", &word.text),
            Self::SharingOfOtherType(_) => field_of("sharing", &word.text),
            Self::Csv(_) | Self::Expand(_) | Self::Conflict(_) | Self::DeviceNameTwice(_) => "",
        };
        match word.text.find(culprit) {
            Some(at) if !culprit.is_empty() => word.part(at..at + culprit.len()),
            _ => word.span,
        }
    }
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// The field of a key, as far as no quotes are in the way; empty if there is none.
fn field_of<'a>(key: &str, text: &'a str) -> &'a str {
    let mut fields = text.split(',');
    let is_it = |field: &&str| field.split('=').next().is_some_and(|k| k.eq_ignore_ascii_case(key));
    fields.find(is_it).unwrap_or_default()
}
