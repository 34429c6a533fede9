//! The `rbc` program: reads the command line and hands over to one module a command.
//!
//! Exit codes: 0 for success, 1 for a build (or other work) that failed, 2 for a wrong call.

mod base_image;
mod cli;
mod commands;
mod config;
mod inputs;
mod inspect;
mod picture;
mod registries;
mod remote;
mod render;
mod report;
mod resolver;
mod state;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // In a process that was started as a step's child this never returns.
    rbc_runtime::sandbox::init();
    let cli = cli::Cli::parse_from(cli::switches::settle(std::env::args_os()));
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
