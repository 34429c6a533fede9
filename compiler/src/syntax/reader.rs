//! Reads a file line by line: joins continuations, gathers comments, takes heredoc bodies.

use std::sync::Arc;

use super::{
    Comment, Dockerfile, Heredoc, LogicalText, RawInstruction, SourceFile, Span, Word,
    directive::{DirectiveReader, Line},
    heredoc, words,
};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// The most bytes that a line may have; longer ones are an error in BuildKit too.
const MAX_LINE: usize = 65_535;

/// Reads all of a file.
pub(super) fn read(source: Arc<SourceFile>) -> Result<Dockerfile, Diagnostics> {
    let mut reader = Reader {
        source: &source,
        lines: Lines { text: source.text(), at: 0 },
        directives: DirectiveReader::new(),
        comments: Vec::new(),
        instructions: Vec::new(),
        messages: Diagnostics::new(),
    };
    reader.refuse_long_lines();
    while reader.step() {}
    let Reader { directives, instructions, mut messages, .. } = reader;
    if instructions.is_empty() {
        let message = Diagnostic::error("no-instructions", "file with no instructions")
            .help("a Dockerfile starts with FROM, for example `FROM scratch`");
        messages.push(message.at(&source, Span::default()));
    }
    if messages.has_errors() {
        return Err(messages);
    }
    Ok(Dockerfile {
        escape: directives.escape,
        directives: directives.found,
        instructions,
        warnings: messages.into_iter().collect(),
        source,
    })
}

/// The lines of a text, with their line breaks.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line and the offset of its first byte.
    fn next(&mut self) -> Option<(&'a str, usize)> {
        let start = self.at;
        let rest = &self.text[start..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        self.at = start + length;
        Some((&rest[..length], start))
    }
}

struct Reader<'a> {
    source: &'a Arc<SourceFile>,
    lines: Lines<'a>,
    directives: DirectiveReader,
    /// Comments that belong to the next instruction.
    comments: Vec<Comment>,
    instructions: Vec<RawInstruction>,
    messages: Diagnostics,
}

impl Reader<'_> {
    fn refuse_long_lines(&mut self) {
        let mut lines = Lines { text: self.source.text(), at: 0 };
        while let Some((line, start)) = lines.next() {
            let length = line.strip_suffix('\n').unwrap_or(line).len();
            if length > MAX_LINE {
                let text = format!("a line of {length} bytes; {MAX_LINE} is the most");
                let message = Diagnostic::error("line-too-long", text)
                    .help("break the line with a continuation, or COPY its content from a file");
                self.messages.push(message.at(self.source, Span::new(start, start)));
            }
        }
    }

    /// Reads up to the end of the next instruction, comment or empty line. Returns whether there
    /// may be more.
    fn step(&mut self) -> bool {
        let Some((full, mut start)) = self.lines.next() else { return false };
        let mut line = trim_line_break(full);
        if start == 0
            && let Some(rest) = line.strip_prefix('\u{feff}')
        {
            start = line.len() - rest.len();
            line = rest;
        }
        let trimmed = line.trim_start();
        let offset = start + (line.len() - trimmed.len());
        match self.directives.line(trimmed, offset, self.source) {
            Ok(Line::Directive) => return true,
            Ok(Line::Other) => {}
            Err(message) => {
                self.messages.push(message);
                return true;
            }
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            self.comment(comment.trim(), Span::new(offset, offset + trimmed.len()));
        } else if !trimmed.is_empty() {
            self.instruction(trimmed, offset);
        }
        true
    }

    fn comment(&mut self, text: &str, span: Span) {
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(Comment { text: text.to_owned(), span });
        }
    }

    /// Reads an instruction whose first line is `first`, at `offset`.
    fn instruction(&mut self, first: &str, offset: usize) {
        let mut text = LogicalText::default();
        let mut end = offset + first.len();
        let mut empty_line = None;
        let (piece, mut continues) = strip_continuation(first, self.directives.escape);
        text.push(piece, offset);
        while continues && let Some((full, start)) = self.lines.next() {
            let line = trim_line_break(full);
            end = start + line.len();
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                empty_line.get_or_insert(Span::new(start, end));
                continue;
            }
            let piece;
            (piece, continues) = strip_continuation(line, self.directives.escape);
            text.push(piece, start);
        }
        if let Some(span) = empty_line {
            let message = Diagnostic::warning("empty-continuation", "empty continuation line")
                .help("remove the line, or make it a comment: it may become an error");
            self.messages.push(message.at(self.source, span));
        }
        let heredocs = self.heredocs(&text, &mut end);
        let keyword = words::split(text.as_str(), self.directives.escape).keyword;
        self.instructions.push(RawInstruction {
            keyword: Word::new(&text.as_str()[keyword.clone()], text.span(keyword)),
            text,
            heredocs,
            comments: std::mem::take(&mut self.comments),
            span: Span::new(offset, end),
        });
    }

    /// Reads the bodies of the heredocs that `text` opens, and moves `end` behind them.
    fn heredocs(&mut self, text: &LogicalText, end: &mut usize) -> Vec<Heredoc> {
        let openings = match heredoc::openings(text.as_str(), self.directives.escape) {
            Ok(openings) => openings,
            Err(error) => {
                let message = format!("a heredoc's delimiter is malformed: {error}");
                let whole = words::trim(text.as_str(), 0..text.as_str().len());
                let message = Diagnostic::error("heredoc-delimiter", message);
                self.messages.push(message.at(self.source, text.span(whole)));
                return Vec::new();
            }
        };
        let mut heredocs = Vec::new();
        for opening in openings {
            let start = self.lines.at;
            let body_end = loop {
                let Some((full, line_start)) = self.lines.next() else {
                    let name = &opening.name;
                    let message = Diagnostic::error(
                        "unterminated-heredoc",
                        format!("unterminated heredoc: no line {name:?} ends it"),
                    )
                    .label("opened here")
                    .help(if opening.chomp {
                        format!("end it with a line that holds only {name}")
                    } else {
                        format!(
                            "end it with a line that holds only {name}, without space before it"
                        )
                    });
                    let place = heredoc::place(text.as_str(), &opening);
                    self.messages.push(message.at(self.source, text.span(place)));
                    return heredocs;
                };
                let line = trim_line_break(full);
                let last = if opening.chomp { line.trim_start_matches('\t') } else { line };
                if last == opening.name {
                    *end = line_start + line.len();
                    break line_start;
                }
            };
            heredocs.push(Heredoc {
                name: opening.name,
                expand: opening.expand,
                chomp: opening.chomp,
                descriptor: opening.descriptor,
                content: self.lines.text[start..body_end].to_owned(),
                span: Span::new(start, body_end),
            });
        }
        heredocs
    }
}

fn trim_line_break(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The line without the escape character at its end, and whether there was one. Two of them are an
/// escaped one and continue nothing; spaces behind it make no difference.
pub(crate) fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}
