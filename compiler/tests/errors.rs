//! Every error of the front end with the lines and the caret that its reader sees.

use rbc_compiler::{
    instruction,
    syntax::{self, SourceFile},
};

/// What is printed about a Dockerfile that is wrong.
fn errors(text: &str) -> String {
    let file = syntax::parse(SourceFile::new("Dockerfile", text));
    match file.and_then(|file| instruction::parse(&file)) {
        Ok(_) => "no error".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn an_empty_file() {
    insta::assert_snapshot!(errors("# nothing here\n"), @r"
    error[no-instructions]: file with no instructions
     --> Dockerfile:1:1
      |
    1 | # nothing here
      | ^
      |
      = help: a Dockerfile starts with FROM, for example `FROM scratch`
    ");
}

#[test]
fn an_unknown_instruction_is_named_with_the_nearest_one() {
    insta::assert_snapshot!(errors("FROM busybox\nRUNN true\n"), @r"
    error[unknown-instruction]: unknown instruction: RUNN
     --> Dockerfile:2:1
      |
    2 | RUNN true
      | ^^^^
      |
      = help: did you mean RUN?
    ");
}

#[test]
fn text_that_is_no_instruction() {
    insta::assert_snapshot!(errors("FROM busybox\n&& make install\n"), @r"
    error[unknown-instruction]: unknown instruction: &&
     --> Dockerfile:2:1
      |
    2 | && make install
      | ^^
      |
      = help: each line starts with an instruction, such as RUN; end a line with the escape character to continue it on the next
    ");
}

#[test]
fn a_continuation_of_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\n\\\n"), @r"
    error[unknown-instruction]: a continuation line without an instruction
     --> Dockerfile:2:1
      |
    2 | \
      | ^
    ");
}

#[test]
fn a_bad_escape_directive() {
    insta::assert_snapshot!(errors("# escape=x\nFROM busybox\n"), @r#"
    error[bad-escape]: invalid escape token "x"
     --> Dockerfile:1:10
      |
    1 | # escape=x
      |          ^ neither ` nor \
      |
      = help: the escape directive takes a backslash (the default) or a backtick
    "#);
}

#[test]
fn a_directive_given_twice() {
    insta::assert_snapshot!(errors("# syntax=a\n# Syntax=b\nFROM busybox\n"), @r"
    error[duplicate-directive]: only one syntax parser directive can be used
     --> Dockerfile:2:1
      |
    2 | # Syntax=b
      | ^^^^^^^^^^
    ");
}

#[test]
fn an_unterminated_heredoc() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN <<EOF cat\necho x\n  EOF\n"), @r#"
    error[unterminated-heredoc]: unterminated heredoc: no line "EOF" ends it
     --> Dockerfile:2:5
      |
    2 | RUN <<EOF cat
      |     ^^^^^ opened here
      |
      = help: end it with a line that holds only EOF, without space before it
    "#);
}

#[test]
fn an_unknown_flag_is_named_with_the_nearest_one() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY --chwon=1 a /\n"), @r"
    error[unknown-flag]: unknown flag: --chwon
     --> Dockerfile:2:6
      |
    2 | COPY --chwon=1 a /
      |      ^^^^^^^^^
      |
      = help: did you mean --chown?
    ");
}

#[test]
fn an_unknown_flag_that_is_near_to_none() {
    insta::assert_snapshot!(errors("FROM busybox\nADD --from=a /x /y\n"), @r"
    error[unknown-flag]: unknown flag: --from
     --> Dockerfile:2:5
      |
    2 | ADD --from=a /x /y
      |     ^^^^^^^^
      |
      = help: ADD takes --chown, --chmod, --link, --keep-git-dir, --checksum, --unpack, --exclude
    ");
}

#[test]
fn a_flag_of_an_instruction_without_flags() {
    insta::assert_snapshot!(errors("FROM busybox\nUSER --x root\n"), @r"
    error[unknown-flag]: unknown flag: --x
     --> Dockerfile:2:6
      |
    2 | USER --x root
      |      ^^^
      |
      = help: USER takes no flags
    ");
}

#[test]
fn a_flag_given_twice() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY --chown=1 --chown=2 a /\n"), @r"
    error[duplicate-flag]: duplicate flag specified: --chown
     --> Dockerfile:2:16
      |
    2 | COPY --chown=1 --chown=2 a /
      |                ^^^^^^^^^ given before
    ");
}

#[test]
fn a_flag_without_value() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY --chown a /\n"), @r"
    error[flag-value]: missing a value on flag: --chown
     --> Dockerfile:2:6
      |
    2 | COPY --chown a /
      |      ^^^^^^^
      |
      = help: write --chown=VALUE, without spaces
    ");
}

#[test]
fn a_switch_with_another_value() {
    insta::assert_snapshot!(errors("FROM busybox\nADD --unpack=maybe f /dst/\n"), @r"
    error[flag-value]: expecting boolean value for flag --unpack, not: maybe
     --> Dockerfile:2:5
      |
    2 | ADD --unpack=maybe f /dst/
      |     ^^^^^^^^^^^^^^
      |
      = help: use true or false
    ");
}

#[test]
fn copy_with_one_word() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY a\n"), @r"
    error[missing-destination]: COPY requires at least two arguments, but only one was provided. Destination could not be determined
     --> Dockerfile:2:6
      |
    2 | COPY a
      |      ^
      |
      = help: write `COPY SOURCE… DESTINATION`
    ");
}

#[test]
fn add_with_no_word() {
    insta::assert_snapshot!(errors("FROM busybox\nADD\n"), @r"
    error[missing-destination]: ADD requires at least two arguments
     --> Dockerfile:2:1
      |
    2 | ADD
      | ^^^
      |
      = help: write `ADD SOURCE… DESTINATION`
    ");
}

#[test]
fn a_heredoc_as_destination() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY a <<EOF\nEOF\n"), @r"
    error[heredoc-destination]: COPY cannot accept a heredoc as a destination
     --> Dockerfile:2:8
      |
    2 | COPY a <<EOF
      |        ^^^^^
    ");
}

#[test]
fn from_without_image() {
    insta::assert_snapshot!(errors("FROM\n"), @r"
    error[from-arguments]: FROM requires either one or three arguments
     --> Dockerfile:1:1
      |
    1 | FROM
      | ^^^^
      |
      = help: write `FROM IMAGE` or `FROM IMAGE AS NAME`
    ");
}

#[test]
fn from_with_another_word() {
    insta::assert_snapshot!(errors("FROM busybox foo bar\n"), @r"
    error[from-arguments]: FROM requires either one or three arguments
     --> Dockerfile:1:6
      |
    1 | FROM busybox foo bar
      |      ^^^^^^^^^^^^^^^
      |
      = help: write `FROM IMAGE` or `FROM IMAGE AS NAME`
    ");
}

#[test]
fn a_bad_stage_name() {
    insta::assert_snapshot!(errors("FROM busybox AS a/b\n"), @r#"
    error[stage-name]: invalid name for build stage: "a/b"
     --> Dockerfile:1:17
      |
    1 | FROM busybox AS a/b
      |                 ^^^
      |
      = help: a stage's name starts with a letter and holds letters, digits, hyphens, underscores and dots
    "#);
}

#[test]
fn env_without_value() {
    insta::assert_snapshot!(errors("FROM busybox\nENV A\n"), @r"
    error[missing-value]: ENV must have two arguments
     --> Dockerfile:2:5
      |
    2 | ENV A
      |     ^ a name without a value
      |
      = help: write `ENV A=VALUE`
    ");
}

#[test]
fn env_with_an_unquoted_space() {
    insta::assert_snapshot!(errors("FROM busybox\nENV A=one two B=3\n"), @r#"
    error[missing-value]: ENV: can't find = in "two": must be of the form name=value
     --> Dockerfile:2:11
      |
    2 | ENV A=one two B=3
      |           ^^^
      |
      = help: quote a value that holds spaces: name="two words"
    "#);
}

#[test]
fn env_with_a_blank_name() {
    insta::assert_snapshot!(errors("FROM busybox\nENV =x\n"), @r"
    error[blank-name]: ENV names can not be blank
     --> Dockerfile:2:6
      |
    2 | ENV =x
      |      ^ the value of no name
    ");
}

#[test]
fn label_with_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\nLABEL\n"), @r"
    error[missing-argument]: LABEL requires at least one argument
     --> Dockerfile:2:1
      |
    2 | LABEL
      | ^^^^^
    ");
}

#[test]
fn arg_with_nothing() {
    insta::assert_snapshot!(errors("ARG\nFROM busybox\n"), @r"
    error[missing-argument]: ARG requires at least one argument
     --> Dockerfile:1:1
      |
    1 | ARG
      | ^^^
    ");
}

#[test]
fn arg_with_a_blank_name() {
    insta::assert_snapshot!(errors("ARG =x\nFROM busybox\n"), @r"
    error[blank-name]: ARG names can not be blank
     --> Dockerfile:1:5
      |
    1 | ARG =x
      |     ^^ no name before =
    ");
}

#[test]
fn workdir_with_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\nWORKDIR\n"), @r"
    error[missing-argument]: WORKDIR requires exactly one argument
     --> Dockerfile:2:1
      |
    2 | WORKDIR
      | ^^^^^^^
    ");
}

#[test]
fn stopsignal_with_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\nSTOPSIGNAL\n"), @r"
    error[missing-argument]: STOPSIGNAL requires exactly one argument
     --> Dockerfile:2:1
      |
    2 | STOPSIGNAL
      | ^^^^^^^^^^
    ");
}

#[test]
fn expose_with_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\nEXPOSE\n"), @r"
    error[missing-argument]: EXPOSE requires at least one argument
     --> Dockerfile:2:1
      |
    2 | EXPOSE
      | ^^^^^^
    ");
}

#[test]
fn an_empty_volume() {
    insta::assert_snapshot!(errors("FROM busybox\nVOLUME [\"/a\", \" \"]\n"), @r#"
    error[empty-volume]: VOLUME specified can not be an empty string
     --> Dockerfile:2:16
      |
    2 | VOLUME ["/a", " "]
      |                ^
    "#);
}

#[test]
fn shell_that_is_not_json() {
    insta::assert_snapshot!(errors("FROM busybox\nSHELL bash -c\n"), @r#"
    error[shell-not-json]: SHELL requires the arguments to be in JSON form
     --> Dockerfile:2:7
      |
    2 | SHELL bash -c
      |       ^^^^^^^
      |
      = help: for example `SHELL ["/bin/bash", "-c"]`
    "#);
}

#[test]
fn a_json_array_with_more_than_strings() {
    insta::assert_snapshot!(errors("FROM busybox\nCMD [\"sleep\", 10]\n"), @r#"
    error[json-not-strings]: when using JSON array syntax, arrays must be comprised of strings only
     --> Dockerfile:2:15
      |
    2 | CMD ["sleep", 10]
      |               ^^ not a string
      |
      = help: put it in double quotes
    "#);
}

#[test]
fn an_unknown_network() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN --network=moon true\n"), @r#"
    error[bad-network]: invalid network mode "moon"
     --> Dockerfile:2:15
      |
    2 | RUN --network=moon true
      |               ^^^^
      |
      = help: use default, none or host
    "#);
}

#[test]
fn an_unknown_security_mode() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN --security=lax true\n"), @r#"
    error[bad-security]: security "lax" is not valid
     --> Dockerfile:2:16
      |
    2 | RUN --security=lax true
      |                ^^^
      |
      = help: use sandbox or insecure
    "#);
}

#[test]
fn a_variable_in_from_of_a_mount() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN --mount=type=cache,from=$X,target=/x \\\n    true\n"), @r"
    error[bad-mount]: 'from' doesn't support variable expansion, define alias stage instead
     --> Dockerfile:2:24
      |
    2 | RUN --mount=type=cache,from=$X,target=/x \
      |                        ^^^^^^^
    ");
}

#[test]
fn malformed_mount_options() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN --mount=a\\\"b true\n"), @r#"
    error[bad-mount]: failed to parse comma-separated options: a quote inside a field that is not quoted
     --> Dockerfile:2:5
      |
    2 | RUN --mount=a\"b true
      |     ^^^^^^^^^^^^
    "#);
}

#[test]
fn a_device_named_twice() {
    insta::assert_snapshot!(errors("FROM busybox\nRUN --device=a,name=b true\n"), @r"
    error[bad-device]: device name already set to a
     --> Dockerfile:2:14
      |
    2 | RUN --device=a,name=b true
      |              ^^^^^^^^
    ");
}

#[test]
fn a_healthcheck_of_unknown_type() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK FOO\n"), @r#"
    error[healthcheck-type]: Unknown type "FOO" in HEALTHCHECK (try CMD)
     --> Dockerfile:2:13
      |
    2 | HEALTHCHECK FOO
      |             ^^^
      |
      = help: write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`
    "#);
}

#[test]
fn a_healthcheck_without_command() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK CMD\n"), @r"
    error[missing-argument]: Missing command after HEALTHCHECK CMD
     --> Dockerfile:2:13
      |
    2 | HEALTHCHECK CMD
      |             ^^^
    ");
}

#[test]
fn healthcheck_none_with_a_command() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK NONE true\n"), @r"
    error[healthcheck-none]: HEALTHCHECK NONE takes no arguments
     --> Dockerfile:2:18
      |
    2 | HEALTHCHECK NONE true
      |                  ^^^^
    ");
}

#[test]
fn a_healthcheck_with_a_bad_duration() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK --interval=abc CMD x\n"), @r#"
    error[bad-duration]: --interval: invalid duration "abc"
     --> Dockerfile:2:24
      |
    2 | HEALTHCHECK --interval=abc CMD x
      |                        ^^^
      |
      = help: a duration is a number with a unit, such as 30s, 1m30s or 250ms
    "#);
}

#[test]
fn a_healthcheck_with_a_tiny_duration() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK --timeout=1us CMD x\n"), @r#"
    error[bad-duration]: interval "timeout" cannot be less than 1ms
     --> Dockerfile:2:23
      |
    2 | HEALTHCHECK --timeout=1us CMD x
      |                       ^^^
    "#);
}

#[test]
fn a_healthcheck_with_bad_retries() {
    insta::assert_snapshot!(errors("FROM busybox\nHEALTHCHECK --retries=-1 CMD x\n"), @r"
    error[bad-retries]: --retries cannot be negative (-1)
     --> Dockerfile:2:23
      |
    2 | HEALTHCHECK --retries=-1 CMD x
      |                       ^^
    ");
}

#[test]
fn onbuild_with_nothing() {
    insta::assert_snapshot!(errors("FROM busybox\nONBUILD\n"), @r"
    error[missing-argument]: ONBUILD requires at least one argument
     --> Dockerfile:2:1
      |
    2 | ONBUILD
      | ^^^^^^^
    ");
}

#[test]
fn onbuild_of_from() {
    insta::assert_snapshot!(errors("FROM busybox\nONBUILD FROM x\n"), @r"
    error[bad-trigger]: FROM isn't allowed as an ONBUILD trigger
     --> Dockerfile:2:9
      |
    2 | ONBUILD FROM x
      |         ^^^^ this instruction
    ");
}

#[test]
fn onbuild_of_onbuild() {
    insta::assert_snapshot!(errors("FROM busybox\nONBUILD ONBUILD RUN true\n"), @r"
    error[bad-trigger]: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed
     --> Dockerfile:2:9
      |
    2 | ONBUILD ONBUILD RUN true
      |         ^^^^^^^ this instruction
    ");
}

#[test]
fn a_trigger_of_bad_form() {
    insta::assert_snapshot!(errors("FROM busybox\nONBUILD ENV A\n"), @r"
    error[missing-value]: ENV must have two arguments
     --> Dockerfile:2:13
      |
    2 | ONBUILD ENV A
      |             ^ a name without a value
      |
      = help: write `ENV A=VALUE`
    ");
}

#[test]
fn the_caret_finds_a_word_behind_continuations() {
    insta::assert_snapshot!(errors("FROM busybox\nCOPY --link \\\n  # a comment\n\n  --chwon=é:1 a /\n"), @r"
    error[unknown-flag]: unknown flag: --chwon
     --> Dockerfile:5:3
      |
    5 |   --chwon=é:1 a /
      |   ^^^^^^^^^^^
      |
      = help: did you mean --chown?
    ");
}

#[test]
fn each_wrong_instruction_is_reported() {
    insta::assert_snapshot!(errors("FROM busybox AS 1\nRUN true\nCPY a b\nWORKDIR\n"), @r#"
    error[stage-name]: invalid name for build stage: "1"
     --> Dockerfile:1:17
      |
    1 | FROM busybox AS 1
      |                 ^
      |
      = help: a stage's name starts with a letter and holds letters, digits, hyphens, underscores and dots

    error[unknown-instruction]: unknown instruction: CPY
     --> Dockerfile:3:1
      |
    3 | CPY a b
      | ^^^
      |
      = help: did you mean COPY?

    error[missing-argument]: WORKDIR requires exactly one argument
     --> Dockerfile:4:1
      |
    4 | WORKDIR
      | ^^^^^^^
    "#);
}

#[test]
fn lines_that_are_longer_than_buildkit_reads() {
    let label = |length: usize| format!("FROM scratch\nLABEL a={}\n", "x".repeat(length - 8));
    assert_eq!(errors(&label(65_535)), "no error");
    let told = errors(&label(65_536));
    assert!(told.starts_with("error[line-too-long]: a line of 65536 bytes; 65535 is the most\n"));
    assert!(told.contains("--> Dockerfile:2:1"), "{told}");
    assert!(told.len() < 2_000);
    let heredoc = format!("FROM scratch\nCOPY <<A /a\n{}\nA\n", "x".repeat(70_000));
    assert!(errors(&heredoc).contains("--> Dockerfile:3:1"));
}
