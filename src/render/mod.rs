//! Shows the events of a build on standard error.

mod json;
mod moved;
mod plain;
mod style;
mod text;
mod tty;
mod view;

pub use style::no_colours;
pub use text::{Colours, fit, on_one_line, printable};

use std::io::{self, IsTerminal, Stderr};

use rbc_ir::Graph;
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

/// The renderer for `--progress` and `--quiet`. `graph` is what is built, if it is a build.
pub fn sink(kind: ProgressKind, quiet: bool, graph: Option<&Graph>) -> Box<dyn Renderer + '_> {
    let is_screen = || io::stderr().is_terminal() && !style::is_dumb();
    match kind {
        _ if quiet => Box::new(Quiet),
        ProgressKind::Quiet => Box::new(Quiet),
        ProgressKind::Rawjson => Box::new(json::Json::<Stderr>::new(io::stderr())),
        ProgressKind::Tty => Box::new(tty::Tty::new(graph)),
        ProgressKind::Auto if is_screen() => Box::new(tty::Tty::new(graph)),
        ProgressKind::Auto | ProgressKind::Plain => {
            Box::new(plain::Plain::<Stderr>::new(io::stderr(), colours()))
        }
    }
}

/// Whether colours that steps print are shown.
fn colours() -> Colours {
    if no_colours() { Colours::Drop } else { Colours::Keep }
}
