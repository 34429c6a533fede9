//! The formatter: prints a Dockerfile in one canonical layout.
//!
//! Stands beside the compiler and uses its first two steps only. Keywords are written in upper
//! case, words are parted by one space, lines that continue an instruction are indented by four,
//! space at line ends goes, and runs of empty lines become one. Text that the image would show is
//! never touched: shell commands, quoted words, heredocs. Every instruction is read again in its
//! new layout, and keeps the old one if it would not mean exactly the same; so the graph of the
//! file has the same digests.

mod instruction;
mod words;

use std::sync::Arc;

use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    instruction as typed,
    syntax::{self, Directive, DirectiveKind, Dockerfile, SourceFile},
};

/// Formats a Dockerfile.
///
/// Errors: those of its syntax and instructions, and bytes that are not UTF-8.
pub fn format(source: &Arc<SourceFile>) -> Result<String, Diagnostics> {
    if source.bytes() != source.text().as_bytes() {
        let wrong = Diagnostic::error(
            "not-utf8",
            format!("{}: not UTF-8, so its layout is left alone", source.name()),
        );
        return Err(wrong.into());
    }
    let file = syntax::parse(Arc::clone(source))?;
    let instructions = typed::parse(&file)?;
    let formatted = print(&file, &instructions);
    // Instructions were compared one by one; this is for what stands between them.
    Ok(if is_same_file(&file, &instructions, source.name(), &formatted) {
        formatted
    } else {
        source.text().to_owned()
    })
}

/// The lines of the file, instructions and what stands between them.
fn print(file: &Dockerfile, instructions: &[typed::Instruction]) -> String {
    let text = file.source.text();
    let mut out = Printer { text: String::with_capacity(text.len()), blank: false };
    let mut at = 0;
    for (raw, instruction) in file.instructions.iter().zip(instructions) {
        between(&mut out, file, at, raw.span.start);
        instruction::print(&mut out, raw, instruction, file);
        at = raw.span.end;
        // The rest of the instruction's last line is but its line break.
        at += text[at..].find('\n').map_or(text.len() - at, |length| length + 1);
    }
    between(&mut out, file, at, text.len());
    out.text
}

/// Comments, directives and empty lines from `start` to `end`.
fn between(out: &mut Printer, file: &Dockerfile, start: usize, end: usize) {
    let mut at = start;
    for full in file.source.text()[start..end].split_inclusive('\n') {
        let line = full.trim_start_matches('\u{feff}').trim();
        let line_start = at;
        at += full.len();
        let directive =
            file.directives.iter().find(|one| (line_start..at).contains(&one.span.start));
        match (directive, line) {
            (Some(directive), _) => out.line(&directive_line(directive)),
            // The space before an instruction on its own line.
            (None, "") if !full.ends_with('\n') => {}
            (None, "") => out.blank_line(),
            (None, comment) => out.line(comment),
        }
    }
}

fn directive_line(directive: &Directive) -> String {
    let name = match directive.kind {
        DirectiveKind::Syntax => "syntax",
        DirectiveKind::Escape => "escape",
        DirectiveKind::Check => "check",
    };
    format!("# {name}={}", directive.value.text)
}

/// Whether the formatted text reads as the same file.
fn is_same_file(
    file: &Dockerfile,
    instructions: &[typed::Instruction],
    name: &str,
    formatted: &str,
) -> bool {
    let Ok(again) = syntax::parse(SourceFile::new(name, formatted)) else { return false };
    let Ok(typed) = typed::parse(&again) else { return false };
    let directives = |file: &Dockerfile| -> Vec<(DirectiveKind, String)> {
        file.directives.iter().map(|one| (one.kind, one.value.text.clone())).collect()
    };
    let comments = |one: &typed::Instruction| -> Vec<String> {
        one.comments.iter().map(|comment| comment.text.clone()).collect()
    };
    directives(file) == directives(&again)
        && typed.len() == instructions.len()
        && typed
            .iter()
            .zip(instructions)
            .all(|(new, old)| new.means_the_same(old) && comments(new) == comments(old))
}

/// What was printed so far.
struct Printer {
    text: String,
    /// Whether an empty line waits for something to stand before.
    blank: bool,
}

impl Printer {
    /// Prints a line, with the empty line that waits.
    fn line(&mut self, line: &str) {
        self.lines(line);
        self.text.push('\n');
    }

    /// Prints text that ends within a line.
    fn lines(&mut self, lines: &str) {
        // Nothing but an empty line keeps a comment at the top from being read as a directive.
        let starts = self.text.is_empty() && !lines.starts_with('#');
        if std::mem::take(&mut self.blank) && !starts {
            self.text.push('\n');
        }
        self.text.push_str(lines);
    }

    fn blank_line(&mut self) {
        self.blank = true;
    }
}
