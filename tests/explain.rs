//! `rbc explain`, `rbc diff` and the line in the progress view: which step missed first, and why.

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use support::Bench;

const DOCKERFILE: &str = "FROM busybox
ARG VERSION=1
COPY src /src
RUN echo $VERSION > /version
RUN cat /version
";

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", DOCKERFILE);
    bench.write("c/src/a.txt", "a").write("c/src/b.txt", "b");
    bench.rbc("build c").ok();
    bench
}

/// What the progress view says of the first miss. `explain` must say the same afterwards.
fn first_miss(bench: &Bench, options: &str) -> String {
    let run = bench.rbc(&format!("build --progress plain {options} c")).ok();
    let line = run.stderr.lines().find_map(|line| line.strip_prefix("first miss: "));
    let line = line.unwrap_or_else(|| panic!("no such line:\n{}", run.stderr)).to_owned();
    let explained = bench.rbc("explain").ok().stdout;
    let causes = explained.lines().skip_while(|line| !line.starts_with("first miss: ")).skip(1);
    let causes: Vec<&str> = causes.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(line.ends_with(&format!(": {}", causes.join("; "))), "{line}\nbut\n{explained}");
    line
}

#[test]
fn a_changed_file_is_named_with_its_digests() {
    let bench = bench();
    bench.write("c/src/b.txt", "changed");
    insta::assert_snapshot!(first_miss(&bench, ""), @"#2 [2/4] COPY src /src: src/b.txt changed: 3e23e8160039 → d67e2e944994");
    let explained = bench.rbc("explain").ok().stdout;
    assert!(
        explained.contains("first miss: #2 [2/4] COPY src /src (c/Dockerfile:3): ran"),
        "{explained}"
    );
    assert!(explained.contains("follows from #2 [2/4] COPY src /src"), "{explained}");
    let json = bench.rbc("explain --format json").ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let cause = &json["first"]["causes"][0];
    assert_eq!(cause["kind"], "files");
    assert_eq!(cause["changes"][0]["path"], "src/b.txt");
    assert_eq!(
        cause["changes"][0]["change"]["old"],
        format!("sha256:{}", support::image::sha256(b"b"))
    );
    assert_eq!(json["steps"].as_array().unwrap().len(), 3);
}

#[test]
fn added_removed_and_other_changes_of_files_are_told_apart() {
    let bench = bench();
    bench.write("c/src/new", "n");
    fs::remove_file(bench.path("c/src/a.txt")).unwrap();
    fs::set_permissions(bench.path("c/src/b.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    insta::assert_snapshot!(first_miss(&bench, ""), @"#2 [2/4] COPY src /src: src/a.txt removed (ca978112ca1b), src/b.txt mode changed: 0644 → 0755, src/new added (1b16b1df538b)");
}

#[test]
fn an_edited_instruction_is_shown_before_and_after() {
    let bench = bench();
    bench.write("c/Dockerfile", DOCKERFILE.replace("cat /version", "cat /version /version"));
    insta::assert_snapshot!(first_miss(&bench, ""), @r#"#4 [4/4] RUN cat /version /version: instruction changed from "RUN cat /version" to "RUN cat /version /version""#);
}

#[test]
fn an_argument_is_named() {
    let bench = bench();
    // The first RUN after an ARG sees it.
    insta::assert_snapshot!(first_miss(&bench, "--build-arg VERSION=2"), @r#"#3 [3/4] RUN echo 2 > /version: VERSION changed from "1" to "2""#);
}

#[test]
fn another_base_image_is_named() {
    let bench = bench();
    let mut image = support::image::busybox();
    image.config["config"]["Env"] = serde_json::json!(["PATH=/bin", "NEW=1"]);
    bench.load(&image, "busybox:latest");
    let line = first_miss(&bench, "");
    assert!(line.starts_with("#1 [1/4] FROM docker.io/library/busybox"), "{line}");
    assert!(line.contains("base image docker.io/library/busybox:latest changed: "), "{line}");
}

#[test]
fn no_cache_is_named_and_what_follows_is_not_taken_for_it() {
    let bench = bench();
    let line = first_miss(&bench, "--no-cache");
    assert!(line.ends_with("the cache was not to be used (--no-cache)"), "{line}");
}

#[test]
fn a_new_step_and_a_first_build_are_told() {
    let bench = bench();
    bench.write("c/Dockerfile", format!("{DOCKERFILE}RUN echo more\n"));
    let line = first_miss(&bench, "");
    assert!(line.contains("RUN echo more: a new step"), "{line}");
    bench.write("d/Dockerfile", "FROM busybox\nRUN echo other\n");
    let run = bench.rbc("build --progress plain d").ok();
    assert!(
        run.stderr.contains("first miss: #2 [2/2] RUN echo other: never built before"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_removed_result_and_a_failed_step_are_told() {
    let bench = bench();
    for layer in fs::read_dir(bench.root().join("layers")).unwrap().flatten() {
        if !layer.file_name().to_string_lossy().starts_with("diff-") {
            fs::remove_dir_all(layer.path()).unwrap();
        }
    }
    let line = first_miss(&bench, "");
    assert!(line.contains("COPY src /src: its result was removed from the cache"), "{line}");
    bench.write("c/Dockerfile", format!("{DOCKERFILE}RUN test -e /dev/full/x\n"));
    bench.rbc("build c").fails(1, "exit code: 1");
    let run = bench.rbc("build --progress plain c").fails(1, "exit code: 1");
    assert!(run.stderr.contains("it failed in the earlier build"), "{}", run.stderr);
}

#[test]
fn a_change_that_makes_no_difference_is_told_as_such() {
    let bench = Bench::with_busybox();
    let dockerfile = "FROM busybox AS build\nCOPY a /a\nRUN head -c1 /a > /out\nFROM busybox\nCOPY --from=build /out /out\n";
    bench.write("c/Dockerfile", dockerfile).write("c/a", "x1");
    bench.rbc("build c").ok();
    bench.write("c/a", "x2");
    bench.rbc("build c").ok();
    let explained = bench.rbc("explain").ok().stdout;
    assert!(explained.contains("cached: inputs have the same content"), "{explained}");
    assert!(explained.contains("a changed: "), "{explained}");
}

#[test]
fn a_build_without_misses_says_so_and_has_no_line() {
    let bench = bench();
    let run = bench.rbc("build --progress plain c").ok();
    assert!(!run.stderr.contains("first miss"), "{}", run.stderr);
    let explained = bench.rbc("explain").ok().stdout;
    assert!(explained.contains("every step was in the cache"), "{explained}");
    let json: Vec<serde_json::Value> = bench
        .rbc("build --progress rawjson --no-cache c")
        .ok()
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(json.iter().any(|event| event["event"] == "first_miss" && event["step"] == 2));
}

#[test]
fn two_graphs_are_compared() {
    let bench = bench();
    bench.rbc("compile -o old.bin --context c c/Dockerfile").ok();
    bench.write("c/src/a.txt", "other");
    bench.write("c/Dockerfile", DOCKERFILE.replace("RUN cat /version\n", ""));
    bench.rbc("compile -o new.bin --context c c/Dockerfile").ok();
    let explained = bench.rbc("explain --graph old.bin new.bin").ok().stdout;
    assert!(explained.contains("src/a.txt changed: ca978112ca1b → d9298a10d1b0"), "{explained}");
    assert!(!explained.contains("FROM"), "{explained}");
    let diff = bench.rbc("diff old.bin new.bin").ok().stdout;
    assert!(diff.lines().any(|l| l.starts_with("- ") && l.contains("RUN cat /version")), "{diff}");
    assert!(diff.lines().any(|l| l.starts_with("~ ") && l.contains("COPY src /src")), "{diff}");
    let json = bench.rbc("diff --format json --exit-code old.bin new.bin");
    assert_eq!(json.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["removed"].as_array().unwrap().len(), 1);
    bench.rbc("diff --exit-code old.bin old.bin").ok();
    bench.rbc("explain --graph old.bin missing.bin").fails(1, "cannot read the graph");
}

#[test]
fn only_what_lies_in_the_step_is_told_if_its_inputs_are_cached() {
    let bench = Bench::with_busybox();
    let dockerfile = "FROM busybox
ARG WHICH=a
COPY $WHICH /w
ENV LEVEL=1
RUN <<X
echo one
echo $LEVEL
X
";
    bench.write("c/Dockerfile", dockerfile).write("c/a", "a").write("c/b", "b");
    bench.rbc("build c").ok();
    insta::assert_snapshot!(first_miss(&bench, "--build-arg WHICH=b"), @r#"#2 [2/3] COPY b /w: source changed from "a" to "b""#);
    // Back to what is cached, but for one variable.
    bench.write("c/Dockerfile", dockerfile.replace("LEVEL=1", "LEVEL=2"));
    let line = first_miss(&bench, "");
    assert!(line.contains("LEVEL changed from \"1\" to \"2\""), "{line}");
    assert!(!line.contains("COPY"), "{line}");
    bench.write("c/Dockerfile", dockerfile.replace("echo one", "echo two"));
    let line = first_miss(&bench, "");
    assert!(line.contains("instruction changed from \"echo one\" to \"echo two\""), "{line}");
    let line = first_miss(&bench, "--network none");
    assert!(line.ends_with(": network changed from \"default\" to \"none\""), "{line}");
}

#[test]
fn a_stage_made_anew_that_came_out_the_same_is_told_from_another_process() {
    let bench = Bench::with_busybox();
    let dockerfile = "FROM busybox AS b\nRUN echo text > /o\nFROM scratch\nCOPY --from=b /o /o\n";
    bench.write("c/Dockerfile", dockerfile);
    bench.rbc("build c").ok();
    bench.rbc("build --no-cache-filter b c").ok();
    let explained = bench.rbc("explain").ok().stdout;
    let copy = explained.lines().find(|line| line.contains("COPY --from")).unwrap_or_default();
    assert!(copy.ends_with("cached: inputs have the same content"), "{explained}");
    assert!(explained.contains("the cache was not to be used (--no-cache)"), "{explained}");
}
