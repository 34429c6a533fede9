//! The live view on a terminal: what is done stays as lines, what goes on is drawn anew below them
//! ten times a second.

use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rbc_ir::Graph;
use rbc_runtime::progress::{Event, EventSink};

use super::{
    Renderer,
    style::Style,
    text::{Colours, printable, width},
    view::{Size, View},
};

const PERIOD: Duration = Duration::from_millis(100);
/// What a terminal has that does not tell its size.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Draws on standard error.
pub struct Tty<'a> {
    graph: Option<&'a Graph>,
    shared: Arc<Shared>,
    drawer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// Told when `is_over` is set.
    over: Condvar,
}

struct State {
    view: View,
    screen: Screen,
    is_over: bool,
}

impl<'a> Tty<'a> {
    /// A view of a build of `graph`, or of something else that has steps.
    pub fn new(graph: Option<&'a Graph>) -> Self {
        let view = View::new(Style::of_environment());
        let state = State { view, screen: Screen { is_empty: true, turn: 0 }, is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), over: Condvar::new() });
        let of_drawer = Arc::clone(&shared);
        // Without a thread all is shown at the end.
        let drawer = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || of_drawer.draw_until_over())
            .ok();
        Self { graph, shared, drawer: Mutex::new(drawer) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_over(&self) {
        let mut state = self.state();
        while !state.is_over {
            state.draw();
            let waited = self.over.wait_timeout(state, PERIOD);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn draw(&mut self) {
        let size = size();
        let said = self.view.take_said(size.columns);
        let now = match self.is_over {
            true => Vec::new(),
            false => self.view.now(size, self.screen.turn),
        };
        let frame = self.screen.frame(&said, &now, size.columns);
        // A terminal that is gone does not stop the build.
        let _ = io::stderr().lock().write_all(frame.as_bytes());
    }
}

/// What stands on the terminal.
///
/// The cursor waits where the next frame begins, and lines of a frame are cut at the edge rather
/// than broken. So it does not matter when a terminal that becomes narrower breaks the lines that
/// it shows: a frame begins where the last one began in any case.
struct Screen {
    is_empty: bool,
    turn: usize,
}

impl Screen {
    /// What to write so that the lines of `said` stand where the last frame began, and those of
    /// `now` below them.
    fn frame(&mut self, said: &[String], now: &[String], columns: usize) -> String {
        self.turn += 1;
        let was_empty = std::mem::replace(&mut self.is_empty, now.is_empty());
        if said.is_empty() && now.is_empty() && was_empty {
            return String::new();
        }
        // Terminals that know it show what comes between these two marks at once.
        let mut out = String::from("\u{1b}[?2026h\r");
        // Writing to a string does not fail.
        for line in said {
            // What is right of the text is cleared, unless the text goes up to the edge.
            let is_full = width(&without_colours(line)).is_multiple_of(columns.max(1));
            let _ = write!(out, "\u{1b}[K{line}{}\r\n", if is_full { "" } else { "\u{1b}[K" });
        }
        out.push_str("\u{1b}[?7l");
        for line in now {
            let _ = write!(out, "\u{1b}[K{line}\r\n");
        }
        out.push_str("\u{1b}[J");
        if !now.is_empty() {
            let _ = write!(out, "\u{1b}[{}A", now.len());
        }
        out.push_str("\u{1b}[?7h\u{1b}[?2026l");
        out
    }
}

fn without_colours(line: &str) -> String {
    printable(line, Colours::Drop)
}

fn size() -> Size {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL,
    }
}

impl EventSink for Tty<'_> {
    fn event(&self, event: Event<'_>) {
        let mut state = self.shared.state();
        state.view.event(event);
        if state.is_over {
            state.draw();
        }
    }
}

impl Renderer for Tty<'_> {
    fn finish(&self) {
        let drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner).take();
        {
            let mut state = self.shared.state();
            if state.is_over {
                return;
            }
            state.view.sum_up(self.graph);
            state.is_over = true;
            state.draw();
        }
        self.shared.over.notify_all();
        if let Some(drawer) = drawer {
            let _ = drawer.join();
        }
    }
}

impl Drop for Tty<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}
