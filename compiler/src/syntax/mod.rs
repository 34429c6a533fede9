//! Text to raw instructions: directives, comments, continuation lines and heredocs.
//!
//! The first step of the compiler. It knows no instruction but for what the extent of a heredoc
//! depends on; [`crate::instruction`] gives the instructions their meaning. All of the text is
//! kept: a [`Dockerfile`] prints back byte for byte. The rules are those of BuildKit's
//! `frontend/dockerfile/parser`.

mod directive;
mod heredoc;
pub(crate) mod json;
mod reader;
mod source;
mod text;
pub(crate) mod words;

use std::{fmt, ops::RangeInclusive, sync::Arc};

pub(crate) use self::{heredoc::opening, reader::strip_continuation};
pub use self::{
    source::{SourceFile, Span},
    text::{LogicalText, Word},
};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// A Dockerfile, split into its instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The text.
    pub source: Arc<SourceFile>,
    /// The parser directives at its top, in order.
    pub directives: Vec<Directive>,
    /// The escape character: `\`, or what the `escape` directive sets.
    pub escape: char,
    /// The instructions, in order; at least one.
    pub instructions: Vec<RawInstruction>,
    /// What is accepted but should be changed, such as empty continuation lines.
    pub warnings: Vec<Diagnostic>,
}

/// A parser directive, `# name=value` at the top of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Which one.
    pub kind: DirectiveKind,
    /// The value as written, without space around it.
    pub value: Word,
    /// The whole line.
    pub span: Span,
}

/// The directives that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectiveKind {
    /// `syntax`: which front end is meant. rbc has one and goes on.
    Syntax,
    /// `escape`: the escape character.
    Escape,
    /// `check`: which build checks are run.
    Check,
}

/// A comment line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The text behind `#`, without space around it; never empty.
    pub text: String,
    /// The line, from `#` on.
    pub span: Span,
}

/// An instruction whose arguments are not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawInstruction {
    /// The first word, as written.
    pub keyword: Word,
    /// All of the instruction but heredoc bodies, continuations joined.
    pub text: LogicalText,
    /// The heredocs that it opens, in order.
    pub heredocs: Vec<Heredoc>,
    /// The comments right above it (an empty comment line starts anew).
    pub comments: Vec<Comment>,
    /// All lines of it, heredocs included, without the last line break.
    pub span: Span,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; the file name in COPY and ADD.
    pub name: String,
    /// Whether variables are expanded in the body: no part of the delimiter is quoted.
    pub expand: bool,
    /// Whether leading tabs are cut from each line (`<<-`).
    pub chomp: bool,
    /// The file descriptor before `<<`; 0 if none is given.
    pub descriptor: u64,
    /// The body as written, line breaks and leading tabs included.
    pub content: String,
    /// The body's place.
    pub span: Span,
}

impl RawInstruction {
    /// Its lines, counted from 1, with those of its heredocs.
    pub fn lines(&self, source: &SourceFile) -> RangeInclusive<usize> {
        source.line(self.span.start)..=source.line(self.span.end)
    }

    /// The last of its lines that is not part of a heredoc.
    pub fn last_line(&self, source: &SourceFile) -> usize {
        match self.heredocs.first() {
            Some(heredoc) => source.line(heredoc.span.start) - 1,
            None => source.line(self.span.end),
        }
    }
}

impl Heredoc {
    /// The body with leading tabs cut from each line if `<<-` asks for it.
    pub fn chomped(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

impl Dockerfile {
    /// The value of a directive.
    pub fn directive(&self, kind: DirectiveKind) -> Option<&Directive> {
        self.directives.iter().find(|directive| directive.kind == kind)
    }

    /// The instruction that a place is in, or else the next behind it, as for a comment above it.
    pub fn instruction_at(&self, place: Span) -> Option<&RawInstruction> {
        let before = self.instructions.partition_point(|one| one.span.end < place.start);
        self.instructions.get(before)
    }
}

impl fmt::Display for Dockerfile {
    /// Prints the file back: the instructions with what stands between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = 0;
        for instruction in &self.instructions {
            f.write_str(self.source.slice(Span::new(printed, instruction.span.start)))?;
            f.write_str(self.source.slice(instruction.span))?;
            printed = instruction.span.end;
        }
        f.write_str(self.source.slice(Span::new(printed, self.source.text().len())))
    }
}

/// Splits a Dockerfile into its instructions.
///
/// Errors: a directive given twice or with a bad value, a heredoc whose delimiter is malformed or
/// whose end is missing, no instruction at all.
pub fn parse(source: impl Into<Arc<SourceFile>>) -> Result<Dockerfile, Diagnostics> {
    reader::read(source.into())
}
