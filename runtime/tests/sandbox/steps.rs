//! What a step sees, may do and leaves behind.

use std::path::Path;

use crate::harness::{Base, Test, names, run};

pub const TESTS: &[Test] =
    &[("output_and_exit_code", output_and_exit_code), ("leaves_nothing", leaves_nothing)];

fn output_and_exit_code(base: &Base) {
    let ran = run(&base.step("echo out; echo err >&2; exit 7"));
    assert_eq!((ran.exit.code(), ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
}

fn leaves_nothing(base: &Base) {
    let step = base.step("ls -la / /etc /dev; cat /etc/hosts; cat /proc/self/status | grep -i -E 'cap|seccomp|newpriv'; ls /dev | sort | tr '\\n' ' '; cat /proc/mounts; id -G");
    let ran = run(&step);
    println!("{} {}", ran.stdout, ran.stderr);
    assert_eq!(names(&step.upper), [""; 0]);
}

pub fn victim(_dir: &Path) -> ! {
    std::process::exit(0)
}
