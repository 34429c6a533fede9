//! Splits the logical text of an instruction into its keyword, its flags and its words. Nothing is
//! expanded yet; the words of ENV, LABEL and ARG even keep their quotes.

use std::ops::Range;

/// The white space that separates words. Other Unicode spaces belong to a word.
const SPACE: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// The white space around flags.
const ENDS_FLAG: [char; 6] = ['\t', '\n', '\u{b}', '\u{c}', '\r', ' '];

/// The parts of an instruction's text; ranges are in that text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The first word.
    pub(crate) keyword: Range<usize>,
    /// The `--flags` behind it.
    pub(crate) flags: Vec<FlagWord>,
    /// All the rest, without space around it.
    pub(crate) arguments: Range<usize>,
}

/// A flag of an instruction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FlagWord {
    /// The flag without quotes and escape characters.
    pub(crate) text: String,
    /// Where it is written.
    pub(crate) range: Range<usize>,
}

/// Splits a text into keyword, flags and arguments.
pub(crate) fn split(text: &str, escape: char) -> Parts {
    let trimmed = trim(text, 0..text.len());
    let line = &text[trimmed.clone()];
    let Some(length) = line.find(SPACE) else {
        return Parts {
            keyword: trimmed.clone(),
            flags: Vec::new(),
            arguments: trimmed.end..trimmed.end,
        };
    };
    let keyword = trimmed.start..trimmed.start + length;
    let rest = keyword.end + (line.len() - length - line[length..].trim_start_matches(SPACE).len());
    let (flags, arguments) = split_flags(&text[..trimmed.end], rest, escape);
    Parts { keyword, flags, arguments: trim(text, arguments..trimmed.end) }
}

/// The range without the white space at its ends.
pub(crate) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// Takes words that start with `--` from `from` on. Returns them and where the rest starts. A word
/// `--` ends the flags and belongs to neither.
fn split_flags(text: &str, from: usize, escape: char) -> (Vec<FlagWord>, usize) {
    let mut flags = Vec::new();
    let mut at = from;
    loop {
        let rest = text[at..].trim_start_matches(ENDS_FLAG);
        at = text.len() - rest.len();
        if !rest.starts_with("--") {
            return (flags, at);
        }
        let (word, length) = unquote_flag(rest, escape);
        if word == "--" {
            return (flags, at + length);
        }
        flags.push(FlagWord { text: word, range: at..at + length });
        at += length;
    }
}

/// The first word of a text without quotes and escape characters, and its length as written.
fn unquote_flag(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            None if ENDS_FLAG.contains(&char) => return (word, at),
            None if char == '\'' || char == '"' => quote = Some(char),
            Some(end) if char == end => quote = None,
            _ if char == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(char),
        }
    }
    (word, text.len())
}

/// The words of a text, cut at every white space.
pub(crate) fn plain(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut at = range.start;
    for word in text[range].split(SPACE) {
        if !word.is_empty() {
            words.push(at..at + word.len());
        }
        at += word.len() + 1;
    }
    words
}

/// The words of a text, cut at white space that is neither quoted nor escaped. Quotes and escape
/// characters stay, but for an escape character at the very end.
pub(crate) fn quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut end = range.start;
    let mut quote = None;
    let mut chars = text[range.clone()].char_indices();
    while let Some((offset, char)) = chars.next() {
        let at = range.start + offset;
        if quote.is_none() && char.is_whitespace() {
            words.extend(start.take().filter(|start| *start < end).map(|start| start..end));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            None if char == '\'' || char == '"' => quote = Some(char),
            Some(open) if char == open => quote = None,
            _ => {}
        }
        if char == escape && quote != Some('\'') {
            match chars.next() {
                Some((offset, escaped)) => end = range.start + offset + escaped.len_utf8(),
                None => break,
            }
        } else {
            end = at + char.len_utf8();
        }
    }
    words.extend(start.filter(|start| *start < end).map(|start| start..end));
    words
}

/// The first run of white space of a text, which ends the name of `ENV name value`.
pub(crate) fn first_space(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let part = &text[range.clone()];
    let start = part.find(SPACE)?;
    let length = part[start..].len() - part[start..].trim_start_matches(SPACE).len();
    Some(range.start + start..range.start + start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, escape: char) -> Vec<&str> {
        quoted(text, 0..text.len(), escape).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn flags_are_unquoted_and_end_at_the_first_other_word() {
        let text = r#" COPY  --a=b\ c --d="e f"'g' -x --not "#;
        let parts = split(text, '\\');
        assert_eq!(&text[parts.keyword], "COPY");
        let flags: Vec<_> = parts.flags.iter().map(|flag| flag.text.as_str()).collect();
        assert_eq!(flags, ["--a=b c", "--d=e fg"]);
        assert_eq!(&text[parts.flags[1].range.clone()], r#"--d="e f"'g'"#);
        assert_eq!(&text[parts.arguments], "-x --not");
    }

    #[test]
    fn two_dashes_end_the_flags() {
        let text = "RUN --network=none -- --x y";
        let parts = split(text, '\\');
        assert_eq!(parts.flags.len(), 1);
        assert_eq!(&text[parts.arguments], "--x y");
        assert_eq!(split("RUN --", '\\').flags, []);
        assert_eq!(split("RUN", '\\').arguments, 3..3);
    }

    #[test]
    fn flags_keep_letters_beyond_ascii() {
        assert_eq!(split("COPY --chown=é:à a b", '\\').flags[0].text, "--chown=é:à");
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        assert_eq!(
            words(r#"a="b c" d=e\ f  g='h\' i"#, '\\'),
            [r#"a="b c""#, r"d=e\ f", r"g='h\'", "i"]
        );
        assert_eq!(words(r#"a="b\" c" d"#, '\\'), [r#"a="b\" c""#, "d"]);
        assert_eq!(words("a=b` c", '`'), ["a=b` c"]);
        assert_eq!(words(r"a=b\", '\\'), ["a=b"]);
        assert_eq!(words(r#"a="b c"#, '\\'), [r#"a="b c"#]);
        assert_eq!(words("", '\\'), [""; 0]);
    }
}
