//! How findings look, and that the caret stands under the word that is meant.

use insta::assert_snapshot;

use crate::rules::{checked, options};

fn rendered(text: &str) -> String {
    let found = checked(text, &options()).findings;
    let shown: Vec<String> = found.iter().map(|finding| finding.diagnostic.to_string()).collect();
    shown.join("\n\n")
}

#[test]
fn names_and_keywords() {
    assert_snapshot!(rendered("FROM busybox as Build\nrun make\n"), @r#"
    warning[FromAsCasing]: 'as' and 'FROM' keywords' casing do not match
     --> Dockerfile:1:14
      |
    1 | FROM busybox as Build
      |              ^^
      |
      = help: write AS

    warning[StageNameCasing]: Stage name 'Build' should be lowercase
     --> Dockerfile:1:17
      |
    1 | FROM busybox as Build
      |                 ^^^^^
      |
      = help: write build

    warning[ConsistentInstructionCasing]: Command 'run' should match the case of the command majority (uppercase)
     --> Dockerfile:2:1
      |
    2 | run make
      | ^^^
      |
      = help: write RUN
    "#);
}

#[test]
fn variables() {
    let text = "ARG TAG=1\nFROM a:${TAGG:-1}\nARG VERSION\nLABEL one=1 v=\"v${VERSOIN}\" x=$NONE\n";
    assert_snapshot!(rendered(text), @r#"
    warning[UndefinedArgInFrom]: FROM argument 'TAGG' is not declared (did you mean TAG?)
     --> Dockerfile:2:8
      |
    2 | FROM a:${TAGG:-1}
      |        ^^^^^^
      |
      = help: write ${TAG}

    warning[UndefinedVar]: Usage of undefined variable '$VERSOIN'
     --> Dockerfile:4:17
      |
    4 | LABEL one=1 v="v${VERSOIN}" x=$NONE
      |                 ^^^^^^^^^^
      |
      = help: did you mean $VERSION, which has no value yet?

    warning[UndefinedVar]: Usage of undefined variable '$NONE'
     --> Dockerfile:4:31
      |
    4 | LABEL one=1 v="v${VERSOIN}" x=$NONE
      |                               ^^^^^
      |
      = help: declare it in this stage: `ARG NONE`, or set it with ENV
    "#);
}

#[test]
fn command_lines() {
    assert_snapshot!(rendered("FROM a\nCMD nginx -g daemon\nENTRYPOINT exec \"$@\"\n"), @r#"
    warning[JSONArgsRecommended]: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
     --> Dockerfile:2:5
      |
    2 | CMD nginx -g daemon
      |     ^^^^^^^^^^^^^^^
      |
      = help: write `CMD ["nginx", "-g", "daemon"]`

    warning[JSONArgsRecommended]: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals
     --> Dockerfile:3:12
      |
    3 | ENTRYPOINT exec "$@"
      |            ^^^^^^^^^
      |
      = help: write `ENTRYPOINT ["program", "argument"]`
    "#);
}

#[test]
fn own_rules() {
    let text = "FROM golang AS tools\nFROM node\nENV NPM=npm_abcdefghijklmnopqrstuvwxyz0123456789\n\
                COPY . .\nRUN apt-get update && apt-get install -y gcc\n";
    assert_snapshot!(rendered(text), @r#"
    warning[StageNeverUsed]: No stage uses the stage "tools"
     --> Dockerfile:1:16
      |
    1 | FROM golang AS tools
      |                ^^^^^
      |
      = help: remove it, or put a comment `# tools DESCRIPTION` above it if it is meant for --target

    warning[SecretValueInArgOrEnv]: The value of ENV NPM looks like an npm token
     --> Dockerfile:3:9
      |
    3 | ENV NPM=npm_abcdefghijklmnopqrstuvwxyz0123456789
      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: pass it with `RUN --mount=type=secret,id=…` and `rbc build --secret`, and revoke it if the file was shared

    warning[ContextCopiedBeforeInstall]: All of the context is copied before `apt-get update` (line 5), which runs again whenever any file changes
     --> Dockerfile:4:6
      |
    4 | COPY . .
      |      ^
      |
      = help: copy only what it reads first, and the rest behind it
    "#);
}
