//! Parser directives: `# syntax=`, `# escape=` and `# check=` in the first lines of a file.

use std::sync::Arc;

use super::{Directive, DirectiveKind, SourceFile, Span, Word};
use crate::diagnostic::Diagnostic;

/// Reads directives until the first line that is none.
pub(super) struct DirectiveReader {
    /// What was read.
    pub(super) found: Vec<Directive>,
    /// The escape character, as far as it is known.
    pub(super) escape: char,
    done: bool,
}

/// What a line is.
pub(super) enum Line {
    /// A directive.
    Directive,
    /// Something else; no directive can follow it.
    Other,
}

impl DirectiveReader {
    pub(super) fn new() -> Self {
        Self { found: Vec::new(), escape: '\\', done: false }
    }

    /// Looks at the next line of `source`: `line` is its text from the first character that is no
    /// space, at the byte `offset`.
    pub(super) fn line(
        &mut self,
        line: &str,
        offset: usize,
        source: &Arc<SourceFile>,
    ) -> Result<Line, Diagnostic> {
        if self.done {
            return Ok(Line::Other);
        }
        let Some((name, value_at)) = split(line) else {
            self.done = true;
            return Ok(Line::Other);
        };
        let kind = match name.to_ascii_lowercase().as_str() {
            "syntax" => DirectiveKind::Syntax,
            "escape" => DirectiveKind::Escape,
            "check" => DirectiveKind::Check,
            _ => {
                self.done = true;
                return Ok(Line::Other);
            }
        };
        let span = Span::new(offset, offset + line.len());
        let start = offset + value_at;
        let value = line[value_at..].trim_end_matches(is_space);
        let value = Word::new(value, Span::new(start, start + value.len()));
        if self.found.iter().any(|directive| directive.kind == kind) {
            let name = name.to_ascii_lowercase();
            let message = format!("only one {name} parser directive can be used");
            return Err(Diagnostic::error("duplicate-directive", message).at(source, span));
        }
        let directive = Directive { kind, value, span };
        if kind == DirectiveKind::Escape {
            match directive.value.text.as_str() {
                "\\" => self.escape = '\\',
                "`" => self.escape = '`',
                other => {
                    let message = format!("invalid escape token {other:?}");
                    let diagnostic = Diagnostic::error("bad-escape", message)
                        .label("neither ` nor \\")
                        .help("the escape directive takes a backslash (the default) or a backtick");
                    return Err(diagnostic.at(source, directive.value.span));
                }
            }
        }
        self.found.push(directive);
        Ok(Line::Directive)
    }
}

/// White space of directives.
fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\n' | '\u{c}')
}

/// Splits `# name = value` into the name and the offset of the value, which is never empty.
fn split(line: &str) -> Option<(&str, usize)> {
    let rest = line.strip_prefix('#')?.trim_start();
    let (name, value) = rest.split_once('=')?;
    let name = name.trim_end_matches(is_space);
    let starts_well = name.starts_with(|char: char| char.is_ascii_alphabetic());
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = value.trim_start_matches(is_space);
    if value.is_empty() {
        return None;
    }
    Some((name, line.len() - value.len()))
}
