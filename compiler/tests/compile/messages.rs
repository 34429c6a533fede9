//! Errors and warnings, with their places.

use insta::assert_snapshot;
use rbc_compiler::{compile, diagnostic::Style, syntax::SourceFile};

use crate::world::{World, options};

fn error(text: &str) -> String {
    World::new().errors(text, &options())
}

fn warnings(text: &str) -> String {
    World::new().compile(text, &options()).warnings.render(Style::Plain)
}

#[test]
fn a_missing_source_is_shown_among_its_neighbours() {
    assert_snapshot!(error("FROM busybox\nCOPY a.txt nosuch.txt /\n"), @r#"
    error[not-found]: "/nosuch.txt": not found
     --> Dockerfile:2:12
      |
    2 | COPY a.txt nosuch.txt /
      |            ^^^^^^^^^^
      |
      = help: the pattern "secret*" of .dockerignore hides it
    "#);
}

#[test]
fn a_command_with_a_byte_that_is_not_utf8() {
    let text = b"FROM busybox\n# caf\xe9\nRUN echo caf\xe9\nRUN [\"caf\xe9\"]\nLABEL a=caf\xe9\n";
    let source = std::sync::Arc::new(SourceFile::new("Dockerfile", &text[..]));
    let errors = compile(&source, &options(), &World::new()).expect_err("an error");
    assert_snapshot!(errors.render(Style::Plain).replace('\u{fffd}', "?"), @r"
    error[not-utf8]: the command has a byte that is not UTF-8
     --> Dockerfile:3:13
      |
    3 | RUN echo caf?
      |             ^
      |
      = help: save the file as UTF-8, or have the command make the byte: printf '\351'
    ");
}

#[test]
fn an_unknown_target_gets_a_suggestion() {
    let mut options = options();
    options.target = Some("alpah".to_owned());
    assert_snapshot!(World::new().errors("FROM busybox AS alpha\nFROM alpha\n", &options), @r#"
    error[unknown-target]: target stage "alpah" could not be found
     |
     = note: stages with a name: alpha
     = help: did you mean "alpha"?
    "#);
}

#[test]
fn a_base_that_is_nearly_a_stage() {
    assert_snapshot!(error("FROM busybox AS builder\nRUN x\nFROM bilder\n"), @r#"
    error[image]: bilder: docker.io/library/bilder:latest: not found
     --> Dockerfile:3:6
      |
    3 | FROM bilder
      |      ^^^^^^
      |
      = help: did you mean "builder"?
    "#);
}

#[test]
fn a_base_in_the_wrong_case() {
    assert_snapshot!(error("FROM busybox AS Builder\nFROM Builder\n"), @r#"
    error[bad-reference]: failed to parse stage name "Builder": invalid reference format: "Builder": a repository name must be lowercase
     --> Dockerfile:2:6
      |
    2 | FROM Builder
      |      ^^^^^^^
      |
      = help: stage names are lower case: did you mean "builder"?
    "#);
}

#[test]
fn a_blank_base() {
    assert_snapshot!(error("ARG BASE\nFROM $BSE\n"), @r"
    error[blank-base]: base name ($BSE) should not be blank
     --> Dockerfile:2:6
      |
    2 | FROM $BSE
      |      ^^^^
      |
      = note: BSE has no value here
      = help: did you mean $BASE?
    ");
}

#[test]
fn a_circle() {
    assert_snapshot!(error("FROM busybox AS a\nCOPY --from=b / /\nFROM busybox AS b\nCOPY --from=a / /\n"), @r"
    error[circular-stages]: circular dependency detected on stage: a
     --> Dockerfile:4:13
      |
    4 | COPY --from=a / /
      |             ^
      |
      = note: a needs b needs a
      = help: a stage can only use files of stages before it
    ");
}

#[test]
fn a_bad_trigger_names_its_base() {
    let mut world = World::new();
    let mut base = world.images["docker.io/library/busybox:latest"].clone();
    base.config.on_build = vec!["RUNN x".to_owned()];
    world.images.insert("docker.io/library/base:latest".to_owned(), base);
    assert_snapshot!(world.errors("FROM base\n", &options()), @r#"
    error[bad-trigger]: ONBUILD trigger "RUNN x": unknown instruction: RUNN
     --> Dockerfile:1:1
      |
    1 | FROM base
      | ^^^^^^^^^
      |
      = note: it comes from the base "base"
    "#);
}

#[test]
fn one_line_each() {
    for (text, want) in [
        ("FROM busybox\nCOPY --from=7 a /\n", "invalid stage index 7"),
        ("FROM busybox\nCOPY --from=$X a /\n", "variable expansion is not supported for --from"),
        ("FROM busybox\nCOPY --chmod=999 a.txt /\n", "invalid chmod parameter: '999'"),
        ("FROM scratch\nCOPY --chown=app a.txt /\n", "invalid user index"),
        ("FROM busybox\nEXPOSE 80x\n", "80x"),
        ("FROM busybox\nSTOPSIGNAL SIGFOO\n", "invalid signal: SIGFOO"),
        ("FROM busybox\nRUN --mount=type=bind,target=/ x\n", "invalid mount target \"/\""),
        ("FROM busybox\nRUN --mount=type=bogus x\n", "bogus"),
        ("FROM busybox\nRUN --mount=source=nosuch,target=/x x\n", "\"/nosuch\": not found"),
        ("FROM busybox\nADD --checksum=sha256:x a.txt /\n", "checksum requires HTTP(S) or Git"),
        ("FROM busybox\nCOPY https://h/f /\n", "source can't be a URL for COPY"),
        ("FROM busybox\nCOPY https://h/r.git /\n", "source can't be a git ref for COPY"),
        ("FROM busybox\nVOLUME \"\"\n", "VOLUME specified can not be an empty string"),
        ("FROM --platform=$NOPE busybox\n", "empty platform value from expression $NOPE"),
        ("FROM busybox\nENV A=\"${B:?must be set}\"\n", "B: must be set"),
        ("FROM busybox\nRUN a\0b\n", "contains a NUL"),
        ("RUN true\n", "RUN stands before the first FROM"),
        ("ARG A=1\n", "no stages to build"),
        ("FROM busybox AS a\nFROM scratch\nRUN --security=insecure x\n", "security.insecure"),
    ] {
        let got = error(text);
        assert!(got.contains(want), "{text}\n{got}");
    }
}

#[test]
fn checks_name_dockers_rules() {
    for (text, rule) in [
        ("FROM busybox\nLABEL a=$NOPE\n", "UndefinedVar"),
        ("FROM busybox as a\n", "FromAsCasing"),
        ("FROM busybox AS A\n", "StageNameCasing"),
        ("FROM busybox\nRUN x\nrun y\n", "ConsistentInstructionCasing"),
        ("FROM busybox\nCMD x\n", "JSONArgsRecommended"),
        ("FROM busybox\nENV A b\n", "LegacyKeyValueFormat"),
        ("FROM busybox\nMAINTAINER m\n", "MaintainerDeprecated"),
        ("FROM busybox\nWORKDIR w\n", "WorkdirRelativePath"),
        ("FROM busybox AS a\nFROM a AS a\n", "DuplicateStageName"),
        ("FROM busybox AS scratch\n", "ReservedStageName"),
        ("FROM busybox\nARG DB_PASSWORD\n", "SecretsUsedInArgOrEnv"),
        ("FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]\n", "MultipleInstructionsDisallowed"),
        ("FROM --platform=linux/amd64 busybox\n", "FromPlatformFlagConstDisallowed"),
        ("FROM --platform=$TARGETPLATFORM busybox\n", "RedundantTargetPlatform"),
        ("FROM busybox$NOPE\n", "UndefinedArgInFrom"),
        ("FROM busybox\nEXPOSE 80/TCP\n", "ExposeProtoCasing"),
        ("FROM busybox\nEXPOSE 127.0.0.1:80:80\n", "ExposeInvalidFormat"),
    ] {
        let got = warnings(text);
        assert!(got.contains(&format!("warning[{rule}]")), "{text}\n{got}");
        let skipped = warnings(&format!("# check=skip={rule}\n{text}"));
        assert!(!skipped.contains(&format!("warning[{rule}]")), "{text}\n{skipped}");
    }
    let quiet = "ARG V=latest\nFROM busybox:$V AS a\nARG TOKEN_FILE\nWORKDIR /w\nCMD [\"a\"]\n";
    assert_eq!(warnings(quiet), "");
}

#[test]
fn a_variable_that_is_nearly_right() {
    assert_snapshot!(warnings("FROM busybox\nARG VERSION=1\nLABEL v=$VERSOIN\n"), @r"
    warning[UndefinedVar]: Usage of undefined variable '$VERSOIN' (did you mean $VERSION?)
     --> Dockerfile:3:9
      |
    3 | LABEL v=$VERSOIN
      |         ^^^^^^^^
      |
      = help: write $VERSION
    ");
}

#[test]
fn hidden_sources_are_told_of() {
    let mut options = options();
    options.context.ignore = vec!["*.txt".to_owned()];
    let compiled = World::new().compile("FROM busybox\nCOPY a.txt /\n", &options);
    let got = compiled.warnings.render(Style::Plain);
    assert!(got.contains("Attempting to Copy file \"a.txt\" that is excluded"), "{got}");
}

#[test]
fn unused_build_arguments_are_told_of() {
    let mut options = options();
    for name in ["Z", "Y", "A", "HTTP_PROXY"] {
        options.build_args.insert(name.to_owned(), "1".to_owned());
    }
    let compiled = World::new().compile("FROM busybox\nARG A\n", &options);
    let got = compiled.warnings.render(Style::Plain);
    assert!(got.contains("[Warning] One or more build-args [Y Z] were not consumed"), "{got}");
}

#[test]
fn checks_can_be_made_errors() {
    let got = error("# check=error=true\nFROM busybox\nCMD x\n");
    assert!(got.contains("JSONArgsRecommended"), "{got}");
}

#[test]
fn independent_errors_are_all_told_of() {
    let text = "FROM busybox AS one\nCOPY --chmod=9 a.txt /\nRUN fine\nVOLUME $NONE\nEXPOSE x\n\
                FROM busybox AS two\nSTOPSIGNAL SIGNONE\nCOPY --from=one /a /b\n\
                FROM two\nCOPY --from=one nosuch /\nCOPY nosuch.txt /\n";
    let got = error(text);
    let lines: Vec<&str> =
        got.lines().filter_map(|line| line.trim_start().strip_prefix("--> Dockerfile:")).collect();
    assert_eq!(lines, ["2:14", "4:8", "5:8", "7:12", "11:6"], "{got}");
}

#[test]
fn what_depends_on_an_error_is_not_told_of_again() {
    let got = error("FROM nosuch AS a\nFROM a AS b\nFROM busybox\nCOPY --from=b /x /y\n");
    assert_eq!(got.matches("error[").count(), 1, "{got}");
    let got = error("FROM a b\nFROM busybox\nRUNN x\nCOPY --form=a a b\n");
    assert_eq!(got.matches("error[").count(), 3, "{got}");
    let got = error(
        "FROM nosuch1 AS a\nFROM nosuch2 AS b\nFROM nosuch1\nCOPY --from=a x y\nCOPY --from=b x y\n",
    );
    assert_eq!(got.matches("error[image]").count(), 2, "{got}");
    let got = error("FROM A AS a\nFROM b:\nFROM busybox\nCOPY --from=9 x y\nCOPY --from=$X x y\n");
    assert_eq!(got.matches("error[").count(), 4, "{got}");
}

#[test]
fn a_build_argument_that_is_nearly_one() {
    let mut options = options();
    options.build_args.insert("VERSOIN".to_owned(), "1".to_owned());
    let compiled = World::new().compile("FROM busybox\nARG VERSION\n", &options);
    let got = compiled.warnings.render(Style::Plain);
    assert!(got.contains("VERSOIN: did you mean VERSION?"), "{got}");
}

#[test]
fn the_wrong_option_of_a_mount_is_shown() {
    assert_snapshot!(error("FROM busybox\nRUN --mount=type=cache,tarjet=/x,id=a make\n"), @r#"
    error[bad-mount]: unexpected key 'tarjet' in 'tarjet=/x' (did you mean target?)
     --> Dockerfile:2:24
      |
    2 | RUN --mount=type=cache,tarjet=/x,id=a make
      |                        ^^^^^^
    "#);
    assert_snapshot!(error("FROM busybox\nRUN --mount=type=cach,target=/x make\n"), @r#"
    error[bad-mount]: unsupported mount type "cach" (did you mean cache?)
     --> Dockerfile:2:18
      |
    2 | RUN --mount=type=cach,target=/x make
      |                  ^^^^
    "#);
}
