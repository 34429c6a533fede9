//! What is evicted, in which order, and what is not.

use std::{fs, time::Duration};

use rbc_ir::Digest;

use super::*;
use crate::{
    image::{Descriptor, Manifest, media_type, note_pulled},
    store::{LayerId, Store, StoredResult},
};

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Another process's view.
    fn open(&self) -> Store {
        Store::open(self.dir.path()).unwrap()
    }

    /// A step on `below` that made a layer of about so many bytes.
    fn step(&self, name: &str, below: &[LayerId], bytes: usize, elapsed: Duration) -> Vec<LayerId> {
        let store = self.open();
        let id = LayerId::unique();
        let work = store.tmp_dir().unwrap();
        let dir = work.path().join("upper");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), vec![1; bytes]).unwrap();
        store.publish_layer(&dir, &id).unwrap();
        let layers: Vec<LayerId> = below.iter().cloned().chain([id]).collect();
        let stored = StoredResult {
            layers: layers.clone(),
            inputs: Vec::new(),
            operation: Digest::of(name.as_bytes()),
            contents: Vec::new(),
            name: name.to_owned(),
            elapsed,
        };
        store.put_result(&key(name), stored).unwrap();
        layers
    }

    fn has(&self, name: &str) -> bool {
        self.open().result(&key(name)).unwrap().is_some()
    }

    fn prune(&self, options: &PruneOptions) -> Vec<String> {
        let pruned = prune(&self.open(), options).unwrap();
        pruned.evicted.into_iter().map(|evicted| evicted.item.name).collect()
    }

    /// An image without layers.
    fn image(&self) -> (Store, Digest, Digest) {
        let store = self.open();
        let config =
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config_digest = store.blobs().write(config).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: Descriptor::of(media_type::CONFIG, config),
            layers: Vec::new(),
            annotations: None,
        };
        let manifest = store.blobs().write(&serde_json::to_vec(&manifest).unwrap()).unwrap();
        (store, manifest, config_digest)
    }
}

fn key(name: &str) -> Digest {
    Digest::of(format!("key of {name}").as_bytes())
}

fn all() -> PruneOptions {
    PruneOptions { everything: true, ..PruneOptions::default() }
}

fn at_most(bytes: u64) -> Budget {
    Budget { max_used: Some(bytes), ..Budget::default() }
}

fn filters(text: &str) -> Vec<ItemFilter> {
    vec![text.parse().unwrap()]
}

#[test]
fn what_is_made_of_others_goes_before_them_and_what_took_long_goes_last() {
    let world = World::new();
    let dear = world.step("dear", &[], 10, Duration::from_secs(60));
    let base = world.step("base", &[], 10, Duration::ZERO);
    world.step("leaf", &base, 10, Duration::ZERO);
    world.step("dear leaf", &dear, 10, Duration::from_secs(5));
    assert_eq!(world.prune(&all()), ["leaf", "base", "dear leaf", "dear"]);
    assert!(!world.has("leaf") && !world.has("dear"));
    let report = check(&world.open(), CheckMode::Report).unwrap();
    assert!(report.is_sound() && report.leftovers.is_empty(), "{report:?}");
}

#[test]
fn a_budget_ends_the_eviction() {
    let world = World::new();
    for (name, seconds) in [("a", 0), ("b", 1), ("c", 2)] {
        world.step(name, &[], 1_000_000, Duration::from_secs(seconds));
    }
    let total = Inventory::take(&world.open(), Measure::Disk).unwrap().total();
    let evicted = world.prune(&PruneOptions { budget: at_most(total - 1_500_000), ..all() });
    assert_eq!(evicted, ["a", "b"]);
    assert!(world.has("c"));
    assert_eq!(world.prune(&PruneOptions { budget: at_most(total), ..all() }), [""; 0]);
}

#[test]
fn what_another_process_uses_stays() {
    let world = World::new();
    let used = world.step("used", &[], 10, Duration::ZERO);
    world.step("unused", &[], 10, Duration::ZERO);
    let user = world.open();
    assert!(user.has_layer(&used[0]));
    assert_eq!(world.prune(&all()), ["unused"]);
    assert!(user.peek_layer(&used[0]));
    drop(user);
    assert_eq!(world.prune(&all()), ["used"]);
}

#[test]
fn what_an_evictor_was_killed_over_goes_first() {
    let world = World::new();
    let store = world.open();
    let half = store.root().join("layers/.gone-1.2");
    fs::create_dir_all(half.join("sub")).unwrap();
    drop(store);
    let pruned = prune(&world.open(), &PruneOptions::default()).unwrap();
    assert!(!half.exists() && pruned.freed > 0);
}

#[test]
fn filters_choose() {
    let world = World::new();
    let layers = world.step("step", &[], 10, Duration::ZERO);
    world.step("other", &[], 10, Duration::ZERO);
    let old = PruneOptions { unused_since: Some(1), ..all() };
    assert_eq!(world.prune(&old), [""; 0]);
    let mounts = PruneOptions { filters: filters("type=cache-mount"), ..all() };
    assert_eq!(world.prune(&mounts), [""; 0]);
    let id = format!("id={}", &layers[0].as_str()[..12]);
    assert_eq!(world.prune(&PruneOptions { filters: filters(&id), ..all() }), ["step"]);
}

#[test]
fn images_with_names_keep_their_blobs_and_pulled_ones_do_not() {
    let world = World::new();
    let (store, manifest, config) = world.image();
    note_pulled(&store, &manifest).unwrap();
    store.put_image("docker.io/library/a:latest", &manifest).unwrap();
    drop(store);
    world.prune(&all());
    let store = world.open();
    assert!(store.blobs().peek_size(&manifest).is_some());
    store.remove_image("docker.io/library/a:latest").unwrap();
    note_pulled(&store, &manifest).unwrap();
    drop(store);
    assert_eq!(world.prune(&PruneOptions::default()), [""; 0], "base images are kept");
    assert_eq!(world.prune(&all()).len(), 1);
    let store = world.open();
    assert_eq!(store.blobs().list().unwrap(), []);
    assert_eq!(store.images().unwrap(), []);
    let _ = config;
}

#[test]
fn shared_files_count_once_whatever_goes_first() {
    let world = World::new();
    let first = world.step("first", &[], 1_000_000, Duration::ZERO);
    let store = world.open();
    let id = LayerId::unique();
    let work = store.tmp_dir().unwrap();
    let dir = work.path().join("upper");
    fs::create_dir(&dir).unwrap();
    fs::hard_link(store.layer_dir(&first[0]).join("file"), dir.join("file")).unwrap();
    store.publish_layer(&dir, &id).unwrap();
    drop((work, store));
    let store = world.open();
    let noted = store.space().unwrap();
    let measured = Inventory::take(&store, Measure::Disk).unwrap();
    assert!((1_000_000..1_100_000).contains(&measured.shared));
    assert_eq!(store.space().unwrap(), noted, "taking stock changes nothing");
    let dry = PruneOptions { dry_run: true, ..all() };
    let foretold = prune(&store, &dry).unwrap().freed;
    assert_eq!(foretold, measured.reclaimable());
    assert!(foretold >= 1_000_000 && world.has("first"));
    let name = PruneOptions { filters: filters(&format!("id={}", first[0])), ..all() };
    world.prune(&name);
    assert!((1_000_000..1_100_000).contains(&store.space().unwrap()), "the link still has it");
    world.prune(&all());
    assert_eq!(store.space().unwrap(), 0);
}
