//! One instruction's text on its way to a typed instruction: the few forms that arguments take.

use std::{ops::Range, sync::Arc};

use super::{CommandLine, KeyValue};
use crate::{
    diagnostic::Diagnostic,
    syntax::{
        LogicalText, RawInstruction, SourceFile, Span, Word,
        json::{self, Json},
        words::{self, Parts},
    },
};

/// The parts of an instruction; ranges are in `text`.
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    pub(super) parts: Parts,
    pub(super) escape: char,
    logical: &'a LogicalText,
    source: &'a Arc<SourceFile>,
}

impl<'a> Line<'a> {
    pub(super) fn new(raw: &'a RawInstruction, source: &'a Arc<SourceFile>, escape: char) -> Self {
        let text = raw.text.as_str();
        Self { text, parts: words::split(text, escape), escape, logical: &raw.text, source }
    }

    /// The instruction in the arguments of ONBUILD.
    pub(super) fn trigger(&self) -> Self {
        let base = self.parts.arguments.start;
        let mut parts = words::split(&self.text[self.parts.arguments.clone()], self.escape);
        let shift = |range: &mut Range<usize>| *range = base + range.start..base + range.end;
        shift(&mut parts.keyword);
        shift(&mut parts.arguments);
        parts.flags.iter_mut().for_each(|flag| shift(&mut flag.range));
        Self { parts, ..*self }
    }

    /// The keyword in upper case.
    pub(super) fn keyword(&self) -> String {
        self.text[self.parts.keyword.clone()].to_uppercase()
    }

    pub(super) fn span(&self, range: Range<usize>) -> Span {
        self.logical.span(range)
    }

    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word::new(&self.text[range.clone()], self.span(range))
    }

    pub(super) fn has_arguments(&self) -> bool {
        !self.parts.arguments.is_empty()
    }

    pub(super) fn error(
        &self,
        code: &'static str,
        message: impl Into<String>,
        range: Range<usize>,
    ) -> Diagnostic {
        self.error_at(code, message, self.span(range))
    }

    pub(super) fn error_at(
        &self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
    ) -> Diagnostic {
        Diagnostic::error(code, message).at(self.source, span)
    }

    /// An error about the arguments as a whole, or the keyword if there are none.
    pub(super) fn arguments_error(
        &self,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        let parts = &self.parts;
        let range = if self.has_arguments() { &parts.arguments } else { &parts.keyword };
        self.error(code, message, range.clone())
    }

    /// The arguments as they are, as one word; the error if there are none.
    pub(super) fn one(&self) -> Result<Word, Diagnostic> {
        if self.has_arguments() {
            return Ok(self.word(self.parts.arguments.clone()));
        }
        let message = format!("{} requires exactly one argument", self.keyword());
        Err(self.arguments_error("missing-argument", message))
    }

    /// The error of an instruction that needs arguments and has none.
    pub(super) fn none_given(&self) -> Diagnostic {
        let message = format!("{} requires at least one argument", self.keyword());
        self.arguments_error("missing-argument", message)
    }

    /// The words, cut at white space.
    pub(super) fn plain_words(&self) -> Vec<Word> {
        let ranges = words::plain(self.text, self.parts.arguments.clone());
        ranges.into_iter().map(|range| self.word(range)).collect()
    }

    /// The words, cut at white space that is not quoted.
    pub(super) fn quoted_words(&self) -> Vec<Word> {
        let ranges = words::quoted(self.text, self.parts.arguments.clone(), self.escape);
        ranges.into_iter().map(|range| self.word(range)).collect()
    }

    /// The words of a JSON array in `range`; `None` if it holds something else.
    pub(super) fn json(&self, range: Range<usize>) -> Result<Option<Vec<Word>>, Diagnostic> {
        let base = range.start;
        let shift = |range: Range<usize>| base + range.start..base + range.end;
        match json::read(&self.text[range]) {
            Json::Strings(strings) => {
                let word = |(text, range)| self.json_word(text, shift(range));
                Ok(Some(strings.into_iter().map(word).collect()))
            }
            Json::NotStrings(range) => Err(self
                .error(
                    "json-not-strings",
                    "when using JSON array syntax, arrays must be comprised of strings only",
                    shift(range),
                )
                .label("not a string")
                .help("put it in double quotes")),
            Json::Other => Ok(None),
        }
    }

    /// A string of the JSON form. Its place leaves the quotes out.
    fn json_word(&self, text: String, literal: Range<usize>) -> Word {
        Word::new(text, self.span(literal.start + 1..literal.end - 1))
    }

    /// JSON array, or words cut at white space.
    pub(super) fn json_or_words(&self) -> Result<Vec<Word>, Diagnostic> {
        Ok(match self.json(self.parts.arguments.clone())? {
            Some(words) => words,
            None => self.plain_words(),
        })
    }

    /// JSON array, or text for a shell.
    pub(super) fn command_line(&self, range: Range<usize>) -> Result<CommandLine, Diagnostic> {
        Ok(match self.json(range.clone())? {
            Some(words) => CommandLine::Exec(words),
            None => CommandLine::Shell(self.word(range)),
        })
    }

    /// `NAME=value …` or `NAME value`, as in ENV and LABEL.
    pub(super) fn pairs(&self) -> Result<Vec<KeyValue>, Diagnostic> {
        let pairs = self.pairs_or_blank()?;
        if pairs.is_empty() {
            return Err(self.none_given());
        }
        match pairs.iter().find(|pair| pair.key.text.is_empty()) {
            Some(blank) => {
                let message = format!("{} names can not be blank", self.keyword());
                let message = self.error_at("blank-name", message, blank.value.span);
                Err(message.label("the value of no name"))
            }
            None => Ok(pairs),
        }
    }

    /// The same, with names that may be missing: triggers are not looked at closer.
    pub(super) fn pairs_or_blank(&self) -> Result<Vec<KeyValue>, Diagnostic> {
        let keyword = self.keyword();
        let arguments = self.parts.arguments.clone();
        let words = words::quoted(self.text, arguments.clone(), self.escape);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !self.text[first.clone()].contains('=') {
            let Some(space) = words::first_space(self.text, arguments.clone()) else {
                let message = format!("{keyword} must have two arguments");
                let example = &self.text[arguments.clone()];
                return Err(self
                    .error("missing-value", message, arguments.clone())
                    .label("a name without a value")
                    .help(format!("write `{keyword} {example}=VALUE`")));
            };
            return Ok(vec![KeyValue {
                key: self.word(arguments.start..space.start),
                value: self.word(space.end..arguments.end),
                legacy: true,
            }]);
        }
        words.into_iter().map(|range| self.pair(range)).collect()
    }

    fn pair(&self, range: Range<usize>) -> Result<KeyValue, Diagnostic> {
        let word = &self.text[range.clone()];
        let Some(equals) = word.find('=') else {
            let message = format!(
                "{}: can't find = in {word:?}: must be of the form name=value",
                self.keyword()
            );
            return Err(self
                .error("missing-value", message, range)
                .help("quote a value that holds spaces: name=\"two words\""));
        };
        let equals = range.start + equals;
        Ok(KeyValue {
            key: self.word(range.start..equals),
            value: self.word(equals + 1..range.end),
            legacy: false,
        })
    }
}
