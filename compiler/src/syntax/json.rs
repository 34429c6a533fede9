//! The JSON form of instructions: `["word", …]`.
//!
//! An own reader because each word needs its place in the text, and because what counts as JSON
//! must be what counts for Go's `encoding/json`: everything else silently is the shell form.

use std::ops::Range;

/// Containers inside each other that Go's decoder accepts.
const MAX_DEPTH: usize = 10_000;

/// What a text turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// An array of strings: each one decoded, with the range of its literal, quotes included.
    Strings(Vec<(String, Range<usize>)>),
    /// A JSON array with something else in it, in this range: an error in every instruction.
    NotStrings(Range<usize>),
    /// No JSON array: the shell form.
    Other,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
}

/// Looks for a JSON array; ranges are in `text`.
pub(crate) fn read(text: &str) -> Json {
    let at = text.len() - text.trim_start().len();
    if !text[at..].starts_with('[') {
        return Json::Other;
    }
    Reader { text, at }.array().unwrap_or(Json::Other)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    /// The whole text as one array; `None` if it is not valid JSON.
    fn array(&mut self) -> Option<Json> {
        self.take(b'[');
        // The brackets that close what is open.
        let mut open = vec![b']'];
        let mut expect = Expect::ValueOrEnd;
        let mut strings = Vec::new();
        let mut other: Option<Range<usize>> = None;
        while let Some(&close) = open.last() {
            self.skip_space();
            let start = self.at;
            let may_end = !matches!(expect, Expect::Value | Expect::Key);
            if may_end && self.take(close) {
                open.pop();
                expect = Expect::CommaOrEnd;
                continue;
            }
            match expect {
                Expect::CommaOrEnd => {
                    self.take(b',').then_some(())?;
                    expect = if close == b']' { Expect::Value } else { Expect::Key };
                }
                Expect::Key | Expect::KeyOrEnd => {
                    self.string()?;
                    self.skip_space();
                    self.take(b':').then_some(())?;
                    expect = Expect::Value;
                }
                Expect::Value | Expect::ValueOrEnd => {
                    expect = Expect::CommaOrEnd;
                    let is_word = open.len() == 1;
                    match self.peek()? {
                        b'"' => {
                            let string = self.string()?;
                            if is_word {
                                strings.push((string, start..self.at));
                            }
                            continue;
                        }
                        b'[' => {
                            self.at += 1;
                            open.push(b']');
                            expect = Expect::ValueOrEnd;
                        }
                        b'{' => {
                            self.at += 1;
                            open.push(b'}');
                            expect = Expect::KeyOrEnd;
                        }
                        _ => self.scalar()?,
                    }
                    if is_word {
                        other.get_or_insert(start..self.at);
                    }
                    if open.len() > MAX_DEPTH {
                        return None;
                    }
                }
            }
        }
        self.skip_space();
        if self.at != self.text.len() {
            return None;
        }
        Some(match other {
            Some(range) => Json::NotStrings(range),
            None => Json::Strings(strings),
        })
    }

    /// A string literal, decoded.
    fn string(&mut self) -> Option<String> {
        self.take(b'"').then_some(())?;
        let mut result = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|char: char| char == '"' || char == '\\' || char < ' ')?;
            result.push_str(&rest[..plain]);
            self.at += plain;
            if self.take(b'"') {
                return Some(result);
            }
            self.take(b'\\').then_some(())?;
            let escape = self.peek()?;
            self.at += 1;
            result.push(match escape {
                b'"' | b'\\' | b'/' => escape as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode_escape()?,
                _ => return None,
            });
        }
    }

    /// The character of `\uXXXX`, from the digits on. Half a surrogate pair is U+FFFD, as in Go.
    fn unicode_escape(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if let Some(char) = char::from_u32(first) {
            return Some(char);
        }
        let behind = self.at;
        if (0xd800..0xdc00).contains(&first) && self.text[behind..].starts_with("\\u") {
            self.at += 2;
            if let Some(second @ 0xdc00..0xe000) = self.hex4() {
                return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = behind;
        }
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '-' | '+' | '.')))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        self.at += length;
        (matches!(word, "true" | "false" | "null") || is_number(word)).then_some(())
    }
}

/// Whether a word is a JSON number that fits Go's float64.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
        && word.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Json, read};

    fn strings(text: &str) -> Option<Vec<String>> {
        match read(text) {
            Json::Strings(words) => Some(words.into_iter().map(|(word, _)| word).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings_are_decoded() {
        assert_eq!(strings("[]"), Some(vec![]));
        assert_eq!(strings(" [ ]\n"), Some(vec![]));
        let words = strings(r#"["a b", "\"\\\/\n", "é😀\ud83d!"]"#).unwrap();
        assert_eq!(words, ["a b", "\"\\/\n", "é😀\u{fffd}!"]);
        assert_eq!(strings(r#"["😀\u00e9"]"#).unwrap(), ["😀é"]);
    }

    #[test]
    fn other_elements_are_an_error_where_they_stand() {
        for (text, range) in [
            ("[1]", 1..2),
            (r#"["a", null, 2]"#, 6..10),
            (r#"["a", -1.5e3]"#, 6..12),
            (r#"[["a"]]"#, 1..2),
            (r#"[{"k": [1, {}]}]"#, 1..2),
        ] {
            assert_eq!(read(text), Json::NotStrings(range), "{text}");
        }
    }

    #[test]
    fn all_else_is_the_shell_form() {
        for text in [
            "echo",
            "[",
            "[\"a\"",
            "[\"a\",]",
            "['a']",
            "[\"a\"] x",
            "[\"\t\"]",
            "[\"\\x\"]",
            "[\"\\u12\"]",
            "[01]",
            "[1.]",
            "[1e999]",
            "[ -f x ] && y",
            "[\"a\" \"b\"]",
            "{}",
        ] {
            assert_eq!(read(text), Json::Other, "{text}");
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let depth = 9_000;
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&text), Json::NotStrings(1..2));
        let text = "[".repeat(1 << 20);
        assert_eq!(read(&text), Json::Other);
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"\[[ ,"a-c\\u0-9n\[\]{}:.truefalsn-]{0,30}\]"#) {
            let expected = serde_json::from_str::<Vec<serde_json::Value>>(&text);
            match (read(&text), expected) {
                (Json::Strings(words), Ok(values)) => {
                    let words: Vec<_> = words.into_iter().map(|(word, _)| word).collect();
                    let values: Option<Vec<_>> = values.iter().map(|value| value.as_str()).collect();
                    prop_assert_eq!(words, values.unwrap());
                }
                (Json::NotStrings(_), Ok(values)) => {
                    prop_assert!(values.iter().any(|value| !value.is_string()));
                }
                (Json::Other, Err(_)) => {}
                // serde_json rejects half surrogate pairs.
                (Json::Strings(_) | Json::NotStrings(_), Err(_)) if text.contains("\\u") => {}
                (got, expected) => prop_assert!(false, "{:?} {:?}", got, expected),
            }
        }
    }
}
