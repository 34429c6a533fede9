//! Lines, in the manner of BuildKit's plain progress: each starts with the number of its step, and
//! the lines of two steps never mix.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rbc_runtime::progress::{Event, EventSink, StepId};

use super::{
    Renderer,
    moved::Moved,
    text::{Colours, on_one_line, printable},
};

/// A line longer than this is shown in pieces.
const MAX_LINE: usize = 64 << 10;

/// How often a step tells how many bytes it has moved.
const BETWEEN_BYTES: Duration = Duration::from_secs(3);

/// Writes lines to `W`.
pub struct Plain<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    colours: Colours,
    running: HashMap<StepId, Running>,
    /// The step whose lines came last.
    last: Option<StepId>,
}

struct Running {
    name: String,
    begin: Instant,
    /// The beginning of a line that is not complete.
    partial: Vec<u8>,
    moved: Moved,
    /// When it was last told how much has moved.
    told: Instant,
}

impl<W: Write> Plain<W> {
    pub fn new(out: W, colours: Colours) -> Self {
        Self { state: Mutex::new(State { out, colours, running: HashMap::new(), last: None }) }
    }
}

impl<W: Write + Send> Renderer for Plain<W> {}

impl<W: Write + Send> EventSink for Plain<W> {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may be reading any more; the build goes on all the same.
        let _ = state.show(event);
    }
}

impl<W: Write> State<W> {
    fn show(&mut self, event: Event<'_>) -> std::io::Result<()> {
        match event {
            Event::Planned { .. } => Ok(()),
            Event::StepProgress { step, what, done, total } => self.moved(step, what, done, total),
            Event::FirstMiss { step, name, cause } => {
                let text = on_one_line(&format!("first miss: #{step} {name}: {cause}"));
                writeln!(self.out, "{text}")?;
                writeln!(self.out)
            }
            Event::StepStarted { step, name, .. } => {
                let running = Running {
                    name: name.to_owned(),
                    begin: Instant::now(),
                    partial: Vec::new(),
                    moved: Moved::default(),
                    told: Instant::now(),
                };
                self.running.insert(step, running);
                self.head(step, name)
            }
            Event::StepCached { step, name, origin, .. } => {
                self.head(step, name)?;
                if let Some(origin) = origin {
                    writeln!(self.out, "#{step} cached, from {origin}")?;
                }
                writeln!(self.out, "#{step} CACHED")
            }
            Event::StepOutput { step, data, .. } => self.output(step, data),
            Event::StepFinished { step, error, elapsed } => {
                let Some(running) = self.running.remove(&step) else { return Ok(()) };
                if self.last != Some(step) {
                    self.head(step, &running.name)?;
                }
                if !running.partial.is_empty() {
                    self.line(step, running.begin.elapsed(), &running.partial)?;
                }
                if let Some((moved, _)) = running.moved.shown() {
                    self.line(step, running.begin.elapsed(), moved.as_bytes())?;
                }
                match error {
                    None => writeln!(self.out, "#{step} DONE {:.1}s", elapsed.as_secs_f64()),
                    Some(error) => writeln!(self.out, "#{step} ERROR: {}", on_one_line(error)),
                }
            }
            Event::Warning(text) => writeln!(self.out, "warning: {}", on_one_line(text)),
            _ => Ok(()),
        }
    }

    /// Says whose lines follow.
    fn head(&mut self, step: StepId, name: &str) -> std::io::Result<()> {
        if self.last.is_some() {
            writeln!(self.out)?;
        }
        self.last = Some(step);
        writeln!(self.out, "#{step} {}", on_one_line(name))
    }

    fn output(&mut self, step: StepId, data: &[u8]) -> std::io::Result<()> {
        let Some(running) = self.running.get_mut(&step) else { return Ok(()) };
        running.partial.extend_from_slice(data);
        let complete = match running.partial.iter().rposition(|b| *b == b'\n') {
            Some(end) => running.partial.drain(..=end).collect::<Vec<u8>>(),
            None if running.partial.len() > MAX_LINE => std::mem::take(&mut running.partial),
            None => return Ok(()),
        };
        let (name, elapsed) = (running.name.clone(), running.begin.elapsed());
        if self.last != Some(step) {
            self.head(step, &name)?;
        }
        let text = complete.strip_suffix(b"\n").unwrap_or(&complete);
        text.split(|b| *b == b'\n').try_for_each(|text| self.line(step, elapsed, text))
    }

    /// Tells from time to time how much has moved, so that who reads the log sees that it goes on.
    fn moved(
        &mut self,
        step: StepId,
        what: &str,
        done: u64,
        total: Option<u64>,
    ) -> std::io::Result<()> {
        let Some(running) = self.running.get_mut(&step) else { return Ok(()) };
        running.moved.tell(what, done, total);
        if running.told.elapsed() < BETWEEN_BYTES {
            return Ok(());
        }
        running.told = Instant::now();
        let Some((moved, percent)) = running.moved.shown() else { return Ok(()) };
        let percent = percent.map_or(String::new(), |percent| format!("  {percent}%"));
        let (name, elapsed) = (running.name.clone(), running.begin.elapsed());
        if self.last != Some(step) {
            self.head(step, &name)?;
        }
        self.line(step, elapsed, format!("{moved}{percent}").as_bytes())
    }

    fn line(&mut self, step: StepId, at: Duration, text: &[u8]) -> std::io::Result<()> {
        // Whoever reads the log later may do so on a terminal.
        let text = printable(&String::from_utf8_lossy(text), self.colours);
        writeln!(self.out, "#{step} {:.3} {text}", at.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use rbc_ir::Digest;
    use rbc_runtime::progress::Stream;

    use super::*;

    #[test]
    fn lines_of_two_steps_do_not_mix() {
        let plain = Plain::new(Vec::new(), Colours::Drop);
        let digest = Digest::of(b"");
        let output = |step, data: &[u8]| {
            plain.event(Event::StepOutput { step, stream: Stream::Stdout, data });
        };
        plain.event(Event::StepCached { step: 1, name: "FROM x", digest: &digest, origin: None });
        plain.event(Event::StepStarted { step: 2, name: "RUN a", digest: &digest });
        plain.event(Event::StepStarted { step: 3, name: "RUN b", digest: &digest });
        output(2, b"one\ntw");
        output(3, b"from b\xff\n");
        output(2, b"o\n10%\r20%\r100%\n\x1b[2J\x1b]0;title\x07end");
        let elapsed = Duration::from_millis(1250);
        plain.event(Event::StepProgress { step: 2, what: "a", done: 1_300_000, total: None });
        plain.event(Event::StepFinished { step: 2, error: None, elapsed });
        plain.event(Event::StepFinished { step: 3, error: Some("exit code: 1"), elapsed });
        let text = String::from_utf8(plain.state.into_inner().unwrap().out).unwrap();
        // Times of output lines differ from run to run.
        let text: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(" 0.0") {
                Some((step, rest)) => format!("{step} T{}", &rest[2..]),
                None => line.to_owned(),
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        #1 FROM x
        #1 CACHED

        #2 RUN a

        #3 RUN b

        #2 RUN a
        #2 T one

        #3 RUN b
        #3 T from b�

        #2 RUN a
        #2 T two
        #2 T 100%
        #2 T end
        #2 T 1.3 MB
        #2 DONE 1.2s

        #3 RUN b
        #3 ERROR: exit code: 1
        ");
    }
}
