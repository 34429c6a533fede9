//! The expansion itself: one pass over a word, one level of recursion for each `${…}` inside
//! another, with a limit.

use std::ops::Range;

use indexmap::IndexSet;

use super::{
    Escapes, ExpandError, ExpandErrorKind, Expander, Expansion, Quotes, Unset, Variables,
    pattern::{Extent, Occurrences, Pattern},
};

/// Substitutions inside each other that are expanded.
const MAX_DEPTH: usize = 100;
/// Bytes that a word may expand to. Without it, a few lines that each double a variable would take
/// all memory.
const MAX_LENGTH: usize = 16 << 20;

/// The words of a text as they come to be.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    /// Text in which spaces separate words.
    fn push_split(&mut self, text: &str) {
        for char in text.chars() {
            self.push_char(char);
        }
    }

    fn push_char(&mut self, char: char) {
        if !char.is_whitespace() {
            self.current.push(char);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Walk<'a> {
    rules: Expander,
    variables: &'a dyn Variables,
    word: &'a str,
    at: usize,
    depth: usize,
    used: IndexSet<String>,
    unset: IndexSet<String>,
}

/// Expands `word`.
pub(super) fn expand(
    rules: Expander,
    word: &str,
    variables: &dyn Variables,
) -> Result<Expansion, ExpandError> {
    let at = if word.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let (used, unset) = (IndexSet::new(), IndexSet::new());
    let mut walk = Walk { rules, variables, word, at, depth: 0, used, unset };
    let mut words = Words::default();
    let text = walk.until(None, rules.escapes, Some(&mut words))?;
    Ok(Expansion {
        text,
        words: words.finish(),
        used: walk.used.into_iter().collect(),
        unset: walk.unset.into_iter().collect(),
    })
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<char> {
        self.word[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += char.len_utf8();
        Some(char)
    }

    /// Takes `char` if it comes next.
    fn take(&mut self, char: char) -> bool {
        let comes = self.peek() == Some(char);
        if comes {
            self.at += char.len_utf8();
        }
        comes
    }

    fn fail<T>(&self, kind: ExpandErrorKind, start: usize) -> Result<T, ExpandError> {
        let range: Range<usize> = start..self.at.max(start);
        Err(ExpandError { kind, range })
    }

    /// Expands up to the end of the word or to `stop`, which is taken too.
    fn until(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        mut words: Option<&mut Words>,
    ) -> Result<String, ExpandError> {
        let start = self.at;
        let mut result = String::new();
        while let Some(char) = self.peek() {
            if Some(char) == stop {
                self.next();
                return Ok(result);
            }
            if result.len() > MAX_LENGTH {
                return self.fail(ExpandErrorKind::TooLong(MAX_LENGTH), start);
            }
            match char {
                '$' => {
                    let value = self.dollar()?;
                    if let Some(words) = &mut words {
                        words.push_split(&value);
                    }
                    result.push_str(&value);
                }
                '<' => {
                    let operator = self.heredoc_operator();
                    if let Some(words) = &mut words {
                        words.current.push_str(operator);
                    }
                    result.push_str(operator);
                }
                '\'' | '"' if self.rules.quotes != Quotes::Literal => {
                    let quoted = match char {
                        '\'' => self.single_quoted()?,
                        _ => self.double_quoted(escapes)?,
                    };
                    if let Some(words) = &mut words {
                        words.current.push_str(&quoted);
                    }
                    result.push_str(&quoted);
                }
                _ => {
                    self.next();
                    self.plain(char, escapes, &mut result, words.as_deref_mut());
                }
            }
        }
        match stop {
            None => Ok(result),
            // The callers know better what is missing.
            Some(_) => self.fail(ExpandErrorKind::BadSubstitution, start),
        }
    }

    /// A character outside quotes, already taken: itself, or the start of an escape.
    fn plain(
        &mut self,
        char: char,
        escapes: Escapes,
        result: &mut String,
        words: Option<&mut Words>,
    ) {
        let mut none = Words::default();
        let words = words.unwrap_or(&mut none);
        if char != self.rules.escape {
            words.push_char(char);
            result.push(char);
            return;
        }
        if escapes == Escapes::Keep {
            words.current.push(char);
            result.push(char);
        }
        if let Some(escaped) = self.next() {
            words.current.push(escaped);
            result.push(escaped);
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let body = self.at;
        let Some(length) = self.word[body..].find('\'') else {
            self.at = self.word.len();
            return self.fail(ExpandErrorKind::SingleQuote, start);
        };
        self.at = body + length + 1;
        let range = match self.rules.quotes {
            Quotes::Keep => start..self.at,
            Quotes::Remove | Quotes::Literal => body..body + length,
        };
        Ok(self.word[range].to_owned())
    }

    fn double_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandError> {
        let start = self.at;
        let keep = self.rules.quotes == Quotes::Keep;
        let mut result = String::new();
        self.next();
        if keep {
            result.push('"');
        }
        while let Some(char) = self.peek() {
            if result.len() > MAX_LENGTH {
                return self.fail(ExpandErrorKind::TooLong(MAX_LENGTH), start);
            }
            if char == '$' {
                let value = self.dollar()?;
                result.push_str(&value);
                continue;
            }
            self.next();
            if char == '"' {
                if keep {
                    result.push('"');
                }
                return Ok(result);
            }
            if char != self.rules.escape {
                result.push(char);
                continue;
            }
            if escapes == Escapes::Keep {
                result.push(char);
            }
            // Only what is special inside double quotes can be escaped there.
            match self.peek() {
                None => {}
                Some(special) if special == '"' || special == '$' || special == char => {
                    self.next();
                    result.push(special);
                }
                Some(_) => result.push(char),
            }
        }
        self.fail(ExpandErrorKind::DoubleQuote, start)
    }

    /// `<<` together with the space behind it, which does not end the word; or a lone `<`.
    fn heredoc_operator(&mut self) -> &'a str {
        let start = self.at;
        self.next();
        if self.take('<') {
            while matches!(self.peek(), Some('\t' | '\r' | ' ')) {
                self.next();
            }
        }
        &self.word[start..self.at]
    }

    /// Everything that starts with `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.look_up(&name) {
                None if self.rules.unset == Unset::Keep => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        if self.depth == MAX_DEPTH {
            return self.fail(ExpandErrorKind::TooDeep(MAX_DEPTH), start);
        }
        self.depth += 1;
        let result = self.braces(start);
        self.depth -= 1;
        result
    }

    /// `${…}`, from the brace on.
    fn braces(&mut self, start: usize) -> Result<String, ExpandError> {
        self.next();
        match self.peek() {
            None => return self.fail(ExpandErrorKind::MissingBrace(String::new()), start),
            Some('{' | '}' | ':') => {
                self.next();
                return self.fail(ExpandErrorKind::BadSubstitution, start);
            }
            Some(_) => {}
        }
        let name = self.name();
        let Some(operator) = self.next() else {
            return self.fail(ExpandErrorKind::MissingBrace(name), start);
        };
        match operator {
            '}' => Ok(match self.look_up(&name) {
                None if self.rules.unset == Unset::Keep => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            ':' => {
                let Some(second) = self.next() else {
                    return self.fail(ExpandErrorKind::MissingBrace(name), start);
                };
                self.conditional(start, &name, second, EmptyIs::Unset)
            }
            '+' | '-' | '?' | '#' | '%' => self.conditional(start, &name, operator, EmptyIs::Set),
            '/' => self.replacement(start, &name),
            other => {
                let modifier = other.to_string();
                self.fail(ExpandErrorKind::Modifier { modifier, name }, start)
            }
        }
    }

    /// `${NAME-word}`, `${NAME:-word}` and the like, from the word on.
    fn conditional(
        &mut self,
        start: usize,
        name: &str,
        operator: char,
        empty: EmptyIs,
    ) -> Result<String, ExpandError> {
        let modifier = match empty {
            EmptyIs::Unset => format!(":{operator}"),
            EmptyIs::Set => operator.to_string(),
        };
        let unsupported =
            |modifier: String| ExpandErrorKind::Modifier { modifier, name: name.to_owned() };
        let trims = matches!(operator, '#' | '%');
        if trims && empty == EmptyIs::Unset {
            return self.fail(unsupported(modifier), start);
        }
        let escapes = if trims { Escapes::Keep } else { Escapes::Remove };
        let word = self.inner(start, '}', escapes, ExpandErrorKind::MissingBrace(name.into()))?;
        let value = self.look_up(name);
        if value.is_none() && self.rules.unset == Unset::Keep {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let present = match (&value, empty) {
            (Some(value), EmptyIs::Unset) => !value.is_empty(),
            (Some(_), EmptyIs::Set) => true,
            (None, _) => false,
        };
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        match operator {
            '-' => Ok(if present { value } else { word }),
            '+' => Ok(if present { word } else { String::new() }),
            '?' if present => Ok(value),
            '?' => {
                let message = match (word.is_empty(), is_set) {
                    (false, _) => word,
                    (true, true) => "is not allowed to be empty".to_owned(),
                    (true, false) => "is not allowed to be unset".to_owned(),
                };
                self.fail(ExpandErrorKind::Required { name: name.to_owned(), message }, start)
            }
            '#' | '%' => {
                let (extent, text) = match word.strip_prefix(operator) {
                    Some(rest) => (Extent::Longest, rest),
                    None => (Extent::Shortest, word.as_str()),
                };
                let pattern = self.pattern(start, text)?;
                Ok(match operator {
                    '#' => pattern.trim_prefix(&value, extent),
                    _ => pattern.trim_suffix(&value, extent),
                })
            }
            _ => self.fail(unsupported(modifier), start),
        }
    }

    /// `${NAME/pattern/replacement}`, from the pattern on.
    fn replacement(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let occurrences = if self.take('/') { Occurrences::All } else { Occurrences::First };
        let missing = ExpandErrorKind::MissingSlash(name.into());
        let pattern = self.inner(start, '/', Escapes::Keep, missing)?;
        let missing = ExpandErrorKind::MissingBrace(name.into());
        let by = self.inner(start, '}', Escapes::Keep, missing)?;
        let value = self.look_up(name);
        if value.is_none() && self.rules.unset == Unset::Keep {
            return Ok(format!("${{{name}/{pattern}/{by}}}"));
        }
        let value = value.unwrap_or_default();
        if by.len().saturating_mul(value.len() + 1) > MAX_LENGTH {
            return self.fail(ExpandErrorKind::TooLong(MAX_LENGTH), start);
        }
        Ok(self.pattern(start, &pattern)?.replace(&value, &by, occurrences))
    }

    /// A word inside braces, up to `stop`. At the end of the text, `missing` is what is wrong,
    /// whatever the text inside may lack as well.
    fn inner(
        &mut self,
        start: usize,
        stop: char,
        escapes: Escapes,
        missing: ExpandErrorKind,
    ) -> Result<String, ExpandError> {
        match self.until(Some(stop), escapes, None) {
            Err(_) if self.at == self.word.len() => self.fail(missing, start),
            result => result,
        }
    }

    fn pattern(&self, start: usize, text: &str) -> Result<Pattern, ExpandError> {
        Pattern::parse(text).or_else(|escaped| {
            self.fail(ExpandErrorKind::Pattern { pattern: text.to_owned(), escaped }, start)
        })
    }

    /// A variable's name: letters, digits and `_`; or digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let start = self.at;
        let rest = &self.word[start..];
        let length = match rest.chars().next() {
            Some(first) if first.is_ascii_digit() => {
                rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len())
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|char: char| !(char.is_alphabetic() || char.is_ascii_digit() || char == '_'))
                .unwrap_or(rest.len()),
        };
        self.at += length;
        rest[..length].to_owned()
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

/// What an empty variable counts as: `:` before the modifier makes the difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EmptyIs {
    Set,
    Unset,
}
