//! One JSON object a line, for programs.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use rbc_runtime::progress::{Event, EventSink, Stream};
use serde_json::json;

use super::Renderer;

/// Writes JSON lines to `W`.
pub struct Json<W>(Mutex<W>);

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Self {
        Self(Mutex::new(out))
    }
}

impl<W: Write + Send> Renderer for Json<W> {}

impl<W: Write + Send> EventSink for Json<W> {
    fn event(&self, event: Event<'_>) {
        let value = match event {
            Event::Planned { steps } => json!({ "event": "planned", "steps": steps }),
            Event::FirstMiss { step, name, cause } => {
                json!({ "event": "first_miss", "step": step, "name": name, "cause": cause })
            }
            Event::StepStarted { step, name, digest } => {
                json!({ "event": "started", "step": step, "name": name, "digest": digest })
            }
            Event::StepCached { step, name, digest, origin: None } => {
                json!({ "event": "cached", "step": step, "name": name, "digest": digest })
            }
            Event::StepCached { step, name, digest, origin } => json!({
                "event": "cached", "step": step, "name": name, "digest": digest, "from": origin,
            }),
            Event::StepOutput { step, stream, data } => {
                let stream = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                let data = String::from_utf8_lossy(data);
                json!({ "event": "output", "step": step, "stream": stream, "data": data })
            }
            Event::StepProgress { step, what, done, total } => {
                json!({ "event": "progress", "step": step, "what": what, "done": done, "total": total })
            }
            Event::StepFinished { step, error, elapsed } => json!({
                "event": "finished", "step": step, "error": error, "seconds": elapsed.as_secs_f64(),
            }),
            Event::Warning(text) => json!({ "event": "warning", "text": text }),
        };
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody may be reading any more; the build goes on all the same.
        let _ = writeln!(out, "{value}");
    }
}
