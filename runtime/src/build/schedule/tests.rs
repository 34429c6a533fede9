//! Which steps run when.

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
    /// What a step says that finds no room.
    no_room: fn(usize) -> Turn,
    state: Mutex<Held>,
}

/// Which steps have ended and what there is of them.
#[derive(Default)]
struct Held {
    there: BTreeSet<usize>,
    done: BTreeSet<usize>,
    given_up: BTreeSet<usize>,
    /// How often each has ended.
    made: Vec<usize>,
}

impl Tight<'_> {
    fn run_all(
        needs: &[Vec<usize>],
        sizes: &[usize],
        max: usize,
        no_room: fn(usize) -> Turn,
    ) -> Result<Vec<usize>, String> {
        let state = Mutex::new(Held { made: vec![0; needs.len()], ..Held::default() });
        let steps = Tight { needs, sizes, max, no_room, state };
        let urgency = chain_lengths(needs, &vec![1; needs.len()]);
        let waits = vec![true; needs.len()];
        run_all(&Dependencies { needs, urgency: &urgency, waits: &waits }, 4, &steps)?;
        Ok(steps.state.into_inner().unwrap().made)
    }
}

impl Steps<String> for Tight<'_> {
    fn run(&self, step: usize) -> Result<Turn, String> {
        let mut state = self.state.lock().unwrap();
        let Held { there, done, made, .. } = &mut *state;
        assert!(self.needs[step].iter().all(|before| there.contains(before)), "{step}");
        assert!(!done.contains(&step), "{step} has run");
        let is_needed = |made: &usize| {
            let mut users = (0..self.needs.len()).filter(|u| self.needs[*u].contains(made));
            users.any(|user| !done.contains(&user))
        };
        there.retain(is_needed);
        let taken: usize = there.iter().map(|made| self.sizes[*made]).sum();
        if taken + self.sizes[step] > self.max {
            return Ok((self.no_room)(step));
        }
        there.insert(step);
        done.insert(step);
        made[step] += 1;
        Ok(Turn::Done)
    }

    fn give_way(&self, step: usize) -> Result<Vec<usize>, String> {
        let mut state = self.state.lock().unwrap();
        let Held { there, done, given_up, .. } = &mut *state;
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
    let late = |step: usize| if step.is_multiple_of(2) { Turn::NoRoomYet } else { Turn::NoRoom };
    for no_room in [|_| Turn::NoRoom, |_| Turn::NoRoomYet, late] {
        for _ in 0..50 {
            let run = |max| Tight::run_all(&needs, &sizes, max, no_room);
            let made = run(6).expect("there is room");
            assert!(made.iter().all(|times| (1..=2).contains(times)), "{made:?}");
            assert_eq!(run(100), Ok(vec![1; 9]), "nothing runs twice");
            run(5).expect_err("two of a chain are needed at once");
        }
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
