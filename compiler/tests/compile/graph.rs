//! What instructions become in the graph.

use insta::assert_snapshot;
use rbc_compiler::{Entitlement, NoCache};
use rbc_ir::{Network, Platform};

use crate::{
    render,
    world::{World, options},
};

fn graph(text: &str) -> String {
    render::graph(&World::new().compile(text, &options()))
}

#[test]
fn run_forms() {
    assert_snapshot!(graph("FROM busybox\nWORKDIR /w/\nUSER 5:6\nENV A=1\nRUN echo $A\nSHELL [\"ash\",\"-e\"]\nRUN x\nRUN [\"a\",\"$A\"]\n"), @r#"
    #0 [1/5] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [2/5] WORKDIR /w/
        mkdir /w 755
    #2 (#1) [3/5] RUN echo 1
        ["/bin/sh", "-c", "echo $A"] in /w
        env ["PATH=/bin", "A=1"]
        user 5:6
    #3 (#2) [4/5] RUN x
        ["ash", "-e", "x"] in /w
        env ["PATH=/bin", "A=1"]
        user 5:6
    #4 (#3) [5/5] RUN ["a","1"]
        ["a", "$A"] in /w
        env ["PATH=/bin", "A=1"]
        user 5:6
    target - linux/amd64 = #4
    "#);
}

#[test]
fn run_heredocs() {
    assert_snapshot!(graph("FROM busybox\nRUN <<EOF\nset -e\ntrue\nEOF\nRUN <<-S\n\t#!/bin/ash\n\techo\nS\nRUN cat <<A && cat <<B\n1\nA\n2\nB\n"), @r##"
    #0 [1/4] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [2/4] RUN <<EOF (set -e...)
        ["/bin/sh", "-c", "set -e\ntrue\n"] in /
    #2 [internal] scratch
    #3 (#2) [internal] preparing inline document
        mkfile /S 755 "#!/bin/ash\necho\n"
    #4 (#1 #3) [3/4] RUN <<-S (#!/bin/ash...)
        ["/bin/sh", "-c", "/dev/pipes/S"] in /
        /dev/pipes <- bind input 1 / ro
    #5 (#4) [4/4] RUN cat <<A && cat <<B
        ["/bin/sh", "-c", "cat <<A && cat <<B\n1\nA\n2\nB"] in /
    target - linux/amd64 = #5
    "##);
}

#[test]
fn run_mounts() {
    assert_snapshot!(graph("FROM busybox AS s\nFROM busybox\nWORKDIR /w\nARG P=src\nRUN --mount=target=/all --mount=source=$P,target=in,rw \\\n  --mount=from=s,source=etc,target=/e --mount=type=cache,target=/c,sharing=locked \\\n  --mount=type=cache,id=i,target=/d,from=s,source=/x,uid=3 --mount=type=tmpfs,target=/t,size=1k \\\n  --mount=type=secret,id=k,required --mount=type=secret,id=t,env=T --mount=type=ssh true\n"), @r#"
    #0 [s 1/1] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [stage-1 2/3] WORKDIR /w
        mkdir /w 755
    #2 [internal] load build context
        context "" all
    #3 [internal] load build context
        context "" "src"
    #4 (#1 #2 #3 #0) [stage-1 3/3] RUN --mount=target=/all --mount=source=src,target=in,rw   --mount=from=s,source=etc,target=/e --mount=type=cache,target=/c,sharing=locked   --mount=type=cache,id=i,target=/d,from=s,source=/x,uid=3 --mount=type=tmpfs,target=/t,size=1k   --mount=type=secret,id=k,required --mount=type=secret,id=t,env=T --mount=type=ssh true
        ["/bin/sh", "-c", "true"] in /w
        env ["PATH=/bin", "P=src"]
        /all <- bind input 1 / ro
        /w/in <- bind input 2 /src
        /e <- bind input 3 /etc ro
        /c <- cache /c Locked None / 755 0:0
        /d <- cache i Shared Some(3) /x 755 3:0
        /t <- tmpfs 1024
        /run/secrets/k <- secret k required=true 400 0:0 ro
        /run/buildkit/ssh_agent.0 <- ssh default required=false 600 0:0 ro
        secret t as $T
    target - linux/amd64 = #4
    "#);
}

#[test]
fn copies() {
    assert_snapshot!(graph("FROM busybox\nWORKDIR /w\nARG D=dst\nCOPY a.txt ../b.txt $D/\nCOPY --chown=app: --chmod=u+x --exclude=*.o src/ .\nCOPY *.txt /x/.\nCOPY --parents src/./main.c /p\nADD src /q\nADD --unpack=false a.txt /\n"), @r#"
    #0 [1/8] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [2/8] WORKDIR /w
        mkdir /w 755
    #2 [internal] load build context
        context "" "a.txt" "b.txt"
    #3 (#1 #2) [3/8] COPY a.txt ../b.txt dst/
        copy input 1 "a.txt" to /w/dst/ follow
        copy input 1 "b.txt" to /w/dst/ follow
    #4 [internal] load build context
        context "" "src" without "*.o"
    #5 (#3 #4) [4/8] COPY --chown=app: --chmod=u+x --exclude=*.o src/ .
        copy input 1 "src" to /w/ owner app:0 mode u+x follow
    #6 [internal] load build context
        context "" "*.txt"*
    #7 (#5 #6) [5/8] COPY *.txt /x/.
        copy input 1 "*.txt" to /x/. wildcard follow
    #8 [internal] load build context
        context "" "src/./main.c" parents
    #9 (#7 #8) [6/8] COPY --parents src/./main.c /p
        copy input 1 "src/./main.c" to /p follow parents
    #10 [internal] load build context
        context "" "src"
    #11 (#9 #10) [7/8] ADD src /q
        copy input 1 "src" to /q follow unpack
    #12 [internal] load build context
        context "" "a.txt"
    #13 (#11 #12) [8/8] ADD --unpack=false a.txt /
        copy input 1 "a.txt" to / follow
    target - linux/amd64 = #13
    "#);
}

#[test]
fn links() {
    assert_snapshot!(graph("FROM busybox\nCOPY --link --chown=1 a.txt /x\nCOPY --link --chmod=600 a.txt /y\nFROM scratch\nCOPY --link a.txt /x\nCOPY --from=0 / /\n"), @r#"
    #0 [stage-0 1/3] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 [internal] scratch
    #2 [internal] load build context
        context "" "a.txt"
    #3 (#1 #2) [stage-0 2/3] COPY --link --chown=1 a.txt /x
        copy input 1 "a.txt" to /x owner 1 follow
    #4 (#0 #3) [stage-0 2/3] LINK COPY --link --chown=1 a.txt /x
    #5 (#4 #2) [stage-0 3/3] COPY --link --chmod=600 a.txt /y
        copy input 1 "a.txt" to /y mode 600 follow
    #6 (#1 #2) [stage-1 1/2] COPY --link a.txt /x
        copy input 1 "a.txt" to /x follow
    #7 (#6 #5) [stage-1 2/2] COPY --from=0 / /
        copy input 1 "" to / follow
    target - linux/amd64 = #7
    "#);
}

#[test]
fn inline_files() {
    assert_snapshot!(graph("FROM scratch\nARG V=val\nCOPY <<one <<\"two\" a.txt /d/\nv=$V \\$V 'q'\none\nv=$V\ntwo\n"), @r#"
    #0 [internal] scratch
    #1 [internal] load build context
        context "" "a.txt"
    #2 (#0) [internal] preparing inline document
        mkfile /one 644 "v=val $V 'q'\n"
    #3 (#0) [internal] preparing inline document
        mkfile /two 644 "v=$V\n"
    #4 (#0 #1 #2 #3) [1/1] COPY <<one <<two a.txt /d/
        copy input 1 "a.txt" to /d/ follow
        copy input 2 "one" to /d/
        copy input 3 "two" to /d/
    target - linux/amd64 = #4
    "#);
}

#[test]
fn remote_sources() {
    assert_snapshot!(graph("FROM scratch\nADD https://h/dir/f.tgz?x /d/\nADD --keep-git-dir=true https://h/r.git#v1:sub /r\nADD --unpack --chmod=644 https://h/ /e\n"), @r#"
    #0 [internal] scratch
    #1 [1/3] ADD https://h/dir/f.tgz?x /d/
        http https://h/dir/f.tgz?x as f.tgz mode=600
    #2 (#0 #1) [1/3] ADD https://h/dir/f.tgz?x /d/
        copy input 1 "f.tgz" to /d/
    #3 [2/3] ADD --keep-git-dir=true https://h/r.git#v1:sub /r
        git https://h/r.git ref="v1" subdir="sub" keep=true
    #4 (#2 #3) [2/3] ADD --keep-git-dir=true https://h/r.git#v1:sub /r
        copy input 1 "" to /r
    #5 [3/3] ADD --unpack --chmod=644 https://h/ /e
        http https://h/ as __unnamed__ mode=600
    #6 (#4 #5) [3/3] ADD --unpack --chmod=644 https://h/ /e
        copy input 1 "__unnamed__" to /e mode 644 unpack
    target - linux/amd64 = #6
    "#);
}

#[test]
fn nothing_added_is_no_root() {
    assert_snapshot!(graph("FROM scratch\nENV A=1\n"), @r"
    target - linux/amd64 = nothing
    ");
}

#[test]
fn images_are_asked_for_once_each_and_in_order() {
    let world = World::new();
    let text = "FROM busybox AS a\nFROM busybox\nCOPY --from=a /x /x\nCOPY --from=busybox /y /y\n";
    world.compile(text, &options());
    assert_eq!(*world.asked.borrow(), ["docker.io/library/busybox:latest"]);
}

#[test]
fn no_cache_marks_steps_but_not_sources() {
    let text = "FROM busybox AS a\nRUN x\nFROM busybox\nWORKDIR /w\nRUN y\nCOPY --from=a / /\n";
    let mut options = options();
    options.no_cache = NoCache::Stages(vec!["A".to_owned()]);
    let filtered = render::graph(&World::new().compile(text, &options));
    assert_eq!(filtered.matches("(no cache)").count(), 1, "{filtered}");
    options.no_cache = NoCache::All;
    let all = render::graph(&World::new().compile(text, &options));
    assert_eq!(all.matches("(no cache)").count(), 3, "{all}");
}

#[test]
fn proxies_stay_out_of_the_key() {
    let text = "FROM busybox\nRUN true\n";
    let mut options = options();
    let plain = World::new().compile(text, &options).graph;
    options.build_args.insert("HTTP_PROXY".to_owned(), "http://p".to_owned());
    let compiled = World::new().compile(text, &options);
    assert_eq!(plain.targets, compiled.graph.targets);
    let shown = render::graph(&compiled);
    assert!(shown.contains("proxies HTTP_PROXY=http://p http_proxy=http://p"), "{shown}");
    let declared = World::new().compile("FROM busybox\nARG HTTP_PROXY\nRUN true\n", &options);
    assert!(render::graph(&declared).contains("env [\"PATH=/bin\", \"HTTP_PROXY=http://p\"]"));
}

#[test]
fn several_platforms_are_several_targets() {
    let mut options = options();
    options.platforms =
        vec![Platform::new("linux", "amd64", ""), Platform::new("linux", "arm64", "")];
    let text = "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH\nRUN make $TARGETARCH\n\
                FROM busybox\nCOPY --from=b /x /x\n";
    assert_snapshot!(render::graph(&World::new().compile(text, &options)), @r#"
    #0 [linux/amd64 b 1/2] FROM docker.io/library/busybox:latest@sha256:99f3fe7a49d3f0917cb910b4f971ae3065ba303e1f6edfbfdc59f52bf629b9be
        image docker.io/library/busybox:latest StoreOrRegistry
    #1 (#0) [linux/amd64 b 2/2] RUN make amd64
        ["/bin/sh", "-c", "make $TARGETARCH"] in /
        env ["PATH=/bin", "TARGETARCH=amd64"]
    #2 (#0 #1) [linux/amd64 stage-1 2/2] COPY --from=b /x /x
        copy input 1 "x" to /x follow
    #3 (#0) [linux/amd64 b 2/2] RUN make arm64
        ["/bin/sh", "-c", "make $TARGETARCH"] in /
        env ["PATH=/bin", "TARGETARCH=arm64"]
    #4 [linux/arm64 stage-1 1/2] FROM docker.io/library/busybox:latest@sha256:382ff08676cd1607142af544344e599f193f40fd5c81ff649b2f1e8d4efef895
        image docker.io/library/busybox:latest StoreOrRegistry
    #5 (#4 #3) [linux/arm64 stage-1 2/2] COPY --from=b /x /x
        copy input 1 "x" to /x follow
    target - linux/amd64 = #2
    target - linux/arm64 = #5
    "#);
}

#[test]
fn rights_must_be_granted() {
    let text = "FROM busybox\nRUN --network=host true\n";
    let mut options = options();
    let error = World::new().errors(text, &options);
    assert!(error.contains("network.host is not allowed"), "{error}");
    options.entitlements.insert(Entitlement::NetworkHost);
    World::new().compile(text, &options);
    options.entitlements.clear();
    options.network = Network::Host;
    World::new().compile(text, &options);
}
