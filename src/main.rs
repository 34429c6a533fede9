//! The `rbc` program: reads the command line and hands over to one module a command.
//!
//! Exit codes: 0 for success, 1 for a build (or other work) that failed, 2 for a wrong call.

mod base_image;
mod cli;
mod commands;
mod config;
mod critical;
mod inputs;
mod inspect;
mod picture;
mod registries;
mod remote;
mod render;
mod report;
mod resolver;
mod signals;
mod ssh;
mod state;

use std::process::ExitCode;

use clap::Parser;

/// Keeps glibc from holding on to freed memory: it gives each thread a heap of its own, and large
/// buffers, once freed, make it keep ever larger ones.
#[cfg(target_env = "gnu")]
fn keep_memory_small() {
    for (what, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 256 << 10)] {
        // SAFETY: sets a number in the allocator before there is any thread.
        unsafe { libc::mallopt(what, value) };
    }
}

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    keep_memory_small();
    // In a process that was started as a keeper this never returns.
    rbc_runtime::sandbox::init();
    let cli = cli::Cli::parse_from(cli::switches::settle(std::env::args_os()));
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
