//! One JSON object a line, for programs. `time` is in seconds since the begin.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rbc_runtime::progress::{Event, EventSink, StepId, Stream};
use serde_json::json;

use super::Renderer;

/// Writes JSON lines to `W`.
pub struct Json<W> {
    begin: Instant,
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    /// Bytes of characters that are not complete.
    cut: HashMap<(StepId, bool), Vec<u8>>,
}

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Self {
        let state = State { out, cut: HashMap::new() };
        Self { begin: Instant::now(), state: Mutex::new(state) }
    }
}

impl<W: Write + Send> Renderer for Json<W> {}

impl<W: Write + Send> EventSink for Json<W> {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = match event {
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
                let data = state.text(step, stream, data);
                let stream = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                json!({ "event": "output", "step": step, "stream": stream, "data": data })
            }
            Event::StepProgress { step, what, done, total } => {
                json!({ "event": "progress", "step": step, "what": what, "done": done, "total": total })
            }
            Event::StepFinished { step, error, elapsed } => json!({
                "event": "finished", "step": step, "error": error, "seconds": elapsed.as_secs_f64(),
            }),
            Event::Warning(text) => json!({ "event": "warning", "text": text }),
            _ => return,
        };
        value["time"] = self.begin.elapsed().as_secs_f64().into();
        // Nobody may be reading any more; the build goes on all the same.
        let _ = writeln!(state.out, "{value}");
    }
}

impl<W> State<W> {
    /// Output as text. A character whose bytes come in two pieces is kept whole; what is no UTF-8
    /// is replaced.
    fn text(&mut self, step: StepId, stream: Stream, data: &[u8]) -> String {
        let cut = self.cut.entry((step, stream == Stream::Stderr)).or_default();
        cut.extend_from_slice(data);
        let incomplete = match cut.utf8_chunks().last() {
            // Three bytes are the most that may want a fourth.
            Some(chunk) if is_beginning(chunk.invalid()) => chunk.invalid().len(),
            _ => 0,
        };
        let rest = cut.split_off(cut.len() - incomplete);
        let text = String::from_utf8_lossy(cut).into_owned();
        *cut = rest;
        text
    }
}

/// Whether bytes are the beginning of one character.
fn is_beginning(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole() {
        let json = Json::new(Vec::new());
        for data in [&b"gr\xc3"[..], b"\xbcn\xff", b"\xe6\xbc", b"\xa2"] {
            json.event(Event::StepOutput { step: 1, stream: Stream::Stdout, data });
        }
        let out = String::from_utf8(json.state.into_inner().unwrap().out).unwrap();
        let text = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["time"].is_number());
            value["data"].as_str().unwrap().to_owned()
        };
        assert_eq!(out.lines().map(text).collect::<String>(), "grün\u{fffd}漢");
    }
}
