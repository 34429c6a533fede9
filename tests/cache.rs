//! What runs again after which change, as a user sees it.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::{Duration, SystemTime},
};

use support::{Bench, output::Oci};

const TWO_COPIES: &str = "FROM busybox
RUN echo first
COPY a.txt /a.txt
RUN echo second
COPY b.txt /b.txt
RUN echo third
";

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", TWO_COPIES);
    bench.write("c/a.txt", "a").write("c/b.txt", "b").write("c/unused.txt", "u");
    bench
}

/// Builds and gives how many steps were executed.
fn executed(bench: &Bench) -> usize {
    bench.rbc("build --progress plain c").ok().done()
}

/// Steps of the Dockerfile above, with and without the base image.
const ALL: usize = 6;

#[test]
fn a_second_build_runs_nothing() {
    let bench = bench();
    assert_eq!(executed(&bench), ALL);
    let again = bench.rbc("build --progress plain c").ok();
    assert_eq!((again.done(), again.cached()), (0, ALL));
}

#[test]
fn a_changed_file_misses_from_its_copy_on_and_only_there() {
    let bench = bench();
    executed(&bench);
    bench.write("c/b.txt", "changed");
    assert_eq!(executed(&bench), 2, "COPY b.txt and what follows");
    bench.write("c/a.txt", "changed");
    assert_eq!(executed(&bench), 4, "COPY a.txt and what follows");
    // The old content is known.
    bench.write("c/a.txt", "a").write("c/b.txt", "b");
    assert_eq!(executed(&bench), 0);
}

#[test]
fn the_same_size_in_the_same_second_is_a_change() {
    let bench = bench();
    for n in 0..5 {
        bench.write("c/b.txt", format!("{n}"));
        assert_eq!(executed(&bench), if n == 0 { ALL } else { 2 }, "edit {n}");
    }
}

#[test]
fn mode_counts_and_mtime_does_not() {
    let bench = bench();
    executed(&bench);
    let file = File::options().write(true).open(bench.path("c/b.txt")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert_eq!(executed(&bench), 0, "touched");
    fs::set_permissions(bench.path("c/b.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(executed(&bench), 2, "chmod");
}

#[test]
fn a_renamed_file_misses_where_its_name_shows() {
    let bench = bench();
    bench.write("c/Dockerfile", "FROM busybox\nCOPY d /d\n").write("c/d/one", "x");
    executed(&bench);
    fs::rename(bench.path("c/d/one"), bench.path("c/d/two")).unwrap();
    assert_eq!(executed(&bench), 1);
}

#[test]
fn files_that_no_step_uses_do_not_count() {
    let bench = bench();
    executed(&bench);
    bench.write("c/unused.txt", "changed").write("c/new.txt", "new");
    assert_eq!(executed(&bench), 0);
}

#[test]
fn an_ignored_file_does_not_count() {
    let bench = bench();
    bench.write("c/Dockerfile", "FROM busybox\nCOPY . /c\n").write("c/.dockerignore", "*.log\n");
    executed(&bench);
    bench.write("c/build.log", "noise");
    assert_eq!(executed(&bench), 0);
}

#[test]
fn build_arguments_count_where_they_are_used() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo before\nARG V=1\nRUN echo $V > /v\n");
    executed(&bench);
    let run = bench.rbc("build --progress plain --build-arg V=2 c").ok();
    assert_eq!(run.done(), 1, "{}", run.stderr);
}

#[test]
fn no_cache_runs_everything_and_what_depends_on_a_new_result_is_built_again() {
    let bench = Bench::with_busybox();
    bench.write("a/Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n");
    bench.write(
        "b/Dockerfile",
        "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN cp /id /copy\n",
    );
    let read = |name: &str| {
        bench.rbc(&format!("build -o type=oci,dest=out.tar {name}")).ok();
        Oci::read(&bench.path("out.tar"))
    };
    let first = read("b");
    assert_eq!(first.text("/id"), first.text("/copy"));
    // Another Dockerfile shares the first step and has it made anew.
    bench.rbc("build --no-cache a").ok();
    let second = read("b");
    assert_ne!(second.text("/id"), first.text("/id"));
    assert_eq!(second.text("/id"), second.text("/copy"), "nothing stale is mixed in");
}

#[test]
fn what_was_built_on_a_new_result_is_found_out_over_an_evicted_one() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox AS id\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
         FROM id AS copy\nRUN cp /id /copy\n\
         FROM busybox\nCOPY --from=copy /copy /last\n",
    );
    let read = |options: &str, path: &str| {
        bench.rbc(&format!("build -o type=oci,dest=out.tar {options} c")).ok();
        Oci::read(&bench.path("out.tar")).text(path)
    };
    let first = read("", "/last");
    let second = read("--target id --no-cache", "/id");
    assert_ne!(first, second);
    // The layer between the two is lost, as if it alone had been evicted.
    let layers = std::fs::read_dir(bench.root().join("layers")).unwrap();
    let lost: Vec<_> =
        layers.map(|layer| layer.unwrap().path()).filter(|l| l.join("copy").exists()).collect();
    assert_eq!(lost.len(), 1);
    std::fs::remove_dir_all(&lost[0]).unwrap();
    assert_eq!(read("", "/last"), second);
}

#[test]
fn no_cache_filter_runs_one_stage_again() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox AS one\nRUN echo 1 > /f\nFROM busybox AS two\nRUN echo 2 > /g\nCOPY --from=one /f /f\n",
    );
    executed(&bench);
    let run = bench.rbc("build --progress plain --no-cache-filter two c").ok();
    assert_eq!(run.done(), 2, "{}", run.stderr);
}

#[test]
fn two_builds_at_once_run_each_step_once() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n",
    );
    let start = |n: u32| {
        let mut command = bench.command();
        command.args(["build", "-o", &format!("type=oci,dest=out{n}.tar"), "c"]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let builds: Vec<_> = (0..3).map(start).collect();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let id = |n: u32| Oci::read(&bench.path(format!("out{n}.tar"))).text("/id");
    assert_eq!(id(0), id(1));
    assert_eq!(id(1), id(2));
}

#[test]
fn a_killed_build_damages_nothing_and_leaves_nothing() {
    let bench = Bench::with_busybox();
    bench.write("c/f", "content").write(
        "c/Dockerfile",
        "FROM busybox\nRUN echo kept > /kept\nCOPY f /f\nRUN echo begun > /begun; sleep 30; echo late\n",
    );
    for round in 0..6 {
        let mut build = bench.command().args(["build", "c"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 * round));
        build.kill().unwrap();
        build.wait().unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bench.root().to_str().unwrap()), "{mounts}");
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo kept > /kept\nCOPY f /f\n");
    bench.rbc("build -o type=oci,dest=out.tar c").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/kept"), "kept\n");
    let left: Vec<_> = fs::read_dir(bench.root().join("tmp"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("s-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
