//! Runs the steps of a plan, each as soon as all it depends on has ended.
//!
//! Steps wait for child processes, disks and networks, so they have a pool of their own with one
//! rayon thread a job; each of these threads takes the most urgent ready step from one queue. CPU
//! work inside a step goes to rayon's global pool, which therefore never stands still behind a
//! waiting step.

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
}

/// The length of the longest chain of steps that starts with each step: the most urgent step is
/// the one that most others wait for. `needs` must be topologically ordered.
pub(super) fn chain_lengths(needs: &[Vec<usize>]) -> Vec<u64> {
    let mut length = vec![1; needs.len()];
    for step in (0..needs.len()).rev() {
        for &before in &needs[step] {
            length[before] = length[before].max(length[step] + 1);
        }
    }
    length
}

struct Queue {
    /// Ready steps by urgency; among equals the earlier one first.
    ready: BinaryHeap<(u64, std::cmp::Reverse<usize>)>,
    /// How many steps each step still waits for.
    waiting_for: Vec<usize>,
    /// Steps that have not ended.
    left: usize,
    /// Set once a step failed: nothing more is started.
    stopped: bool,
}

/// Runs every step once with at most `jobs` at a time. After the first failure no further step
/// is started, `on_failure` is called so that running ones can be stopped, and the first failure
/// is returned when all have ended.
pub(super) fn run_all<E: Send>(
    dependencies: &Dependencies<'_>,
    jobs: usize,
    on_failure: &(dyn Fn() + Sync),
    run: &(dyn Fn(usize) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let Dependencies { needs, urgency } = *dependencies;
    let mut users = vec![Vec::new(); needs.len()];
    for (step, before) in needs.iter().enumerate() {
        for &before in before {
            users[before].push(step);
        }
    }
    let waiting_for: Vec<usize> = needs.iter().map(Vec::len).collect();
    let ready = (0..needs.len())
        .filter(|&step| waiting_for[step] == 0)
        .map(|step| (urgency[step], std::cmp::Reverse(step)))
        .collect();
    let queue = Mutex::new(Queue { ready, waiting_for, left: needs.len(), stopped: false });
    let changed = Condvar::new();
    let failure = Mutex::new(None);

    let work = || {
        let mut state = queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopped || state.left == 0 {
                return;
            }
            let Some((_, std::cmp::Reverse(step))) = state.ready.pop() else {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let result = run(step);
            state = queue.lock().unwrap_or_else(PoisonError::into_inner);
            state.left -= 1;
            match result {
                Ok(()) => {
                    for &user in &users[step] {
                        state.waiting_for[user] -= 1;
                        if state.waiting_for[user] == 0 {
                            state.ready.push((urgency[user], std::cmp::Reverse(user)));
                        }
                    }
                }
                Err(error) => {
                    state.stopped = true;
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    on_failure();
                }
            }
            changed.notify_all();
        }
    };
    let jobs = jobs.clamp(1, needs.len().max(1));
    match rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
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
    use std::sync::{
        Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    fn run(
        needs: &[Vec<usize>],
        jobs: usize,
        step: &(dyn Fn(usize) -> Result<(), String> + Sync),
    ) -> Result<(), String> {
        let urgency = chain_lengths(needs);
        run_all(&Dependencies { needs, urgency: &urgency }, jobs, &|| (), step)
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
            &Dependencies { needs: &needs, urgency: &[3, 2, 1] },
            2,
            &|| stopped.store(true, Ordering::SeqCst),
            &|step| {
                started.fetch_add(1, Ordering::SeqCst);
                if step == 1 { Err("step 1 failed".to_owned()) } else { Ok(()) }
            },
        );
        assert_eq!(error, Err("step 1 failed".to_owned()));
        assert_eq!(started.into_inner(), 2);
        assert!(stopped.into_inner());
    }

    #[test]
    fn no_steps_are_no_work() {
        run(&[], 4, &|_| unreachable!()).unwrap();
    }
}
