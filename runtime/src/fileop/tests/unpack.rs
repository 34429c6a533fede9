//! ADD of archives.

use std::{fs, os::unix::fs::MetadataExt};

use insta::assert_snapshot;
use rbc_ir::{CopyAction, FileAction, Owner, UserRef};
use tar::{Builder, EntryType, Header};

use super::support::{copy, outcome, run_over};
use crate::tree::{
    ContextTree, LayerStack,
    fixture::{World, listing},
};

/// Lines are `NAME [MODE] [UID:GID]` and what it is, as in [`World::tree`].
fn archive(lines: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for line in lines.lines().map(str::trim) {
        let mut header = Header::new_gnu();
        let (head, kind, rest) =
            [(" => ", EntryType::Link), (" -> ", EntryType::Symlink), (" = ", EntryType::Regular)]
                .iter()
                .find_map(|(sign, kind)| {
                    line.split_once(sign).map(|(head, rest)| (head, *kind, rest))
                })
                .unwrap_or((
                    line,
                    if line.ends_with('|') { EntryType::Fifo } else { EntryType::Directory },
                    "",
                ));
        let mut words = head.trim_end_matches(" |").split(' ');
        let name = words.next().expect("a name").as_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        for word in words {
            match word.split_once(':') {
                Some((uid, gid)) => {
                    header.set_uid(uid.parse().expect("uid"));
                    header.set_gid(gid.parse().expect("gid"));
                }
                None => header.set_mode(u32::from_str_radix(word, 8).expect("mode")),
            }
        }
        header.set_mtime(1_000_000_000);
        let content = if kind == EntryType::Regular { rest.as_bytes() } else { b"" };
        if kind != EntryType::Regular && !rest.is_empty() {
            header.as_old_mut().linkname[..rest.len()].copy_from_slice(rest.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).expect("entry");
    }
    tar.into_inner().expect("archive")
}

fn add(dest: &str, owner: Option<(u32, u32)>) -> Vec<FileAction> {
    let owner =
        owner.map(|(uid, gid)| Owner { user: UserRef::Id(uid), group: Some(UserRef::Id(gid)) });
    vec![FileAction::Copy(CopyAction { unpack: true, owner, ..copy("t.tar", dest) })]
}

fn added(base: &str, content: &[u8], actions: Vec<FileAction>) -> String {
    let mut world = World::new();
    let root = world.folder();
    fs::write(root.join("t.tar"), content).expect("archive");
    let context = ContextTree::open(&root, &[]).expect("context");
    outcome(&mut world, base, &context, actions)
}

#[test]
fn folders_merge_and_the_root_entry_is_passed_over() {
    let tar = archive(
        "./ 0700 44:45\n./sub/ 0751 44:45\n./sub/low = low\n./top 4711 44:45 = top\n./pipe 0640 |",
    );
    assert_snapshot!(added("", &tar, add("/new/dst", None)), @r"
    new/ 0755
    new/dst/ 0755
    new/dst/pipe 0640 |
    new/dst/sub/ 0751 44:45
    new/dst/sub/low 0644 = low
    new/dst/top 4711 44:45 = top
    ");
    assert_snapshot!(added("", &tar, add("/new/dst/", Some((5, 6)))), @r"
    new/ 0755 5:6
    new/dst/ 0755 5:6
    new/dst/pipe 0640 5:6 |
    new/dst/sub/ 0751 5:6
    new/dst/sub/low 0644 5:6 = low
    new/dst/top 4711 5:6 = top
    ");
    assert_snapshot!(added("dst/ 0700 7:8\ndst/sub/ 0700 7:8\ndst/sub/keep = k\ndst/sub/low = old", &tar, add("/dst", None)), @r"
    dst/ 0700 7:8
    dst/pipe 0640 |
    dst/sub/ 0751 44:45
    dst/sub/keep 0644 = k
    dst/sub/low 0644 = low
    dst/top 4711 44:45 = top
    ");
    assert_snapshot!(added("dst = file", &tar, add("/dst", None)), @"error: mkdir /dst: not a directory");
}

#[test]
fn entries_replace_other_kinds() {
    let tar = archive("./sub/ \n./sub/low = low\n./top = top");
    assert_snapshot!(added("dst/top/deep/\ndst/sub = file", &tar, add("/dst", None)), @r"
    dst/ 0755
    dst/sub/ 0755
    dst/sub/low 0644 = low
    dst/top 0644 = top
    ");
    assert_snapshot!(added("dst/sub -> /real\nreal/", &tar, add("/dst", None)), @r"
    dst/ 0755
    dst/sub/ 0755
    dst/sub/low 0644 = low
    dst/top 0644 = top
    real/ 0755
    ");
}

#[test]
fn implied_folders_belong_to_root() {
    assert_snapshot!(added("", &archive("./a/b/c = c"), add("/own/", Some((3, 4)))), @r"
    own/ 0755 3:4
    own/a/ 0755
    own/a/b/ 0755
    own/a/b/c 0644 3:4 = c
    ");
}

#[test]
fn names_and_links_stay_below_the_destination() {
    let hostile =
        archive("../../up = u\n/etc/abs = a\nin/../../../out = o\nl -> ../../../outside\nl/f = f");
    assert_snapshot!(added("outside/", &hostile, add("/dst/in", None)), @"error: cannot unpack /t.tar: /l: no such file or directory");
    assert_snapshot!(added("", &archive("sub/ \nway -> sub\nway/f = through"), add("/dst", None)), @r"
    dst/ 0755
    dst/sub/ 0755
    dst/sub/f 0644 = through
    dst/way -> sub
    ");
    assert_snapshot!(added("etc/", &archive("way -> /etc\nway/f = through"), add("/dst", None)), @"error: cannot unpack /t.tar: /way: no such file or directory");
    assert_snapshot!(added("secret = s", &archive("steal => ../secret"), add("/dst", None)), @"error: cannot unpack /t.tar: /secret: no such file or directory");
}

#[test]
fn hard_links_and_times_are_kept() {
    let mut world = World::new();
    let root = world.folder();
    fs::write(root.join("t.tar"), archive("one = 1\ntwo => one\nold2 => old\ndir/ "))
        .expect("archive");
    let context = ContextTree::open(&root, &[]).expect("context");
    let (base, upper) = (world.tree("dst/old = o"), world.folder());
    run_over(&LayerStack::new(vec![base.clone()]), &context, add("/dst", None), &upper)
        .expect("add");
    let facts = |name: &str| fs::metadata(upper.join("dst").join(name)).expect(name);
    assert_eq!((facts("one").nlink(), facts("two").ino()), (2, facts("one").ino()));
    assert_eq!(facts("old").ino(), facts("old2").ino());
    assert_eq!((facts("one").mtime(), facts("dir").mtime()), (1_000_000_000, 1_000_000_000));
    assert!(listing(&LayerStack::new(vec![base, upper])).contains("dst/old2 0644 = o"));
}

#[test]
fn what_is_no_archive_is_copied_and_what_breaks_off_fails() {
    assert_snapshot!(added("", b"text", add("/dst/", None)), @r"
    dst/ 0755
    dst/t.tar 0644 = text
    ");
    let whole =
        archive(&format!("big = {}", (0..5000_u32).map(|i| i.to_string()).collect::<String>()));
    assert_snapshot!(added("", &whole[..2000], add("/dst/", None)), @r#"error: cannot unpack /t.tar: /dst/big: unexpected EOF: the archive ends in the middle of "big""#);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &whole).expect("compress");
    let gzip = gzip.finish().expect("compress");
    let error = added("", &gzip[..gzip.len() / 2], add("/dst/", None));
    assert!(error.contains("unexpected EOF"), "{error}");
}
