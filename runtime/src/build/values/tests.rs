//! What a build needs while it runs.

use std::{fs, time::Duration};

use super::*;
use crate::store::{Held, StoredResult};

/// A base and a stage of two steps on it, of which another node has read: 0 ◂ 1 ◂ 2 ◂ 3 (which goes
/// out), and two that have not ended: 4 on the base, 5 on 3 reading 2.
struct World {
    _dir: tempfile::TempDir,
    store: Store,
    values: Values,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        let inputs = vec![vec![], vec![0], vec![1], vec![0, 2], vec![0], vec![3, 2]];
        let count = inputs.len();
        let needs = Needs {
            store: store.apart(None).expect("store"),
            outside: store.blobs().clone(),
            inputs,
            runs: vec![true; count],
            kept: vec![false, false, false, true, false, true],
            aside: Vec::new(),
            is_same: vec![true, false, false, false, false, false],
            blobs: vec![None; count],
        };
        let state = State {
            values: vec![None; count],
            contexts: HashMap::new(),
            given_up: vec![false; count],
        };
        let world = Self {
            _dir: dir,
            store,
            values: Values { state: Mutex::new(state), needs: Some(needs) },
        };
        for at in 0..=2 {
            world.end(at);
        }
        world
    }

    /// A node ends with a layer on top of those of its first input.
    fn end(&self, at: usize) {
        let step = self.store.apart(None).expect("store");
        let work = step.tmp_dir().expect("folder");
        let upper = work.path().join("upper");
        fs::create_dir(&upper).expect("folder");
        let id = LayerId::unique();
        step.publish_layer(&upper, &id).expect("published");
        let needs = self.values.needs.as_ref().expect("a limit");
        let below = needs.inputs[at].first().map(|&root| self.layers(root)).unwrap_or_default();
        let stored = StoredResult {
            layers: [below, vec![id]].concat(),
            inputs: Vec::new(),
            operation: Digest::of(b"operation"),
            contents: Vec::new(),
            name: String::new(),
            elapsed: Duration::ZERO,
        };
        let id = Digest::of(at.to_string().as_bytes());
        self.values.set(at, Value::Result(CachedResult { id, stored }));
    }

    fn layers(&self, at: usize) -> Vec<LayerId> {
        self.values.state().layers(at).to_vec()
    }

    /// Whether nobody holds the topmost layer of a result.
    fn is_free(&self, layers: &[LayerId]) -> bool {
        let taken = self.store.nothing_taken().expect("locks");
        !taken.is_held(Held::Layer(layers.last().expect("a layer"))).expect("asked")
    }
}

#[test]
fn what_no_step_reads_any_more_is_let_go_of() {
    let world = World::new();
    world.end(3);
    assert!(!world.values.let_go().expect("let go"), "5 reads what 4 does not");
    let (stage, outgoing) = (world.layers(2), world.layers(3));
    world.end(5);
    assert!(!world.is_free(&stage), "only where room is short");
    assert!(world.values.let_go().expect("let go"));
    assert!(world.is_free(&stage) && !world.is_free(&outgoing));
    assert!(!world.is_free(&world.layers(0)), "4 stands on it");
    assert!(!world.values.let_go().expect("let go"), "there is no more");
}

#[test]
fn what_others_wait_for_is_given_up_once() {
    let world = World::new();
    let stage = world.layers(2);
    assert_eq!(world.values.give_up_for(4), [1, 2], "and not the base of both");
    assert!(world.values.let_go().expect("let go") && world.is_free(&stage));
    assert!(world.values.get(1).is_none() && world.values.get(0).is_some());
    world.end(1);
    world.end(2);
    assert_eq!(world.values.give_up_for(4), [0; 0]);
}

#[test]
fn nothing_is_made_from_two_runs_of_one_step() {
    let world = World::new();
    world.end(3);
    assert_eq!(world.values.give_up_for(4), [0; 0], "3 was made from it and goes out");
}

#[test]
fn what_cannot_be_made_again_is_not_given_up() {
    let world = World::new();
    let values = World::new().values;
    let mut state = world.values.state();
    // A step that was in the cache and whose layers are gone.
    state.values[1] = values.state().values[1].clone();
    let mut needs = values.needs.expect("a limit");
    needs.runs[1] = false;
    needs.store = world.store.apart(None).expect("store");
    assert_eq!(needs.not_for(4, &state), [0; 0]);
}
