//! The live view on a terminal: finished steps as lines, running ones below them with their time
//! and the last line that they printed.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rbc_runtime::progress::{Event, EventSink, StepId};

use super::Renderer;

/// Draws on standard error.
pub struct Tty {
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<StepId, Running>,
}

struct Running {
    name: String,
    bar: ProgressBar,
    /// The beginning of a line that is not complete.
    partial: Vec<u8>,
}

impl Tty {
    pub fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { screen, state: Mutex::default() }
    }

    /// Writes a line above the running steps.
    fn line(&self, text: &str) {
        // A terminal that is gone does not stop the build.
        let _ = self.screen.println(text);
    }
}

/// Text of a step without what would move the cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl EventSink for Tty {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned { .. } => {}
            Event::FirstMiss { name, cause, .. } => {
                self.line(&format!("? first miss: {}: {}", plain(name), plain(cause)));
            }
            Event::StepStarted { step, name, .. } => {
                let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}");
                let bar = self.screen.add(ProgressBar::new_spinner());
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_message(plain(name));
                bar.enable_steady_tick(Duration::from_millis(100));
                let running = Running { name: plain(name), bar, partial: Vec::new() };
                state.running.insert(step, running);
            }
            Event::StepCached { name, origin, .. } => {
                let origin = origin.map(|origin| format!(" from {}", plain(origin)));
                self.line(&format!("= CACHED{} {}", origin.unwrap_or_default(), plain(name)));
            }
            Event::StepOutput { step, data, .. } => {
                if let Some(running) = state.running.get_mut(&step) {
                    running.output(data);
                }
            }
            Event::StepProgress { step, what, done, total } => {
                if let Some(running) = state.running.get(&step) {
                    let total = total.map(|total| format!("/{}", megabytes(total)));
                    let bytes = format!("{}{}", megabytes(done), total.unwrap_or_default());
                    running.bar.set_message(format!("{}: {what} {bytes}", running.name));
                }
            }
            Event::StepFinished { step, error, elapsed } => {
                if let Some(running) = state.running.remove(&step) {
                    running.bar.finish_and_clear();
                    let mark = if error.is_none() { "+" } else { "! FAILED" };
                    let seconds = elapsed.as_secs_f64();
                    self.line(&format!("{mark} {seconds:.1}s {}", running.name));
                }
            }
            Event::Warning(text) => self.line(&format!("warning: {text}")),
        }
    }
}

impl Running {
    /// Shows the last complete line.
    fn output(&mut self, data: &[u8]) {
        /// Enough for any terminal's width.
        const MAX: usize = 1000;
        self.partial.extend_from_slice(data);
        let Some(end) = self.partial.iter().rposition(|b| matches!(b, b'\n' | b'\r')) else {
            let excess = self.partial.len().saturating_sub(MAX);
            self.partial.drain(..excess);
            return;
        };
        let lines = self.partial[..end].split(|b| matches!(b, b'\n' | b'\r'));
        if let Some(line) = lines.rev().find(|line| !line.trim_ascii().is_empty()) {
            let line = String::from_utf8_lossy(&line[..line.len().min(MAX)]);
            self.bar.set_message(format!("{} | {}", self.name, plain(&line)));
        }
        self.partial.drain(..=end);
    }
}

impl Renderer for Tty {
    fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, running) in state.running.drain() {
            running.bar.finish_and_clear();
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}MB", bytes as f64 / 1e6)
}
