//! What is wrong with a text, and where: messages that show the line, a caret under the word, and
//! advice.
//!
//! Every step of the compiler returns [`Diagnostics`]. They are rendered with annotate-snippets, the
//! renderer of rustc, without colour unless [`Style::Colour`] asks for it.

use std::{borrow::Cow, error, fmt, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::syntax::{SourceFile, Span};

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The text works, but its author probably wants to change it.
    Warning,
    /// The text cannot be built.
    Error,
}

/// Whether a rendered message has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Plain text, the same on every output.
    #[default]
    Plain,
    /// ANSI colours, for terminals.
    Colour,
}

/// One message about a place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable name of the kind of message, for example `unknown-instruction`.
    pub code: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The text and the place in it; `None` if the message is about no place.
    pub location: Option<Box<Location>>,
    /// What is said beside the caret, if anything.
    pub label: Option<Box<str>>,
    /// Facts that explain the message.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Vec<String>,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub source: Arc<SourceFile>,
    /// The bytes of the text that are meant.
    pub span: Span,
    /// Whether all lines of the place are shown, with the caret under the first word; otherwise it
    /// is the first line, with the caret under all that is meant of it.
    pub whole: bool,
}

impl Diagnostic {
    /// An error about no place yet; see [`at`](Self::at).
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: shorten(message.into()),
            location: None,
            label: None,
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    /// A warning about no place yet; see [`at`](Self::at).
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Says where.
    pub fn at(mut self, source: &Arc<SourceFile>, span: Span) -> Self {
        let source = Arc::clone(source);
        self.location = Some(Box::new(Location { source, span, whole: false }));
        self
    }

    /// Says where, and shows all lines of the place as far as they are bearable.
    pub fn at_whole(mut self, source: &Arc<SourceFile>, span: Span) -> Self {
        let source = Arc::clone(source);
        self.location = Some(Box::new(Location { source, span, whole: true }));
        self
    }

    /// Says something beside the caret.
    pub fn label(mut self, label: impl Into<Box<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a fact.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(shorten(note.into()));
        self
    }

    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(shorten(help.into()));
        self
    }

    /// The message with its source line and caret, without a final newline.
    pub fn render(&self, style: Style) -> String {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let mut group = Group::with_title(level.primary_title(&self.message).id(self.code));
        let shown = self.location.as_ref().map(|place| match place.whole {
            true => Excerpt::whole(&place.source, place.span),
            false => Excerpt::around(&place.source, place.span),
        });
        if let (Some(place), Some(shown)) = (&self.location, &shown) {
            let mut caret = AnnotationKind::Primary.span(shown.start..shown.end);
            if let Some(label) = &self.label {
                caret = caret.label(&**label);
            }
            group = group.element(
                Snippet::source(&*shown.text)
                    .line_start(shown.first_line)
                    .fold(false)
                    .path(place.source.name())
                    .annotation(caret),
            );
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Colour => Renderer::styled(),
        };
        renderer.render(&[group])
    }
}

/// Cuts a line of a message that quotes a hostile amount of the text.
fn shorten(mut line: String) -> String {
    const MAX_LINE: usize = 1000;
    if let Some((cut, _)) = line.char_indices().nth(MAX_LINE) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// The lines of a text that a message shows. Rendering only these keeps the cost of a message
/// independent of the size of the file.
struct Excerpt<'a> {
    text: Cow<'a, str>,
    first_line: usize,
    start: usize,
    end: usize,
}

impl<'a> Excerpt<'a> {
    /// Longest part of a line that is worth showing, in bytes.
    const MAX_LINE: usize = 2048;
    /// How much of a longer line is shown before the caret.
    const MAX_LEAD: usize = 80;
    /// Lines that are shown of a place at most, if all of it is to be seen.
    const MAX_LINES: usize = 12;
    /// Characters of each of these lines.
    const MAX_COLUMNS: usize = 120;

    fn whole(source: &'a SourceFile, span: Span) -> Self {
        let text = source.text();
        let (start, end) = (source.char_boundary(span.start), source.char_boundary(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = end.max(start);
        let mut lines = text[line_start..end].trim_end().lines();
        let mut shown = String::new();
        for line in lines.by_ref().take(Self::MAX_LINES) {
            let line = line.trim_end();
            if !shown.is_empty() {
                shown.push('\n');
            }
            match line.char_indices().nth(Self::MAX_COLUMNS) {
                Some((cut, _)) => {
                    shown.push_str(&line[..cut]);
                    shown.push('…');
                }
                None => shown.push_str(line),
            }
        }
        if lines.next().is_some() {
            shown.push_str("\n…");
        }
        let start = (start - line_start).min(shown.len());
        let word = shown[start..].find(char::is_whitespace).map_or(shown.len(), |at| start + at);
        Self {
            text: Cow::Owned(shown),
            first_line: source.line_column(span.start).0,
            start,
            end: word,
        }
    }

    fn around(source: &'a SourceFile, span: Span) -> Self {
        let text = source.text();
        let start = source.char_boundary(span.start);
        let first_line = source.line_column(start).0;
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        // A caret over many lines says no more than one over the first.
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = source.char_boundary(span.end.clamp(start, line_end));
        // Of a very long line, what is near the start of the caret is shown.
        let from = match start - line_start > Self::MAX_LINE {
            true => source.char_boundary(start - Self::MAX_LEAD),
            false => line_start,
        };
        let to = source.char_boundary(line_end.min(start + Self::MAX_LINE));
        let shown = text[from..to].trim_end_matches(['\r', '\n']);
        let limit = shown.len();
        Self {
            text: Cow::Borrowed(shown),
            first_line,
            start: (start - from).min(limit),
            end: (end - from).min(limit),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

/// Errors that one step collects before it gives up: nobody reads more, and each may cost a search
/// for what was meant.
pub(crate) const MAX_ERRORS: usize = 100;

/// All messages of one step, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// No messages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Whether one of the messages is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// `value`, unless there are errors.
    pub fn or_ok<T>(self, value: T) -> Result<T, Self> {
        if self.has_errors() { Err(self) } else { Ok(value) }
    }

    /// All messages with their source lines, an empty line between two.
    pub fn render(&self, style: Style) -> String {
        let rendered: Vec<String> = self.0.iter().map(|one| one.render(style)).collect();
        rendered.join("\n\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl error::Error for Diagnostics {}
