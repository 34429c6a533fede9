//! COPY.

use insta::assert_snapshot;
use rbc_ir::{FileAction, ModeChange, Owner, UserRef};

use super::support::{copies, copy, outcome, run_over};
use crate::tree::{
    LayerStack,
    fixture::{World, listing},
};

#[test]
fn folders_give_their_contents_and_keep_facts_below() {
    let mut world = World::new();
    let context =
        world.context("tree/ 0700\ntree/sub/ 0711\ntree/sub/f 0600 = f\ntree/.hid = h", &[]);
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["tree"], "/deep/dst/")), @r"
    deep/ 0755
    deep/dst/ 0755
    deep/dst/.hid 0644 = h
    deep/dst/sub/ 0711
    deep/dst/sub/f 0600 = f
    ");
    assert_snapshot!(outcome(&mut world, "dst/ 0750 7:8\ndst/sub/ 0700 7:8\ndst/old = o", &context, copies(&["tree"], "/dst")), @r"
    dst/ 0750 7:8
    dst/.hid 0644 = h
    dst/old 0644 = o
    dst/sub/ 0711
    dst/sub/f 0600 = f
    ");
    assert_snapshot!(outcome(&mut world, "dst = file", &context, copies(&["tree"], "/dst")), @"error: cannot copy to non-directory: /dst");
    assert_snapshot!(outcome(&mut world, "dst/sub = file", &context, copies(&["tree"], "/dst")), @"error: cannot copy to non-directory: /dst/sub");
    assert_snapshot!(outcome(&mut world, "real/\ndst/sub -> /real", &context, copies(&["tree"], "/dst")), @"error: cannot copy to non-directory: /dst/sub");
    assert_snapshot!(outcome(&mut world, "dst/.hid/deep/", &context, copies(&["tree"], "/dst")), @"error: cannot replace to directory /dst/.hid with file");
}

#[test]
fn destinations_with_and_without_slash() {
    let mut world = World::new();
    let context = world.context("one = 1\ntwo = 2\ntree/f = f", &[]);
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["one", "two"], "/dst")), @"dst 0644 = 2");
    assert_snapshot!(outcome(&mut world, "dst/ 2770 7:8", &context, copies(&["one", "two"], "/dst")), @r"
    dst/ 2770 7:8
    dst/one 0644 = 1
    dst/two 0644 = 2
    ");
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["tree", "one"], "/new")), @r"
    new/ 0755
    new/f 0644 = f
    new/one 0644 = 1
    ");
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["one", "tree"], "/new")), @"error: cannot copy to non-directory: /new");
    assert_snapshot!(outcome(&mut world, "dst = old", &context, copies(&["one"], "/dst/")), @"error: mkdir /dst: not a directory");
    assert_snapshot!(outcome(&mut world, "dst = old", &context, copies(&["one"], "/dst/below")), @"error: mkdir /dst: not a directory");
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["one/"], "/dotted/.")), @r"
    dotted/ 0755
    dotted/one 0644 = 1
    ");
}

#[test]
fn symlinks_in_the_destination_are_followed_inside_the_root() {
    let mut world = World::new();
    let context = world.context("one = 1\ntree/f = new\ntree/g = new", &[]);
    let base = "data/real/\nclimb -> ../../../../data/real\nvoid -> /no/where\nfile -> /target\ntarget 0600 = old";
    assert_snapshot!(outcome(&mut world, base, &context, copies(&["one"], "/climb/new/")), @r"
    climb -> ../../../../data/real
    data/ 0755
    data/real/ 0755
    data/real/new/ 0755
    data/real/new/one 0644 = 1
    file -> /target
    target 0600 = old
    void -> /no/where
    ");
    assert_snapshot!(outcome(&mut world, base, &context, copies(&["one"], "/void")), @r"
    climb -> ../../../../data/real
    data/ 0755
    data/real/ 0755
    file -> /target
    no/ 0755
    no/where 0644 = 1
    target 0600 = old
    void -> /no/where
    ");
    assert_snapshot!(outcome(&mut world, base, &context, copies(&["one"], "/file")), @r"
    climb -> ../../../../data/real
    data/ 0755
    data/real/ 0755
    file -> /target
    target 0644 = 1
    void -> /no/where
    ");
    assert_snapshot!(outcome(&mut world, "dst/f -> /target\ndst/g -> /void\ntarget = old", &context, copies(&["tree"], "/dst")), @r"
    dst/ 0755
    dst/f 0644 = new
    dst/g 0644 = new
    target 0644 = old
    ");
    assert_snapshot!(outcome(&mut world, "a -> b\nb -> a", &context, copies(&["one"], "/a/")), @r#"error: "/a": too many levels of symbolic links"#);
}

#[test]
fn sources_are_found_inside_the_context_only() {
    let mut world = World::new();
    let context = world.context(
        "f = in\nto-file -> f\nto-dir -> sub\nsub/g = g\nabs -> /sub/g\nout -> ../../../etc/passwd\nway -> deep/er\n\
         deep/er/x.txt = x\ngone -> nothing\nsub/skip = s\na.key = k",
        &["sub/skip", "*.key"],
    );
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["to-*", "abs", "way/*.txt", "../../f"], "/dst/")), @r"
    dst/ 0755
    dst/abs 0644 = g
    dst/f 0644 = in
    dst/g 0644 = g
    dst/to-file 0644 = in
    dst/x.txt 0644 = x
    ");
    for (source, want) in [
        ("out", "error: \"/out\": not found"),
        ("gone", "error: \"/gone\": not found"),
        ("nothere", "error: \"/nothere\": not found"),
        ("f/below", "error: \"/f/below\": not found"),
        ("a.key", "error: \"/a.key\": not found (the ignore file hides it by \"*.key\")"),
        ("a[b", "error: syntax error in pattern \"a[b\""),
        ("*.nothing", ""),
    ] {
        assert_eq!(outcome(&mut world, "", &context, copies(&[source], "/dst/")), want, "{source}");
    }
}

#[test]
fn owners_come_from_flag_or_source() {
    let mut world = World::new();
    let base = "etc/passwd = root:x:0:0::/:/bin/sh\netc/group = crew:x:43:";
    let layer =
        world.base("out/ 0700 33:34\nout/sub/ 0710 33:34\nout/sub/f 0640 31:32 = f\nout/link -> f");
    let by = |user: UserRef, group: Option<UserRef>| {
        let owner = Some(Owner { user, group });
        vec![FileAction::Copy(rbc_ir::CopyAction { owner, ..copy("out", "/new/dst") })]
    };
    assert_snapshot!(outcome(&mut world, "", &layer, copies(&["out"], "/new/dst")), @r"
    new/ 0755
    new/dst/ 0755
    new/dst/link -> f
    new/dst/sub/ 0710 33:34
    new/dst/sub/f 0640 31:32 = f
    ");
    assert_snapshot!(outcome(&mut world, "x = x", &layer, by(UserRef::Id(5), Some(UserRef::Id(6)))), @r"
    new/ 0755 5:6
    new/dst/ 0755 5:6
    new/dst/link 5:6 -> f
    new/dst/sub/ 0710 5:6
    new/dst/sub/f 0640 5:6 = f
    x 0644 = x
    ");
    assert_snapshot!(outcome(&mut world, base, &layer, by(UserRef::Name("nobody".into()), Some(UserRef::Name("crew".into())))), @r"
    etc/ 0755
    etc/group 0644 = crew:x:43:
    etc/passwd 0644 = root:x:0:0::/:/bin/sh
    new/ 0755 0:43
    new/dst/ 0755 0:43
    new/dst/link 0:43 -> f
    new/dst/sub/ 0710 0:43
    new/dst/sub/f 0640 0:43 = f
    ");
    assert_snapshot!(outcome(&mut world, "", &layer, by(UserRef::Name("app".into()), None)), @r#"error: invalid user index: "app" cannot be looked up in an empty stage; use a number"#);
}

#[test]
fn modes_change_by_flag() {
    let mut world = World::new();
    let context = world.context(
        "su 4755 = s\ntree/ 0700\ntree/sub/ 0700\ntree/sub/f 0600 = f\ntree/link -> f",
        &[],
    );
    let with = |source: &str, dest: &str, mode| {
        vec![FileAction::Copy(rbc_ir::CopyAction { mode: Some(mode), ..copy(source, dest) })]
    };
    assert_snapshot!(outcome(&mut world, "", &context, with("tree", "/made/dst", ModeChange::Octal(0o750))), @r"
    made/ 0750
    made/dst/ 0750
    made/dst/link -> f
    made/dst/sub/ 0750
    made/dst/sub/f 0750 = f
    ");
    assert_snapshot!(outcome(&mut world, "", &context, with("tree", "/made/dst", ModeChange::Symbolic("go+rX".into()))), @r"
    made/ 0755
    made/dst/ 0755
    made/dst/link -> f
    made/dst/sub/ 0755
    made/dst/sub/f 0644 = f
    ");
    assert_snapshot!(outcome(&mut world, "", &context, copies(&["su"], "/")), @"su 4755 = s");
}

#[test]
fn excludes_and_parents_filter_what_is_copied() {
    let mut world = World::new();
    let context = world.context(
        "a/ 0700\na/b/ 0750\na/b/c.txt = c\na/skip.txt = s\nobj/x.o = x\nobj/keep = k\nobj/deep/y.o = y\nd/e/f = f",
        &[],
    );
    let filtered = |source: &str, exclude: &[&str], parents: bool| {
        let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
        vec![FileAction::Copy(rbc_ir::CopyAction { exclude, parents, ..copy(source, "/dst/") })]
    };
    assert_snapshot!(outcome(&mut world, "", &context, filtered("obj", &["**/*.o"], false)), @r"
    dst/ 0755
    dst/deep/ 0755
    dst/keep 0644 = k
    ");
    assert_snapshot!(outcome(&mut world, "", &context, filtered(".", &["obj", "!obj/keep", "a", "d"], false)), @r"
    dst/ 0755
    dst/obj/ 0755
    dst/obj/keep 0644 = k
    ");
    assert_snapshot!(outcome(&mut world, "", &context, filtered("obj/keep", &["keep"], false)), @r"
    dst/ 0755
    dst/keep 0644 = k
    ");
    assert_snapshot!(outcome(&mut world, "dst/a/ 0711 7:8", &context, filtered("a/b/c.txt", &[], true)), @r"
    dst/ 0755
    dst/a/ 0700 7:8
    dst/a/b/ 0750
    dst/a/b/c.txt 0644 = c
    ");
    assert_snapshot!(outcome(&mut world, "", &context, filtered("**/*.o", &[], true)), @r"
    dst/ 0755
    dst/obj/ 0755
    dst/obj/deep/ 0755
    dst/obj/deep/y.o 0644 = y
    dst/obj/x.o 0644 = x
    ");
    assert_snapshot!(outcome(&mut world, "", &context, filtered("a/./b", &[], true)), @r"
    dst/ 0755
    dst/b/ 0750
    dst/b/c.txt 0644 = c
    ");
    assert_snapshot!(outcome(&mut world, "", &context, filtered("a/none", &[], true)), @r#"error: "/a/none": not found"#);
}

#[test]
fn special_files_and_hard_links_are_copied_as_such() {
    let mut world = World::new();
    let context =
        world.context("tree/pipe 0620 |\ntree/a = same\ntree/b => tree/a\ntree/c = alone", &[]);
    let upper = world.folder();
    let base = world.base("");
    run_over(&base, &context, copies(&["tree"], "/dst"), &upper).expect("copy");
    let links = |name: &str| {
        let facts = std::fs::metadata(upper.join("dst").join(name)).expect(name);
        std::os::unix::fs::MetadataExt::nlink(&facts)
    };
    assert_eq!((links("a"), links("b"), links("c")), (2, 2, 1));
    assert_snapshot!(listing(&LayerStack::new(vec![upper])), @r"
    dst/ 0755
    dst/a 0644 = same
    dst/b 0644 = same
    dst/c 0644 = alone
    dst/pipe 0620 |
    ");
}
