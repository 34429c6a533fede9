//! Shows the events of a build on standard error.

mod json;
mod plain;
mod tty;

use std::io::{self, IsTerminal, Stderr};

use rbc_runtime::progress::{Event, EventSink};

use crate::cli::ProgressKind;

/// A renderer: takes events, and is told when the last one has come.
pub trait Renderer: EventSink {
    /// Writes what is still held back.
    fn finish(&self) {}
}

struct Quiet;

impl EventSink for Quiet {
    fn event(&self, _: Event<'_>) {}
}

impl Renderer for Quiet {}

/// The renderer for `--progress` and `--quiet`.
pub fn sink(kind: ProgressKind, quiet: bool) -> Box<dyn Renderer> {
    match kind {
        _ if quiet => Box::new(Quiet),
        ProgressKind::Quiet => Box::new(Quiet),
        ProgressKind::Rawjson => Box::new(json::Json::<Stderr>::new(io::stderr())),
        ProgressKind::Tty => Box::new(tty::Tty::new()),
        ProgressKind::Auto if io::stderr().is_terminal() => Box::new(tty::Tty::new()),
        ProgressKind::Auto | ProgressKind::Plain => {
            Box::new(plain::Plain::<Stderr>::new(io::stderr()))
        }
    }
}
