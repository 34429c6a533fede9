//! Causes by commands, files and output that are made up.

use std::{fs, os::unix::fs::PermissionsExt};

use rbc_ir::Network;

use super::*;

struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[(&str, u32, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode, data) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, data).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Self(dir)
    }

    fn ask(&self, args: &[&str], lines: &[&str], exit: Option<Exit>) -> String {
        let exec = Exec {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/work".to_owned(),
            network: Network::None,
            ..super::super::testing::plain_exec()
        };
        let root = LayerStack::new(vec![self.0.path().to_owned()]);
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let failure = Failure {
            exec: &exec,
            root: &root,
            lines: &lines,
            free: Some(5_000_000_000),
            out_of_memory: OutOfMemory::No,
        };
        let error = SandboxError::Setup(SetupError::Program(String::new()));
        let ending = exit.map_or(Ending::NotRun(&error), Ending::Exit);
        failure.likely_cause(&ending).unwrap_or_default()
    }
}

fn elf(machine: u8) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[18] = machine;
    head
}

#[test]
fn files_tell_why_a_program_did_not_start() {
    let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let root = Root::new(&[
        ("bin/foreign", 0o755, &elf(foreign)),
        ("bin/crlf", 0o755, b"#!/bin/sh\r\necho\r\n"),
        ("bin/script", 0o755, b"#!/usr/bin/python3\n"),
        ("bin/env", 0o755, b"x"),
        ("bin/lost", 0o755, b"#!/bin/env node\n"),
        ("work/text", 0o755, b"echo hello\n"),
        ("work/plain", 0o644, b"#!/bin/sh\n"),
    ]);
    let ask = |name: &str| root.ask(&[name], &[], None);
    assert!(ask("foreign").contains("is a program for"), "{}", ask("foreign"));
    assert!(ask("crlf").contains("CR LF"), "{}", ask("crlf"));
    assert_eq!(
        ask("script"),
        "/bin/script is a script for /usr/bin/python3, which the image does not have"
    );
    assert!(ask("lost").contains("a script for node, which is not"), "{}", ask("lost"));
    assert!(ask("./text").contains("neither a program nor a script"), "{}", ask("./text"));
    assert!(ask("./plain").contains("not executable (mode 0644)"), "{}", ask("./plain"));
    assert!(ask("cd").contains("a command of shells"), "{}", ask("cd"));
    assert!(ask("ls -l").contains("each word is a string"), "{}", ask("ls -l"));
    assert!(ask("nosuch").contains("no folder of PATH (/bin) has"), "{}", ask("nosuch"));
    assert!(ask("/bin/sh").contains("has no shell"), "{}", ask("/bin/sh"));
}

#[test]
fn what_shells_say_is_understood() {
    let root = Root::new(&[("bin/crlf", 0o755, b"#!/bin/sh\r\n"), ("run.sh", 0o755, b"#!/no\n")]);
    let sh = ["/bin/sh", "-c", "x"];
    for (code, line, want) in [
        (127, "/bin/sh: make: not found", "has a program \"make\""),
        (127, "/bin/sh: 1: make: not found", "has a program \"make\""),
        (127, "bash: line 1: make: command not found", "has a program \"make\""),
        (127, "/bin/sh: crlf: not found", "CR LF"),
        (126, "bash: /run.sh: /no: bad interpreter: No such file or directory", "/no"),
        (127, "/bin/sh: 1: /run.sh: not found", "is a script for /no"),
    ] {
        let said = root.ask(&sh, &["noise", line], Some(Exit::Code(code)));
        assert!(said.contains(want), "{line}: {said}");
    }
    assert_eq!(root.ask(&sh, &["make: not found"], Some(Exit::Code(1))), "");
}

#[test]
fn what_loaders_say_is_understood() {
    let root = Root::new(&[]);
    let sh = ["/bin/sh", "-c", "x"];
    for (line, want) in [
        (
            "app: error while loading shared libraries: libpq.so.5: cannot open shared object \
             file: No such file or directory",
            "no library libpq.so.5",
        ),
        (
            "Error loading shared library libpq.so.5: No such file or directory (needed by /app)",
            "no library libpq.so.5",
        ),
        (
            "app: /lib/libc.so.6: version `GLIBC_2.38' not found (required by app)",
            "needs glibc 2.38",
        ),
    ] {
        let said = root.ask(&sh, &[line, "noise"], Some(Exit::Code(127)));
        assert!(said.contains(want), "{line}: {said}");
    }
}

#[test]
fn memory_network_and_disk() {
    let root = Root::new(&[]);
    let sh = ["/bin/sh", "-c", "x"];
    let killed = root.ask(&sh, &[], Some(Exit::Signal(9)));
    assert!(killed.contains("memory"), "{killed}");
    assert_eq!(killed, root.ask(&sh, &[], Some(Exit::Code(137))), "through a shell");
    let lines = ["wget: bad address 'example.org'"];
    let network = root.ask(&sh, &lines, Some(Exit::Code(1)));
    assert!(network.contains("--network=none"), "{network}");
    let disk = root.ask(&sh, &["cp: x: No space left on device"], Some(Exit::Code(1)));
    assert!(disk.contains("5000 MB free"), "{disk}");
}

#[test]
fn scripts_that_a_shell_reads_are_looked_at() {
    let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let root = Root::new(&[
        ("bin/foreign", 0o755, &elf(foreign)),
        ("s/crlf.sh", 0o755, b"echo\r\nif true; then\r\nfi\r\n"),
        ("s/env.js", 0o755, b"#!/usr/bin/env node\n"),
        ("usr/bin/env", 0o755, &elf(if foreign == 62 { 183 } else { 62 })),
    ]);
    for (command, line, code, want) in [
        // Shells that run what the kernel refuses as a script of theirs.
        (
            "foreign -x",
            "/bin/foreign: line 1: syntax error: unexpected \"(\"",
            2,
            "is a program for",
        ),
        ("foreign", "sh: \u{7f}ELF: not found", 127, "is a program for"),
        ("sh /s/crlf.sh", "/s/crlf.sh: 3: Syntax error: \"fi\" unexpected", 2, "CR LF"),
        ("bash /s/crlf.sh", "/s/crlf.sh: line 1: $'echo\\r': command not found", 127, "CR LF"),
        ("x", "/usr/bin/env: \u{2018}bash\\r\u{2019}: No such file or directory", 127, "CR LF"),
        ("cd /s && ./env.js", "/usr/bin/env: 'node': No such file or directory", 127, "/s/env.js"),
        ("cd /s && ./env.js", "env: can't execute 'node': No such file or directory", 127, "node"),
    ] {
        let said = root.ask(&["/bin/sh", "-c", command], &[line], Some(Exit::Code(code)));
        assert!(said.contains(want), "{command}: {line}: {said}");
    }
}
