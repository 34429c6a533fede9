//! One instruction: a canonical layout if that means the same, else the lines as they are without
//! space at their ends, else every byte.

use super::{Printer, words::Words};
use crate::{
    instruction::{self as typed, Command, CommandLine, Instruction},
    syntax::{self, Dockerfile, RawInstruction, SourceFile, Span, words},
};

/// Lines that continue an instruction begin with it.
const INDENT: &str = "    ";

/// Prints an instruction in the best layout that does not change it.
pub(super) fn print(
    out: &mut Printer,
    raw: &RawInstruction,
    instruction: &Instruction,
    file: &Dockerfile,
) {
    let whole = file.source.slice(raw.span);
    // The lines before heredoc bodies, which nobody touches.
    let head_end = raw.heredocs.first().map_or(raw.span.end, |first| first.span.start);
    let head = file.source.slice(Span::new(raw.span.start, head_end));
    let bodies = file.source.slice(Span::new(head_end, raw.span.end));
    let layout = Layout { raw, instruction, escape: file.escape, head };
    for head in [layout.canonical(), layout.trimmed()].into_iter().flatten() {
        let text = format!("{head}{bodies}");
        if is_same(&text, instruction) {
            out.line(&text);
            return;
        }
    }
    out.line(whole);
}

/// Whether a text is just this instruction.
fn is_same(text: &str, wanted: &Instruction) -> bool {
    let text = format!("# escape={}\n{text}\n", wanted.escape);
    let Ok(file) = syntax::parse(SourceFile::new("", text)) else { return false };
    match typed::parse(&file).as_deref() {
        Ok([only]) => only.means_the_same(wanted),
        _ => false,
    }
}

/// A line of an instruction.
enum Kind<'a> {
    /// A part of its text, the escape character at its end cut off.
    Text { part: &'a str, continues: bool },
    /// A comment.
    Comment(&'a str),
    /// Nothing.
    Empty,
}

struct Layout<'a> {
    raw: &'a RawInstruction,
    instruction: &'a Instruction,
    escape: char,
    /// The instruction without heredoc bodies.
    head: &'a str,
}

impl<'a> Layout<'a> {
    /// The lines with their places in the source. Empty lines are reported once for a run of them.
    fn lines(&self) -> Vec<(usize, Kind<'a>)> {
        let mut lines = Vec::new();
        let mut at = self.raw.span.start;
        for full in self.head.split_inclusive('\n') {
            let line = full.trim_end_matches(['\n', '\r']);
            let start = at;
            at += full.len();
            let trimmed = line.trim();
            if trimmed.is_empty() {
                if !matches!(lines.last(), Some((_, Kind::Empty))) {
                    lines.push((start, Kind::Empty));
                }
            } else if trimmed.starts_with('#') && !lines.is_empty() {
                lines.push((start, Kind::Comment(line)));
            } else {
                let (part, continues) = syntax::strip_continuation(line, self.escape);
                lines.push((start, Kind::Text { part, continues }));
            }
        }
        // The file ends in a continuation that nothing follows.
        if matches!(lines.last(), Some((_, Kind::Empty))) {
            lines.pop();
        }
        lines
    }

    /// The lines as they are, without space at their ends.
    fn trimmed(&self) -> Option<String> {
        let mut out = Vec::new();
        for (_, kind) in self.lines() {
            out.push(match kind {
                Kind::Text { part, continues: true } => format!("{part}{}", self.escape),
                Kind::Text { part, continues: false } => part.trim_end().to_owned(),
                Kind::Comment(line) => line.trim_end().to_owned(),
                Kind::Empty => String::new(),
            });
        }
        Some(self.join(&out))
    }

    /// Keyword in upper case, one space between words, continuations indented. Where a shell's
    /// text or another raw text begins, all is left as it is.
    fn canonical(&self) -> Option<String> {
        let keyword = &self.raw.keyword.text;
        let raw_from = self.raw_from();
        let mut spaces = Words::new(self.escape);
        let mut out = Vec::new();
        let mut is_first = true;
        for (start, kind) in self.lines() {
            let (part, continues) = match kind {
                Kind::Empty => {
                    out.push(String::new());
                    continue;
                }
                Kind::Comment(line) if start < raw_from => {
                    out.push(format!("{INDENT}{}", line.trim()));
                    continue;
                }
                Kind::Comment(line) => {
                    out.push(line.trim_end().to_owned());
                    continue;
                }
                Kind::Text { part, continues } => (part, continues),
            };
            let part_at = start;
            let split = raw_from.saturating_sub(part_at).min(part.len());
            let (words, verbatim) = (part.get(..split)?, part.get(split..)?);
            // A line behind the start of the raw text has no words.
            let is_raw = part_at >= raw_from;
            let mut line = String::new();
            if is_first {
                let rest = words.strip_prefix(keyword.as_str())?;
                line.push_str(&keyword.to_ascii_uppercase());
                line.push_str(&spaces.collapse(rest));
            } else if !is_raw {
                let was_quoted = spaces.is_quoted();
                let collapsed = spaces.collapse(words);
                match was_quoted {
                    true => line.push_str(&collapsed),
                    false => {
                        line.push_str(INDENT);
                        line.push_str(collapsed.trim_start());
                    }
                }
            }
            is_first = false;
            line.push_str(verbatim);
            if continues {
                // One space before the escape character, unless it stands in a word or raw text.
                let length = line.trim_end_matches(' ').len();
                if length > 0
                    && length < line.len()
                    && verbatim.is_empty()
                    && !is_raw
                    && !spaces.is_quoted()
                {
                    line.truncate(length + 1);
                }
                line.push(self.escape);
            } else {
                line.truncate(line.trim_end().len());
            }
            out.push(line);
        }
        self.upper_as(&mut out);
        Some(self.join(&out))
    }

    /// `AS` of FROM, where it stands as a word of one line.
    fn upper_as(&self, lines: &mut [String]) {
        if !matches!(&self.instruction.command, Command::From(from) if from.name.is_some()) {
            return;
        }
        for line in lines {
            for word in [" as ", " As ", " aS "] {
                if let Some(at) = line.rfind(word) {
                    line.replace_range(at..at + word.len(), " AS ");
                    return;
                }
            }
        }
    }

    /// The place from which on space counts; the end if it never does.
    fn raw_from(&self) -> usize {
        let is_words = match &self.instruction.command {
            Command::Add(_)
            | Command::Arg(_)
            | Command::Copy(_)
            | Command::Expose(_)
            | Command::From(_)
            | Command::Shell(_)
            | Command::Volume(_) => true,
            Command::Cmd(line) | Command::Entrypoint(line) => matches!(line, CommandLine::Exec(_)),
            Command::Run(run) => matches!(run.command, CommandLine::Exec(_)),
            Command::Env(pairs) | Command::Label(pairs) => pairs.iter().all(|pair| !pair.legacy),
            Command::Healthcheck(_)
            | Command::Maintainer(_)
            | Command::Onbuild(_)
            | Command::StopSignal(_)
            | Command::User(_)
            | Command::Workdir(_) => false,
        };
        let parts = words::split(self.raw.text.as_str(), self.escape);
        if is_words || parts.arguments.is_empty() {
            return usize::MAX;
        }
        self.raw.text.source_offset(parts.arguments.start)
    }

    fn join(&self, lines: &[String]) -> String {
        let mut text = lines.join("\n");
        if !self.raw.heredocs.is_empty() {
            text.push('\n');
        }
        text
    }
}
