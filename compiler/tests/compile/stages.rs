//! Which stages are built, and what their names mean.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use rbc_compiler::NamedContext;

use crate::{
    render,
    world::{World, options},
};

#[test]
fn only_needed_stages_are_lowered() {
    let world = World::new();
    let text = "FROM nosuch AS unused\nRUN a\nFROM busybox AS b\nRUN b\nFROM b\nRUN c\n";
    let compiled = world.compile(text, &options());
    assert_eq!(compiled.unused, ["unused"]);
    assert_eq!(*world.asked.borrow(), ["docker.io/library/busybox:latest"]);
    assert_snapshot!(render::graph(&compiled), @r#"
    #0 [b 1/2] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [b 2/2] RUN b
        ["/bin/sh", "-c", "b"] in /
    #2 (#1) [stage-2 1/1] RUN c
        ["/bin/sh", "-c", "c"] in /
    target - linux/amd64 = #2
    "#);
}

#[test]
fn a_target_is_found_in_any_case() {
    let mut options = options();
    options.target = Some("B".to_owned());
    let text = "FROM busybox AS a\nFROM a AS b\nRUN b\nFROM nosuch\n";
    let compiled = World::new().compile(text, &options);
    assert_eq!(compiled.graph.targets[0].name, "b");
    assert_eq!(compiled.unused, ["stage-2"]);
}

#[test]
fn of_two_stages_with_one_name_from_takes_the_latest_so_far_and_copy_the_last() {
    let text = "FROM busybox AS x\nRUN first\nFROM x AS y\nCOPY --from=x / /\nFROM busybox AS z\n\
                RUN third\n";
    let mut options = options();
    options.target = Some("y".to_owned());
    // The later x stands behind y, so COPY cannot use it.
    let error = World::new().errors(&text.replace("AS z", "AS x"), &options);
    assert!(error.contains("it needs to be defined before current stage \"y\""), "{error}");
    World::new().compile(text, &options);
}

#[test]
fn a_later_stage_on_the_same_base_is_not_its_base() {
    let text = "FROM busybox AS base\nFROM base AS early\nCOPY --from=late / /\n\
                FROM base AS late\nRUN late\nFROM early\nCOPY --from=late / /\n";
    let error = World::new().errors(text, &options());
    assert!(error.contains("it needs to be defined before current stage \"early\""), "{error}");
}

#[test]
fn a_stage_has_a_name_that_a_build_context_can_have() {
    for name in ["b-", "b..c", "b.", "b___c"] {
        let error = World::new().errors(&format!("FROM busybox AS {name}\n"), &options());
        assert!(error.contains(&format!("invalid context name {name}")), "{error}");
    }
    for name in ["b-c", "b.c", "b__c", "b--c"] {
        World::new().compile(&format!("FROM busybox AS {name}\n"), &options());
    }
}

#[test]
fn named_contexts_take_the_place_of_images_and_stages() {
    let mut world = World::new();
    world.contexts.insert("files".to_owned(), vec!["f"]);
    world.named.insert("files".to_owned(), NamedContext::Local);
    world.named.insert("busybox".to_owned(), NamedContext::Image("busybox".to_owned()));
    world.named.insert("layout".to_owned(), NamedContext::OciLayout("v1".to_owned()));
    world.named.insert("alias".to_owned(), NamedContext::Stage("base".to_owned()));
    world.images.insert("v1".to_owned(), Default::default());
    let mut options = options();
    options.named_contexts =
        ["files", "layout", "alias"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
    let text = "FROM busybox AS base\nRUN b\nFROM scratch AS files\nRUN never\nFROM layout\n\
                COPY --from=files f /f\nCOPY --from=alias /b /b\n\
                RUN --mount=from=files,source=f,target=/m true\n";
    assert_snapshot!(render::graph(&world.compile(text, &options)), @r#"
    #0 [base 1/2] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [base 2/2] RUN b
        ["/bin/sh", "-c", "b"] in /
    #2 [stage-2 1/4] FROM v1@sha256:0c712c16b7dcee1abd661062a70700c38d400c6af4b3842502503304c570bceb
        image v1 OciLayout("layout")
    #3 [context files] load from client
        context "files" "f"
    #4 (#2 #3) [stage-2 2/4] COPY --from=files f /f
        copy input 1 "f" to /f follow
    #5 (#4 #1) [stage-2 3/4] COPY --from=alias /b /b
        copy input 1 "b" to /b follow
    #6 (#5 #3) [stage-2 4/4] RUN --mount=from=files,source=f,target=/m true
        ["/bin/sh", "-c", "true"] in /
        env ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        /m <- bind input 1 /f ro
    target - linux/amd64 = #6
    "#);
}

#[test]
fn a_folder_can_be_a_base() {
    let mut world = World::new();
    world.contexts.insert("files".to_owned(), vec!["f"]);
    world.named.insert("files".to_owned(), NamedContext::Local);
    let mut options = options();
    options.named_contexts.insert("files".to_owned());
    assert_snapshot!(render::graph(&world.compile("FROM files\nRUN x\n", &options)), @r#"
    #0 [context files] load from client
        context "files" all
    #1 (#0) [1/2] RUN x
        ["/bin/sh", "-c", "x"] in /
        env ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    target - linux/amd64 = #1
    "#);
}

#[test]
fn later_stages_matter_only_where_they_are_reached() {
    let text = "FROM busybox AS first\nCOPY --from=later /x /x\nFROM busybox AS later\n";
    World::new().compile(text, &options());
    let mut options = options();
    options.target = Some("first".to_owned());
    let error = World::new().errors(text, &options);
    assert!(error.contains("cannot copy from stage \"later\""), "{error}");
}

#[test]
fn the_target_stage_is_known_in_every_stage() {
    let text = "FROM busybox AS a\nARG TARGETSTAGE\nLABEL t=$TARGETSTAGE\nFROM a AS b\n";
    let compiled = World::new().compile(text, &options());
    assert_eq!(compiled.graph.targets[0].config.config.labels["t"], "b");
}

#[test]
fn the_epoch_comes_from_the_build_argument_first() {
    let mut options = options();
    options.source_date_epoch = Some(1);
    let epoch =
        |options: &_| World::new().compile("FROM scratch\n", options).graph.meta.source_date_epoch;
    assert_eq!(epoch(&options), Some(1));
    options.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "2".to_owned());
    assert_eq!(epoch(&options), Some(2));
    options.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "x".to_owned());
    let error = World::new().errors("FROM scratch\n", &options);
    assert!(error.contains("invalid SOURCE_DATE_EPOCH: \"x\""), "{error}");
}

#[test]
fn the_epoch_of_the_environment_is_a_build_argument_too() {
    let mut options = options();
    options.source_date_epoch = Some(1);
    let text = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL e=$SOURCE_DATE_EPOCH\n";
    let compiled = World::new().compile(text, &options);
    assert_eq!(compiled.graph.targets[0].config.config.labels["e"], "1");
}

#[test]
fn a_named_context_is_known_by_any_form_of_an_image_name() {
    let mut world = World::new();
    for name in ["docker.io/library/nosuch:latest", "nosuch:latest", "nosuch"] {
        world.named.insert(name.to_owned(), NamedContext::Image("busybox".to_owned()));
        let mut options = options();
        options.named_contexts.insert(name.to_owned());
        world.compile("FROM nosuch\nCOPY --from=nosuch:latest /x /x\n", &options);
    }
    assert!(world.asked.borrow().iter().all(|asked| asked == "docker.io/library/busybox:latest"));
}
