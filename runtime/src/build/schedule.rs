//! Runs the steps of a plan, each as soon as all it depends on has ended.
//!
//! Steps wait for child processes, disks and networks, so they have a pool of their own, each thread
//! of which takes the most urgent ready step from one queue. There is a thread for each job and one
//! more: only steps that wait (commands, downloads) count as jobs, so work of our own never stands
//! still because all jobs are waiting. What needs the CPU inside of a step goes to another pool with
//! a thread for each processor.
//!
//! A step may find that there is no room for what it has made, where the state folder has a limit. It
//! then waits until another one has ended, and from there on one step runs at a time, in the order of
//! the graph. Finished layers that wait lie in `tmp/`, which the limit does not count. When all that is
//! left waits for room, results are given up for one of them and made again later.

use std::{
    collections::BinaryHeap,
    sync::{Condvar, Mutex, PoisonError},
};

/// Positions of steps, and for each step those that it waits for.
pub(super) struct Dependencies<'a> {
    /// `needs[i]`: the steps that step `i` waits for, each an index into this slice.
    pub needs: &'a [Vec<usize>],
    /// `urgency[i]`: among ready steps the one with the highest value starts first.
    pub urgency: &'a [u64],
    /// `waits[i]`: whether the step mostly waits for something outside, so that it counts as a job.
    pub waits: &'a [bool],
}

/// The length of the longest chain of steps that starts with each step, itself included: the most
/// urgent step is the one that holds up most. `lengths[i]` is how long step `i` is expected to
/// take, in any unit. `needs` must be topologically ordered.
pub(super) fn chain_lengths(needs: &[Vec<usize>], lengths: &[u64]) -> Vec<u64> {
    let mut chain = lengths.to_vec();
    for step in (0..needs.len()).rev() {
        for &before in &needs[step] {
            chain[before] = chain[before].max(lengths[before].saturating_add(chain[step]));
        }
    }
    chain
}

/// How long steps are expected to take: as long as they did, where that is known in milliseconds.
/// Others count like the average of those, so that the depth of a chain decides where nothing is
/// known.
pub(super) fn expected_lengths(known: &[Option<u64>]) -> Vec<u64> {
    let (count, sum) = (known.iter().flatten())
        .fold((0_u64, 0_u64), |(count, sum), millis| (count + 1, sum.saturating_add(*millis)));
    let average = sum.checked_div(count).unwrap_or(1).max(1);
    // Never nothing: a chain of quick steps is still a chain.
    known.iter().map(|millis| millis.unwrap_or(average).max(1)).collect()
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has ended.
    Done,
    /// There is no room for what it has made, which is kept: it runs again when another one has ended.
    NoRoom,
    /// There is no room for what it was making, which has to be made again: it runs again when no other
    /// one can.
    NoRoomYet,
}

/// What steps do.
pub(super) trait Steps<E>: Sync {
    /// Runs a step.
    fn run(&self, step: usize) -> Result<Turn, E>;
    /// Gives up the results of other steps for one that found no room while nothing else can run, and
    /// gives those that have to run again.
    ///
    /// # Errors
    /// If there are none; the step has failed then.
    fn give_way(&self, step: usize) -> Result<Vec<usize>, E>;
    /// Stops those that run, because a step has failed.
    fn stop(&self);
}

/// Which step starts next. Knows nothing of threads or clocks.
struct Queue<'a> {
    needs: &'a [Vec<usize>],
    urgency: &'a [u64],
    waits: &'a [bool],
    /// For each step those that wait for it.
    users: Vec<Vec<usize>>,
    /// Ready steps by urgency, among equals the earlier one first: those that work, those that wait.
    ready: [BinaryHeap<(u64, std::cmp::Reverse<usize>)>; 2],
    /// How many more of those that wait may start.
    jobs: usize,
    /// How many steps each step still waits for.
    waiting_for: Vec<usize>,
    done: Vec<bool>,
    /// Steps that have not ended.
    left: usize,
    running: usize,
    /// Steps that found no room: those that run again soon.
    parked: Vec<usize>,
    /// And those that run again later.
    late: Vec<usize>,
    /// Whether a step has ended since those were tried last.
    has_progressed: bool,
    /// Whether one step runs at a time, since room is short.
    narrow: bool,
    /// The step that others gave way to and that has not ended.
    favoured: Option<usize>,
    /// Set once a step failed: nothing more is started.
    stopped: bool,
}

impl<'a> Queue<'a> {
    fn new(dependencies: &Dependencies<'a>, jobs: usize) -> Self {
        let Dependencies { needs, urgency, waits } = *dependencies;
        let mut users = vec![Vec::new(); needs.len()];
        for (step, before) in needs.iter().enumerate() {
            for &before in before {
                users[before].push(step);
            }
        }
        let left = needs.len();
        let mut queue = Self {
            needs,
            urgency,
            waits,
            users,
            ready: Default::default(),
            jobs,
            waiting_for: needs.iter().map(Vec::len).collect(),
            done: vec![false; left],
            left,
            running: 0,
            parked: Vec::new(),
            late: Vec::new(),
            has_progressed: false,
            narrow: false,
            favoured: None,
            stopped: false,
        };
        (0..left).filter(|&step| needs[step].is_empty()).for_each(|step| queue.enter(step));
        queue
    }

    fn enter(&mut self, step: usize) {
        let urgency = match self.narrow {
            true if self.favoured == Some(step) => 1,
            true => 0,
            false => self.urgency[step],
        };
        self.ready[usize::from(self.waits[step])].push((urgency, std::cmp::Reverse(step)));
    }

    /// The most urgent of the ready steps that may start, which is ready no more.
    fn start(&mut self) -> Option<usize> {
        if self.narrow && self.running > 0 {
            return None;
        }
        let [work, wait] = &self.ready;
        let waits = self.jobs > 0 && wait.peek() > work.peek();
        let (_, std::cmp::Reverse(step)) = self.ready[usize::from(waits)].pop()?;
        self.jobs -= usize::from(waits);
        self.running += 1;
        Some(step)
    }

    /// How many steps may start now.
    fn startable(&self) -> usize {
        let [work, wait] = &self.ready;
        let ready = work.len() + wait.len().min(self.jobs);
        if self.narrow { ready.min(1_usize.saturating_sub(self.running)) } else { ready }
    }

    fn end(&mut self, step: usize) {
        self.running -= 1;
        self.jobs += usize::from(self.waits[step]);
    }

    /// Makes those ready that waited for this step alone, and those that wait for room.
    fn done(&mut self, step: usize) {
        self.end(step);
        self.left -= 1;
        self.done[step] = true;
        self.has_progressed = true;
        if self.favoured == Some(step) {
            self.favoured = None;
        }
        for at in 0..self.users[step].len() {
            let user = self.users[step][at];
            // One that has ended had this result, which was given up since.
            if !self.done[user] {
                self.waiting_for[user] -= 1;
                if self.waiting_for[user] == 0 {
                    self.enter(user);
                }
            }
        }
        std::mem::take(&mut self.parked).into_iter().for_each(|step| self.enter(step));
    }

    /// Takes back a step that found no room and runs again soon.
    fn park(&mut self, step: usize) {
        self.end(step);
        self.parked.push(step);
        self.narrow_down();
    }

    /// Takes back a step that found no room and runs again when no other one can.
    fn put_off(&mut self, step: usize) {
        self.end(step);
        if self.late.is_empty() {
            self.has_progressed = false;
        }
        self.late.push(step);
        self.narrow_down();
    }

    /// From now on one step runs at a time.
    fn narrow_down(&mut self) {
        if !std::mem::replace(&mut self.narrow, true) {
            let ready = std::mem::take(&mut self.ready);
            ready.into_iter().flatten().for_each(|(_, step)| self.enter(step.0));
        }
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.ready.iter().all(BinaryHeap::is_empty)
    }

    /// The step that others have to give way to, if nothing else can be done.
    fn stuck(&mut self) -> Option<usize> {
        if self.stopped {
            return None;
        }
        let waits = |step: &usize| self.parked.contains(step) || self.late.contains(step);
        if let Some(favoured) = self.favoured.filter(waits) {
            return Some(favoured);
        }
        if self.is_idle() && std::mem::take(&mut self.has_progressed) {
            std::mem::take(&mut self.late).into_iter().for_each(|step| self.enter(step));
        }
        if self.is_idle() { self.parked.iter().chain(&self.late).copied().min() } else { None }
    }

    /// Goes on with a step after the results of others were given up for it. Nothing runs.
    fn go_on_with(&mut self, step: usize, given_up: &[usize]) {
        self.favoured = Some(step);
        self.left += given_up.len();
        given_up.iter().for_each(|&step| self.done[step] = false);
        self.parked.clear();
        self.late.clear();
        self.ready = Default::default();
        for step in 0..self.needs.len() {
            let open = self.needs[step].iter().filter(|before| !self.done[**before]).count();
            self.waiting_for[step] = open;
            if open == 0 && !self.done[step] {
                self.enter(step);
            }
        }
    }
}

/// Runs every step, at most `jobs` of those that wait at a time, and those again whose results were
/// given up. After the first failure no further step is started, running ones are stopped, and the
/// first failure is returned when all have ended.
pub(super) fn run_all<E: Send>(
    dependencies: &Dependencies<'_>,
    jobs: usize,
    steps: &dyn Steps<E>,
) -> Result<(), E> {
    let count = dependencies.needs.len();
    let jobs = jobs.clamp(1, count.max(1));
    let queue = Mutex::new(Queue::new(dependencies, jobs));
    let changed = Condvar::new();
    let failure = Mutex::new(None);

    let work = || {
        let mut state = queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopped || state.left == 0 {
                return;
            }
            let Some(step) = state.start() else {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let result = steps.run(step);
            state = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = match result {
                Ok(turn) => {
                    match turn {
                        Turn::Done => state.done(step),
                        Turn::NoRoom => state.park(step),
                        Turn::NoRoomYet => state.put_off(step),
                    }
                    match state.stuck() {
                        Some(step) => {
                            steps.give_way(step).map(|given_up| state.go_on_with(step, &given_up))
                        }
                        None => Ok(()),
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                state.stopped = true;
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                steps.stop();
            }
            // This thread takes one of those that can start; it needs others for the rest only.
            if state.stopped || state.left == 0 {
                changed.notify_all();
            } else {
                (1..state.startable()).for_each(|_| changed.notify_one());
            }
        }
    };
    match rayon::ThreadPoolBuilder::new()
        .num_threads((jobs + 1).min(count.max(1)))
        .thread_name(|n| format!("step-{n}"))
        .build()
    {
        Ok(pool) => {
            pool.broadcast(|_| work());
        }
        // Without threads (a tight limit on processes) the caller does all the work.
        Err(_) => work(),
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs CPU work on rayon's global pool while the calling step waits.
pub(super) fn on_cpu_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    cpu_pool().install(work)
}

fn cpu_pool() -> &'static rayon::ThreadPool {
    static POOL: std::sync::OnceLock<rayon::ThreadPool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| {
        rayon::ThreadPoolBuilder::new()
            .thread_name(|n| format!("cpu-{n}"))
            .build()
            .or_else(|_| {
                rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()
            })
            .expect("a pool of the current thread alone needs no new thread")
    })
}

#[cfg(test)]
mod tests;
