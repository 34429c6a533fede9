//! What the live view shows, as lines: what has happened, and what is going on below it. Nothing here
//! knows of a terminal, only of its size.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use rbc_ir::{Digest, Graph};
use rbc_runtime::progress::{Event, StepId};

use super::{
    moved::Moved,
    style::{Look, Style},
    text::{Colours, Lines, fit, on_one_line, printable, width},
};
use crate::critical;

/// Last lines that a running step shows at most.
const TAIL: usize = 6;
/// Steps of the critical path that are named at most.
const MAX_PATH: usize = 5;
/// Columns before the names of steps: a sign, and a time.
const MARGIN: usize = 10;

/// The size of a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// All that is known of the build so far.
pub struct View {
    style: Style,
    begin: Instant,
    /// Lines that are to be shown for good.
    said: Vec<Said>,
    /// Steps that are to be, or have been, done; 0 if there is no plan.
    planned: usize,
    cached: usize,
    ran: usize,
    failed: usize,
    /// Whether a step, an export or a push failed.
    broken: bool,
    stopped: bool,
    /// Whether the steps that were found before anything ran have been told of.
    told_cached: bool,
    running: BTreeMap<(Instant, StepId), Running>,
    /// When steps that ran ended, in milliseconds of this build, and how long they took.
    ends: HashMap<Digest, (u64, Duration, String)>,
    /// What ran after the graph: exports and pushes.
    after: Vec<(Duration, String)>,
}

/// A line that stays.
struct Said {
    look: Look,
    mark: &'static str,
    took: String,
    text: String,
    /// Whether it is shown in full, over several lines of the terminal if it has to be.
    whole: bool,
}

struct Running {
    name: String,
    digest: Digest,
    lines: Lines,
    /// The last complete lines, the latest first.
    tail: VecDeque<String>,
    moved: Moved,
}

impl View {
    pub fn new(style: Style) -> Self {
        Self {
            style,
            begin: Instant::now(),
            said: Vec::new(),
            planned: 0,
            cached: 0,
            ran: 0,
            failed: 0,
            broken: false,
            stopped: false,
            told_cached: false,
            running: BTreeMap::new(),
            ends: HashMap::new(),
            after: Vec::new(),
        }
    }

    fn running(&mut self, step: StepId) -> Option<&mut Running> {
        self.running.iter_mut().find(|((_, id), _)| *id == step).map(|(_, running)| running)
    }

    pub fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { steps } => self.planned = steps,
            Event::FirstMiss { step, name, cause } => {
                let text = format!("first miss: #{step} {name}: {cause}");
                self.say(Look::Warning, self.style.signs().question, None, &text, true);
            }
            Event::StepStarted { step, name, digest } => {
                self.tell_cached();
                let running = Running {
                    name: on_one_line(name),
                    digest: *digest,
                    lines: Lines::default(),
                    tail: VecDeque::new(),
                    moved: Moved::default(),
                };
                self.running.insert((Instant::now(), step), running);
            }
            // It was made before and given up for want of room, and is there after all.
            Event::StepCached { digest, .. } if self.ends.contains_key(digest) => {}
            Event::StepCached { name, origin, .. } => {
                self.cached += 1;
                if self.told_cached {
                    let origin = origin.map(|origin| format!(" (from {origin})"));
                    let text = format!("{name}{}", origin.unwrap_or_default());
                    self.say(Look::Soft, self.style.signs().cached, None, &text, false);
                }
            }
            Event::StepOutput { step, data, .. } => {
                if let Some(running) = self.running(step) {
                    running.output(data);
                }
            }
            Event::StepProgress { step, what, done, total } => {
                if let Some(running) = self.running(step) {
                    running.moved.tell(what, done, total);
                }
            }
            Event::StepFinished { step, error, elapsed } => self.finished(step, error, elapsed),
            Event::Warning(text) => {
                let text = format!("warning: {text}");
                self.say(Look::Warning, self.style.signs().warning, None, &text, true);
            }
            _ => {}
        }
    }

    fn finished(&mut self, step: StepId, error: Option<&str>, elapsed: Duration) {
        let Some(key) = self.running.keys().find(|(_, id)| *id == step).copied() else { return };
        let Some(running) = self.running.remove(&key) else { return };
        let signs = self.style.signs();
        let moved = running.moved.shown().map(|(text, _)| format!("  {text}")).unwrap_or_default();
        let text = format!("{}{moved}", running.name);
        match error {
            None => {
                self.say(Look::Good, signs.done, Some(elapsed), &text, false);
                if step > self.planned {
                    self.after.push((elapsed, running.name));
                } else {
                    let end = self.begin.elapsed().as_millis() as u64;
                    let end = (end, elapsed, running.name);
                    // What was given up for want of room ends twice.
                    self.ran += usize::from(self.ends.insert(running.digest, end).is_none());
                }
            }
            // Another step failed, or the user stopped the build.
            Some("cancelled") => {
                self.stopped = true;
                self.say(Look::Soft, signs.stopped, Some(elapsed), &text, false);
            }
            Some(_) => {
                self.failed += usize::from(step <= self.planned);
                self.broken = true;
                self.say(Look::Bad, signs.failed, Some(elapsed), &text, false);
            }
        }
    }

    /// Says in one line what needed no time, before the first thing that does.
    fn tell_cached(&mut self) {
        if !std::mem::replace(&mut self.told_cached, true) && self.cached > 0 {
            let text = format!("{} of {} steps cached", self.cached, self.planned);
            self.say(Look::Soft, self.style.signs().cached, None, &text, false);
        }
    }

    fn say(
        &mut self,
        look: Look,
        mark: &'static str,
        took: Option<Duration>,
        text: &str,
        whole: bool,
    ) {
        let took = took.map(shown_time).unwrap_or_default();
        self.said.push(Said { look, mark, took, text: on_one_line(text), whole });
    }

    /// The lines that have come and stay, once.
    pub fn take_said(&mut self, columns: usize) -> Vec<String> {
        let room = columns.saturating_sub(1);
        let shown = |line: Said| {
            let (mark, style) = (self.style.paint(line.look, line.mark), self.style);
            if line.whole {
                return format!("{mark} {}", line.text);
            }
            let text = fit(&line.text, room.saturating_sub(MARGIN));
            let text = if line.look == Look::Soft { style.paint(Look::Soft, &text) } else { text };
            format!("{mark} {} {text}", style.paint(Look::Soft, &format!("{:>7}", line.took)))
        };
        std::mem::take(&mut self.said).into_iter().map(shown).collect()
    }

    /// What is going on: no more lines than there are rows, none longer than the terminal is wide.
    pub fn now(&self, size: Size, turn: usize) -> Vec<String> {
        if self.running.is_empty() && self.planned == 0 {
            return Vec::new();
        }
        let (room, rows) = (size.columns.saturating_sub(1), size.rows.saturating_sub(1));
        let steps = self.running.len();
        // The last line of all tells how far the build is.
        let Some(free) = rows.checked_sub(usize::from(self.planned > 0)) else { return Vec::new() };
        let named = if steps <= free { steps } else { free.saturating_sub(1) };
        let mut for_tails = free.saturating_sub(steps.max(1));
        let mut lines = Vec::new();
        for (at, ((begin, _), running)) in self.running.iter().take(named).enumerate() {
            lines.push(self.headline(running, begin.elapsed(), room, turn));
            let tail = running.tail(TAIL.min(for_tails / (named - at)));
            for_tails -= tail.len();
            let bar = self.style.signs().bar;
            lines.extend(tail.iter().map(|text| {
                let text = fit(text, room.saturating_sub(MARGIN + 2));
                self.style.paint(Look::Soft, &format!("{:>width$} {text}", bar, width = MARGIN + 1))
            }));
        }
        if named < steps && free > 0 {
            let text = format!("{:>MARGIN$}and {} more", "", steps - named);
            lines.push(self.style.paint(Look::Soft, &fit(&text, room)));
        }
        if self.planned > 0 {
            lines.push(self.style.paint(Look::Strong, &self.status(room)));
        }
        lines
    }

    fn headline(&self, running: &Running, took: Duration, room: usize, turn: usize) -> String {
        let mark = self.style.paint(Look::Active, self.style.turning(turn));
        let took = self.style.paint(Look::Soft, &format!("{:>7}", shown_time(took)));
        let room = room.saturating_sub(MARGIN);
        let Some((moved, part)) = running.moved.shown() else {
            return format!("{mark} {took} {}", fit(&running.name, room));
        };
        let moved = match part {
            Some(percent) => format!("  {moved} {percent:>3}%"),
            None => format!("  {moved}"),
        };
        // A name that is cut still tells more than none.
        let name = fit(&running.name, room.saturating_sub(width(&moved)).max(room.min(8)));
        let moved = fit(&moved, room.saturating_sub(width(&name)));
        format!("{mark} {took} {name}{}", self.style.paint(Look::Active, &moved))
    }

    /// How far the build is, in so many columns.
    fn status(&self, room: usize) -> String {
        let time = shown_time(self.begin.elapsed());
        let mut text = format!("{}/{} steps", self.cached + self.ran, self.planned);
        if self.cached > 0 {
            text.push_str(&format!(", {} cached", self.cached));
        }
        match self.running.keys().filter(|(_, step)| *step <= self.planned).count() {
            0 => {}
            running => text.push_str(&format!(", {running} running")),
        }
        let in_column = format!("{time:>9} {text}");
        if width(&in_column) <= room { in_column } else { fit(&format!("{time} {text}"), room) }
    }

    /// What the build came to: how long it took, and the steps that it waited for.
    pub fn sum_up(&mut self, graph: Option<&Graph>) {
        self.tell_cached();
        self.stopped |= !self.running.is_empty();
        self.running.clear();
        let Some(graph) = graph.filter(|_| self.planned > 0) else { return };
        let took = shown_time(self.begin.elapsed());
        let how = match (self.broken, self.stopped) {
            (true, _) => "failed after",
            (false, true) => "stopped after",
            (false, false) => "built in",
        };
        let count =
            |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let mut text = format!(
            "{how} {took}: {}, {} cached, {} ran",
            count(self.planned, "step"),
            self.cached,
            self.ran
        );
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        let (look, mark) = match self.broken || self.stopped {
            true => (Look::Bad, self.style.signs().failed),
            false => (Look::Good, self.style.signs().done),
        };
        self.say(look, mark, None, &text, true);
        if !self.broken && !self.stopped {
            self.tell_path(graph);
        }
    }

    fn tell_path(&mut self, graph: &Graph) {
        let ends = self.ends.iter().map(|(digest, (end, ..))| (*digest, *end)).collect();
        let path = critical::path(graph, &ends);
        let steps = path.iter().filter_map(|digest| self.ends.get(digest));
        let steps: Vec<(Duration, String)> = steps
            .map(|(_, took, name)| (*took, name.clone()))
            .chain(self.after.iter().cloned())
            .collect();
        if steps.len() < 2 {
            return;
        }
        let total: Duration = steps.iter().map(|(took, _)| *took).sum();
        let mut longest: Vec<usize> = (0..steps.len()).collect();
        longest.sort_by_key(|&at| std::cmp::Reverse(steps[at].0));
        let mut named: Vec<usize> = longest.iter().take(MAX_PATH).copied().collect();
        named.retain(|&at| steps[at].0 * 20 >= total);
        named.sort_unstable();
        let signs = self.style.signs();
        self.say(Look::Soft, signs.path, Some(total), "critical path, of which", false);
        for &at in &named {
            let (took, name) = &steps[at];
            self.say(Look::Plain, " ", Some(*took), name, false);
        }
        let others: Vec<&(Duration, String)> =
            (0..steps.len()).filter(|at| !named.contains(at)).map(|at| &steps[at]).collect();
        if !others.is_empty() {
            let took = others.iter().map(|(took, _)| *took).sum();
            let text = match others.as_slice() {
                [one] => one.1.clone(),
                several => format!("{} shorter steps", several.len()),
            };
            self.say(Look::Plain, " ", Some(took), &text, false);
        }
    }
}

impl Running {
    fn output(&mut self, data: &[u8]) {
        let tail = &mut self.tail;
        self.lines.push(data, |line| {
            let line = printable(line, Colours::Drop);
            if !line.trim().is_empty() {
                tail.truncate(TAIL - 1);
                tail.push_front(line);
            }
        });
    }

    /// The last lines, also the one that is not complete.
    fn tail(&self, count: usize) -> Vec<String> {
        let partial = printable(&self.lines.partial(), Colours::Drop);
        let partial = Some(partial).filter(|line| !line.trim().is_empty());
        let latest = partial.into_iter().chain(self.tail.iter().cloned());
        let mut lines: Vec<String> = latest.take(count).collect();
        lines.reverse();
        lines
    }
}

fn shown_time(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}
