//! `rbc fmt`: one layout, the same graph.

use insta::assert_snapshot;
use proptest::prelude::*;
use rbc_compiler::{fmt, instruction, syntax};

use crate::files::{compiled, dockerfiles, source};

fn formatted(text: &str) -> String {
    fmt::format(&source(text)).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// Checks that the formatted text says the same, and returns whether the text could be read.
fn check(text: &str) -> bool {
    let Ok(new) = fmt::format(&source(text)) else { return false };
    let read = |text: &str| {
        let file = syntax::parse(source(text)).expect(text);
        instruction::parse(&file).expect(text)
    };
    let (before, after) = (read(text), read(&new));
    assert_eq!(before.len(), after.len(), "{text}\n--\n{new}");
    for (old, new) in before.iter().zip(&after) {
        assert!(new.means_the_same(old), "{old:?}\n{new:?}");
    }
    assert_eq!(formatted(&new), new, "formatted twice:\n{text}");
    match (compiled(text), compiled(&new)) {
        (Ok(before), Ok(after)) => {
            assert_eq!(before.graph.targets, after.graph.targets, "{text}\n--\n{new}");
            let nodes = |compiled: &rbc_compiler::Compiled| -> Vec<_> {
                compiled.graph.nodes.keys().copied().collect()
            };
            assert_eq!(nodes(&before), nodes(&after));
        }
        (Err(_), Err(_)) => {}
        (before, after) => panic!("{:?}\n{:?}\n{text}\n--\n{new}", before.err(), after.err()),
    }
    true
}

#[test]
fn keywords_words_and_continuations() {
    let text = "\n\n#  syntax = docker/dockerfile:1\n# Escape=\\\n\n\n\n   # the base  \nfrom  --platform=$BUILDPLATFORM   busybox   as   build   \n\n\n\ncopy   a.txt \\\n  b.txt\\\n       # why\n\n\n  /x/   \nrun   --network=none   echo  'a   b'  && \\\n         echo   c   \nenv A=1   B=\"2   3\" \\\n C=4\ncmd   [ \"sh\",    \"-c\" ]";
    assert_snapshot!(formatted(&text[2..]), @r#"
    # syntax=docker/dockerfile:1
    # escape=\

    # the base
    FROM --platform=$BUILDPLATFORM busybox AS build

    COPY a.txt \
        b.txt\
        # why

        /x/
    RUN --network=none echo  'a   b'  && \
             echo   c
    ENV A=1 B="2   3" \
        C=4
    CMD [ "sh", "-c" ]
    "#);
    check(text);
}

#[test]
fn heredocs_are_not_touched() {
    let text = "from busybox\nrun   <<eof   \n\techo   a   \n\n\n\necho b\neof\ncopy  <<-\"x\"   /f  \n\t a   \n\tx\n";
    assert_snapshot!(formatted(text).replace('\t', "→"), @r#"
    FROM busybox
    RUN <<eof
    →echo   a   



    echo b
    eof
    COPY <<-"x" /f
    → a   
    →x
    "#);
}

#[test]
fn what_would_become_a_directive_stays_a_comment() {
    assert_eq!(formatted("\n# escape=`\nFROM a\n"), "\n# escape=`\nFROM a\n");
    assert_eq!(formatted("\n\n\nFROM a\n\n\n"), "FROM a\n");
    assert_eq!(formatted("\u{feff}FROM a"), "FROM a\n");
    assert_eq!(formatted("FROM a\r\nRUN b\r\n"), "FROM a\nRUN b\n");
}

#[test]
fn text_that_the_image_shows_stays() {
    for text in [
        "FROM a\nRUN b   c \\\n        d\n",
        "FROM a\nRUN b \\\n  # a comment\n\n        d\n",
        "FROM a\nONBUILD  run  x   y\n",
        "FROM a\nMAINTAINER a   b\n",
        "FROM a\nENV a   b   c\n",
        "FROM a\nENV a=\"b  \\\n   c\"\n",
        "FROM a\nWORKDIR /a   b\n",
        "FROM a\nHEALTHCHECK --interval=1s CMD x   y\n",
    ] {
        check(text);
        let kept = formatted(text);
        assert_eq!(kept.replace("ONBUILD run", "ONBUILD  run"), text);
    }
}

#[test]
fn a_file_may_end_in_a_continuation() {
    for text in
        ["FROM a\nRUN b \\", "FROM a\nARG ` \\\n  \\ \u{a0}\n", "FROM a\nENV b=c \\\n\n\n# d\n"]
    {
        assert!(check(text), "{text}");
    }
}

#[test]
fn the_corpus_keeps_its_graphs() {
    let readable = dockerfiles().iter().filter(|(_, text)| check(text)).count();
    assert!(readable > 250, "{readable}");
}

/// Lines that make Dockerfiles, some of them only together with others.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "RUN",
        "run",
        "Copy",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "CMD",
        "EXPOSE",
        "VOLUME",
        "ONBUILD run",
        "HEALTHCHECK cmd",
        "WORKDIR",
        "USER",
        "SHELL",
        "from",
        "#",
        "# escape=`",
        "",
        "\\",
    ]);
    let word = prop::sample::select(vec![
        "a",
        "b=1",
        "c=\"d  e\"",
        "'f  g'",
        "'",
        "\"",
        "\\",
        "\\ ",
        "`",
        "[\"x\",   \"y\"]",
        "<<E",
        "--from=a",
        "--x",
        "#",
        "$V",
        "${V:-w  x}",
        "as",
        "/p",
        "8080/tcp",
        "\u{a0}",
        "\u{b}",
    ]);
    let space =
        prop::sample::select(vec![" ", "   ", "\t", " \\\n  ", "\\\n", " \\  \n\n# c\n   "]);
    let end = prop::sample::select(vec!["", "  ", " \\", "\r", "\nE", "\n\n\n"]);
    (space.clone(), keyword, prop::collection::vec((space, word), 0..5), end).prop_map(
        |(indent, keyword, words, end)| {
            let words: String = words.into_iter().map(|(s, w)| format!("{s}{w}")).collect();
            let indent = if indent.contains('\n') { "" } else { indent };
            format!("{indent}{keyword}{words}{end}\n")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_layout_keeps_its_meaning(lines in prop::collection::vec(line(), 1..4)) {
        check(&format!("FROM a\n{}", lines.concat()));
        check(&lines.concat());
    }
}
