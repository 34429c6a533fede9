//! `--debug-shell`: a shell where a step failed.

use rbc_runtime::{
    build::{BuildError, FailedCommand},
    store::Store,
};

use super::report::tell;
use crate::inspect::clean;

/// Opens a shell, or the command that the user wants instead, and waits for its end. What goes
/// wrong is told; the build has failed in any case.
pub fn enter(store: &Store, failed: &FailedCommand, command: &str, stopped: &dyn Fn() -> bool) {
    let asked: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let args = match asked.is_empty() {
        true => failed.shell(),
        false => Some(asked),
    };
    let name = clean(failed.name());
    let Some(args) = args else {
        tell(&format!("{name} failed, and its image has no shell: use --debug-shell=PROGRAM"));
        return;
    };
    let exec = failed.exec();
    tell(&format!("\n{name} failed. This is {} where it ran, as it left things.", args.join(" ")));
    tell(&format!("Its command was: {}", clean(&exec.args.join(" "))));
    tell("What you change is dropped. The build ends when you leave.\n");
    match failed.enter(store, args, stopped) {
        Ok(_) | Err(BuildError::Cancelled) => {}
        Err(error) => tell(&format!("cannot open a shell there: {error}")),
    }
}
