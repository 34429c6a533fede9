//! What past builds leave behind: `rbc history` and `rbc logs`.

mod support;

use std::{fs, process::Stdio, time::Duration};

use support::Bench;

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    bench
        .write("c/Dockerfile", "FROM busybox\nCOPY a.txt /a.txt\nRUN echo hello; echo there >&2\n");
    bench.write("c/a.txt", "a");
    bench
}

/// The builds that `rbc history` lists, newest first.
fn history(bench: &Bench) -> Vec<serde_json::Value> {
    let run = bench.rbc("history --format json").ok();
    run.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn builds_are_listed_with_what_they_did() {
    let bench = bench();
    assert_eq!(history(&bench).len(), 0);
    bench.rbc("build -t app c").ok();
    bench.rbc("build c").ok();
    let builds = history(&bench);
    assert_eq!(builds.len(), 2);
    let facts = |at: usize, key: &str| builds[at][key].clone();
    assert_eq!((facts(1, "cached"), facts(1, "ran")), (0.into(), 3.into()));
    assert_eq!((facts(0, "cached"), facts(0, "ran")), (3.into(), 0.into()));
    assert_eq!(facts(1, "tags"), serde_json::json!(["docker.io/library/app:latest"]));
    assert_eq!(facts(0, "status"), "succeeded");
    let dockerfile = bench.path("c/Dockerfile").canonicalize().unwrap();
    assert_eq!(facts(0, "dockerfile"), dockerfile.to_str().unwrap());
    let table = bench.rbc("history").ok().stdout;
    assert!(table.starts_with("BUILD"), "{table}");
    assert_eq!(table.lines().count(), 3);
}

#[test]
fn failed_and_cancelled_builds_are_listed() {
    let bench = bench();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo broken; exit 3\nRUN echo never\n");
    bench.rbc("build c").fails(1, "exit code: 3");
    let builds = history(&bench);
    assert_eq!(builds[0]["status"], "failed");
    let error = builds[0]["error"].as_str().unwrap();
    assert!(error.contains("exit code: 3") && error.contains("RUN echo broken"), "{error}");
    assert_eq!(bench.rbc("logs 2").ok().stdout, "broken\n");

    bench.write("c/Dockerfile", "FROM busybox\nRUN echo started; sleep 60\n");
    let mut child =
        bench.command().args(["build", "c"]).stderr(Stdio::null()).spawn().expect("rbc starts");
    let logs = bench.root().join("logs");
    let begun = |name: &str| fs::read_dir(logs.join(name)).is_ok_and(|dir| dir.count() > 0);
    while !fs::read_dir(&logs).unwrap().flatten().any(|dir| {
        let name = dir.file_name().into_string().unwrap();
        builds[0]["id"] != name.as_str() && begun(&name)
    }) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: the process is our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    assert!(!child.wait().unwrap().success());
    assert_eq!(history(&bench)[0]["status"], "cancelled");
}

#[test]
fn logs_of_past_steps_are_found_by_number_and_name() {
    let bench = bench();
    bench.rbc("build c").ok();
    bench.rbc("build c").ok();
    assert_eq!(bench.rbc("logs").ok().stdout, "", "all cached");
    let all = bench.rbc("logs ~1").ok().stdout;
    assert!(all.starts_with("#3 [3/3] RUN echo hello"), "{all}");
    let mut lines: Vec<&str> = all.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["hello", "there"]);
    let by_name = bench.rbc_args(["logs", "~1", "RUN echo"]).ok().stdout;
    assert_eq!(by_name, bench.rbc("logs ~1 3").ok().stdout);
    bench.rbc("logs ~1 7").fails(1, "has no step #7");
    bench.rbc("logs ~1 2").fails(1, "ran no command");
    bench.rbc("logs ~9").fails(1, "there is no record of a build \"~9\"");
}

#[test]
fn logs_of_running_and_of_killed_builds_are_found() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN printf 'no newline'\nRUN echo first; sleep 1000\n",
    );
    let mut child = bench.command().args(["build", "c"]).stderr(Stdio::null()).spawn().unwrap();
    while !bench.rbc("logs").stdout.contains("\nfirst") {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let all = "#2 [2/3] RUN printf 'no newline'\nno newline\n\
               #3 [3/3] RUN echo first; sleep 1000\nfirst\n";
    assert_eq!(bench.rbc("logs").ok().stdout, all);
    assert_eq!(bench.rbc("logs 3").ok().stdout, "first\n");
    assert_eq!(history(&bench)[0]["status"], "running");
    // Nothing can be compared with it yet.
    bench.rbc("explain").fails(1, "no record of any build");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(history(&bench)[0]["status"], "killed");
    assert_eq!(bench.rbc("logs").ok().stdout, all);
    let table = bench.rbc("history").ok().stdout;
    assert!(table.contains("killed"), "{table}");
    // One that ends has its record only.
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo short\n");
    bench.rbc("build c").ok();
    let statuses: Vec<_> = history(&bench).iter().map(|build| build["status"].clone()).collect();
    assert_eq!(statuses, ["succeeded", "killed"]);
}

#[test]
fn only_the_last_builds_are_kept() {
    let bench = bench();
    bench.rbc("build c").ok();
    let builds = bench.root().join("builds");
    let first = bench.rbc("history -q").ok().stdout.trim().to_owned();
    for n in 0..120 {
        let copy = builds.join(format!("19990101-000000-000-{n:03}"));
        fs::create_dir(&copy).unwrap();
        fs::copy(builds.join(&first).join("record.json"), copy.join("record.json")).unwrap();
    }
    let stale = bench.root().join("logs/19990101-000000-000-001");
    fs::create_dir(&stale).unwrap();
    // Neither has a record: one was killed long ago, the other may be running.
    let [killed, running] = ["19980101-000000-000-1", "19980101-000000-000-2"]
        .map(|id| bench.root().join("logs").join(id));
    fs::create_dir(&killed).unwrap();
    fs::create_dir(&running).unwrap();
    fs::File::open(&killed).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    bench.rbc("build c").ok();
    let left = bench.rbc("history -q").ok().stdout;
    assert_eq!(left.lines().count(), 100);
    assert!(left.contains(&first), "{left}");
    assert!(!stale.exists() && !killed.exists() && running.exists());
    assert_eq!(fs::read_dir(builds.join("listings")).unwrap().count(), 1, "of the COPY");
}

#[test]
fn a_damaged_record_does_not_hide_the_others() {
    let bench = bench();
    bench.rbc("build c").ok();
    bench.rbc("build c").ok();
    let last = bench.rbc("history -q -n 1").ok().stdout.trim().to_owned();
    fs::write(bench.root().join("builds").join(&last).join("record.json"), "{").unwrap();
    let run = bench.rbc("history").ok();
    assert_eq!(run.stdout.lines().count(), 2);
    assert!(run.stderr.contains("cannot be used"), "{}", run.stderr);
    bench.rbc("logs").fails(1, "cannot be used");
}
