//! Space between words: runs of it become one space, but for what is quoted or escaped.

/// Where a text stands with its quotes, from one line to the next.
pub(super) struct Words {
    escape: char,
    quote: Option<char>,
}

impl Words {
    pub(super) fn new(escape: char) -> Self {
        Self { escape, quote: None }
    }

    /// Whether a quote is open.
    pub(super) fn is_quoted(&self) -> bool {
        self.quote.is_some()
    }

    /// The next piece of the text with its space collapsed.
    pub(super) fn collapse(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        let mut chars = piece.chars();
        let mut in_space = false;
        while let Some(char) = chars.next() {
            let is_space = self.quote.is_none() && matches!(char, ' ' | '\t');
            if is_space {
                if !in_space {
                    out.push(' ');
                }
                in_space = true;
                continue;
            }
            in_space = false;
            out.push(char);
            if char == self.escape && self.quote != Some('\'') {
                out.extend(chars.next());
                continue;
            }
            match self.quote {
                None if matches!(char, '"' | '\'') => self.quote = Some(char),
                Some(open) if open == char => self.quote = None,
                _ => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn quoted_and_escaped_space_stays() {
        let collapse = |text| Words::new('\\').collapse(text);
        assert_eq!(collapse("a   b\t c"), "a b c");
        assert_eq!(collapse("a=\"b   c\"  'd  e'  f"), "a=\"b   c\" 'd  e' f");
        assert_eq!(collapse("a\\  b  \"\\\"  \"  c"), "a\\  b \"\\\"  \" c");
    }

    #[test]
    fn quotes_last_over_lines() {
        let mut words = Words::new('\\');
        assert_eq!(words.collapse("a  \"b  "), "a \"b  ");
        assert!(words.is_quoted());
        assert_eq!(words.collapse("  c\"  d"), "  c\" d");
    }
}
