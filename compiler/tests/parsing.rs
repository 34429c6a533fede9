//! Files to instructions: directives, continuations, heredocs; printing back; and that any input
//! is read in time linear in its size.

use proptest::prelude::*;
use rbc_compiler::{
    instruction::{self, Command, CommandLine, Instruction},
    syntax::{self, DirectiveKind, Dockerfile, SourceFile},
};

fn file(text: &str) -> Dockerfile {
    syntax::parse(SourceFile::new("Dockerfile", text)).unwrap()
}

fn instructions(text: &str) -> Vec<Instruction> {
    instruction::parse(&file(text)).unwrap()
}

fn codes(text: &str) -> Vec<String> {
    instructions(text).into_iter().map(|instruction| instruction.code).collect()
}

#[test]
fn directives_are_read_at_the_top_only() {
    let file = file(
        "\u{feff}# Syntax = docker/dockerfile:1\n#escape=`\n# check=skip=all\nFROM a\n# escape=\\\n",
    );
    let kinds: Vec<_> = file.directives.iter().map(|directive| directive.kind).collect();
    assert_eq!(kinds, [DirectiveKind::Syntax, DirectiveKind::Escape, DirectiveKind::Check]);
    assert_eq!(file.directive(DirectiveKind::Syntax).unwrap().value.text, "docker/dockerfile:1");
    assert_eq!(file.escape, '`');
}

#[test]
fn a_comment_or_empty_line_ends_the_directives() {
    assert_eq!(file("# a comment\n# escape=`\nFROM a\n").escape, '\\');
    assert_eq!(file("\n# escape=`\nFROM a\n").escape, '\\');
    assert_eq!(file("# unknown=x\n# escape=`\nFROM a\n").escape, '\\');
    assert_eq!(file("FROM a\n# escape=x\n").escape, '\\');
}

#[test]
fn continuations_are_joined() {
    assert_eq!(codes("FROM a\nRUN one \\\n  two\\  \nthree\n")[1], "RUN one   twothree");
    assert_eq!(codes("FROM a\r\nRUN one \\\r\n two\r\n")[1], "RUN one  two");
    assert_eq!(codes("# escape=`\nFROM a\nRUN one `\n C:\\\n")[1], "RUN one  C:\\");
    assert_eq!(codes("FROM a\nRUN one \\\\\nUSER b\n"), ["FROM a", "RUN one \\\\", "USER b"]);
    assert_eq!(codes("FROM a\nRUN one \\"), ["FROM a", "RUN one"]);
    assert_eq!(codes("FROM a\n\\\nRUN one\n")[1], "RUN one");
}

#[test]
fn comments_and_empty_lines_inside_a_continuation_are_left_out() {
    let text = "FROM a\nRUN one \\\n# x \\\n   # y\n\n two\n";
    assert_eq!(codes(text)[1], "RUN one  two");
    insta::assert_snapshot!(file(text).warnings[0], @r"
    warning[empty-continuation]: empty continuation line
     --> Dockerfile:5:1
      |
    5 |
      | ^
      |
      = help: remove the line, or make it a comment: it may become an error
    ");
}

#[test]
fn comments_right_above_belong_to_an_instruction() {
    let file = file("# lost\n#\n# kept\n\n# too\nFROM a\nRUN b\n");
    let texts: Vec<_> = file.instructions[0].comments.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts, ["kept", "too"]);
    assert!(file.instructions[1].comments.is_empty());
}

#[test]
fn heredocs_keep_their_bodies() {
    let text = "FROM a\nRUN <<A cat <<-'B'\r\nx\r\nA\n\ty \\\n\tB\nCOPY <<f.txt <<\"g\" /d/\n$x\nf.txt\ng\n";
    let raw = file(text);
    let [a, b] = raw.instructions[1].heredocs.as_slice() else { panic!("two heredocs") };
    assert_eq!(
        (a.name.as_str(), a.content.as_str(), a.expand, a.chomp),
        ("A", "x\r\n", true, false)
    );
    assert_eq!(
        (b.name.as_str(), b.content.as_str(), b.expand, b.chomp),
        ("B", "\ty \\\n", false, true)
    );
    assert_eq!(b.chomped(), "y \\\n");
    assert_eq!(raw.source.slice(a.span), a.content);
    let Command::Copy(copy) = &instructions(text)[2].command else { panic!("COPY") };
    let inline: Vec<_> = copy.transfer.inline.iter().collect();
    assert_eq!((inline[0].content.text.as_str(), inline[0].expand), ("$x\n", true));
    assert_eq!((inline[1].name.text.as_str(), inline[1].expand), ("g", false));
    assert_eq!(copy.transfer.dest.text, "/d/");
}

#[test]
fn triggers_keep_their_text_and_can_be_read_back() {
    let list = instructions("FROM a\nOnBuild  COPY <<x \\\n /y  \nbody\nx\n");
    let Command::Onbuild(onbuild) = &list[1].command else { panic!("ONBUILD") };
    assert_eq!(onbuild.expression, "COPY <<x  /y  \nbody\nx");
    let trigger = instruction::parse_trigger("ONBUILD of a", &onbuild.expression).unwrap();
    let Command::Copy(copy) = trigger.command else { panic!("COPY") };
    assert_eq!(copy.transfer.inline[0].content.text, "body\n");
    for bad in ["FROM x", "RUN a\nRUN b", "", "ONBUILD RUN x"] {
        assert!(instruction::parse_trigger("t", bad).is_err(), "{bad}");
    }
    // What is wrong with a trigger beyond its form only shows when it fires.
    assert!(matches!(instructions("FROM a\nONBUILD COPY x\n")[1].command, Command::Onbuild(_)));
}

#[test]
fn json_form_and_shell_form() {
    let command = |text: &str| match &instructions(&format!("FROM a\nCMD {text}\n"))[1].command {
        Command::Cmd(CommandLine::Exec(words)) => words.iter().map(|w| w.text.clone()).collect(),
        Command::Cmd(CommandLine::Shell(text)) => vec![format!("shell:{}", text.text)],
        other => panic!("{other:?}"),
    };
    assert_eq!(command(r#"["a", "b c"]"#), ["a", "b c"]);
    assert_eq!(command("[]"), [""; 0]);
    assert_eq!(command("['a']"), ["shell:['a']"]);
    assert_eq!(command("[ -f x ] && y"), ["shell:[ -f x ] && y"]);
    assert_eq!(command(""), ["shell:"]);
}

#[test]
fn words_know_their_place_in_the_source() {
    let text = "FROM busybox \\\n  AS Build\nCOPY --from=x \\\n [\"a\\u0062\", \"/d\"]\n";
    let list = instructions(text);
    let source = &list[0].source;
    let Command::From(from) = &list[0].command else { panic!("FROM") };
    let name = from.name.as_ref().unwrap();
    assert_eq!((name.text.as_str(), source.slice(name.span)), ("build", "Build"));
    assert_eq!(source.line_column(name.span.start), (2, 6));
    let Command::Copy(copy) = &list[1].command else { panic!("COPY") };
    assert_eq!(source.slice(copy.from.as_ref().unwrap().span), "x");
    let first = &copy.transfer.sources[0];
    assert_eq!((first.text.as_str(), source.slice(first.span)), ("ab", "a\\u0062"));
}

#[test]
fn flags_of_arg_and_stopsignal_are_not_looked_at() {
    let list = instructions(
        "ARG --x=1 A=2 B\nFROM a\nSTOPSIGNAL --x KILL\nHEALTHCHECK --interval=x NONE\n",
    );
    let Command::Arg(declared) = &list[0].command else { panic!("ARG") };
    assert_eq!(declared[0].default.as_ref().unwrap().text, "2");
    assert_eq!(declared[1].default, None);
}

#[test]
fn bytes_that_are_not_utf8_are_kept() {
    let bytes = b"FROM a\nRUN echo \xff\x00\n".to_vec();
    let file = syntax::parse(SourceFile::new("Dockerfile", bytes.clone())).unwrap();
    assert_eq!(file.source.bytes(), bytes);
    assert_eq!(file.instructions[1].text.as_str(), "RUN echo \u{fffd}\0");
}

#[test]
fn large_texts_of_every_shape_are_read() {
    let megabytes = 5 << 20;
    let from = "FROM a\n";
    for text in [
        format!("{from}{}", "ENV A=b C=$A\n".repeat(10_000)),
        format!("{from}RUN {}", "x ".repeat(megabytes / 2)),
        format!("{from}RUN {}", "<<".repeat(megabytes / 2)),
        format!("{from}RUN {}", "x \\\n".repeat(megabytes / 4)),
        format!("{from}RUN [{}\"a\"]", "\"a\",".repeat(megabytes / 4)),
        format!("{from}ENV {}", "a='b c' ".repeat(megabytes / 8)),
        format!("{from}COPY {}/", "--link=false".repeat(megabytes / 12)),
        format!("{from}{}", "x".repeat(megabytes)),
        format!("{from}{}", "BAD x\n".repeat(10_000)),
        format!("{from}{}", "# c\n".repeat(megabytes / 4)),
        format!("{from}RUN {}\n{}", "<<A ".repeat(1000), "A\n".repeat(1000)),
    ] {
        match syntax::parse(SourceFile::new("Dockerfile", text.as_str())) {
            Ok(file) => {
                assert!(file.to_string() == text, "{:?}…", &text[..40]);
                if let Err(errors) = instruction::parse(&file) {
                    assert!(errors.iter().all(|one| one.to_string().len() < 10_000));
                }
            }
            Err(errors) => assert!(errors.to_string().len() < 10_000, "{:?}…", &text[..40]),
        }
    }
}

#[test]
fn messages_stay_short_whatever_they_quote() {
    let text = format!("FROM a\nRUN <<{}\n", "x".repeat(1 << 20));
    let errors = syntax::parse(SourceFile::new("Dockerfile", text)).unwrap_err();
    assert!(errors.to_string().len() < 10_000);
}

/// Lines that are likely to mean something.
fn line() -> impl Strategy<Value = String> {
    let keyword = proptest::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "CMD",
        "HEALTHCHECK",
        "ONBUILD RUN",
        "SHELL",
        "EXPOSE",
        "VOLUME",
        "run",
        "# escape=`",
        "#",
        "EOF",
        "",
    ]);
    let piece = proptest::sample::select(vec![
        " a",
        " b=c",
        " \"q r\"",
        " \\\n",
        " [\"a\", \"b\"]",
        " <<EOF",
        " <<-'EOF'",
        " --link",
        " --mount=type=cache,target=/x",
        " ${x:-y}",
        " é",
        "\r",
        "\t",
        "\n",
        " AS x",
        "\\",
        " CMD",
        "\u{feff}",
        "\0",
        " =",
    ]);
    (keyword, proptest::collection::vec(piece, 0..5))
        .prop_map(|(keyword, pieces)| format!("{keyword}{}\n", pieces.concat()))
}

proptest! {
    #[test]
    fn printing_gives_the_text_back(lines in proptest::collection::vec(line(), 0..8)) {
        let text = lines.concat();
        if let Ok(file) = syntax::parse(SourceFile::new("Dockerfile", text.as_str())) {
            prop_assert_eq!(file.to_string(), text);
            if let Err(errors) = instruction::parse(&file) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(file) = syntax::parse(SourceFile::new("Dockerfile", bytes.clone())) {
            prop_assert_eq!(&*file.source.bytes(), bytes.as_slice());
            let _ = instruction::parse(&file).map_err(|errors| errors.to_string());
        }
    }
}
