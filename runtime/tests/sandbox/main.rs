//! Steps in a real sandbox. The sandbox re-executes the running binary, so this test has a `main`
//! of its own: it runs all tests as the present user and, as root, once more as an ordinary user.
//!
//! The roots are made of the machine's static busybox (Debian package `busybox-static`).

mod harness;
mod steps;

use std::process::ExitCode;

fn main() -> ExitCode {
    rbc_runtime::sandbox::init();
    harness::main(steps::TESTS)
}
