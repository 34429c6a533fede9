//! Heredocs: which ones a line opens. Their bodies are read by [`super::reader`].

use std::ops::Range;

use super::{json, words};
use crate::shellword::{Escapes, ExpandError, Expander, NoVariables, Quotes, Unset};

/// The opening of a heredoc: `<<NAME`, `<<-"NAME"`, `3<<NAME`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
    pub(crate) descriptor: u64,
}

/// Heredocs are lexed with the backslash, whatever the file's escape character is.
fn lexer() -> Expander {
    Expander { unset: Unset::Keep, ..Expander::new('\\') }
}

/// The heredocs that an instruction opens: those of RUN, COPY and ADD outside the JSON form, and of
/// the same behind ONBUILD.
pub(super) fn openings(text: &str, escape: char) -> Result<Vec<Opening>, ExpandError> {
    if !text.contains("<<") || !takes_heredocs(text, escape) {
        return Ok(Vec::new());
    }
    let lexer = Expander { quotes: Quotes::Keep, escapes: Escapes::Keep, ..lexer() };
    // What cannot be lexed (an odd quote in a shell command) opens none.
    let Ok(expansion) = lexer.expand(text, &NoVariables) else { return Ok(Vec::new()) };
    expansion.words.iter().filter_map(|word| read(word).transpose()).collect()
}

fn takes_heredocs(text: &str, escape: char) -> bool {
    let is = |text: &str, range: Range<usize>, keywords: &[&str]| {
        keywords.iter().any(|keyword| text[range.clone()].eq_ignore_ascii_case(keyword))
    };
    let mut text = text;
    let mut parts = words::split(text, escape);
    if is(text, parts.keyword.clone(), &["ONBUILD"]) {
        text = &text[parts.arguments.clone()];
        parts = words::split(text, escape);
    }
    is(text, parts.keyword.clone(), &["RUN", "COPY", "ADD"])
        && json::read(&text[parts.arguments]) == json::Json::Other
}

/// Reads a source or destination of COPY and ADD as the opening of a heredoc; `None` if it is a
/// path.
pub(crate) fn opening(word: &str) -> Option<Opening> {
    read(word).ok().flatten()
}

/// Reads one word as the opening of a heredoc; `None` if it is something else. The error is that of
/// a delimiter that cannot be lexed.
fn read(word: &str) -> Result<Option<Opening>, ExpandError> {
    let rest = word.trim_start_matches(|char: char| char.is_ascii_digit());
    let digits = &word[..word.len() - rest.len()];
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let delimiter = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return Ok(None);
    }
    let mut names = lexer().expand(delimiter, &NoVariables)?.words;
    if names.len() != 1 {
        return Ok(None);
    }
    let name = names.swap_remove(0);
    // A quoted delimiter is one that loses quotes when they are removed.
    let kept = Expander { quotes: Quotes::Keep, ..lexer() }.expand(delimiter, &NoVariables)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == kept.words.iter().map(|word| quotes(word)).sum::<usize>();
    let descriptor = match digits {
        "" => 0,
        digits => digits.parse().unwrap_or(u64::MAX),
    };
    Ok(Some(Opening { name, expand, chomp, descriptor }))
}

/// Where a text opens the heredoc, for messages.
pub(super) fn place(text: &str, opening: &Opening) -> Range<usize> {
    for (at, operator) in text.match_indices("<<") {
        let behind = at + operator.len();
        let rest = text[behind..].trim_start_matches(['-', ' ', '\t', '"', '\'', '\\']);
        if rest.starts_with(&opening.name) {
            return at..text.len() - rest.len() + opening.name.len();
        }
    }
    words::trim(text, 0..text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(name: &str, expand: bool, chomp: bool, descriptor: u64) -> Option<Opening> {
        Some(Opening { name: name.into(), expand, chomp, descriptor })
    }

    #[test]
    fn words_that_open_a_heredoc() {
        for (word, expected) in [
            ("<<EOF", opened("EOF", true, false, 0)),
            ("<<-EOF", opened("EOF", true, true, 0)),
            ("<< EOF", opened("EOF", true, false, 0)),
            ("<<'EOF'", opened("EOF", false, false, 0)),
            ("<<-\"E\"OF", opened("EOF", false, true, 0)),
            ("3<<EOF", opened("EOF", true, false, 3)),
            ("<<E\\'F", opened("E'F", true, false, 0)),
            ("<<$X", opened("$X", true, false, 0)),
            ("<<", None),
            ("<<<EOF", None),
            ("a<<EOF", None),
            ("<<\"\"", None),
            ("<<'a b'", opened("a b", false, false, 0)),
        ] {
            assert_eq!(read(word).unwrap(), expected, "{word}");
        }
        assert!(read("<<${X").is_err());
    }

    #[test]
    fn instructions_that_take_heredocs() {
        let names = |text: &str| -> Vec<String> {
            openings(text, '\\').unwrap().into_iter().map(|opening| opening.name).collect()
        };
        assert_eq!(names("RUN <<A cat <<-B"), ["A", "B"]);
        assert_eq!(names("copy <<a <<b /x"), ["a", "b"]);
        assert_eq!(names("ONBUILD ADD --chmod=1 <<x /y"), ["x"]);
        assert_eq!(names("ONBUILD ONBUILD RUN <<x"), [""; 0]);
        assert_eq!(names("CMD <<x"), [""; 0]);
        assert_eq!(names("RUN [\"cat\", \"<<x\"]"), [""; 0]);
        assert_eq!(names("RUN echo '<<x' \\<<y $((1<<2))"), [""; 0]);
        assert_eq!(names("RUN echo it's <<x"), [""; 0], "an odd quote hides all");
    }
}
