//! The state folder as several processes and killed processes see it.

use std::{fs, io::Write};

use rbc_ir::Digest;

use super::{Held, LayerId, Store, StoreError, StoredResult, remove_tree};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn result(layers: Vec<LayerId>) -> StoredResult {
    StoredResult {
        layers,
        inputs: Vec::new(),
        operation: Digest::of(b"operation"),
        contents: Vec::new(),
        name: String::new(),
        elapsed: std::time::Duration::ZERO,
    }
}

#[test]
fn a_blob_is_published_only_under_its_own_digest() {
    let (_dir, store) = store();
    let wanted = Digest::of(b"wanted");
    let mut writer = store.blobs().writer().unwrap();
    writer.write_all(b"something else").unwrap();
    assert!(matches!(writer.finish(&store, Some(wanted)), Err(StoreError::WrongDigest { .. })));
    assert_eq!(store.blobs().list().unwrap(), []);
}

#[test]
fn a_damaged_blob_is_refused_and_dropped() {
    let (_dir, store) = store();
    let digest = store.blobs().write(b"content").unwrap();
    fs::write(store.blobs().path(&digest), b"c0ntent").unwrap();
    assert!(matches!(store.blobs().read(&digest, 100), Err(StoreError::Damaged { .. })));
    assert!(!store.blobs().has(&digest));
}

#[test]
fn a_result_without_its_layers_is_a_miss() {
    let (_dir, store) = store();
    let layer = LayerId::unique();
    let key = Digest::of(b"key");
    store.put_result(&key, result(vec![layer.clone()])).unwrap();
    assert_eq!(store.result(&key).unwrap(), None);
    let work = store.tmp_dir().unwrap();
    store.publish_layer(work.path(), &layer).unwrap();
    assert_eq!(store.result(&key).unwrap().unwrap().stored.layers, [layer]);
}

#[test]
fn another_run_of_a_key_has_another_identity() {
    let (_dir, store) = store();
    let key = Digest::of(b"key");
    let first = store.put_result(&key, result(vec![LayerId::unique()])).unwrap();
    let second = store.put_result(&key, result(vec![LayerId::unique()])).unwrap();
    assert_ne!(first.id, second.id);
}

#[test]
fn a_key_is_locked_by_one_holder_at_a_time() {
    let (dir, store) = store();
    let other = Store::open(dir.path()).unwrap();
    let key = Digest::of(b"key");
    let held = store.try_lock_key(&key).unwrap().unwrap();
    assert!(other.try_lock_key(&key).unwrap().is_none());
    assert!(other.try_lock_key(&Digest::of(b"other")).unwrap().is_some());
    drop(held);
    assert!(other.try_lock_key(&key).unwrap().is_some());
}

#[test]
fn work_of_a_dead_process_is_swept_and_that_of_a_live_one_is_kept() {
    let (dir, store) = store();
    let live = store.tmp_dir().unwrap();
    let dead = dir.path().join("tmp/s-dead");
    fs::create_dir_all(dead.join("d0/upper")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    let _second = Store::open(dir.path()).unwrap();
    assert!(!dead.exists());
    assert!(live.path().exists());
}

#[test]
fn what_another_process_looked_up_is_not_taken() {
    let (dir, store) = store();
    let other = Store::open(dir.path()).unwrap();
    let digest = store.blobs().write(b"content").unwrap();
    let layer = LayerId::unique();
    store.publish_layer(store.tmp_dir().unwrap().path(), &layer).unwrap();
    drop(store);
    let is_free = |what| other.nothing_taken().unwrap().try_take(what).unwrap();
    assert!(is_free(Held::Blob(&digest)) && is_free(Held::Layer(&layer)));
    let user = Store::open(dir.path()).unwrap();
    assert!(user.has_layer(&layer) && user.blobs().has(&digest));
    assert!(!is_free(Held::Blob(&digest)) && !is_free(Held::Layer(&layer)));
}

#[test]
fn a_session_whose_lock_cannot_be_opened_is_let_alone() {
    let (dir, store) = store();
    let odd = dir.path().join("tmp/s-odd");
    // Opening a folder as a file fails for anybody.
    fs::create_dir_all(odd.join("lock")).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(odd.exists() && store.leftovers().is_empty());
}

#[test]
fn folders_deeper_than_any_path_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    // Built from the inside out, since no path reaches the bottom.
    for _ in 0..5000 {
        let outer = dir.path().join("outer");
        fs::create_dir(&outer).unwrap();
        fs::rename(&top, outer.join("d")).unwrap();
        fs::rename(&outer, &top).unwrap();
    }
    fs::write(top.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/", top.join("link")).unwrap();
    remove_tree(&top).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_of_another_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("version"), "9\n").unwrap();
    let error = Store::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("layout version 9"), "{error}");
}
