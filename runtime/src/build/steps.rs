//! The steps of a build as the schedule runs them: executes each, and tells of its end.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    BuildError,
    execute::{Executor, Outcome},
    notes,
    schedule::{self, Turn},
};
use crate::progress::{Event, StepId};

/// The steps that run, by their places in `to_run`.
pub(super) struct Steps<'a> {
    executor: &'a Executor<'a>,
    to_run: &'a [usize],
    numbers: &'a [Option<StepId>],
    tell_layers: &'a (dyn Fn(usize) + Sync),
    executed: AtomicUsize,
    /// How many have not ended.
    left: AtomicUsize,
    /// Why the last attempt of a step found no room, and how long it took.
    without_room: Vec<Mutex<Option<(BuildError, Duration)>>>,
}

impl schedule::Steps<BuildError> for Steps<'_> {
    fn run(&self, step: usize) -> Result<Turn, BuildError> {
        let (at, begin) = (self.to_run[step], Instant::now());
        let before = self.without_room(step).take().map(|(_, elapsed)| elapsed).unwrap_or_default();
        let result = self.executor.run(at, self.numbers[at]);
        let elapsed = before + begin.elapsed();
        let outcome = match result {
            Err(error) if error.is_without_room() => {
                *self.without_room(step) = Some((error, elapsed));
                // Whoever stops the build takes what is there; this one may have come too late.
                if self.executor.options.cancel.is_cancelled()
                    && self.without_room(step).take().is_some()
                {
                    return Err(self.failed(at, BuildError::Cancelled, elapsed));
                }
                return Ok(match self.executor.unplaced(at).is_some() {
                    true => Turn::NoRoom,
                    false => Turn::NoRoomYet,
                });
            }
            Err(error) => return Err(self.failed(at, error, elapsed)),
            Ok(outcome) => outcome,
        };
        if self.executor.end(at) {
            self.tell_ended(at, None, elapsed);
        }
        if outcome == Outcome::Executed && self.numbers[at].is_some() {
            self.executed.fetch_add(1, Ordering::Relaxed);
        }
        // Nobody gets ahead of a build whose last step has ended.
        if self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
            (self.tell_layers)(at);
        }
        Ok(Turn::Done)
    }

    fn give_way(&self, step: usize) -> Result<Vec<usize>, BuildError> {
        let at = self.to_run[step];
        let given_up = self.executor.values.give_up_for(at);
        let steps: Vec<usize> =
            given_up.iter().filter_map(|at| self.to_run.binary_search(at).ok()).collect();
        match self.without_room(step).take() {
            Some((error, elapsed)) if steps.is_empty() => Err(self.failed(at, error, elapsed)),
            _ => {
                let name = self.executor.name(at);
                let text = format!(
                    "the limit of the state folder leaves no room for {name} beside other steps: \
                     {} of them run again later",
                    steps.len()
                );
                self.executor.options.events.event(Event::Warning(&text));
                self.left.fetch_add(steps.len(), Ordering::Relaxed);
                Ok(steps)
            }
        }
    }

    fn stop(&self) {
        self.executor.options.cancel.cancel();
        // Those that wait for room are not begun again.
        for (step, &at) in self.to_run.iter().enumerate() {
            if let Some((_, elapsed)) = self.without_room(step).take() {
                self.failed(at, BuildError::Cancelled, elapsed);
            }
        }
    }
}

impl<'a> Steps<'a> {
    /// `to_run` are the positions of the steps and `numbers` what users know all nodes by. Of each step
    /// that has ended while others are left `tell_layers` is told.
    pub(super) fn new(
        executor: &'a Executor<'a>,
        to_run: &'a [usize],
        numbers: &'a [Option<StepId>],
        tell_layers: &'a (dyn Fn(usize) + Sync),
    ) -> Self {
        Self {
            executor,
            to_run,
            numbers,
            tell_layers,
            executed: AtomicUsize::new(0),
            left: AtomicUsize::new(to_run.len()),
            without_room: to_run.iter().map(|_| Mutex::default()).collect(),
        }
    }

    /// How many steps were executed.
    pub(super) fn executed(self) -> usize {
        self.executed.into_inner()
    }

    fn without_room(&self, step: usize) -> MutexGuard<'_, Option<(BuildError, Duration)>> {
        self.without_room[step].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_ended(&self, at: usize, error: Option<&str>, elapsed: Duration) {
        if let Some(step) = self.numbers[at] {
            self.executor.options.events.event(Event::StepFinished { step, error, elapsed });
        }
    }

    /// Tells of a step that failed, and gives the failure of the build.
    fn failed(&self, at: usize, error: BuildError, elapsed: Duration) -> BuildError {
        let executor = self.executor;
        self.tell_ended(at, Some(&error.to_string()), elapsed);
        executor.look_for_full_disk(at, &error);
        let likely = executor.likely(at);
        executor.options.journal.note(at, |note| notes::failed(note, &error, likely, elapsed));
        executor.explain(at, error)
    }
}
