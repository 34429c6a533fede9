//! Logical text: what is left of the lines of an instruction once continuations are joined, with
//! the way back to the source.

use std::ops::Range;

use super::Span;

/// The text of an instruction without continuation characters, comments and empty lines inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogicalText {
    text: String,
    /// For each joined piece: where it starts here, and where in the source.
    pieces: Vec<(usize, usize)>,
}

impl LogicalText {
    /// Appends a piece of the source that starts at the byte `source`.
    pub(super) fn push(&mut self, piece: &str, source: usize) {
        self.pieces.push((self.text.len(), source));
        self.text.push_str(piece);
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte of the source from which the byte at `offset` comes.
    pub fn source_offset(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(start, _)| *start <= offset);
        match after.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((start, source)) => source + (offset - start),
            None => 0,
        }
    }

    /// The part of the source from which `range` comes: from its first byte to its last.
    pub fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.is_empty() {
            return Span::new(start, start);
        }
        Span::new(start, self.source_offset(range.end - 1) + 1)
    }
}

/// A word of an instruction before expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The word as the instruction's own syntax yields it: still quoted where the instruction keeps
    /// quotes for expansion, decoded in the JSON form and in flags.
    pub text: String,
    /// Where it is written.
    pub span: Span,
}

impl Word {
    /// A word with its place.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self { text: text.into(), span }
    }

    /// The place of a part of the word: exact if the word is written as it reads, else all of it.
    pub fn part(&self, range: Range<usize>) -> Span {
        if self.span.end - self.span.start != self.text.len() || range.end > self.text.len() {
            return self.span;
        }
        Span::new(self.span.start + range.start, self.span.start + range.end)
    }
}
