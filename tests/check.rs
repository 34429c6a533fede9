//! `rbc build --check`, `--call` and `rbc fmt`, as a user meets them.

mod support;

use support::Bench;

const DOCKERFILE: &str = "# deps has the tools
FROM busybox AS deps
ARG TOOL=make
FROM deps as app
RUN --mount=type=secret,id=key true
";

#[test]
fn checks_print_and_exit() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", DOCKERFILE);
    let run = bench.rbc("build --check c");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("Check complete, 1 warning has been found!"), "{}", run.stdout);
    assert!(run.stdout.contains("warning[FromAsCasing]"), "{}", run.stdout);
    assert!(run.stdout.contains("4 | FROM deps as app"), "{}", run.stdout);

    let run = bench.rbc("build --call=check,format=json c");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let result: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let warning = &result["warnings"][0];
    assert_eq!(warning["ruleName"], "FromAsCasing");
    assert_eq!(warning["location"]["ranges"][0]["start"]["line"], 4);
    assert_eq!(warning["span"]["start"], serde_json::json!({ "line": 4, "character": 10 }));
    assert_eq!(warning["suggestions"][0], "write AS");

    bench.write("c/Dockerfile", DOCKERFILE.replace(" as ", " AS "));
    let run = bench.rbc("build --check c");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stdout, "Check complete, no warnings found.\n");
}

#[test]
fn an_error_is_part_of_the_answer() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUNN x\nCOPY --form=a b c\n");
    let run = bench.rbc("build --check c");
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("did you mean RUN?"), "{}", run.stdout);
    assert!(run.stdout.contains("did you mean --from?"), "{}", run.stdout);
    let run = bench.rbc("build --call=check,format=json c");
    let result: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(result["buildError"]["message"], "unknown instruction: RUNN");
    assert_eq!(run.code, Some(1));
}

#[test]
fn a_missing_file_is_explained() {
    let bench = Bench::new();
    bench.write("c/.dockerignore", "# keys\n\n  *.pem\n");
    bench.write("c/a.pem", "");
    bench.write("c/main.c", "");
    bench.write("c/Dockerfile", "FROM scratch\nCOPY a.pem /\nCOPY mian.c /\nCOPY x.pem /\n");
    let run = bench.rbc("build c");
    assert_eq!(run.code, Some(1));
    for help in [
        "help: line 3 of c/.dockerignore hides it: *.pem",
        "help: did you mean \"main.c\"?",
        "help: the build context is c",
    ] {
        assert!(run.stderr.contains(help), "{}", run.stderr);
    }
    let run = bench.rbc("build --check c");
    assert!(run.stdout.contains("\"*.pem\" in line 3 of .dockerignore"), "{}", run.stdout);
}

#[test]
fn checks_do_without_images() {
    let bench = Bench::new();
    bench.write("c/Dockerfile", "FROM nosuch.invalid/image\nCOPY nosuch /\n");
    let run = bench.rbc("build --check c");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("a base image could not be looked at"), "{}", run.stdout);
}

#[test]
fn targets_and_outline() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", DOCKERFILE);
    let run = bench.rbc("build --call=targets c");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(
        run.stdout,
        "TARGET        DESCRIPTION\ndeps          has the tools\napp (default)\n"
    );
    let run = bench.rbc("build --call outline c");
    assert_eq!(
        run.stdout,
        "TARGET: app\n\nBUILD ARG   VALUE   DESCRIPTION\nTOOL        make\n\nSECRET   REQUIRED\nkey\n\n"
    );
    let run = bench.rbc("build --call outline,format=json --target deps --build-arg TOOL=x c");
    let result: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(result["name"], "deps");
    assert_eq!(result["args"][0]["value"], "x");
    assert_eq!(bench.rbc("build --call lin c").code, Some(2));
}

#[test]
fn formatting_in_place() {
    let bench = Bench::new();
    bench.write("a", "from   busybox\n").write("b", "FROM busybox\n");
    let (a, b) = (bench.path("a"), bench.path("b"));
    let run = bench.rbc(&format!("fmt --check {} {}", a.display(), b.display()));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!(run.stdout, format!("{}\n", a.display()));
    let run = bench.rbc(&format!("fmt {} {}", a.display(), b.display()));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(bench.read("a"), "FROM busybox\n");
}
