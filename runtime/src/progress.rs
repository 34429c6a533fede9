//! What a build tells while it runs. Renderers (plain, terminal, JSON) live in the binary.

use std::time::Duration;

use rbc_ir::Digest;

/// Number of a step within one build, from 1.
pub type StepId = usize;

/// Something that happened in a build. More kinds of events may come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The build is planned.
    Planned {
        /// Steps that the targets need.
        steps: usize,
    },
    /// The first step that is not in the cache, and why.
    FirstMiss {
        /// The step.
        step: StepId,
        /// Its name.
        name: &'a str,
        /// Why, in one line.
        cause: &'a str,
    },
    /// A step has begun to run.
    StepStarted {
        /// The step.
        step: StepId,
        /// Name such as `[builder 2/4] RUN make`.
        name: &'a str,
        /// Digest of its node.
        digest: &'a Digest,
    },
    /// A step's result was taken from the cache. There was no `StepStarted` for it.
    StepCached {
        /// The step.
        step: StepId,
        /// Name such as `[builder 2/4] RUN make`.
        name: &'a str,
        /// Digest of its node.
        digest: &'a Digest,
        /// The other cache that it is from, if it is not from this store.
        origin: Option<&'a str>,
    },
    /// Output of a running step, as it came: any bytes, not aligned to lines.
    StepOutput {
        /// The step.
        step: StepId,
        /// Where it was written.
        stream: Stream,
        /// What was written.
        data: &'a [u8],
    },
    /// Bytes moved for a step (pull, push, unpack, export).
    StepProgress {
        /// The step.
        step: StepId,
        /// What moves, for example `pulling sha256:0123456789ab`.
        what: &'a str,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// A step has ended.
    StepFinished {
        /// The step.
        step: StepId,
        /// Why it failed, if it did.
        error: Option<&'a str>,
        /// How long it ran.
        elapsed: Duration,
    },
    /// Something the user should know that stops nothing.
    Warning(&'a str),
}

/// An output stream of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives the events of a build, from several threads at once.
pub trait EventSink: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Sync> EventSink for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}

/// Drops every event.
pub struct Silent;

impl EventSink for Silent {
    fn event(&self, _: Event<'_>) {}
}
