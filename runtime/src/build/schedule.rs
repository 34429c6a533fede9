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
//! the graph, so that no more is begun than can be finished. When all that is left waits for room,
//! results are given up for one of them and made again later.

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
    /// There is no room for what it has made. It can run again.
    NoRoom,
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
    /// Steps that found no room.
    parked: Vec<usize>,
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

    /// Takes back a step that found no room. Gives the one that others have to give way to, if nothing
    /// else can be done.
    fn park(&mut self, step: usize) -> Option<usize> {
        self.end(step);
        self.parked.push(step);
        if !self.narrow {
            self.narrow = true;
            let ready = std::mem::take(&mut self.ready);
            ready.into_iter().flatten().for_each(|(_, step)| self.enter(step.0));
        }
        let is_last = self.running == 0 && self.ready.iter().all(BinaryHeap::is_empty);
        match is_last || self.favoured == Some(step) {
            true => self.favoured.or_else(|| self.parked.iter().min().copied()),
            false => None,
        }
    }

    /// Goes on with a step after the results of others were given up for it. Nothing runs.
    fn go_on_with(&mut self, step: usize, given_up: &[usize]) {
        self.favoured = Some(step);
        self.left += given_up.len();
        given_up.iter().for_each(|&step| self.done[step] = false);
        self.parked.clear();
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
                Ok(Turn::Done) => {
                    state.done(step);
                    Ok(())
                }
                Ok(Turn::NoRoom) => match state.park(step) {
                    Some(favoured) if !state.stopped => steps
                        .give_way(favoured)
                        .map(|given_up| state.go_on_with(favoured, &given_up)),
                    _ => Ok(()),
                },
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
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Barrier, Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
    };

    use proptest::prelude::*;

    use super::*;

    fn run(
        needs: &[Vec<usize>],
        jobs: usize,
        step: &(dyn Fn(usize) -> Result<(), String> + Sync),
    ) -> Result<(), String> {
        run_some(needs, &vec![true; needs.len()], jobs, step)
    }

    fn run_some(
        needs: &[Vec<usize>],
        waits: &[bool],
        jobs: usize,
        step: &(dyn Fn(usize) -> Result<(), String> + Sync),
    ) -> Result<(), String> {
        let urgency = chain_lengths(needs, &vec![1; needs.len()]);
        run_all(&Dependencies { needs, urgency: &urgency, waits }, jobs, &Roomy(step, &|| ()))
    }

    /// Steps that always have room.
    struct Roomy<'a>(&'a (dyn Fn(usize) -> Result<(), String> + Sync), &'a (dyn Fn() + Sync));

    impl Steps<String> for Roomy<'_> {
        fn run(&self, step: usize) -> Result<Turn, String> {
            self.0(step).map(|()| Turn::Done)
        }

        fn give_way(&self, _: usize) -> Result<Vec<usize>, String> {
            unreachable!("there is room")
        }

        fn stop(&self) {
            self.1();
        }
    }

    #[test]
    fn every_step_runs_once_behind_what_it_needs() {
        let needs = vec![vec![], vec![0], vec![0], vec![1, 2], vec![]];
        for jobs in [1, 2, 8] {
            let order = Mutex::new(Vec::new());
            run(&needs, jobs, &|step| {
                order.lock().unwrap().push(step);
                Ok(())
            })
            .unwrap();
            let order = order.into_inner().unwrap();
            let place = |step| order.iter().position(|&s| s == step).unwrap();
            assert_eq!(order.len(), needs.len());
            for (step, before) in needs.iter().enumerate() {
                assert!(before.iter().all(|&b| place(b) < place(step)), "{order:?}");
            }
        }
    }

    #[test]
    fn independent_steps_run_at_the_same_time() {
        let barrier = Barrier::new(4);
        // Passes only if all four are under way together.
        run(&vec![vec![]; 4], 4, &|_| {
            barrier.wait();
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn work_goes_on_while_all_jobs_wait() {
        // Steps 0 and 1 wait for what a chain of copies makes, as a slow command would.
        let needs = vec![vec![], vec![], vec![], vec![2], vec![3]];
        let waits = [true, true, false, false, false];
        let begun = Barrier::new(3);
        let copied = Barrier::new(3);
        // Passes only if the copies run while both jobs are taken.
        run_some(&needs, &waits, 2, &|step| {
            match step {
                0 | 1 => {
                    begun.wait();
                    copied.wait();
                }
                2 => drop(begun.wait()),
                4 => drop(copied.wait()),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn no_more_steps_wait_than_there_are_jobs() {
        for jobs in [1, 2, 3] {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let waits: Vec<bool> = (0..40).map(|step| step % 3 != 0).collect();
            run_some(&vec![vec![]; 40], &waits, jobs, &|step| {
                if waits[step] {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(())
            })
            .unwrap();
            assert!(most.into_inner() <= jobs);
        }
    }

    #[test]
    fn the_longest_chain_starts_first() {
        let needs = vec![vec![], vec![], vec![1], vec![2]];
        let first = Mutex::new(None);
        run(&needs, 1, &|step| {
            first.lock().unwrap().get_or_insert(step);
            Ok(())
        })
        .unwrap();
        assert_eq!(first.into_inner().unwrap(), Some(1));
    }

    #[test]
    fn nothing_starts_after_a_failure_and_the_first_one_is_told() {
        let started = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let needs = vec![vec![], vec![0], vec![1]];
        let error = run_all(
            &Dependencies { needs: &needs, urgency: &[3, 2, 1], waits: &[true; 3] },
            2,
            &Roomy(
                &|step| {
                    started.fetch_add(1, Ordering::SeqCst);
                    if step == 1 { Err("step 1 failed".to_owned()) } else { Ok(()) }
                },
                &|| stopped.store(true, Ordering::SeqCst),
            ),
        );
        assert_eq!(error, Err("step 1 failed".to_owned()));
        assert_eq!(started.into_inner(), 2);
        assert!(stopped.into_inner());
    }

    /// Steps that make so much, of which only so much fits: what a step has made goes when all that
    /// need it have ended.
    struct Tight<'a> {
        needs: &'a [Vec<usize>],
        sizes: &'a [usize],
        max: usize,
        /// What is there, what is done, how often each was made, and what was given up.
        state: Mutex<(BTreeSet<usize>, BTreeSet<usize>, Vec<usize>, BTreeSet<usize>)>,
    }

    impl Tight<'_> {
        fn run_all(
            needs: &[Vec<usize>],
            sizes: &[usize],
            max: usize,
        ) -> Result<Vec<usize>, String> {
            let state = Mutex::new((
                BTreeSet::new(),
                BTreeSet::new(),
                vec![0; needs.len()],
                BTreeSet::new(),
            ));
            let steps = Tight { needs, sizes, max, state };
            let urgency = chain_lengths(needs, &vec![1; needs.len()]);
            let waits = vec![true; needs.len()];
            run_all(&Dependencies { needs, urgency: &urgency, waits: &waits }, 4, &steps)?;
            Ok(steps.state.into_inner().unwrap().2)
        }
    }

    impl Steps<String> for Tight<'_> {
        fn run(&self, step: usize) -> Result<Turn, String> {
            let mut state = self.state.lock().unwrap();
            let (there, done, made, _) = &mut *state;
            assert!(self.needs[step].iter().all(|before| there.contains(before)), "{step}");
            assert!(!done.contains(&step), "{step} has run");
            let is_needed = |made: &usize| {
                let mut users = (0..self.needs.len()).filter(|u| self.needs[*u].contains(made));
                users.any(|user| !done.contains(&user))
            };
            there.retain(is_needed);
            let taken: usize = there.iter().map(|made| self.sizes[*made]).sum();
            if taken + self.sizes[step] > self.max {
                return Ok(Turn::NoRoom);
            }
            there.insert(step);
            done.insert(step);
            made[step] += 1;
            Ok(Turn::Done)
        }

        fn give_way(&self, step: usize) -> Result<Vec<usize>, String> {
            let mut state = self.state.lock().unwrap();
            let (there, done, _, given_up) = &mut *state;
            let goes: Vec<usize> = (0..self.needs.len())
                .filter(|at| done.contains(at) && !self.needs[step].contains(at))
                .filter(|at| !given_up.contains(at))
                .collect();
            given_up.extend(&goes);
            there.retain(|at| !goes.contains(at));
            done.retain(|at| !goes.contains(at));
            if goes.is_empty() { Err(format!("no room for {step}")) } else { Ok(goes) }
        }

        fn stop(&self) {}
    }

    #[test]
    fn steps_that_find_no_room_wait_and_others_give_way() {
        // Two chains side by side, each of which fits alone, and what takes little of both.
        let needs =
            vec![vec![], vec![0], vec![1], vec![2], vec![], vec![4], vec![5], vec![6], vec![3, 7]];
        let sizes = [3, 3, 3, 0, 3, 3, 3, 0, 1];
        for _ in 0..50 {
            let made = Tight::run_all(&needs, &sizes, 6).expect("there is room");
            assert!(made.iter().all(|times| (1..=2).contains(times)), "{made:?}");
            assert_eq!(Tight::run_all(&needs, &sizes, 100), Ok(vec![1; 9]), "nothing runs twice");
            Tight::run_all(&needs, &sizes, 5).expect_err("two of a chain are needed at once");
        }
    }

    /// When the last step ends if steps take exactly `lengths` and `jobs` may run at a time.
    fn makespan(needs: &[Vec<usize>], lengths: &[u64], expected: &[u64], jobs: usize) -> u64 {
        let urgency = chain_lengths(needs, expected);
        let waits = vec![true; needs.len()];
        let mut queue = Queue::new(&Dependencies { needs, urgency: &urgency, waits: &waits }, jobs);
        let mut running: BTreeSet<(u64, usize)> = BTreeSet::new();
        let mut now = 0;
        loop {
            while let Some(step) = queue.start() {
                running.insert((now + lengths[step], step));
            }
            let Some((end, step)) = running.pop_first() else {
                assert_eq!(queue.left, 0, "all steps have run");
                return now;
            };
            now = end;
            queue.done(step);
        }
    }

    /// Stages side by side with one step that needs them all.
    fn wide(stages: &[&[u64]]) -> (Vec<Vec<usize>>, Vec<u64>) {
        let (mut needs, mut lengths, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for stage in stages {
            for (at, length) in stage.iter().enumerate() {
                needs.push(if at == 0 { vec![] } else { vec![needs.len() - 1] });
                lengths.push(*length);
            }
            ends.push(needs.len() - 1);
        }
        needs.push(ends);
        lengths.push(1);
        (needs, lengths)
    }

    #[test]
    fn with_enough_jobs_only_the_critical_path_counts() {
        let stages: Vec<Vec<u64>> = (1..=40).map(|n| vec![10 * n, 400 - 10 * n, n]).collect();
        let stages: Vec<&[u64]> = stages.iter().map(Vec::as_slice).collect();
        let (needs, lengths) = wide(&stages);
        let critical = *chain_lengths(&needs, &lengths).iter().max().unwrap();
        assert_eq!(makespan(&needs, &lengths, &lengths, 40), critical);
    }

    #[test]
    fn with_few_jobs_the_longest_path_goes_first() {
        // Six short stages and a long one, which comes last in the file.
        let (needs, lengths) = wide(&[&[10], &[10], &[10], &[10], &[10], &[10], &[20, 20, 10, 10]]);
        let blind = vec![1; lengths.len()];
        // Depth alone tells that the last stage is long here.
        assert_eq!(makespan(&needs, &lengths, &blind, 2), 61);
        // And where it does not, the times of earlier runs do.
        let (needs, lengths) = wide(&[&[10], &[10], &[10], &[10], &[10], &[10], &[60]]);
        assert_eq!(makespan(&needs, &lengths, &vec![1; lengths.len()], 2), 91);
        let known: Vec<Option<u64>> = lengths.iter().map(|length| Some(*length)).collect();
        assert_eq!(makespan(&needs, &lengths, &expected_lengths(&known), 2), 61);
    }

    #[test]
    fn steps_that_never_ran_count_like_the_average() {
        assert_eq!(expected_lengths(&[None, None]), [1, 1]);
        assert_eq!(expected_lengths(&[Some(10), None, Some(30), Some(0)]), [10, 13, 30, 1]);
    }

    proptest! {
        /// Graham's bound: no order that keeps jobs busy is worse than this.
        #[test]
        fn jobs_are_never_idle_while_a_step_is_ready(
            lengths in proptest::collection::vec(1_u64..100, 1..30),
            edges in proptest::collection::vec((0_usize..30, 0_usize..30), 0..60),
            jobs in 1_usize..8,
        ) {
            let mut needs = vec![Vec::new(); lengths.len()];
            for (a, b) in edges {
                let (a, b) = (a % lengths.len(), b % lengths.len());
                if a < b && !needs[b].contains(&a) {
                    needs[b].push(a);
                }
            }
            let critical = *chain_lengths(&needs, &lengths).iter().max().unwrap();
            let work: u64 = lengths.iter().sum();
            let jobs_u64 = jobs as u64;
            let makespan = makespan(&needs, &lengths, &lengths, jobs);
            prop_assert!(makespan * jobs_u64 <= work + (jobs_u64 - 1) * critical);
        }
    }

    #[test]
    fn no_steps_are_no_work() {
        run(&[], 4, &|_| unreachable!()).unwrap();
    }
}
