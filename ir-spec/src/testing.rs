//! Graphs for tests: plain ones, one with every operation, and proptest strategies.

use proptest::{collection::vec, option, prelude::*};

use crate::*;

/// An exec node's operation with nothing but arguments.
pub(crate) fn exec(args: &[&str]) -> Op {
    Op::Exec(Exec::new(args.iter().copied()))
}

/// Writes one file.
pub(crate) fn mkfile(path: &str, data: &[u8]) -> Op {
    Op::File(Mkfile::new(path, data).into())
}

/// A target that ends in `root`.
pub(crate) fn target(root: Option<Input>) -> Target {
    Target { name: "final".to_owned(), root, ..Target::new(Platform::new("linux", "amd64", "")) }
}

/// A graph that has every operation, every kind of source, mount and file action, and a value in
/// every field.
pub(crate) fn everything() -> Graph {
    let text = str::to_owned;
    let mut builder = GraphBuilder::new();
    builder
        .meta
        .files
        .push(SourceFile { name: text("Dockerfile"), text: text("FROM é\nRUN x\n") });
    builder.meta.contexts.insert(
        String::new(),
        ContextMeta { ignore: vec![text("*.o")], ignore_file: text(".dockerignore") },
    );
    builder.meta.source_date_epoch = Some(-1);
    let meta = NodeMeta {
        name: text("[final 1/2] RUN x"),
        stage: text("final"),
        span: Some(Span { file: 0, start: 5, end: 7 }),
        no_cache: true,
        proxy_env: vec![text("http_proxy=http://p")],
        cgroup_parent: text("/group"),
    };
    let platform = Some(Platform::new("linux", "arm", "v6"));
    let mut add = |op, inputs: &[Input]| {
        builder.add(op, inputs.to_vec(), platform.clone(), meta.clone()).expect("inputs are there")
    };
    let mut source = |source| add(Op::Source(source), &[]);
    let scratch = source(Source::Scratch);
    let image = |location| {
        let reference = text("docker.io/library/alpine:latest");
        Source::Image(ImageSource { reference, manifest: Digest::of(b"m"), location })
    };
    let alpine = source(image(ImageLocation::StoreOrRegistry));
    let layout = source(image(ImageLocation::OciLayout(text("base"))));
    let context = source(Source::Context(ContextSource {
        name: text("extra"),
        selection: Selection {
            paths: vec![SelectPath { path: text("src/*.c"), wildcard: true }],
            exclude: vec![text("x")],
            follow_symlinks: true,
            parents: true,
        },
        digest: Digest::of(b"c"),
    }));
    let git = source(Source::Git(GitSource {
        url: text("https://example.org/r.git"),
        reference: text("main"),
        commit: "0123456789".repeat(4),
        subdir: text("sub"),
        keep_git_dir: true,
        submodules: true,
    }));
    let http = source(Source::Http(HttpSource {
        url: text("https://example.org/f.txt"),
        checksum: Digest::of(b"f"),
        filename: text("f.txt"),
        mode: 0o600,
        mtime: 1_700_000_000,
    }));
    let (mode, uid, gid) = (0o400, 7, 8);
    let (id, required) = (text("key"), true);
    let kinds = [
        MountKind::Bind { input: 1, source: text("dir") },
        MountKind::Cache {
            id: text("cache"),
            sharing: CacheSharing::Locked,
            input: Some(2),
            source: text("/"),
            mode,
            uid,
            gid,
        },
        MountKind::Tmpfs { size: 1 << 40 },
        MountKind::Secret { id: id.clone(), required, mode, uid, gid },
        MountKind::Ssh { id: id.clone(), required, mode, uid, gid },
    ];
    let mount = |kind| Mount { target: text("/mnt"), kind, read_only: true };
    let run = Exec {
        env: vec![text("PATH=/bin"), text("EMPTY=")],
        cwd: text("/work"),
        user: text("nobody:nogroup"),
        hostname: text("host"),
        network: Network::None,
        security: Security::Insecure,
        mounts: kinds.into_iter().map(mount).collect(),
        secret_env: vec![SecretEnv { name: text("TOKEN"), id, required }],
        extra_hosts: vec![ExtraHost { host: text("h"), ip: text("::1") }],
        ulimits: vec![Ulimit { name: text("nofile"), soft: 10, hard: -1 }],
        shm_size: 1 << 33,
        ..Exec::new(["/bin/sh", "-c", "x"])
    };
    let run = add(Op::Exec(run), &[alpine, context, scratch]);
    let owner = |user, group| Some(Owner { user, group });
    let named = owner(UserRef::Name(text("www")), Some(UserRef::Id(33)));
    let copy = |mode, owner| {
        FileAction::Copy(CopyAction {
            input: 1,
            source: text("a/./b*"),
            dest: text("/dest/"),
            owner,
            mode: Some(mode),
            wildcard: true,
            follow_symlinks: true,
            unpack: true,
            parents: true,
            exclude: vec![text("**/x"), text("!x")],
            allow_missing: true,
        })
    };
    let path = text("/p");
    let actions = vec![
        copy(ModeChange::Octal(0o755), named.clone()),
        copy(ModeChange::Symbolic(text("u=rwX")), owner(UserRef::Id(300), None)),
        FileAction::Mkdir(Mkdir {
            path: path.clone(),
            mode: 0o7777,
            parents: true,
            owner: named.clone(),
        }),
        FileAction::Mkfile(Mkfile {
            path: path.clone(),
            mode: 0,
            data: b"text\n".to_vec(),
            owner: None,
        }),
        FileAction::Mkfile(Mkfile {
            path: path.clone(),
            mode: 0,
            data: vec![0, 255, 16],
            owner: None,
        }),
        FileAction::Remove(Remove { path: path.clone(), allow_missing: true, wildcard: true }),
        FileAction::Symlink(Symlink { path, target: text("../x"), owner: named }),
    ];
    let files = add(Op::File(FileOp { actions }), &[run, git]);
    let diff = add(Op::Diff, &[alpine, files]);
    let merge = add(Op::Merge, &[layout, diff, http]);
    let config = ContainerConfig {
        user: text("u"),
        exposed_ports: vec![text("80/tcp")],
        env: vec![text("A=b")],
        entrypoint: Some(vec![text("/e")]),
        cmd: Some(Vec::new()),
        volumes: vec![text("/v")],
        working_dir: text("/w"),
        labels: [(text("z"), text("1")), (text("a"), text("2"))].into(),
        stop_signal: text("TERM"),
        healthcheck: Some(Healthcheck {
            test: vec![text("CMD"), text("true")],
            interval: 1,
            timeout: 2,
            start_period: 3,
            start_interval: 4,
            retries: 5,
        }),
        on_build: vec![text("RUN y")],
        shell: Some(vec![text("/bin/sh")]),
        args_escaped: true,
    };
    let config = ImageConfig {
        author: text("me"),
        os_version: text("10"),
        config,
        history: vec![History {
            created: text("2024-01-01T00:00:00Z"),
            created_by: text("RUN x"),
            author: text("me"),
            comment: text("c"),
            empty_layer: true,
        }],
    };
    builder.finish(vec![Target { config, ..target(Some(merge)) }, target(None), target(Some(git))])
}

/// Valid graphs of up to a dozen nodes.
pub(crate) fn graphs() -> impl Strategy<Value = Graph> {
    let word = || "[a-zé ]{0,3}";
    let node = (
        0..6_u8,
        vec(word(), 1..3),
        vec(any::<prop::sample::Index>(), 2..4),
        vec(any::<u8>(), 0..300),
        any::<(bool, u32, u64)>(),
    );
    (vec(node, 1..12), option::of(any::<i64>()), any::<bool>()).prop_map(
        |(nodes, epoch, describe)| {
            let mut builder = GraphBuilder::new();
            builder.meta.source_date_epoch = epoch;
            let scratch = Op::Source(Source::Scratch);
            let first = builder.add(scratch, Vec::new(), None, NodeMeta::default());
            let mut made = vec![first.expect("has no inputs")];
            for (kind, words, inputs, data, (flag, number, big)) in nodes {
                let inputs: Vec<Input> = inputs.iter().map(|index| *index.get(&made)).collect();
                let (op, inputs) = match kind {
                    0 => (Op::Merge, inputs),
                    1 => (Op::Diff, inputs[..2].to_vec()),
                    2 => (mkfile(&format!("/{}", words[0]), &data), inputs),
                    3 => {
                        let mut run = Exec::new([""; 0]);
                        run.args = words.clone();
                        run.shm_size = big;
                        run.mounts.push(Mount {
                            target: "/m".to_owned(),
                            kind: MountKind::Bind { input: 1, source: words[0].clone() },
                            read_only: flag,
                        });
                        (Op::Exec(run), inputs)
                    }
                    4 => (
                        Op::Source(Source::Context(ContextSource {
                            name: words[0].clone(),
                            selection: Selection { parents: flag, ..Selection::default() },
                            digest: Digest::of(&data),
                        })),
                        Vec::new(),
                    ),
                    _ => (
                        Op::File(FileOp {
                            actions: vec![FileAction::Mkdir(Mkdir {
                                path: "/d".to_owned(),
                                mode: number & 0o7777,
                                parents: flag,
                                owner: Some(Owner { user: UserRef::Id(number), group: None }),
                            })],
                        }),
                        inputs,
                    ),
                };
                let meta = NodeMeta { name: words[0].clone(), ..NodeMeta::default() };
                made.push(builder.add(op, inputs, None, meta).expect("inputs are there"));
            }
            let mut graph = builder.finish(vec![target(made.last().copied())]);
            if !describe {
                graph.meta.nodes.clear();
            }
            graph
        },
    )
}
