//! The `--name=value` flags of an instruction, checked against those that it takes.

use super::line::Line;
use crate::{diagnostic::Diagnostic, suggest, syntax::Word};

/// What a flag's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--name`, `--name=true` or `--name=false`.
    Switch,
    /// `--name=text`, once.
    Text,
    /// `--name=text`, any number of times.
    List,
}

/// The flags that were given.
pub(super) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Reads the flags of a line; `known` are those that its instruction takes.
    pub(super) fn read(
        line: &Line<'_>,
        known: &[(&'static str, Kind)],
    ) -> Result<Self, Diagnostic> {
        let mut given: Vec<(&'static str, Word)> = Vec::new();
        for flag in &line.parts.flags {
            let written = &flag.text;
            let (name, value) = match written.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (written.as_str(), None),
            };
            let shown: String = name.chars().take(80).collect();
            let fault = |code, message: String| line.error(code, message, flag.range.clone());
            let found = known.iter().find(|(known, _)| name.strip_prefix("--") == Some(known));
            let Some(&(known_name, kind)) = found else {
                return Err(unknown(line, &shown, known, flag.range.clone()));
            };
            if kind != Kind::List && given.iter().any(|(given, _)| *given == known_name) {
                let message = format!("duplicate flag specified: {shown}");
                return Err(fault("duplicate-flag", message).label("given before"));
            }
            let value = match (kind, value) {
                (Kind::Switch, None) => "true",
                (_, None) | (Kind::Switch, Some("")) => {
                    let message = format!("missing a value on flag: {shown}");
                    return Err(fault("flag-value", message)
                        .help(format!("write {shown}=VALUE, without spaces")));
                }
                (Kind::Switch, Some(value)) => {
                    if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") {
                        let message =
                            format!("expecting boolean value for flag {shown}, not: {value}");
                        return Err(fault("flag-value", message).help("use true or false"));
                    }
                    value
                }
                (_, Some(value)) => value,
            };
            let whole = Word::new(written.as_str(), line.span(flag.range.clone()));
            let is_verbatim = line.text[flag.range.clone()] == *written;
            let span = match written.len().checked_sub(value.len()) {
                Some(start) if is_verbatim && written.ends_with(value) => {
                    whole.part(start..written.len())
                }
                _ => whole.span,
            };
            given.push((known_name, Word::new(value, span)));
        }
        Ok(Self { given })
    }

    /// The value of a flag that is given at most once.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// The same, where an empty value counts as none.
    pub(super) fn non_empty(&self, name: &str) -> Option<Word> {
        self.text(name).filter(|value| !value.text.is_empty())
    }

    /// All values of a flag.
    pub(super) fn list(&self, name: &str) -> Vec<Word> {
        let given = self.given.iter().filter(|(given, _)| *given == name);
        given.map(|(_, value)| value.clone()).collect()
    }

    /// A switch; `None` if it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value.text.eq_ignore_ascii_case("true"))
    }
}

fn unknown(
    line: &Line<'_>,
    name: &str,
    known: &[(&'static str, Kind)],
    range: std::ops::Range<usize>,
) -> Diagnostic {
    let fault = line.error("unknown-flag", format!("unknown flag: {name}"), range);
    let bare = name.trim_start_matches("--");
    if let Some(near) = suggest::nearest(bare, known.iter().map(|(name, _)| *name)) {
        return fault.help(format!("did you mean --{near}?"));
    }
    let keyword = line.keyword();
    if known.is_empty() {
        return fault.help(format!("{keyword} takes no flags"));
    }
    let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
    fault.help(format!("{keyword} takes {}", names.join(", ")))
}
