//! What steps print and how they are called, made fit for a terminal: whatever a step writes, it
//! moves no cursor, clears no screen and sets no title.

use std::{iter::Peekable, str::Chars};

use unicode_width::UnicodeWidthChar;

/// Bytes of a line that is not complete which are kept.
const MAX_LINE: usize = 8 << 10;
const TAB: usize = 8;
const ESC: char = '\u{1b}';

/// Whether colours that a step sets are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    Keep,
    Drop,
}

/// One line without what would do anything but show text. Of a line that overwrites itself with
/// carriage returns or backspaces, as progress bars do, what is left at last.
pub fn printable(line: &str, colours: Colours) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or(line);
    let mut out = String::with_capacity(line.len());
    let mut column = 0;
    let mut coloured = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ESC => {
                if let (Some(sequence), Colours::Keep) = (escape(&mut chars), colours) {
                    out.push_str(&sequence);
                    coloured = true;
                }
            }
            // The same sequences as one character.
            '\u{9b}' => drop(control_sequence(&mut chars)),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => control_string(&mut chars),
            '\t' => {
                let spaces = TAB - column % TAB;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\u{8}' if !coloured => {
                column -= out.pop().map_or(0, width_of).min(column);
            }
            c if c.is_control() || is_mark(c) => {}
            c => {
                out.push(c);
                column += width_of(c);
            }
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Text of several lines on one.
pub fn on_one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\r', '\t'], " "), Colours::Drop)
}

/// What stands behind an ESC. Gives the sequence if it sets colours.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    match chars.peek()? {
        '[' => {
            chars.next();
            return control_sequence(chars);
        }
        ']' | 'P' | 'X' | '^' | '_' => control_string(chars),
        // Intermediate characters, and the one that ends them.
        _ => {
            while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
            chars.next_if(|c| ('0'..='~').contains(c));
        }
    }
    None
}

/// The rest of a sequence that began with `ESC [`, if all that it does is to set colours.
fn control_sequence(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut parameters = String::new();
    while let Some(c) = chars.next_if(|c| (' '..='?').contains(c)) {
        parameters.push(c);
    }
    let end = chars.next_if(|c| ('@'..='~').contains(c))?;
    let is_plain = parameters.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':');
    (end == 'm' && is_plain).then(|| format!("\u{1b}[{parameters}m"))
}

/// Passes over a title, a link or the like, up to its end.
fn control_string(chars: &mut Peekable<Chars<'_>>) {
    while let Some(c) = chars.next() {
        match c {
            '\u{7}' | '\u{9c}' => return,
            ESC if chars.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

/// Characters that turn the direction of writing or break lines: they would show text as what it
/// is not.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns that a character takes at most. Terminals differ in sequences that are joined to one
/// picture, so each part counts.
fn width_of(c: char) -> usize {
    match c {
        // Asks for the coloured picture of the character before, which may be wider than that.
        '\u{fe0f}' => 1,
        c => c.width().unwrap_or(0),
    }
}

/// Columns that text takes at most.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// Text cut to so many columns.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut taken = 0;
    let mut fitting = String::new();
    for c in text.chars() {
        taken += width_of(c);
        if taken > room {
            break;
        }
        fitting.push(c);
    }
    fitting.truncate(fitting.trim_end().len());
    fitting.push('…');
    fitting
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes more of the stream and gives each line that is complete.
    pub fn push(&mut self, data: &[u8], mut line: impl FnMut(&str)) {
        for part in data.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                line(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
            } else if self.partial.len() > MAX_LINE {
                // The end is what a progress bar shows now.
                self.partial.drain(..self.partial.len() - MAX_LINE / 2);
            }
        }
    }

    /// The line that is not complete.
    pub fn partial(&self) -> String {
        String::from_utf8_lossy(&self.partial).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_text_is_left() {
        for (line, want) in [
            ("plain", "plain"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "alink"),
            ("\u{1b}]0;never ends", ""),
            ("\u{1b}(Bset\u{1b}c\u{1b}7", "set"),
            ("\u{9b}2Jone\u{9d}x\u{9c}", "one"),
            ("10%\r50%\r100%\r\n", "100%"),
            ("\r", ""),
            ("50%\u{8}\u{8}\u{8}99%", "99%"),
            ("a\tb", "a       b"),
            ("nul\0bell\u{7}", "nulbell"),
            ("abc\u{202e}fed", "abcfed"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(printable(line, Colours::Drop), want, "{line:?}");
        }
        assert_eq!(
            printable("\u{1b}[1;31mred\u{1b}[2K\u{1b}[?25l", Colours::Keep),
            "\u{1b}[1;31mred\u{1b}[0m"
        );
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("漢字漢字", 5), "漢字…");
        assert_eq!(fit("漢字漢字", 4), "漢…");
        assert_eq!(fit("x", 0), "");
        assert_eq!(width("👩‍👩‍👧❤️"), 8, "never less than a terminal takes");
    }

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in ["one\ntw", "o\n\nthr", "ee"] {
            lines.push(part.as_bytes(), |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["one\n", "two\n", "\n"]);
        assert_eq!(lines.partial(), "three");
        lines.push(&[b'x'; 100_000], |_| panic!("no line"));
        assert!(lines.partial().len() <= 2 * MAX_LINE);
    }

    proptest! {
        #[test]
        fn nothing_that_is_left_controls_a_terminal(bytes: Vec<u8>, columns in 0usize..50) {
            let shown = printable(&String::from_utf8_lossy(&bytes), Colours::Drop);
            prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
            prop_assert!(width(&fit(&shown, columns)) <= columns);
        }
    }
}
