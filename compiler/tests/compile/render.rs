//! Graphs and image configs as short texts. Nodes are numbered in the order of the graph; digests
//! are left out, so that a text says what a graph means and not how it is encoded.

use std::fmt::Write;

use rbc_compiler::Compiled;
use rbc_ir::{
    CopyAction, Exec, FileAction, Graph, ImageConfig, ModeChange, Mount, MountKind, Op, Owner,
    Selection, Source, Target, UserRef,
};

/// All nodes, one a line and what belongs to it below, then the targets' roots.
pub fn graph(compiled: &Compiled) -> String {
    let graph = &compiled.graph;
    let mut out = String::new();
    for (number, (digest, node)) in graph.nodes.iter().enumerate() {
        let meta = graph.node_meta(digest);
        let inputs: Vec<String> = node
            .inputs
            .iter()
            .map(|input| format!("#{}", graph.nodes.get_index_of(&input.node).unwrap_or(9999)))
            .collect();
        let mark = if meta.no_cache { " (no cache)" } else { "" };
        let inputs =
            if inputs.is_empty() { String::new() } else { format!(" ({})", inputs.join(" ")) };
        let _ = writeln!(out, "#{number}{inputs} {}{mark}", meta.name);
        for line in operation(&node.op) {
            let _ = writeln!(out, "    {line}");
        }
        if !meta.proxy_env.is_empty() {
            let _ = writeln!(out, "    proxies {}", meta.proxy_env.join(" "));
        }
    }
    for target in &graph.targets {
        let _ = writeln!(out, "{}", target_line(graph, target));
    }
    out
}

fn target_line(graph: &Graph, target: &Target) -> String {
    let root = match &target.root {
        Some(input) => format!("#{}", graph.nodes.get_index_of(&input.node).unwrap_or(9999)),
        None => "nothing".to_owned(),
    };
    let name = if target.name.is_empty() { "-" } else { &target.name };
    format!("target {name} {} = {root}", target.platform)
}

fn operation(op: &Op) -> Vec<String> {
    match op {
        Op::Source(Source::Scratch) | Op::Merge | Op::Diff => Vec::new(),
        Op::Source(Source::Image(image)) => {
            vec![format!("image {} {:?}", image.reference, image.location)]
        }
        Op::Source(Source::Context(context)) => {
            vec![format!("context {:?} {}", context.name, selection(&context.selection))]
        }
        Op::Source(Source::Git(git)) => vec![format!(
            "git {} ref={:?} subdir={:?} keep={}",
            git.url, git.reference, git.subdir, git.keep_git_dir
        )],
        Op::Source(Source::Http(http)) => {
            vec![format!("http {} as {} mode={:o}", http.url, http.filename, http.mode)]
        }
        Op::Exec(exec) => self::exec(exec),
        Op::File(file) => file.actions.iter().map(action).collect(),
    }
}

fn selection(selection: &Selection) -> String {
    let mut out: Vec<String> = selection
        .paths
        .iter()
        .map(|path| format!("{:?}{}", path.path, if path.wildcard { "*" } else { "" }))
        .collect();
    out.extend(selection.exclude.iter().map(|pattern| format!("without {pattern:?}")));
    if selection.parents {
        out.push("parents".to_owned());
    }
    if out.is_empty() { "all".to_owned() } else { out.join(" ") }
}

fn exec(exec: &Exec) -> Vec<String> {
    let mut out = vec![format!("{:?} in {}", exec.args, exec.cwd)];
    if exec.env != ["PATH=/bin"] {
        out.push(format!("env {:?}", exec.env));
    }
    if !exec.user.is_empty() {
        out.push(format!("user {}", exec.user));
    }
    out.extend(exec.mounts.iter().map(mount));
    for secret in &exec.secret_env {
        out.push(format!("secret {} as ${}", secret.id, secret.name));
    }
    out
}

fn mount(mount: &Mount) -> String {
    let kind = match &mount.kind {
        MountKind::Bind { input, source } => format!("bind input {input} {source}"),
        MountKind::Cache { id, sharing, input, source, mode, uid, gid } => {
            format!("cache {id} {sharing:?} {input:?} {source} {mode:o} {uid}:{gid}")
        }
        MountKind::Tmpfs { size } => format!("tmpfs {size}"),
        MountKind::Secret { id, required, mode, uid, gid } => {
            format!("secret {id} required={required} {mode:o} {uid}:{gid}")
        }
        MountKind::Ssh { id, required, mode, uid, gid } => {
            format!("ssh {id} required={required} {mode:o} {uid}:{gid}")
        }
    };
    format!("{} <- {kind}{}", mount.target, if mount.read_only { " ro" } else { "" })
}

fn action(action: &FileAction) -> String {
    match action {
        FileAction::Copy(copy) => self::copy(copy),
        FileAction::Mkdir(mkdir) => {
            format!("mkdir {} {:o}{}", mkdir.path, mkdir.mode, owner(mkdir.owner.as_ref()))
        }
        FileAction::Mkfile(file) => {
            format!(
                "mkfile {} {:o} {:?}",
                file.path,
                file.mode,
                String::from_utf8_lossy(&file.data)
            )
        }
        other => format!("{other:?}"),
    }
}

fn copy(copy: &CopyAction) -> String {
    let mut out = format!("copy input {} {:?} to {}", copy.input, copy.source, copy.dest);
    out.push_str(&owner(copy.owner.as_ref()));
    match &copy.mode {
        Some(ModeChange::Octal(mode)) => out.push_str(&format!(" mode {mode:o}")),
        Some(ModeChange::Symbolic(mode)) => out.push_str(&format!(" mode {mode}")),
        None => {}
    }
    for (is_set, word) in [
        (copy.wildcard, " wildcard"),
        (copy.follow_symlinks, " follow"),
        (copy.unpack, " unpack"),
        (copy.parents, " parents"),
    ] {
        if is_set {
            out.push_str(word);
        }
    }
    out
}

fn owner(owner: Option<&Owner>) -> String {
    let one = |user: &UserRef| match user {
        UserRef::Id(id) => id.to_string(),
        UserRef::Name(name) => name.clone(),
    };
    match owner {
        Some(Owner { user, group: Some(group) }) => format!(" owner {}:{}", one(user), one(group)),
        Some(Owner { user, group: None }) => format!(" owner {}", one(user)),
        None => String::new(),
    }
}

/// The fields of an image config that are set, then its history; `-` marks an empty layer.
pub fn config(image: &ImageConfig) -> String {
    let mut out = String::new();
    let config = &image.config;
    let lists = [
        ("env", Some(&config.env)),
        ("entrypoint", config.entrypoint.as_ref()),
        ("cmd", config.cmd.as_ref()),
        ("shell", config.shell.as_ref()),
        ("ports", Some(&config.exposed_ports)),
        ("volumes", Some(&config.volumes)),
        ("on build", Some(&config.on_build)),
    ];
    for (name, list) in lists {
        if let Some(list) = list.filter(|list| !list.is_empty() || name == "cmd") {
            let _ = writeln!(out, "{name} {list:?}");
        }
    }
    for (name, text) in [
        ("author", &image.author),
        ("user", &config.user),
        ("workdir", &config.working_dir),
        ("signal", &config.stop_signal),
    ] {
        if !text.is_empty() {
            let _ = writeln!(out, "{name} {text}");
        }
    }
    if !config.labels.is_empty() {
        let _ = writeln!(out, "labels {:?}", config.labels);
    }
    for line in &image.history {
        let mark = if line.empty_layer { "-" } else { "+" };
        let _ = writeln!(out, "{mark} {}", line.created_by);
    }
    out
}
