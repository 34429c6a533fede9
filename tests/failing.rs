//! How a failing step is shown: instruction, last lines, exit code or signal, likely cause; and the
//! shell in its state.

mod support;

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use support::{Bench, Run};

/// Builds a Dockerfile that fails, on top of busybox.
fn failure(bench: &Bench, dockerfile: &str) -> Run {
    bench.write("c/Dockerfile", format!("FROM busybox\n{dockerfile}\n"));
    bench.rbc("build --progress quiet c").fails(1, "error[step-failed]")
}

#[test]
fn the_instruction_the_last_lines_and_the_exit_code_are_shown() {
    let bench = Bench::with_busybox();
    let run = failure(&bench, "RUN echo first; \\\n  echo second >&2; exit 42");
    let log = run.stderr.lines().find(|line| line.contains("all that it printed")).unwrap();
    insta::assert_snapshot!(run.stderr.replace(log, "  = note: LOG"), @r#"
    ------
     > [2/2] RUN echo first; echo second >&2; exit 42:
    first
    second
    ------
    error[step-failed]: process "/bin/sh -c echo first; echo second >&2; exit 42" did not complete successfully: exit code: 42
     --> c/Dockerfile:2:1
      |
    2 | RUN echo first; \
      | ^^^ this step failed
    3 |   echo second >&2; exit 42
      |
      = note: LOG
    "#);
}

#[test]
fn a_long_instruction_is_shown_once_and_at_bearable_length() {
    let bench = Bench::with_busybox();
    let words = "a-rather-long-word ".repeat(20);
    let lines = "    : something and more of it && \\\n".repeat(30);
    let run = failure(&bench, &format!("RUN echo {words} && \\\n{lines}    exit 3"));
    assert!(run.stderr.lines().count() < 50, "{}", run.stderr);
    for line in run.stderr.lines().filter(|line| !line.starts_with("a-rather-long-word")) {
        assert!(line.chars().count() < 140, "{line}");
    }
    assert!(run.stderr.contains("2 | RUN echo a-rather-long-word"), "{}", run.stderr);
    let shown = run.stderr.matches(": something and more of it").count();
    assert!((5..15).contains(&shown), "{}", run.stderr);
    let table = bench.rbc("history -n 1").ok().stdout;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    // Build, when it began (three words), how long it took, status; cached, ran, failed.
    assert_eq!(row[5..9], ["failed", "0", "1", "1"], "{table}");
}

#[test]
fn likely_causes_are_named() {
    let bench = Bench::with_busybox();
    let mut foreign = vec![0; 64];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[16] = 2;
    foreign[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    bench.write("c/foreign", &foreign);
    bench.write("c/crlf.sh", "#!/bin/sh\r\necho\r\n");
    bench.write("c/env.sh", "#!/usr/bin/env sh\r\necho\r\n");
    bench.write("c/python.py", "#!/usr/bin/python3\n");
    for name in ["foreign", "crlf.sh", "env.sh", "python.py"] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(bench.path("c").join(name), mode).unwrap();
    }
    for (dockerfile, want) in [
        ("RUN [\"nosuch\", \"-x\"]", "has a program \"nosuch\""),
        ("RUN make all", "has a program \"make\""),
        ("RUN [\"echo hello\"]", "each word is a string of its own"),
        ("COPY foreign /\nRUN [\"/foreign\"]", "/foreign is a program for"),
        ("COPY crlf.sh /\nRUN [\"/crlf.sh\"]", "CR LF"),
        ("COPY crlf.sh /\nRUN /crlf.sh", "CR LF"),
        ("COPY python.py /\nRUN /python.py", "is a script for /usr/bin/python3"),
        ("RUN echo x > /made && /made", "/made is not executable (mode 0644)"),
        ("RUN --network=none wget -q http://example.invalid/", "--network=none"),
        ("USER 1000\nRUN touch /x", "the step runs as USER 1000"),
        ("RUN echo 'x: error while loading shared libraries: liby.so: z'; exit 127", "liby.so"),
        ("COPY env.sh /\nRUN /env.sh", "CR LF"),
        ("COPY crlf.sh /\nRUN printf 'cd /\\r\\nif\\r\\n' >> /crlf.sh; sh /crlf.sh", "CR LF"),
        ("COPY foreign /bin/\nRUN cd /tmp; foreign", "/bin/foreign is a program for"),
        ("COPY python.py /s/\nRUN cd /s && ./python.py", "is a script for /usr/bin/python3"),
        ("COPY python.py /s/\nWORKDIR /s\nRUN python.py", "write ./python.py"),
        ("RUN --mount=type=bind,target=/src touch /src/x", "/src is a bind mount"),
        (
            "RUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/x bs=1M count=9",
            "the tmpfs at /t",
        ),
        ("RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=99", "/dev/shm is full"),
        ("RUN echo 1 > /proc/sys/kernel/panic", "/proc is read-only"),
        ("RUN sh -c 'kill -9 $$'; exit $?", "memory"),
    ] {
        let run = failure(&bench, dockerfile);
        let likely = run.stderr.lines().find(|line| line.contains("likely cause: "));
        assert!(likely.is_some_and(|line| line.contains(want)), "{want:?} in:\n{}", run.stderr);
    }
    let history = bench.rbc("history --format json -n 1").ok().stdout;
    assert!(history.contains("likely cause: a process was killed with SIGKILL"), "{history}");
    let run = failure(&bench, "RUN sh -c 'kill -11 $$'; exit $?");
    assert!(run.stderr.contains("was killed by signal 11 (SIGSEGV)"), "{}", run.stderr);
}

#[test]
fn what_only_looks_like_a_cause_is_none() {
    let bench = Bench::with_busybox();
    for dockerfile in [
        "RUN echo 'npm error ERESOLVE could not resolve'; exit 1",
        "RUN echo 'ok: handles no space left on device well'; exit 1",
        "USER 1000\nRUN echo 'the permission denied page works'; exit 1",
        "RUN echo 'warning: unexpected end, not found'; exit 1",
        "RUN echo 'error: a thing was not there'; exit 127",
        "RUN exit 126",
        "RUN exit 129",
        "RUN --mount=type=tmpfs,target=/t cp /bin/busybox /t/b; cd /t; ./nosuch",
        "RUN --mount=type=tmpfs,target=/t /t/nosuch",
        "RUN cd /etc && ./nosuch",
    ] {
        let run = failure(&bench, dockerfile);
        assert!(!run.stderr.contains("likely cause"), "{dockerfile}:\n{}", run.stderr);
    }
}

#[test]
fn an_image_without_a_shell_is_told() {
    let bench = Bench::new();
    bench.write("c/Dockerfile", "FROM scratch\nCOPY x /x\nRUN echo hello\n").write("c/x", "x");
    bench.rbc("build c").fails(1, "the image has no shell");
}

const BROKEN: &str = "FROM busybox
ENV COLOUR=blue
WORKDIR /work
RUN --mount=type=secret,id=s,target=/s echo half > made; exit 7
";

/// Builds with input on standard input, which is no terminal.
fn with_input(bench: &Bench, options: &[&str], input: &str) -> Run {
    let mut child = bench
        .command()
        .args(["build", "--progress", "quiet", "--secret", "id=s,src=secret"])
        .args(options)
        .arg("c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rbc starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_shell_opens_in_the_state_of_the_failed_step() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", BROKEN).write("secret", "hidden");
    let input = "echo \"is:$COLOUR:$(pwd):$(cat made):$(cat /s)\"; test -t 0 && echo on-a-tty\n\
                 echo more > /other; exit 0\n";
    let run = with_input(&bench, &["--debug-shell"], input);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    for want in ["is:blue:/work:half:hidden", "on-a-tty", "exit code: 7", "--> c/Dockerfile:4"] {
        assert!(run.stderr.contains(want), "wanted {want:?} in:\n{}", run.stderr);
    }
    // Neither what the step did nor what the shell did is kept.
    let again = with_input(&bench, &["--debug-shell=ls /work /other"], "");
    assert!(again.stderr.contains("made"), "{}", again.stderr);
    assert!(again.stderr.contains("/other: No such file"), "{}", again.stderr);
    assert_eq!(again.code, Some(1));
}

#[test]
fn the_shell_is_on_the_users_terminal_and_leaves_it_as_it_was() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN exit 9\n");
    let rbc = env!("CARGO_BIN_EXE_rbc");
    let line =
        format!("stty rows 33 cols 77; stty > before; {rbc} build --debug-shell c; stty > after");
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(bench.path("."))
        .env("RBC_ROOT", bench.root())
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs script: install Debian's package bsdutils");
    let mut stdin = child.stdin.take().unwrap();
    // Ctrl-C is for the shell: it ends the sleep, not the build.
    std::thread::sleep(std::time::Duration::from_secs(2));
    stdin.write_all(b"sleep 60\n").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    stdin.write_all(b"\x03").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    stdin.write_all(b"stty size; echo still-$((40+2)); exit\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("33 77"), "{shown}");
    assert!(shown.contains("still-42"), "{shown}");
    assert!(shown.contains("exit code: 9"), "{shown}");
    assert_eq!(bench.read("before"), bench.read("after"));
}
