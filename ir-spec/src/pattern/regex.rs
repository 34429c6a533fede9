//! The regular expressions into which moby's `patternmatcher` turns its patterns.
//!
//! Docker's ignore patterns mean what the expression made of them means, odd corners included: a
//! `*` inside brackets, `[[:digit:]]`, `\d`, a `^` that is an anchor. So a pattern is translated
//! here as Docker translates it, and the result is read by a reader for just the expressions that
//! can come out of it, with RE2's meaning. Matching follows all alternatives at once.

use super::first_char;

/// An expression, anchored at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Regex {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// One character.
    One(Set),
    /// Any number of characters.
    Many(Set),
    /// `(.*/)?`, first half: the next step may be left out.
    MaybeFolders,
    /// `(.*/)?`, second half: any characters up to a slash.
    Folders,
    /// Takes no character.
    Assert(Assertion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assertion {
    Start,
    End,
    WordBoundary,
    NoWordBoundary,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Set {
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Set {
    fn contains(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }

    /// `.`, which is any character but a line feed.
    fn dot() -> Self {
        Self::Class { negated: true, ranges: vec![('\n', '\n')] }
    }
}

/// What a cleaned pattern turns into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Translated {
    /// Equality with the pattern.
    Exact,
    /// The pattern without its `**` at the end begins the name.
    Prefix,
    /// The pattern without its `**` at the start ends the name.
    Suffix,
    /// The text of a regular expression, without its anchors.
    Expression(String),
}

/// Translates a pattern as moby's `patternmatcher` does.
pub(super) fn translate(pattern: &str) -> Translated {
    let mut text = String::with_capacity(pattern.len() * 2);
    let mut kind = Translated::Exact;
    let expression = || Translated::Expression(String::new());
    let mut chars = pattern.chars().peekable();
    let mut at_start = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                let at_end = chars.peek().is_none();
                if at_end && kind == Translated::Exact {
                    kind = Translated::Prefix;
                } else {
                    text.push_str(if at_end { ".*" } else { "(.*/)?" });
                    kind = expression();
                }
                if at_start {
                    kind = Translated::Suffix;
                }
            }
            '*' => {
                text.push_str("[^/]*");
                kind = expression();
            }
            '?' => {
                text.push_str("[^/]");
                kind = expression();
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => text.extend(['\\', c]),
            '\\' => {
                text.push(c);
                text.extend(chars.next());
                kind = expression();
            }
            '[' | ']' => {
                text.push(c);
                kind = expression();
            }
            _ => text.push(c),
        }
        at_start = false;
    }
    match kind {
        Translated::Expression(_) => Translated::Expression(text),
        other => other,
    }
}

impl Regex {
    /// Reads an expression that [`translate`] made; `None` if RE2 would refuse it.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(behind) = rest.strip_prefix("(.*/)?") {
                steps.extend([Step::MaybeFolders, Step::Folders]);
                rest = behind;
                continue;
            }
            rest = &rest[c.len_utf8()..];
            let set = match c {
                '^' => {
                    steps.push(Step::Assert(Assertion::Start));
                    continue;
                }
                '.' => Set::dot(),
                '[' => {
                    let (set, behind) = read_class(rest)?;
                    rest = behind;
                    set
                }
                '\\' => {
                    let escaped = rest.chars().next()?;
                    rest = &rest[escaped.len_utf8()..];
                    let assertion = match escaped {
                        'A' => Some(Assertion::Start),
                        'z' => Some(Assertion::End),
                        'b' => Some(Assertion::WordBoundary),
                        'B' => Some(Assertion::NoWordBoundary),
                        _ => None,
                    };
                    if let Some(assertion) = assertion {
                        steps.push(Step::Assert(assertion));
                        continue;
                    }
                    read_escape(escaped)?
                }
                literal => Set::Char(literal),
            };
            steps.push(match rest.strip_prefix('*') {
                Some(behind) => {
                    rest = behind;
                    Step::Many(set)
                }
                None => Step::One(set),
            });
        }
        Some(Self { steps })
    }

    /// Whether the whole of `name` matches.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.run(name).last() == Some(&true)
    }

    /// Whether a name that begins with `start` can match. Errs on the side of yes.
    pub(super) fn may_match_longer(&self, start: &[u8]) -> bool {
        self.run(start).contains(&true)
    }

    /// The steps that may come next after all of `name`; the last flag stands for the end.
    fn run(&self, name: &[u8]) -> Vec<bool> {
        let mut now = vec![false; self.steps.len() + 1];
        let mut next = now.clone();
        now[0] = true;
        let mut before = None;
        let mut at = 0;
        loop {
            let decoded = first_char(&name[at..]);
            let after = decoded.map(|(c, _)| c);
            // Steps that take nothing lead forward only, so one pass finds all.
            for (i, step) in self.steps.iter().enumerate() {
                if now[i] {
                    match step {
                        Step::Many(_) => now[i + 1] = true,
                        Step::MaybeFolders => (now[i + 1], now[i + 2]) = (true, true),
                        Step::Assert(assertion) => {
                            now[i + 1] |= assertion.holds(before, after);
                        }
                        Step::One(_) | Step::Folders => {}
                    }
                }
            }
            let Some((c, width)) = decoded else { return now };
            next.fill(false);
            let mut alive = false;
            for (i, step) in self.steps.iter().enumerate() {
                if now[i] {
                    match step {
                        Step::One(set) if set.contains(c) => next[i + 1] = true,
                        Step::Many(set) if set.contains(c) => next[i] = true,
                        Step::Folders if c != '\n' => {
                            next[i] = true;
                            next[i + 1] |= c == '/';
                        }
                        _ => continue,
                    }
                    alive = true;
                }
            }
            std::mem::swap(&mut now, &mut next);
            if !alive {
                return now;
            }
            before = Some(c);
            at += width;
        }
    }
}

impl Assertion {
    fn holds(self, before: Option<char>, after: Option<char>) -> bool {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        match self {
            Self::Start => before.is_none(),
            Self::End => after.is_none(),
            Self::WordBoundary => word(before) != word(after),
            Self::NoWordBoundary => word(before) == word(after),
        }
    }
}

/// What a backslash and `c` mean as one character of the name. Of RE2's escapes by letter or
/// number, those that no path pattern can sensibly hold (`\Q`, `\p`, `\x`, octal) are refused.
fn read_escape(c: char) -> Option<Set> {
    let digits = [('0', '9')];
    let spaces = [('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
    let word = [('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    let class = |negated, ranges: &[_]| Some(Set::Class { negated, ranges: ranges.to_vec() });
    match c {
        'd' | 'D' => class(c == 'D', &digits),
        's' | 'S' => class(c == 'S', &spaces),
        'w' | 'W' => class(c == 'W', &word),
        'a' => Some(Set::Char('\u{7}')),
        'f' => Some(Set::Char('\u{c}')),
        'n' => Some(Set::Char('\n')),
        'r' => Some(Set::Char('\r')),
        't' => Some(Set::Char('\t')),
        'v' => Some(Set::Char('\u{b}')),
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(Set::Char(c)),
        _ => None,
    }
}

/// Reads a class behind its `[`; also gives what stands behind its `]`.
fn read_class(text: &str) -> Option<(Set, &str)> {
    let mut rest = text;
    let negated = rest.starts_with('^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        if rest.starts_with(']') && !first {
            return Some((Set::Class { negated, ranges }, &rest[1..]));
        }
        first = false;
        if let Some((name, behind)) = rest.strip_prefix("[:").and_then(|r| r.split_once(":]")) {
            ranges.extend(named_class(name)?);
            rest = behind;
            continue;
        }
        let low;
        (low, rest) = read_class_item(rest)?;
        let low = match low {
            Set::Char(c) => c,
            Set::Class { negated, ranges: own } => {
                ranges.extend(if negated { complement(&own) } else { own });
                continue;
            }
        };
        let mut high = low;
        if rest.starts_with('-') && !rest.starts_with("-]") {
            let (end, behind) = read_class_item(&rest[1..])?;
            match end {
                Set::Char(c) if low <= c => high = c,
                _ => return None,
            }
            rest = behind;
        }
        ranges.push((low, high));
    }
}

fn read_class_item(rest: &str) -> Option<(Set, &str)> {
    let c = rest.chars().next()?;
    let behind = &rest[c.len_utf8()..];
    if c != '\\' {
        return Some((Set::Char(c), behind));
    }
    let escaped = behind.chars().next()?;
    Some((read_escape(escaped)?, &behind[escaped.len_utf8()..]))
}

/// All characters outside of `ranges`, which are sorted and apart from each other.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut out = Vec::new();
    let mut low = '\0';
    for &(start, end) in ranges {
        if low < start {
            // The classes that are complemented are ASCII, so the neighbours are characters.
            out.push((low, char::from_u32(u32::from(start) - 1).unwrap_or(start)));
        }
        low = char::from_u32(u32::from(end) + 1).unwrap_or(char::MAX);
    }
    out.push((low, char::MAX));
    out
}

/// The POSIX classes that RE2 knows inside brackets; a `^` in front negates.
fn named_class(name: &str) -> Option<Vec<(char, char)>> {
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (true, name),
        None => (false, name),
    };
    let ranges: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    };
    Some(if negated { complement(ranges) } else { ranges.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_what_docker_makes_of_them() {
        for (pattern, want) in [
            ("a.b", Translated::Exact),
            ("dir/**", Translated::Prefix),
            ("**/name", Translated::Suffix),
            ("**", Translated::Suffix),
            ("*.c", Translated::Expression("[^/]*\\.c".to_owned())),
            ("a/**/b", Translated::Expression("a/(.*/)?b".to_owned())),
            ("*/**", Translated::Expression("[^/]*/.*".to_owned())),
            ("[*]", Translated::Expression("[[^/]*]".to_owned())),
            ("a\\*", Translated::Expression("a\\*".to_owned())),
        ] {
            assert_eq!(translate(pattern), want, "{pattern}");
        }
    }

    #[test]
    fn expressions_mean_what_re2_makes_of_them() {
        for (text, name, want) in [
            ("", "", true),
            ("", "a", false),
            ("a(.*/)?b", "ab", true),
            ("a(.*/)?b", "ax/y/b", true),
            ("a(.*/)?b", "axb", false),
            (".*", "a/b", true),
            (".*", "a\nb", false),
            ("[^/]*", "é\u{1f980}", true),
            ("[[^/]*]", "[^]", true),
            ("[[:^digit:]x]", "5", false),
            ("[[:^digit:]x]", "a", true),
            ("[\\D]", "a", true),
            ("[\\D]", "5", false),
            ("\\w\\W\\s", "a- ", true),
            ("^a", "a", true),
            ("a^", "a", false),
            ("ab\\z", "ab", true),
            ("\\bab\\b-", "ab-", true),
            ("a\\bb", "ab", false),
            ("a\\Bb", "ab", true),
            ("\\t\\.", "\t.", true),
        ] {
            let regex = Regex::new(text).unwrap();
            assert_eq!(regex.matches(name.as_bytes()), want, "{text} on {name:?}");
        }
        for refused in ["[a", "[z-a]", "[[:nothing:]]", "\\p", "\\1", "\\"] {
            assert_eq!(Regex::new(refused), None, "{refused}");
        }
    }

    #[test]
    fn the_start_of_a_name_tells_whether_more_can_match() {
        let may = |text, start: &[u8]| Regex::new(text).unwrap().may_match_longer(start);
        assert!(may("src/[^/]*", b""));
        assert!(may("src/[^/]*", b"src/"));
        assert!(!may("src/[^/]*", b"src/sub/"));
        assert!(!may("src/[^/]*", b"lib/"));
        assert!(may("(.*/)?x", b"any/thing/"));
    }
}
