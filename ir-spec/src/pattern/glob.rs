//! Go's `filepath.Match` on Linux.
//!
//! `*` is any run of bytes without `/`, `?` one character but `/`, `[…]` one character of a class
//! (`^` negates; a negated class does match `/`), `\` takes the next character as it is. There is
//! no `**`, no `{a,b}` and no `[!…]`. The whole name must match.

use super::{BadPattern, first_char};

/// A pattern of Go's `filepath.Match`, read once and matched often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Byte(u8),
    AnyChar,
    Class { negated: bool, ranges: Vec<(char, char)> },
    AnyRun,
}

/// Whether `name` matches `pattern` as a whole, by Go's `filepath.Match`.
///
/// # Errors
/// If the pattern breaks the syntax, whatever the name.
pub fn match_path(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Glob::new(pattern)?.matches(name.as_bytes()))
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// For a class that is open, empty or has a stray `-`, and for a backslash at the end.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let wrong = || BadPattern::Syntax(pattern.to_owned());
        let mut steps = Vec::with_capacity(pattern.len());
        let mut rest = pattern.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                // Several stars in a row mean the same as one.
                b'*' if steps.last() == Some(&Step::AnyRun) => {}
                b'*' => steps.push(Step::AnyRun),
                b'?' => steps.push(Step::AnyChar),
                b'[' => {
                    let (class, behind) = read_class(rest).ok_or_else(wrong)?;
                    steps.push(class);
                    rest = behind;
                }
                b'\\' => {
                    let (&literal, behind) = rest.split_first().ok_or_else(wrong)?;
                    steps.push(Step::Byte(literal));
                    rest = behind;
                }
                literal => steps.push(Step::Byte(literal)),
            }
        }
        Ok(Self { steps })
    }

    /// Whether `name` matches as a whole.
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut step, mut at) = (0, 0);
        // Where to go on if what follows the last star does not match: behind the star, and one
        // byte later in the name. Like Go, an earlier star is never tried again.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.steps.get(step) {
                None if at == name.len() => return true,
                Some(Step::AnyRun) => {
                    step += 1;
                    retry = Some((step, at));
                    continue;
                }
                Some(one) => {
                    if let Some(width) = one.matches_first(&name[at..]) {
                        step += 1;
                        at += width;
                        continue;
                    }
                }
                None => {}
            }
            match retry {
                Some((behind, from)) if name.get(from).is_some_and(|&byte| byte != b'/') => {
                    retry = Some((behind, from + 1));
                    (step, at) = (behind, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Step {
    /// The length of what this step takes from the start of `name`, if it matches there.
    fn matches_first(&self, name: &[u8]) -> Option<usize> {
        match self {
            Self::Byte(byte) => (name.first() == Some(byte)).then_some(1),
            Self::AnyChar => first_char(name).filter(|&(c, _)| c != '/').map(|(_, width)| width),
            Self::Class { negated, ranges } => {
                let (c, width) = first_char(name)?;
                let within = ranges.iter().any(|&(low, high)| low <= c && c <= high);
                (within != *negated).then_some(width)
            }
            Self::AnyRun => None,
        }
    }
}

/// Reads a class behind its `[`; also gives what stands behind its `]`.
fn read_class(mut rest: &[u8]) -> Option<(Step, &[u8])> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            return Some((Step::Class { negated, ranges }, &rest[1..]));
        }
        let (low, behind) = read_class_char(rest)?;
        rest = behind;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            (high, rest) = read_class_char(&rest[1..])?;
        }
        ranges.push((low, high));
    }
}

/// Reads one end of a range.
fn read_class_char(mut rest: &[u8]) -> Option<(char, &[u8])> {
    match rest.first()? {
        b'-' | b']' => return None,
        b'\\' => rest = &rest[1..],
        _ => {}
    }
    let (c, width) = first_char(rest)?;
    Some((c, &rest[width..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Go 1.2x's `filepath.Match` answers; `None` is a bad pattern.
    #[test]
    fn matches_what_go_matches() {
        for (pattern, name, want) in [
            ("", "", Some(true)),
            ("", "x", Some(false)),
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*", "", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "abc", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^b-d]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("a[^a][^a][^a]b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("a*b", "a/b", Some(false)),
            ("a[^x]b", "a/b", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "x", Some(true)),
            ("[x\\-]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[\\-x]", "x", Some(true)),
            ("[\\-x]", "a", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("a[", "a", None),
            ("a[", "ab", None),
            ("a[", "x", None),
            ("a/b[", "x", None),
            ("\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("**", "a/b", Some(false)),
            ("**/b", "a/b", Some(true)),
            ("**/b", "a/a/b", Some(false)),
            ("{a,b}", "a", Some(false)),
            ("{a,b}", "{a,b}", Some(true)),
            ("[!a]", "!", Some(true)),
            ("[!a]", "b", Some(false)),
            ("[[]", "[", Some(true)),
            ("[z-a]", "m", Some(false)),
            ("[*]", "*", Some(true)),
            ("*[^x]*b", "ab/cb", Some(false)),
        ] {
            assert_eq!(match_path(pattern, name).ok(), want, "{pattern:?} on {name:?}");
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        let matches = |pattern, name: &[u8]| Glob::new(pattern).unwrap().matches(name);
        assert!(matches("a?b", b"a\xffb"));
        assert!(matches("*.txt", b"\xc3\x28.txt"));
        assert!(!matches("a??b", b"a\xffb"));
        assert!(matches("[\u{fffd}]", b"\xff"));
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = "*a".repeat(500) + "b";
        assert_eq!(match_path(&pattern, &"a".repeat(2_000)), Ok(false));
        assert_eq!(match_path(&"*".repeat(100_000), "x"), Ok(true));
    }

    #[test]
    fn errors_name_the_pattern() {
        let error = match_path("a[", "a").unwrap_err();
        assert_eq!(error.to_string(), r#"syntax error in pattern "a[""#);
    }

    proptest! {
        #[test]
        fn never_panics(pattern in r"[a/\*\?\[\]\\\^é-]{0,12}", name in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&name);
            }
        }

        #[test]
        fn without_special_characters_it_is_equality(pattern in "[a-c/.]{0,4}", name in "[a-c/.]{0,4}") {
            prop_assert_eq!(match_path(&pattern, &name), Ok(pattern == name));
        }

        #[test]
        fn an_escaped_name_matches_itself(name in "[ab*?/\\[\\]\\\\-]{0,8}") {
            let pattern: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(match_path(&pattern, &name), Ok(true));
        }
    }
}
