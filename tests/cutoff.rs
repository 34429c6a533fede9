//! Early cutoff: a step that ran again but made the same leaves what is built on it cached.

mod support;

use support::{Bench, output::Oci};

/// Builds the folder `c` and gives how many steps were executed.
fn executed(bench: &Bench) -> usize {
    bench.rbc("build --progress plain c").ok().done()
}

/// A bench on which the Dockerfile was built once and nothing is left to do.
fn built(dockerfile: &str, files: &[(&str, &str)]) -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", dockerfile);
    for (name, text) in files {
        bench.write(&format!("c/{name}"), text);
    }
    executed(&bench);
    assert_eq!(executed(&bench), 0);
    bench
}

/// The program of the builder stage is what its source says without comments.
const COMPILED: &str = "FROM busybox AS build
COPY main.src /src/
RUN mkdir /out && grep -v '^#' /src/main.src > /out/app && date +%N > /log
FROM busybox
RUN echo first
COPY --from=build /out/app /app
RUN cp /app /copied
";

#[test]
fn a_comment_in_the_source_ends_at_the_program() {
    let bench = built(COMPILED, &[("main.src", "# one\nprogram\n")]);
    bench.write("c/main.src", "# another\nprogram\n");
    let again = bench.rbc("build --progress plain -o type=oci,dest=warm.tar c").ok();
    assert_eq!(again.done(), 2, "COPY main.src and RUN grep:\n{}", again.stderr);
    let cold = Bench::with_busybox();
    cold.write("c/Dockerfile", COMPILED).write("c/main.src", "# another\nprogram\n");
    cold.rbc("build -o type=oci,dest=cold.tar c").ok();
    let (warm, cold) = (bench.path("warm.tar"), cold.path("cold.tar"));
    assert_eq!(Oci::read(&warm).manifest, Oci::read(&cold).manifest, "no cache shows in an image");
    assert_eq!(executed(&bench), 0, "the new source is known now");
}

#[test]
fn another_program_misses_all_that_follows() {
    let bench = built(COMPILED, &[("main.src", "# one\nprogram\n")]);
    bench.write("c/main.src", "# one\nprogrAm\n");
    assert_eq!(executed(&bench), 4, "all but the base and RUN echo");
    bench.write("c/main.src", "# two\nprogram\n");
    assert_eq!(executed(&bench), 2, "the first program is still known");
}

#[test]
fn mode_and_owner_are_content() {
    for change in ["chmod 700 /out/app", "chown 5:5 /out/app"] {
        let bench = built(
            "FROM busybox AS build
COPY how /how
RUN mkdir /out && echo program > /out/app && sh /how
FROM scratch
COPY --from=build /out/app /app
",
            &[("how", "true # as it is\n")],
        );
        bench.write("c/how", "true # in another way\n");
        assert_eq!(executed(&bench), 2);
        bench.write("c/how", change);
        assert_eq!(executed(&bench), 3, "{change}");
    }
}

#[test]
fn a_rename_behind_a_wildcard_counts_only_where_the_name_shows() {
    let dockerfile = "FROM busybox AS build
COPY version /version
RUN mkdir /out && echo program > /out/app-$(cat /version)
FROM busybox
COPY --from=build /out/app-* DEST
RUN ls /bin
";
    let names = |dest: &str| {
        let bench = built(&dockerfile.replace("DEST", dest), &[("version", "1.0")]);
        bench.write("c/version", "1.1");
        executed(&bench)
    };
    assert_eq!(names("/bin/app"), 2);
    assert_eq!(names("/new/"), 4);
    assert_eq!(names("/tmp"), 4, "a folder of the base image");
}

#[test]
fn a_base_image_that_changed_elsewhere_does_not_matter() {
    let bench = Bench::with_busybox();
    bench.write("base/Dockerfile", "FROM busybox\nCOPY . /data/\n");
    bench.write("base/certs/a.pem", "a").write("base/other", "1");
    bench.rbc("build -t base base").ok();
    bench.write(
        "c/Dockerfile",
        "FROM busybox
COPY --from=base /data/certs /certs
RUN --mount=type=bind,from=base,source=/data/certs,target=/mnt cat /mnt/* > /all
RUN cat /all
",
    );
    executed(&bench);
    assert_eq!(executed(&bench), 0);
    bench.write("base/other", "2");
    bench.rbc("build -t base base").ok();
    let again = bench.rbc("build --progress plain c").ok();
    assert!(again.done() <= 1, "at most the new base image:\n{}", again.stderr);
    bench.write("base/certs/a.pem", "b");
    bench.rbc("build -t base base").ok();
    let again = bench.rbc("build --progress plain c").ok();
    assert!(again.done() >= 3, "{}", again.stderr);
}

#[test]
fn a_step_that_made_the_same_layer_again_is_not_a_new_base() {
    let bench = built(
        "FROM busybox
RUN --mount=type=bind,target=/src grep -v '^#' /src/main.src > /app
RUN cp /app /copied
",
        &[("main.src", "# one\nprogram\n")],
    );
    bench.write("c/main.src", "# another\nprogram\n");
    // Times of what the step makes differ then.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(executed(&bench), 1, "only the step with the mount");
    bench.write("c/main.src", "# another\nprogrAm\n");
    assert_eq!(executed(&bench), 2);
}

#[test]
fn a_stage_that_was_built_anew_on_request_ends_where_it_is_the_same() {
    let bench = built(COMPILED, &[("main.src", "program\n")]);
    let again = bench.rbc("build --progress plain --no-cache-filter build c").ok();
    assert_eq!(again.done(), 2, "{}", again.stderr);
    let all = bench.rbc("build --progress plain --no-cache c").ok();
    assert!(all.done() >= 5, "--no-cache means all of it:\n{}", all.stderr);
}

#[test]
fn links_add_the_same_layer_to_any_base() {
    let bench = built(
        "FROM busybox AS build
COPY main.src /src/
RUN mkdir /out && grep -v '^#' /src/main.src > /out/app
FROM busybox
COPY --link --from=build /out /out
RUN cp /out/app /copied
",
        &[("main.src", "# one\nprogram\n")],
    );
    bench.write("c/main.src", "# another\nprogram\n");
    assert_eq!(executed(&bench), 2);
}

#[test]
fn a_folder_that_only_its_name_behind_a_wildcard_changed_of_is_the_same() {
    let files: Vec<String> = (0..300).map(|n| format!("pkg-1/{n}")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "text")).collect();
    let bench = built("FROM busybox\nCOPY pkg-*/ /pkg\nRUN ls /pkg\n", &files);
    std::fs::rename(bench.path("c/pkg-1"), bench.path("c/pkg-2")).expect("rename");
    assert_eq!(executed(&bench), 1, "COPY alone");
}

#[test]
fn files_that_a_wildcard_does_not_match_do_not_matter() {
    let bench = built("FROM busybox\nCOPY *.c /src/\nRUN ls /src\n", &[("a.c", "a"), ("b.h", "b")]);
    std::fs::rename(bench.path("c/b.h"), bench.path("c/d.h")).expect("rename");
    assert_eq!(executed(&bench), 0);
    std::fs::rename(bench.path("c/a.c"), bench.path("c/d.c")).expect("rename");
    assert_eq!(executed(&bench), 2);
}

#[test]
fn names_of_one_file_are_not_two_files() {
    let bench = built(
        "FROM busybox\nCOPY src /src\nRUN stat -c %h /src/*\n",
        &[("src/a", "text"), ("src/b", "text")],
    );
    std::fs::remove_file(bench.path("c/src/b")).expect("remove");
    std::fs::hard_link(bench.path("c/src/a"), bench.path("c/src/b")).expect("link");
    assert_eq!(executed(&bench), 2);
    let line = bench.rbc("explain").ok().stdout;
    assert!(line.contains("names or hard links of the copied files changed"), "{line}");
}

#[test]
fn a_link_on_the_way_to_the_source_counts_by_where_it_leads() {
    let bench = built(
        "FROM busybox AS build
COPY how /how
RUN mkdir /one /two; echo program > /one/x; ln -s one /cur; sh /how
FROM busybox
COPY --from=build /cur/x /x
RUN --mount=type=bind,from=build,source=/cur,target=/in cat /in/x > /y; true
",
        &[("how", "true")],
    );
    let ran = |how: &str| {
        bench.write("c/how", how);
        executed(&bench)
    };
    assert_eq!(ran("echo program > /two/x; ln -sfn two /cur"), 2, "the same behind another link");
    assert_eq!(ran("echo prOgram > /two/x; ln -sfn two /cur"), 4);
    assert_eq!(ran("echo PROGRAM > /two/x"), 2, "the link leads elsewhere");
    assert_eq!(ran("rm /one/x; ln -s /two/x /one/x; echo more > /two/x"), 4);
}
