//! moby's `patternmatcher`: lists of patterns with exceptions, as in ignore files and `--exclude`.

use super::{
    BadPattern, Glob, clean,
    regex::{Regex, Translated, translate},
};

/// A list of patterns of which the last that matches decides; `!` in front makes an exception.
///
/// On top of [`Glob`]'s signs, `**` stands for any number of folders. A pattern that matches a
/// folder also covers all below it. Paths are slash-separated and relative to the root that the
/// patterns are about, without `./` in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    exception: bool,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Expression(Regex),
}

/// Which patterns match a folder or one above it: what [`PatternMatcher::matches_below`] carries
/// from a folder to its entries. The default is that of the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatch(Vec<bool>);

impl PatternMatcher {
    /// Reads patterns. White space around each is dropped, empty ones are passed over, and each is
    /// brought to its shortest form ([`clean`]). A leading slash stays: what reads an ignore file,
    /// where it has no meaning, takes it away before.
    ///
    /// # Errors
    /// For the first pattern that breaks the syntax, and for a lone `!`.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadPattern> {
        let texts = patterns.iter().map(|text| text.as_ref().trim());
        let patterns = texts.filter(|text| !text.is_empty()).map(Pattern::new);
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Whether there is no pattern at all, so that nothing matches.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` or a folder above it matches (moby's `MatchesOrParentMatches`).
    pub fn matches_or_parent(&self, path: &str) -> bool {
        self.matches_or_parent_bytes(path.as_bytes())
    }

    /// [`Self::matches_or_parent`] for a path of any bytes.
    pub fn matches_or_parent_bytes(&self, path: &[u8]) -> bool {
        self.matches_below(path, &ParentMatch::default()).0
    }

    /// Whether `path` matches, given what is known of its parent folder, and what is known then of
    /// `path` for its own entries (moby's `MatchesUsingParentResults`, by which BuildKit walks).
    /// With the default for `parent`, all folders above are looked at.
    pub fn matches_below(&self, path: &[u8], parent: &ParentMatch) -> (bool, ParentMatch) {
        let mut matched = false;
        let mut own = vec![false; self.patterns.len()];
        for (i, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.0.get(i).copied().unwrap_or(false);
            // Only a pattern that would change the answer is asked, and only that is carried on.
            if !inherited && pattern.exception != matched {
                continue;
            }
            own[i] = inherited
                || pattern.matches(path)
                || (parent.0.is_empty() && pattern.matches_parent(path));
            if own[i] {
                matched = !pattern.exception;
            }
        }
        (matched, ParentMatch(own))
    }

    /// Whether an exception may match something below the folder `dir`, so that a walk must enter
    /// it although it is ignored itself. Errs on the side of yes. The root is the empty path.
    pub fn may_except_below(&self, dir: &[u8]) -> bool {
        let mut start = dir.to_vec();
        if !dir.is_empty() {
            start.push(b'/');
        }
        self.patterns
            .iter()
            .filter(|pattern| pattern.exception)
            .any(|p| p.may_match_longer(&start) || p.matches(dir) || p.matches_parent(dir))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, BadPattern> {
        let cleaned = clean(text);
        let (exception, pattern) = match cleaned.strip_prefix('!') {
            Some("") => return Err(BadPattern::EmptyException),
            Some(pattern) => (true, pattern),
            None => (false, cleaned.as_str()),
        };
        Glob::new(pattern)?;
        let kind = match translate(pattern) {
            Translated::Exact => Kind::Exact(pattern.to_owned()),
            Translated::Prefix => Kind::Prefix(pattern[..pattern.len() - 2].to_owned()),
            Translated::Suffix => Kind::Suffix(pattern[2..].to_owned()),
            Translated::Expression(text) => Kind::Expression(
                Regex::new(&text).ok_or_else(|| BadPattern::Syntax(pattern.to_owned()))?,
            ),
        };
        Ok(Self { exception, kind })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact(whole) => path == whole.as_bytes(),
            Kind::Prefix(start) => path.starts_with(start.as_bytes()),
            Kind::Suffix(end) => {
                path.ends_with(end.as_bytes())
                    || end.strip_prefix('/').is_some_and(|name| path == name.as_bytes())
            }
            Kind::Expression(regex) => regex.matches(path),
        }
    }

    /// Whether a folder above `path` matches.
    fn matches_parent(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/');
        let mut parents = slashes.map(|(at, _)| &path[..at]);
        parents.any(|parent| self.matches(parent))
    }

    /// Whether a path that begins with `start` can match.
    fn may_match_longer(&self, start: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact(whole) => whole.as_bytes().starts_with(start),
            Kind::Prefix(own) => {
                own.as_bytes().starts_with(start) || start.starts_with(own.as_bytes())
            }
            Kind::Suffix(_) => true,
            Kind::Expression(regex) => regex.may_match_longer(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(patterns: &[&str], path: &str) -> bool {
        PatternMatcher::new(patterns).unwrap().matches_or_parent(path)
    }

    #[test]
    fn one_pattern_matches_as_in_docker() {
        for (pattern, path, want) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file", "afile", false),
            ("**file", "afile", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/*.txt2", "dir/dir/file.txt", false),
            ("**/a*/b", "x/ay/b", true),
            ("a**/*a", "abcd/efgha", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a*", "ab/c", true),
            ("*", "a/b", true),
            ("a?", "a", false),
            ("a?", "a/b", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aze", false),
            ("a[^b-d]e", "aae", true),
            ("abc.def", "abcXdef", false),
            ("abc.def", "abc.defZ", false),
            ("abc?def", "abcZdef", true),
            ("a\\\\", "a\\", true),
            ("a\\b", "ab", false),
            ("a\\.b*", "a.bc", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("dist/*.whl", "dist/proxy.py-2.4.0+g08.whl", true),
            ("./a/../b/", "b/c", true),
            ("/a", "a", false),
            ("..", "a", false),
            (" a ", "a", true),
            ("[[:digit:]]x", "7x", true),
            ("[!a]", "b", false),
            ("*\\d", "a5", true),
        ] {
            assert_eq!(matches(&[pattern], path), want, "{pattern:?} on {path:?}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        for (patterns, path, want) in [
            (&["*", "!a"][..], "a", false),
            (&["*", "!a"], "b", true),
            (&["!a", "*"], "a", true),
            (&["*", "!dir"], "dir/x", false),
            (&["dir", "!dir/x"], "dir/x", false),
            (&["dir", "!dir/x"], "dir/y", true),
            (&["dir", "!dir/x", "dir/x/z"], "dir/x/z", true),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["**", "!util/docker/web"], "util/docker/web/foo", false),
            (&["**/*.md", "!**/README.md"], "a/README.md", false),
            (&[], "a", false),
            (&["", "  "], "a", false),
        ] {
            assert_eq!(matches(patterns, path), want, "{patterns:?} on {path:?}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        let error = |pattern| PatternMatcher::new(&["fine", pattern]).unwrap_err().to_string();
        assert_eq!(error("a["), r#"syntax error in pattern "a[""#);
        assert_eq!(error("!a[-]"), r#"syntax error in pattern "a[-]""#);
        assert_eq!(error("[z-a]"), r#"syntax error in pattern "[z-a]""#);
        assert_eq!(error("!"), r#"illegal exclusion pattern: "!""#);
    }

    #[test]
    fn walks_are_pruned_where_no_exception_can_match() {
        let may = |patterns: &[&str], dir: &str| {
            PatternMatcher::new(patterns).unwrap().may_except_below(dir.as_bytes())
        };
        assert!(!may(&["d"], "d"));
        assert!(may(&["d", "!d/e/a.txt"], "d"));
        assert!(may(&["d", "!d/e/a.txt"], "d/e"));
        assert!(!may(&["d", "!d/e/a.txt"], "d/f"));
        assert!(!may(&["*", "!keep"], "node_modules"));
        assert!(!may(&["*", "!src/*.c"], "srcs"));
        assert!(may(&["*", "!src/*.c"], "src"));
        assert!(!may(&["*", "!src/*.c"], "src/sub"));
        assert!(may(&["*", "!src/**"], "src/sub"));
        assert!(may(&["*", "!**/a"], "any"));
        assert!(may(&["*", "!a"], ""));
    }

    #[test]
    fn names_need_not_be_utf8() {
        let matcher = PatternMatcher::new(&["d?/*.o"]).unwrap();
        assert!(matcher.matches_or_parent_bytes(b"d\xff/\xfe.o"));
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = "**/a*".repeat(60) + "b";
        assert!(!matches(&[&pattern], &"a/".repeat(100)));
    }

    fn pattern() -> impl Strategy<Value = String> {
        r"!?[ab/.\*?]{0,4}(\[\^?[a-b]\]|\*\*/?|/)?[ab/.*?\\\[\]-]{0,4}"
    }

    proptest! {
        #[test]
        fn never_panics(patterns in prop::collection::vec(pattern(), 0..4), path in prop::collection::vec(any::<u8>(), 0..10)) {
            if let Ok(matcher) = PatternMatcher::new(&patterns) {
                matcher.matches_or_parent_bytes(&path);
                matcher.may_except_below(&path);
            }
        }

        /// Whatever is kept of an ignored folder is announced by `may_except_below`.
        #[test]
        fn pruning_loses_nothing(patterns in prop::collection::vec(pattern(), 0..5), parts in prop::collection::vec("[ab]{1,2}", 1..4)) {
            let Ok(matcher) = PatternMatcher::new(&patterns) else { return Ok(()) };
            let mut parent = ParentMatch::default();
            let mut path = String::new();
            let mut pruned = false;
            for part in parts {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&part);
                let (matched, own) = matcher.matches_below(path.as_bytes(), &parent);
                prop_assert!(matched || !pruned, "{path} is kept");
                pruned |= matched && !matcher.may_except_below(path.as_bytes());
                parent = own;
            }
        }
    }
}
