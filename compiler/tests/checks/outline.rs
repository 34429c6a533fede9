//! `--call=outline` and `--call=targets`.

use std::{fmt::Write, sync::Arc};

use insta::assert_snapshot;
use rbc_compiler::{outline, syntax::SourceFile};

use crate::rules::options;

const TEXT: &str = "\
# VERSION is what is built
ARG VERSION=1.2
ARG NOT_USED=x
FROM golang:$VERSION AS base
ARG BASE_ARG

# test runs the tests
FROM base AS test
RUN --mount=type=secret,id=other go test

# app is the program
FROM --platform=$BUILDPLATFORM base AS app
# FLAGS go to the compiler
ARG FLAGS=\"-O $VERSION\" VERSION
ENV CACHE=/root/.cache
RUN --mount=type=secret,id=npm,required --mount=type=ssh --mount=type=cache,target=$CACHE go build
RUN --mount=type=secret,id=npm --mount=type=ssh,id=git,required --mount=type=cache,id=c,target=/c x
";

fn source() -> Arc<SourceFile> {
    Arc::new(SourceFile::new("Dockerfile", TEXT))
}

#[test]
fn stages_with_their_descriptions() {
    let mut shown = String::new();
    for target in outline::targets(&source()).unwrap() {
        let line = source().line_column(target.span.start).0;
        let default = if target.is_default { " (default)" } else { "" };
        let _ = writeln!(
            shown,
            "{line} {}{default} from {} {:?} {:?}",
            target.name, target.base, target.platform, target.description
        );
    }
    assert_snapshot!(shown, @r#"
    4 base from golang:$VERSION "" ""
    8 test from base "" "runs the tests"
    12 app (default) from base "$BUILDPLATFORM" "is the program"
    "#);
}

fn shown(target: Option<&str>) -> String {
    let mut options = options();
    options.target = target.map(str::to_owned);
    options.build_args.insert("BASE_ARG".to_owned(), "given".to_owned());
    let outline = outline::outline(&source(), &options).unwrap();
    let mut shown = format!("{}: {}\n", outline.name, outline.description);
    for arg in &outline.args {
        let _ = writeln!(shown, "ARG {} {:?} {:?}", arg.name, arg.value, arg.description);
    }
    for (kind, list) in
        [("secret", outline.secrets), ("ssh", outline.ssh), ("cache", outline.caches)]
    {
        for one in list {
            let _ = writeln!(shown, "{kind} {} {}", one.id, one.required);
        }
    }
    shown
}

#[test]
fn what_a_target_takes() {
    assert_snapshot!(shown(None), @r#"
    app: is the program
    ARG VERSION Some("1.2") "is what is built"
    ARG BASE_ARG Some("given") ""
    ARG FLAGS Some("-O ") "go to the compiler"
    secret npm true
    ssh default false
    ssh git true
    cache /root/.cache false
    cache c false
    "#);
    assert_snapshot!(shown(Some("base")), @r#"
    base: 
    ARG VERSION Some("1.2") "is what is built"
    ARG BASE_ARG Some("given") ""
    "#);
}

#[test]
fn an_unknown_target_is_an_error() {
    let mut options = options();
    options.target = Some("tset".to_owned());
    let error = outline::outline(&source(), &options).unwrap_err().to_string();
    assert!(error.contains("did you mean \"test\"?"), "{error}");
}
