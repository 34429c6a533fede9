//! Mkdir, Mkfile, Remove and Symlink, and large files.

use insta::assert_snapshot;
use rbc_ir::{FileAction, Mkdir, Mkfile, Owner, Remove, Symlink, UserRef};

use super::support::{copies, outcome, run_over};
use crate::tree::{ContextTree, LayerStack, fixture::World};

const BASE: &str = "app/ 0711 5:6\napp/old = o\napp/sub/f = f\nalias -> /app\nfile = f";

fn done(base: &str, actions: Vec<FileAction>) -> String {
    let mut world = World::new();
    let nothing = world.context("", &[]);
    outcome(&mut world, base, &nothing, actions)
}

fn mkdir(path: &str, parents: bool) -> FileAction {
    let owner = Some(Owner { user: UserRef::Id(7), group: None });
    FileAction::Mkdir(Mkdir { path: path.into(), mode: 0o750, parents, owner })
}

fn mkfile(path: &str) -> FileAction {
    let data = b"data".to_vec();
    FileAction::Mkfile(Mkfile { path: path.into(), mode: 0o640, data, owner: None })
}

fn remove(path: &str) -> FileAction {
    FileAction::Remove(Remove { path: path.into(), allow_missing: false, wildcard: true })
}

#[test]
fn folders_are_made_through_links_and_existing_ones_stay() {
    assert_snapshot!(done(BASE, vec![mkdir("/alias/new/deep", true), mkdir("/app", true)]), @r"
    alias -> /app
    app/ 0711 5:6
    app/new/ 0750 7:7
    app/new/deep/ 0750 7:7
    app/old 0644 = o
    app/sub/ 0755
    app/sub/f 0644 = f
    file 0644 = f
    ");
    assert_snapshot!(done("", vec![mkdir("/a/b", false)]), @"error: /a: no such file or directory");
    assert_snapshot!(done(BASE, vec![mkdir("/file/b", true)]), @"error: mkdir /file: not a directory");
}

#[test]
fn files_replace_files_only() {
    assert_snapshot!(done("", vec![mkfile("/f")]), @"f 0640 = data");
    assert_snapshot!(done(BASE, vec![mkfile("/alias/old"), remove("/app/sub")]), @r"
    alias -> /app
    app/ 0711 5:6
    app/old 0640 = data
    file 0644 = f
    ");
    assert_snapshot!(done(BASE, vec![mkfile("/app/sub")]), @"error: cannot replace to directory /app/sub with file");
    assert_snapshot!(done(BASE, vec![mkfile("/none/f")]), @"error: /none: no such file or directory");
}

#[test]
fn what_is_removed_can_be_made_anew_and_is_empty() {
    assert_snapshot!(done(BASE, vec![remove("/app/*"), remove("/file")]), @r"
    alias -> /app
    app/ 0711 5:6
    ");
    assert_snapshot!(done(BASE, vec![remove("/app"), mkdir("/app/sub", true), mkfile("/app/new")]), @r"
    alias -> /app
    app/ 0750 7:7
    app/new 0640 = data
    app/sub/ 0750 7:7
    file 0644 = f
    ");
    assert_snapshot!(done(BASE, vec![mkfile("/app/new"), remove("/app"), mkfile("/app")]), @r"
    alias -> /app
    app 0640 = data
    file 0644 = f
    ");
    assert_snapshot!(done(BASE, vec![remove("/none")]), @"error: /none: no such file or directory");
    assert_snapshot!(done(BASE, vec![remove("/")]), @"error: /: the root cannot be removed");
}

#[test]
fn symlinks_are_made_as_written() {
    let link = |path: &str| {
        FileAction::Symlink(Symlink { path: path.into(), target: "../x".into(), owner: None })
    };
    assert_snapshot!(done("", vec![link("/l")]), @"l -> ../x");
    assert_snapshot!(done(BASE, vec![link("/alias/sub")]), @"error: /app/sub: entity already exists");
}

#[test]
fn large_files_arrive_whole() {
    let mut world = World::new();
    let root = world.folder();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(root.join("big"), &content).expect("file");
    let context = ContextTree::open(&root, &[]).expect("context");
    let upper = world.folder();
    run_over(&LayerStack::new(vec![]), &context, copies(&["big"], "/"), &upper).expect("copy");
    assert!(std::fs::read(upper.join("big")).expect("copy") == content);
}
