//! Damage of every kind, told and dropped.

use std::{fs, path::Path, time::Duration};

use rbc_ir::Digest;

use super::*;
use crate::{image::note_pulled, store::StoredResult};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// A cached result with one new layer that holds one file.
fn result(store: &Store, name: &str) -> LayerId {
    let id = LayerId::unique();
    let work = store.tmp_dir().unwrap();
    let dir = work.path().join("upper");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), name).unwrap();
    store.publish_layer(&dir, &id).unwrap();
    let stored = StoredResult {
        layers: vec![id.clone()],
        inputs: Vec::new(),
        operation: Digest::of(name.as_bytes()),
        contents: Vec::new(),
        name: name.to_owned(),
        elapsed: Duration::ZERO,
    };
    store.put_result(&Digest::of(name.as_bytes()), stored).unwrap();
    id
}

fn export(store: &Store, id: &LayerId) -> Digest {
    let mut tar = Vec::new();
    let options = TarOptions { source_date_epoch: None };
    layer::write_tar(&store.layer_dir(id), &mut tar, &options).unwrap();
    let digest = store.blobs().write(&tar).unwrap();
    store.put_layer_blob(id, "none", None, (digest, tar.len() as u64, digest)).unwrap();
    digest
}

fn show(report: &Report) -> String {
    let line = |f: &Finding| format!("{} {}: {} {:?}\n", f.kind.name(), f.id, f.problem, f.repair);
    report.bad.iter().map(line).collect()
}

fn damage(path: &Path) {
    fs::write(path, "damaged").unwrap();
}

#[test]
fn a_sound_folder_has_nothing_bad() {
    let (_dir, store) = store();
    let id = result(&store, "step");
    export(&store, &id);
    let report = check(&store, CheckMode::Report).unwrap();
    assert_eq!(show(&report), "");
    let Checked { blobs, layers, verified_layers, results, .. } = report.checked;
    assert_eq!((blobs, layers, verified_layers, results), (1, 1, 1, 1));
}

#[test]
fn damage_is_told_by_one_mode_and_dropped_by_the_other() {
    let (dir, store) = store();
    let (exported, plain) = (result(&store, "exported"), result(&store, "gone"));
    let blob = export(&store, &exported);
    damage(&store.layer_dir(&exported).join("file"));
    fs::remove_dir_all(store.layer_dir(&plain)).unwrap();
    let loose = store.blobs().write(b"loose").unwrap();
    damage(&store.blobs().path(&loose));
    damage(&store.blobs().path(&blob));
    note_pulled(&store, &loose).unwrap();
    fs::write(store.download_path("http://x/"), "{").unwrap();
    fs::write(store.stat_index_path(Path::new("/x")), "?").unwrap();
    // Nothing is dropped that somebody uses, so the user goes first.
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let told = check(&store, CheckMode::Report).unwrap();
    assert!(!told.is_sound());
    let kinds: Vec<&str> = told.bad.iter().map(|finding| finding.kind.name()).collect();
    assert_eq!(
        kinds,
        ["blob", "blob", "layer", "result", "result", "layer-blob", "image", "download", "context"],
        "{}",
        show(&told)
    );
    let dropped = check(&store, CheckMode::Repair).unwrap();
    assert!(dropped.is_sound(), "{}", show(&dropped));
    let after = check(&store, CheckMode::Report).unwrap();
    assert_eq!(show(&after), "");
}

#[test]
fn a_changed_layer_and_what_was_made_of_it_are_dropped() {
    let (dir, store) = store();
    let id = result(&store, "step");
    export(&store, &id);
    damage(&store.layer_dir(&id).join("file"));
    let used = check(&store, CheckMode::Repair).unwrap();
    assert_eq!(used.bad[0].repair, Repair::InUse);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let report = check(&store, CheckMode::Repair).unwrap();
    let kinds: Vec<Kind> = report.bad.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::Layer], "the result went with the first check");
    assert!(!store.peek_layer(&id));
}

#[test]
fn a_damaged_index_is_replaced_by_what_can_be_read() {
    let (dir, store) = store();
    result(&store, "step");
    drop(store);
    fs::write(dir.path().join("index.db"), "no index at all").unwrap();
    assert!(Store::open(dir.path()).is_err());
    let store = Store::open_to_repair(dir.path()).unwrap();
    let report = check(&store, CheckMode::Repair).unwrap();
    assert_eq!(report.bad[0].kind, Kind::Index);
    assert!(report.is_sound());
    let after = check(&store, CheckMode::Report).unwrap();
    assert_eq!(after.bad.len(), 1, "only what this very process has repaired");
    result(&store, "again");
}

#[test]
fn leftovers_of_killed_processes_are_swept() {
    let (dir, store) = store();
    let layers = dir.path().join("layers");
    fs::create_dir_all(layers.join(".gone-1/sub")).unwrap();
    fs::create_dir_all(dir.path().join("tmp/s-dead")).unwrap();
    let report = check(&store, CheckMode::Report).unwrap();
    assert_eq!((report.leftovers.len(), report.is_sound()), (2, true));
    check(&store, CheckMode::Repair).unwrap();
    assert_eq!(fs::read_dir(layers).unwrap().count(), 0);
    assert!(!dir.path().join("tmp/s-dead").exists());
}
