//! The progress of builds as it is seen on a terminal: rbc runs in tmux, and what is asserted is what
//! is on the screen.

mod support;

use std::{fs, time::Duration};

use support::{
    Bench, image,
    registry::Registry,
    scripted::{Memory, Reply, Scripted},
    terminal::Terminal,
};

/// Waits until the test opens the gate, so that nothing depends on time.
const GATE: &str =
    "RUN --mount=type=cache,target=/gate until [ -e /gate/open ]; do sleep 0.1; done";

/// Lets the steps go on that wait at the gate.
fn open_gate(bench: &Bench) {
    let mounts = fs::read_dir(bench.root().join("mounts")).expect("a cache mount").flatten();
    let gate = mounts.map(|entry| entry.path()).find(|path| path.is_dir()).expect("the gate");
    fs::write(gate.join("open"), "").unwrap();
}

/// Text that would do something to the terminal if it got there: clear it, set its title, write
/// somewhere else, set colours, ring.
const HOSTILE: &str =
    r"\033[2J\033[1;1H\033]0;taken over\007\033[31mred\033[0m \000\377\007\033[?25lend\n";

#[test]
fn steps_run_side_by_side_with_what_they_print_last() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        format!(
            "FROM busybox AS one\n{GATE}; echo said by one\nFROM busybox AS two\n\
             RUN --mount=type=cache,target=/gate printf '{HOSTILE}'; \
             printf 'first\\n10%%\\r50%%\\r'; head -c 500 /dev/zero | tr '\\0' y; echo; \
             echo 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字; \
             printf 'no newline'; until [ -e /gate/open ]; do sleep 0.1; done\n\
             FROM busybox\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
        ),
    );
    let terminal = Terminal::open(&bench, 80, 24);
    let title = terminal.title();
    // On a screen that is full, as it mostly is.
    terminal.enter("clear; seq 30; clear; seq 20; rbc build c");
    let screen = terminal.until("both steps", |screen| {
        screen.contains("2 running") && screen.contains("no newline")
    });
    for want in [
        "? first miss: #1 [one 1/2] FROM",
        "s [one 2/2] RUN --mount=type=cache,target=/gate until",
        "s [two 2/2] RUN --mount=type=cache,target=/gate printf",
        "          │ red \u{fffd}end\n",
        "          │ first\n",
        "          │ yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…\n",
        "          │ 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢…",
        "          │ no newline\n",
        "1/5 steps, 2 running",
    ] {
        assert!(screen.contains(want), "{want:?} in:\n{screen}");
    }
    assert_eq!(terminal.title(), title);
    assert!(terminal.coloured().contains("\u{1b}[2m"), "{}", terminal.coloured());

    // Narrow, narrower, and wide again: each line stays one line.
    for (columns, name) in [(40, "[one 2/2] RUN --mount=type=c…"), (20, "[one 2/2]…")] {
        terminal.resize(columns, 24);
        let screen = terminal.until(name, |screen| {
            screen.lines().filter(|line| line.ends_with(name)).count() == 1
                && screen.matches("1/5 st").count() == 1
        });
        let running = screen.lines().filter(|line| line.contains("[two 2/2]")).count();
        assert_eq!(running, 1, "{screen}");
    }
    terminal.resize(100, 24);
    terminal.wait("1/5 steps, 2 running");
    open_gate(&bench);
    terminal.wait("built in");
    terminal.prompt();
    // What was drawn anew has left nothing behind, not even above the screen.
    let left = terminal.everything();
    for gone in ["running", "│", "no newline", "said by one"] {
        assert!(!left.contains(gone), "{gone:?} in:\n{left}");
    }
    for want in ["✔", "5 steps, 0 cached, 5 ran", "critical path, of which", "exporting to"] {
        assert!(left.contains(want), "{want:?} in:\n{left}");
    }
    for step in ["[one 2/2]", "[two 2/2]"] {
        let done = |line: &&str| line.starts_with("✔") && line.contains(step);
        assert_eq!(left.lines().filter(done).count(), 1, "{left}");
    }

    // All that was printed is still there, and does nothing to the terminal either.
    let screen = terminal.run("rbc logs 'two 2/2'");
    assert!(screen.contains("red \u{fffd}end\nfirst\n"), "{screen}");
    assert_eq!(terminal.title(), title);
    assert!(bench.rbc_args(["logs", "two 2/2"]).ok().stdout.contains("\u{1b}[2J"), "as it was");

    let screen = terminal.run("rbc build c");
    assert!(screen.starts_with("=         5 of 5 steps cached\n"), "{screen}");
    assert!(screen.ends_with("5 steps, 5 cached, 0 ran"), "{screen}");
}

#[test]
fn a_failed_step_shows_its_end_and_stops_the_others() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        format!(
            "FROM busybox AS slow\nRUN sleep 1000\nFROM busybox AS bad\n{GATE}; \
             printf 'before\\n{HOSTILE}'; echo the end >&2; exit 3\nFROM slow\n\
             COPY --from=bad /etc/passwd /x\n"
        ),
    );
    let terminal = Terminal::open(&bench, 80, 24);
    let title = terminal.title();
    terminal.enter("clear; rbc build c; echo \"code $?\"");
    terminal.wait("2 running");
    open_gate(&bench);
    terminal.wait("code 1");
    terminal.prompt();
    let screen = terminal.everything();
    let lines: Vec<&str> = screen.lines().collect();
    let starts = |mark: &str, name: &str| {
        assert!(
            lines.iter().any(|line| line.starts_with(mark) && line.contains(name)),
            "{mark} {name} in:\n{screen}"
        );
    };
    starts("✖", "[bad 2/2] RUN");
    starts("■", "[slow 2/2] RUN sleep 1000");
    starts("✖", "failed after");
    for want in ["\nbefore\nred \u{fffd}end\nthe end\n------", "exit code: 3", "--> c/Dockerfile:4"]
    {
        assert!(screen.contains(want), "{want:?} in:\n{screen}");
    }
    assert!(!screen.contains("running"), "{screen}");
    assert_eq!(terminal.title(), title);
}

#[test]
fn more_steps_than_rows_fit_and_control_c_ends_them() {
    let bench = Bench::with_busybox();
    let mut dockerfile = String::new();
    for stage in 0..30 {
        dockerfile
            .push_str(&format!("FROM busybox AS s{stage}\nRUN echo begun {stage}; sleep 1000\n"));
    }
    dockerfile.push_str("FROM busybox\n");
    for stage in 0..30 {
        dockerfile.push_str(&format!("COPY --from=s{stage} /etc/passwd /{stage}\n"));
    }
    bench.write("c/Dockerfile", dockerfile);
    let terminal = Terminal::open(&bench, 80, 24);
    terminal.enter("clear; rbc build --jobs 30 c; echo \"code $?\"");
    let screen = terminal.wait("30 running");
    assert!(screen.contains("and 9 more\n"), "{screen}");
    assert_eq!(screen.matches("; sleep 1000\n").count(), 21, "{screen}");
    terminal.resize(80, 8);
    terminal.wait("and 25 more");
    terminal.resize(80, 2);
    terminal.until("only the count", |screen| screen.trim_start().ends_with("30 running"));
    terminal.resize(80, 24);
    terminal.wait("and 9 more");
    terminal.key("C-c");
    terminal.wait("code 1");
    let screen = terminal.prompt();
    assert!(screen.contains("stopped after"), "{screen}");
    assert!(screen.contains("error: cancelled\n"), "{screen}");
    assert!(!screen.contains("running"), "{screen}");
    // How many are left on the screen depends on how many ended between two drawings.
    assert!(screen.matches("■").count() >= 10, "{screen}");
}

#[test]
fn without_colours_and_without_a_real_terminal() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN printf '\\033[31mred\\033[0m\\n'; exit 4\n");
    let terminal = Terminal::open(&bench, 80, 24);
    let screen = terminal.run("NO_COLOR=1 rbc build c");
    assert!(!terminal.coloured().contains('\u{1b}'), "{}", terminal.coloured());
    assert!(screen.contains("✖") && screen.contains("exit code: 4"), "{screen}");

    let screen = terminal.run("LC_ALL=C rbc build c");
    assert!(screen.is_ascii() && screen.contains("\nx    "), "{screen}");

    let screen = terminal.run("TERM=dumb rbc build c");
    assert!(screen.contains("#1 CACHED\n") && screen.contains("#2 ERROR: "), "{screen}");

    // For people who read lines: the colours of steps, and nothing else of theirs.
    terminal.run("rbc build --progress plain c");
    assert!(terminal.coloured().contains("\u{1b}[31mred"), "{}", terminal.coloured());
}

#[test]
fn pulls_and_pushes_show_their_bytes() {
    let bench = Bench::with_busybox();
    let registry = Registry::start();
    let terminal = Terminal::open(&bench, 100, 24);
    let name = format!("{}/base:1", registry.host);
    let moved = |screen: &str, what: &str| {
        let what = format!("{what} {name}  ");
        let line = screen.lines().find_map(|line| line.split_once(&what)).map(|(_, end)| end);
        let bytes =
            line.and_then(|end| end.strip_suffix(" MB")).and_then(|n| n.parse::<f32>().ok());
        assert!(bytes.is_some_and(|bytes| bytes > 0.1), "{what}: {line:?} in:\n{screen}");
    };
    moved(&terminal.run(&format!("rbc push busybox {name}")), "pushing");
    moved(&terminal.run(&format!("rbc --root other pull {name}")), "pulling");
    bench.write("c/Dockerfile", format!("FROM {name}\nRUN true\n"));
    let screen = terminal.run("rbc build --root third --output type=tar,dest=x.tar c");
    let is_pull = |line: &str| line.starts_with("✔") && line.contains("FROM 127.0.0.1");
    assert!(screen.lines().any(is_pull), "{screen}");
}

/// So long that nobody waits for it.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[test]
fn control_c_ends_transfers_that_stand_still() {
    let bench = Bench::new();
    let memory = Memory::default();
    let layer = image::tar_of("zeros", &[0; 400_000]);
    let half = layer.len() / 2;
    memory.image("1", &layer, "application/vnd.oci.image.layer.v1.tar");
    let layer = image::sha256(&layer);
    let registry = Scripted::start(move |request| {
        if request.is("PATCH", "/uploads/") {
            std::thread::sleep(FOR_EVER);
            return Reply::status(500);
        }
        let mut reply = memory.answer(request);
        reply.pieces = request.path.ends_with(&layer).then_some((half, FOR_EVER));
        reply
    });
    bench.write("c/Dockerfile", format!("FROM {}/base:1\n", registry.host));
    let noise: String = (0..9000_u32).map(|n| image::sha256(&n.to_le_bytes())).collect();
    bench.write("p/noise", noise).write("p/Dockerfile", "FROM scratch\nCOPY noise /\n");
    let terminal = Terminal::open(&bench, 100, 24);
    for (command, shown, ends) in [
        (format!("rbc pull {}/base:1", registry.host), " 0.2/0.4 MB  50%", "error: cancelled"),
        ("rbc build c".to_owned(), " 0.2/0.4 MB  50%", "✖ stopped after"),
        (format!("rbc build -t {}/x:1 --push p", registry.host), "  0.3 MB", "✖ stopped after"),
    ] {
        terminal.enter(&format!("clear; {command}; echo \"code $?\""));
        terminal.wait(shown);
        terminal.key("C-c");
        terminal.wait("code 1");
        let screen = terminal.prompt();
        assert!(screen.contains(ends), "{screen}");
        // Nothing is left of what was drawn, and nothing was drawn over.
        let lines: Vec<&str> = screen.lines().collect();
        assert!(lines.iter().all(|line| !line.contains('%')), "{screen}");
        assert_eq!(lines[lines.len() - 3..], ["error: cancelled", "code 1", "$"], "{screen}");
    }
}
