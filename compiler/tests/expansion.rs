//! Expansion of words: what each piece of syntax yields, what is an error, and that hostile words
//! do no harm.

use std::collections::HashMap;

use proptest::prelude::*;
use rbc_compiler::{
    shellword::{Escapes, ExpandErrorKind, Expander, Quotes, Unset},
    syntax::{Span, Word},
};

fn variables() -> HashMap<String, String> {
    [
        ("HOME", "/root"),
        ("EMPTY", ""),
        ("SPACED", " one  two "),
        ("FILE", "a/b.tar.gz"),
        ("LINES", "one\ntwo"),
        ("WORD", "안녕"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn expand(word: &str) -> Result<String, String> {
    let expanded = Expander::new('\\').expand(word, &variables());
    expanded.map(|expansion| expansion.text).map_err(|error| error.to_string())
}

#[track_caller]
fn expands(table: &[(&str, &str)]) {
    for (word, expected) in table {
        assert_eq!(expand(word).as_deref(), Ok(*expected), "{word}");
    }
}

#[track_caller]
fn fails(table: &[(&str, &str)]) {
    for (word, message) in table {
        assert_eq!(expand(word).as_ref().map_err(String::as_str), Err(*message), "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    expands(&[
        ("a'b c'd", "ab cd"),
        ("\"a 'b' c\"", "a 'b' c"),
        (r"a\ b\'", "a b'"),
        (r"a\b\\", r"ab\"),
        (r#""\a \" \$ \\""#, r#"\a " $ \"#),
        (r"'\a'", r"\a"),
        ("a\\", "a"),
        ("'$HOME'", "$HOME"),
        (r"\$HOME", "$HOME"),
        (r"\\$HOME", r"\/root"),
        ("\"$HOME\"", "/root"),
    ]);
    fails(&[
        ("it's", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        (r#""a\""#, "unexpected end of statement while looking for matching double-quote"),
    ]);
}

#[test]
fn names_end_at_the_first_other_character() {
    expands(&[
        ("$HOME/x", "/root/x"),
        ("$HOMEx", ""),
        ("${HOME}x", "/rootx"),
        ("$.x$", "$.x$"),
        ("$1x$10y", "xy"),
        ("a$$b$?c", "abc"),
        ("$WORD.", "안녕."),
        ("$한.", "."),
    ]);
}

#[test]
fn defaults_alternatives_and_requirements() {
    expands(&[
        ("${NONE:-x}${NONE-y}", "xy"),
        ("${EMPTY:-x}|${EMPTY-y}", "x|"),
        ("${HOME:+x}${HOME+y}", "xy"),
        ("${EMPTY:+x}|${EMPTY+y}", "|y"),
        ("${HOME:?}${HOME?}${EMPTY?}", "/root/root"),
        ("${NONE:-${ALSO:-$HOME}}", "/root"),
        ("${NONE:-'}'}", "}"),
        (r"${NONE:-\}}", "}"),
        ("${NONE:-\"a b\"}", "a b"),
    ]);
    fails(&[
        ("${NONE?}", "NONE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${NONE:?must be given, $HOME}", "NONE: must be given, /root"),
    ]);
}

#[test]
fn trimming() {
    expands(&[
        ("${FILE#*/}", "b.tar.gz"),
        ("${FILE%.*}", "a/b.tar"),
        ("${FILE%%.*}", "a/b"),
        ("${FILE##*.}", "gz"),
        ("${FILE#?}", "/b.tar.gz"),
        ("${FILE%%[.]*}", "a/b.tar.gz"),
        ("${FILE#none}", "a/b.tar.gz"),
        ("${FILE#}", "a/b.tar.gz"),
        ("${FILE%%*}|${FILE##*}", "|"),
        ("${LINES#*e}|${LINES##*o}", "\ntwo|ne\ntwo"),
        ("${WORD%?}", "안"),
    ]);
    fails(&[
        ("${HOME:#/}", "unsupported modifier (:#) in substitution of \"HOME\""),
        ("${HOME:%/}", "unsupported modifier (:%) in substitution of \"HOME\""),
        (r"${HOME#\x}", r"invalid pattern (\x) in substitution: invalid escape '\x'"),
    ]);
}

#[test]
fn replacing() {
    expands(&[
        ("${FILE/a/x}", "x/b.tar.gz"),
        ("${FILE//a/x}", "x/b.txr.gz"),
        (r"${FILE/\//-}", "a-b.tar.gz"),
        ("${FILE/b*/x}", "a/x"),
        ("${FILE//?/x}", "xxxxxxxxxx"),
        ("${FILE//*/x}", "x"),
        ("${EMPTY//*/x}", "x"),
        ("${HOME/$HOME/$WORD}", "안녕"),
        ("${HOME/none/x}", "/root"),
        ("${LINES//o*/x}", "x\ntwx"),
    ]);
}

#[test]
fn what_is_no_substitution() {
    fails(&[
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{x}}", "syntax error: bad substitution"),
        ("${HOME", "syntax error: missing '}' of ${HOME"),
        ("${HOME:-x", "syntax error: missing '}' of ${HOME"),
        ("${HOME:", "syntax error: missing '}' of ${HOME"),
        ("${", "syntax error: missing '}' of ${"),
        ("${HOME/x}", "syntax error: missing second '/' in ${HOME/"),
        ("${HOME^^}", "unsupported modifier (^) in substitution of \"HOME\""),
        ("${HOME:=x}", "unsupported modifier (:=) in substitution of \"HOME\""),
        ("${HOME!x}", "unsupported modifier (!) in substitution of \"HOME\""),
        ("${.}", "unsupported modifier (.) in substitution of \"\""),
    ]);
}

#[test]
fn words_are_split_at_spaces_that_are_not_quoted() {
    let words = |word: &str| Expander::new('\\').expand(word, &variables()).unwrap().words;
    assert_eq!(words(" a  'b c' d\\ e\t"), ["a", "b c", "d e"]);
    assert_eq!(words("x${SPACED}y"), ["x", "one", "two", "y"]);
    assert_eq!(words("x\"${SPACED}\"y"), ["x one  two y"]);
    assert_eq!(words("80${NONE:-81} ''"), ["8081"]);
    assert_eq!(words("cat << EOF"), ["cat", "<< EOF"]);
}

#[test]
fn variables_are_reported_in_order_of_use() {
    let expansion =
        Expander::new('\\').expand("$B${HOME:-$A}$HOME'$C'${EMPTY:+$A}", &variables()).unwrap();
    assert_eq!(expansion.used, ["HOME", "EMPTY"]);
    assert_eq!(expansion.unset, ["B", "A"]);
}

#[test]
fn other_rules() {
    let backtick = Expander::new('`').expand(r"C:\x` y", &variables()).unwrap();
    assert_eq!(backtick.text, r"C:\x y");
    let body = Expander::for_heredoc().expand("it's \"$HOME\" \\$x <<  y", &variables()).unwrap();
    assert_eq!(body.text, "it's \"/root\" $x <<  y");
    let keep = Expander {
        quotes: Quotes::Keep,
        escapes: Escapes::Keep,
        unset: Unset::Keep,
        ..Expander::new('\\')
    };
    let kept = keep.expand(r#"'a' "b" \c $NONE ${NONE:-x} ${NONE/a/b}"#, &variables()).unwrap();
    assert_eq!(kept.text, r#"'a' "b" \c $NONE ${NONE:-x} ${NONE/a/b}"#);
}

#[test]
fn an_error_tells_its_place_in_the_word() {
    let text = "path/${HOME^^}/x";
    let error = Expander::new('\\').expand(text, &variables()).unwrap_err();
    let word = Word::new(text, Span::new(100, 100 + text.len()));
    assert_eq!(word.part(error.range), Span::new(105, 112));
}

#[test]
fn hostile_words_are_refused_without_harm() {
    let kind = |word: &str, variables: &HashMap<String, String>| {
        Expander::new('\\').expand(word, variables).unwrap_err().kind
    };
    let deep = "${a:-".repeat(200_000);
    assert!(matches!(
        kind(&deep, &variables()),
        ExpandErrorKind::TooDeep(_) | ExpandErrorKind::MissingBrace(_)
    ));
    let closed = format!("{}{}x", "${a:-".repeat(5_000), "}".repeat(5_000));
    assert!(matches!(kind(&closed, &variables()), ExpandErrorKind::TooDeep(_)));
    let big = HashMap::from([("A".to_owned(), "x".repeat(1 << 20))]);
    assert!(matches!(kind(&"$A".repeat(1000), &big), ExpandErrorKind::TooLong(_)));
    assert!(matches!(kind("\"${A//x/$A}\"", &big), ExpandErrorKind::TooLong(_)));
    // A pattern that a backtracking matcher would never finish.
    let word = format!("${{A##{}y}}", "*x".repeat(200));
    assert_eq!(Expander::new('\\').expand(&word, &big).unwrap().text.len(), 1 << 20);
}

proptest! {
    #[test]
    fn any_word_expands_or_fails_cleanly(word in r#"[${}:\-+?#%/'"\\<*ABHOME \n한]{0,60}"#) {
        for rules in [Expander::new('\\'), Expander::for_heredoc(), Expander::new('`')] {
            match rules.expand(&word, &variables()) {
                Ok(expansion) => prop_assert!(expansion.words.iter().all(|word| !word.is_empty())),
                Err(error) => prop_assert!(error.range.end <= word.len()),
            }
        }
    }

    #[test]
    fn words_without_syntax_stay_as_they_are(word in r"[a-z0-9 ./:=,_\-]{0,60}") {
        prop_assert_eq!(expand(&word), Ok(word));
    }
}
