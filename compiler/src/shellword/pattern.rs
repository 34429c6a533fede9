//! The patterns of `${NAME#…}`, `${NAME%…}` and `${NAME/…}`.
//!
//! `*` is any text and `?` any character, neither reaching over a line break; `\` makes the two
//! and itself ordinary; brackets are ordinary. Matching never backtracks: between two stars the
//! first place that fits is as good as any.

/// A pattern, cut at its stars.
pub(super) struct Pattern {
    pieces: Vec<Vec<Token>>,
    /// Whether a piece holds a line break, which stars do not cross.
    has_line_break: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    AnyOne,
}

/// How much a star takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Shortest,
    Longest,
}

/// How many matches are replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurrences {
    First,
    All,
}

impl Pattern {
    /// Reads a pattern. The error is the character behind a backslash that may not be escaped;
    /// empty at the end of the pattern.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let mut pieces = vec![Vec::new()];
        let mut has_line_break = false;
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            let token = match char {
                '*' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '?' => Token::AnyOne,
                '\\' => match chars.next() {
                    // `}` and `/` are escaped for the sake of `${…}` alone.
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                    Some(other) => return Err(other.to_string()),
                    None => return Err(String::new()),
                },
                other => Token::Literal(other),
            };
            has_line_break |= token == Token::Literal('\n');
            if let Some(piece) = pieces.last_mut() {
                piece.push(token);
            }
        }
        Ok(Self { pieces, has_line_break })
    }

    /// `value` without the start that matches.
    pub(super) fn trim_prefix(&self, value: &str, extent: Extent) -> String {
        let chars: Vec<char> = value.chars().collect();
        let cut = self.match_from(&chars, 0, extent).unwrap_or(0);
        chars[cut..].iter().collect()
    }

    /// `value` without the end that matches.
    pub(super) fn trim_suffix(mut self, value: &str, extent: Extent) -> String {
        // The same question asked from the other end.
        self.pieces.reverse();
        for piece in &mut self.pieces {
            piece.reverse();
        }
        let chars: Vec<char> = value.chars().rev().collect();
        let cut = self.match_from(&chars, 0, extent).unwrap_or(0);
        chars[cut..].iter().rev().collect()
    }

    /// `value` with the longest match, or all of them one after the other, replaced.
    pub(super) fn replace(&self, value: &str, by: &str, occurrences: Occurrences) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut result = String::with_capacity(value.len());
        let (mut kept, mut from) = (0, 0);
        while from <= chars.len() {
            let Some((start, end)) = self.find(&chars, from) else { break };
            result.extend(&chars[kept..start]);
            // An empty match right behind the match before it does not count.
            if end > kept || start == 0 {
                result.push_str(by);
            }
            kept = end;
            if occurrences == Occurrences::First {
                break;
            }
            from = end.max(from + 1);
        }
        result.extend(&chars[kept..]);
        result
    }

    /// The first match that starts at `from` or later.
    fn find(&self, text: &[char], from: usize) -> Option<(usize, usize)> {
        let mut start = from;
        while start <= text.len() {
            if let Some(end) = self.match_from(text, start, Extent::Longest) {
                return Some((start, end));
            }
            start += 1;
            // What the pieces behind the first star do not find from here, they do not find from
            // further on in the line either.
            let first = self.pieces.first().map_or(&[][..], Vec::as_slice);
            if self.pieces.len() > 1 && !self.has_line_break && fits(first, text, start - 1) {
                start = line_end(text, start - 1) + 1;
            }
        }
        None
    }

    /// The end of the match that starts at `start`.
    fn match_from(&self, text: &[char], start: usize, extent: Extent) -> Option<usize> {
        let (first, rest) = self.pieces.split_first()?;
        if !fits(first, text, start) {
            return None;
        }
        let mut at = start + first.len();
        for (index, piece) in rest.iter().enumerate() {
            let mut places = at..=line_end(text, at);
            let is_last = index + 1 == rest.len();
            let place = if is_last && extent == Extent::Longest {
                places.rfind(|place| fits(piece, text, *place))
            } else {
                places.find(|place| fits(piece, text, *place))
            };
            at = place? + piece.len();
        }
        Some(at)
    }
}

/// Whether a piece without stars matches at `at`.
fn fits(piece: &[Token], text: &[char], at: usize) -> bool {
    text.get(at..at + piece.len()).is_some_and(|part| {
        piece.iter().zip(part).all(|(token, char)| match token {
            Token::Literal(literal) => literal == char,
            Token::AnyOne => *char != '\n',
        })
    })
}

/// The first line break at `at` or behind it; the end of the text if there is none.
fn line_end(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|char| *char == '\n').map_or(text.len(), |offset| at + offset)
}
