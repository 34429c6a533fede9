//! Checks that a graph is well formed: what every reader of a [`Graph`] may rely on.
//!
//! This file checks how nodes, targets and descriptions hang together; `check_op.rs` the fields of
//! each operation.

use crate::{Graph, GraphError, Node, NodeMeta, Platform, check_op};

impl Graph {
    /// Checks that every node stands under its own digest and behind all of its inputs, that
    /// operations and targets keep the rules of the format (`SPEC.md`, "Validity"), and that
    /// descriptions belong to nodes of this graph.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), GraphError> {
        for (index, (digest, node)) in self.nodes.iter().enumerate() {
            let actual = node.digest();
            if actual != *digest {
                return Err(GraphError::WrongDigest { index, stored: *digest, actual });
            }
            for input in &node.inputs {
                if self.nodes.get_index_of(&input.node).is_none_or(|at| at >= index) {
                    return Err(GraphError::UnknownInput {
                        user: format!("node {digest}"),
                        input: input.node,
                    });
                }
            }
            node.validate()?;
        }
        self.validate_targets_and_meta()
    }

    /// The part of [`Self::validate`] that is about no single node.
    pub(crate) fn validate_targets_and_meta(&self) -> Result<(), GraphError> {
        if self.targets.is_empty() {
            return Err(GraphError::NoTarget);
        }
        for target in &self.targets {
            let bad = |reason| GraphError::BadTarget { name: target.name.clone(), reason };
            check_platform(&target.platform).map_err(bad)?;
            let Some(root) = target.root else { continue };
            if !self.nodes.contains_key(&root.node) {
                let user = format!("target {:?}", target.name);
                return Err(GraphError::UnknownInput { user, input: root.node });
            }
            if root.output != 0 {
                return Err(bad(format!("names output {} of its root", root.output)));
            }
        }
        for (digest, meta) in &self.meta.nodes {
            let bad = |reason| GraphError::BadMeta { node: *digest, reason };
            if !self.nodes.contains_key(digest) {
                return Err(bad("there is no such node".to_owned()));
            }
            self.check_span(meta).map_err(bad)?;
        }
        Ok(())
    }

    /// A span must be safe to cut out of its file.
    fn check_span(&self, meta: &NodeMeta) -> Result<(), String> {
        let Some(span) = meta.span else { return Ok(()) };
        let cut = |text: &str| text.get(span.start as usize..span.end as usize).is_some();
        match self.meta.files.get(span.file as usize) {
            Some(file) if cut(&file.text) => Ok(()),
            Some(file) => {
                Err(format!("bytes {}..{} are no part of {:?}", span.start, span.end, file.name))
            }
            None => Err(format!("names file {} of {}", span.file, self.meta.files.len())),
        }
    }
}

impl Node {
    /// Checks all that can be seen from the node alone.
    pub(crate) fn validate(&self) -> Result<(), GraphError> {
        self.check().map_err(|reason| GraphError::BadNode { node: self.digest(), reason })
    }

    fn check(&self) -> Result<(), String> {
        if let Some(input) = self.inputs.iter().find(|input| input.output != 0) {
            return Err(format!(
                "names output {} of {}, but every node has one",
                input.output, input.node
            ));
        }
        if let Some(platform) = &self.platform {
            check_platform(platform)?;
        }
        check_op::check(&self.op, self.inputs.len())
    }
}

fn check_platform(platform: &Platform) -> Result<(), String> {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    if parts.iter().all(|part| part.bytes().all(Platform::is_legal_byte)) {
        return Ok(());
    }
    Err(format!("{:?} is not a platform", platform.to_string()))
}

#[cfg(test)]
mod tests {
    use crate::{
        testing::{everything, exec, mkfile, target},
        *,
    };

    #[test]
    fn a_graph_with_everything_is_valid() {
        assert_eq!(everything().validate(), Ok(()));
    }

    /// The error for a graph with `op` on top of scratch.
    fn error(op: Op) -> String {
        let mut builder = GraphBuilder::new();
        let scratch = Op::Source(Source::Scratch);
        let scratch = builder.add(scratch, vec![], None, NodeMeta::default()).unwrap();
        let inputs = if matches!(op, Op::Source(_)) { vec![] } else { vec![scratch] };
        let root = builder.add(op, inputs, None, NodeMeta::default()).unwrap();
        let error = builder.finish(vec![target(Some(root))]).validate().unwrap_err();
        let GraphError::BadNode { node, reason } = error else { panic!("{error}") };
        assert_eq!(node, root.node);
        reason
    }

    fn bad_exec(change: impl FnOnce(&mut Exec)) -> String {
        let Op::Exec(mut run) = exec(&["x"]) else { unreachable!() };
        change(&mut run);
        error(Op::Exec(run))
    }

    fn bad_mount(target: &str, kind: MountKind) -> String {
        bad_exec(|run| {
            run.mounts.push(Mount { target: target.to_owned(), kind, read_only: false });
        })
    }

    #[test]
    fn exec_fields_are_checked() {
        assert_eq!(bad_exec(|run| run.args.clear()), "exec without a command");
        assert_eq!(bad_exec(|run| run.args[0].push('\0')), "an argument \"x\\0\" contains a NUL");
        let no_value = bad_exec(|run| run.env.push("A".to_owned()));
        assert_eq!(no_value, "environment entry \"A\" is not NAME=value");
        let no_name = bad_exec(|run| run.env.push("=a".to_owned()));
        assert_eq!(no_name, "environment entry \"=a\" is not NAME=value");
        let relative = bad_exec(|run| run.cwd = "w".to_owned());
        assert_eq!(relative, "the working directory \"w\" is not an absolute path");
        let host = ExtraHost { host: "h\n1.1.1.1".to_owned(), ip: "::1".to_owned() };
        let lines = bad_exec(|run| run.extra_hosts.push(host));
        assert_eq!(lines, "an extra host \"h\\n1.1.1.1\" contains white space");
        let limit = Ulimit { name: "nofile".to_owned(), soft: -1, hard: 5 };
        let order = bad_exec(|run| run.ulimits.push(limit));
        assert_eq!(order, "ulimit nofile=-1:5 is out of order");
    }

    #[test]
    fn mounts_are_checked() {
        let tmpfs = MountKind::Tmpfs { size: 0 };
        assert_eq!(bad_mount("//", tmpfs.clone()), "a mount covers the whole root");
        assert_eq!(bad_mount("m", tmpfs), "a mount target \"m\" is not an absolute path");
        let bind = MountKind::Bind { input: 1, source: String::new() };
        assert_eq!(bad_mount("/m", bind), "a mount names input 1, but there are 1");
        let secret =
            MountKind::Secret { id: "s".to_owned(), required: true, mode: 0o10000, uid: 0, gid: 0 };
        assert_eq!(bad_mount("/m", secret), "0o10000 are not permission bits");
    }

    #[test]
    fn file_actions_are_checked() {
        assert_eq!(error(mkfile("f", b"")), "a file to write \"f\" is not an absolute path");
        let Op::File(FileOp { mut actions }) = mkfile("/f", b"") else { unreachable!() };
        let FileAction::Mkfile(mkfile) = &mut actions[0] else { unreachable!() };
        mkfile.owner = Some(Owner { user: UserRef::Name(String::new()), group: None });
        assert_eq!(error(Op::File(FileOp { actions })), "the name of an owner is empty");
    }

    #[test]
    fn sources_are_checked() {
        let git = |url: &str, commit: &str| {
            error(Op::Source(Source::Git(GitSource {
                url: url.to_owned(),
                reference: String::new(),
                commit: commit.to_owned(),
                subdir: String::new(),
                keep_git_dir: false,
                submodules: false,
            })))
        };
        assert_eq!(git("-u", ""), "the git URL \"-u\" starts with \"-\"");
        assert_eq!(git("x", "main"), "\"main\" is not the id of a git commit");
        let http = |url: &str, filename: &str| {
            error(Op::Source(Source::Http(HttpSource {
                url: url.to_owned(),
                checksum: Digest::of(b""),
                filename: filename.to_owned(),
                mode: 0,
                mtime: 0,
            })))
        };
        assert_eq!(http("file:///x", "x"), "\"file:///x\" is not an http or https URL");
        for name in ["", ".", "..", "a/b"] {
            assert_eq!(http("http://x", name), format!("{name:?} is not the name of a file"));
        }
    }

    #[test]
    fn graphs_hang_together() {
        let graph = everything();
        let invalid = |change: &dyn Fn(&mut Graph)| {
            let mut graph = graph.clone();
            change(&mut graph);
            graph.validate().unwrap_err()
        };
        let last = *graph.nodes.last().unwrap().0;
        let backwards = invalid(&|graph| graph.nodes.reverse());
        assert!(matches!(backwards, GraphError::UnknownInput { .. }), "{backwards}");
        let gone = invalid(&|graph| drop(graph.nodes.pop()));
        assert_eq!(gone, GraphError::UnknownInput { user: "target \"final\"".into(), input: last });
        let wrong = invalid(&|graph| graph.nodes[0].platform = None);
        assert!(matches!(wrong, GraphError::WrongDigest { index: 0, .. }), "{wrong}");
        let cut = invalid(&|graph| {
            graph.meta.nodes[0].span = Some(Span { file: 0, start: 6, end: 7 });
        });
        assert!(cut.to_string().ends_with("bytes 6..7 are no part of \"Dockerfile\""), "{cut}");
        let file = invalid(&|graph| graph.meta.files.clear());
        assert!(file.to_string().ends_with("names file 0 of 0"), "{file}");
        let stray = invalid(&|graph| {
            graph.meta.nodes.insert(Digest::of(b"stray"), NodeMeta::default());
        });
        assert!(stray.to_string().ends_with("there is no such node"), "{stray}");
        let os = invalid(&|graph| graph.targets[0].platform.os = "a/b".to_owned());
        assert_eq!(os.to_string(), "target \"final\": \"a/b/amd64\" is not a platform");
    }
}
