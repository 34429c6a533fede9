//! Early cutoff with compilers as they are: what they make of a source with another comment is the
//! same program, and no later stage is built again.

mod support;

use support::{
    Bench, Run,
    output::Oci,
    toolchain::{c_compiler, golang},
};

/// Builds the folder `c` with `options`.
fn build(bench: &Bench, options: &str) -> Run {
    bench.rbc(&format!("build --progress plain {options} c")).ok()
}

/// The names of the steps that were executed.
fn executed(bench: &Bench) -> Vec<String> {
    let run = build(bench, "");
    let lines = || run.stderr.lines().filter_map(|line| line.split_once(' '));
    let numbers = lines().filter(|(_, rest)| rest.starts_with("DONE ")).map(|(number, _)| number);
    let numbers: Vec<&str> = numbers.collect();
    let names = lines().filter(|(number, rest)| numbers.contains(number) && rest.starts_with('['));
    let after = |name: &str| name.split_once("] ").map(|(_, name)| name.to_owned());
    names.filter_map(|(_, name)| after(name)).filter(|name| !name.starts_with("FROM")).collect()
}

/// What the image of the folder `c` holds, once with this cache and once with none.
fn same_as_cold(bench: &Bench, cold: &Bench) {
    for bench in [bench, cold] {
        build(bench, "-o type=oci,dest=out.tar");
    }
    let manifest = |bench: &Bench| Oci::read(&bench.path("out.tar")).manifest;
    assert_eq!(manifest(bench), manifest(cold), "no cache shows in an image");
}

const GO: &str = "FROM golang AS build
WORKDIR /work
COPY main.go .
RUN --mount=type=cache,target=/root/.cache/go-build \\
    CGO_ENABLED=0 go build -trimpath -ldflags=-buildid= -o /out/app main.go && date +%N > /log
FROM busybox
COPY --from=build /out/app /bin/app
RUN app 2> /said
";

fn go_source(comment: &str, text: &str) -> String {
    format!("// {comment}\npackage main\n\nfunc main() {{ println(\"{text}\") }}\n")
}

#[test]
fn a_comment_in_a_go_source_ends_at_the_program() {
    let bench = Bench::with_busybox();
    bench.load(&golang(), "golang:latest");
    bench.write("c/Dockerfile", GO).write("c/main.go", go_source("One.", "hello"));
    executed(&bench);
    assert_eq!(executed(&bench), [""; 0]);
    bench.write("c/main.go", go_source("Another comment.", "hello"));
    let again = executed(&bench);
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again[0].starts_with("COPY main.go") && again[1].contains("go build"), "{again:?}");
    let told = bench.rbc("explain").ok().stdout;
    assert!(told.contains("main.go changed: "), "{told}");
    bench.write("c/main.go", go_source("Another comment.", "bye"));
    let again = executed(&bench);
    assert_eq!(again.len(), 4, "{again:?}");
    build(&bench, "-o type=oci,dest=out.tar");
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/said"), "bye\n");
}

const C: &str = "FROM gcc AS build
COPY src /src
RUN --mount=type=bind,source=version,target=/version \\
    mkdir /out && gcc -O2 -static -o /out/app-$(cat /version) /src/main.c && gcc -M /src/main.c > /out/deps
FROM busybox
COPY --from=build /out/app-* /bin/app
RUN app > /said
FROM busybox
COPY --from=1 /said /said
RUN --mount=type=bind,from=build,source=/out/deps,target=/deps grep -c stdio /deps > /count
";

fn c_source(comment: &str, text: &str) -> String {
    format!(
        "/* {comment} */\n#include <stdio.h>\nint main(void) {{ puts(\"{text}\"); return 0; }}\n"
    )
}

#[test]
fn comments_names_and_base_images_that_do_not_matter_to_c_programs() {
    let with_sources = |comment: &str, text: &str, version: &str, base: &str| {
        let bench = Bench::with_busybox();
        bench.load(&c_compiler(&["stdio.h"]), "toolchain:latest");
        bench.write("base/Dockerfile", "FROM toolchain\nCOPY release /etc/\n");
        bench.write("base/release", base);
        bench.rbc("build -q -t gcc base").ok();
        bench.write("c/Dockerfile", C).write("c/src/main.c", c_source(comment, text));
        bench.write("c/version", version);
        bench
    };
    let bench = with_sources("One.", "hello", "1.0", "12.1");
    executed(&bench);
    assert_eq!(executed(&bench), [""; 0]);

    bench.write("c/src/main.c", c_source("Two.", "hello"));
    let again = executed(&bench);
    assert!(again.len() == 2 && again[1].contains("gcc -O2"), "a comment: {again:?}");

    bench.write("c/version", "1.1");
    let again = executed(&bench);
    assert!(again.len() == 1 && again[0].contains("gcc -O2"), "a name behind *: {again:?}");

    bench.write("base/release", "12.2");
    bench.rbc("build -q -t gcc base").ok();
    let again = executed(&bench);
    assert!(again.len() == 2 && again[1].contains("gcc -O2"), "another base image: {again:?}");
    same_as_cold(&bench, &with_sources("Two.", "hello", "1.1", "12.2"));

    bench.write("c/src/main.c", c_source("Two.", "hi!"));
    let again = executed(&bench);
    assert_eq!(again.len(), 6, "another program: {again:?}");
    same_as_cold(&bench, &with_sources("Two.", "hi!", "1.1", "12.2"));
}
