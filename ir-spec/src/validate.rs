//! Checks that a graph is well formed: what every reader of a [`Graph`] may rely on.

use crate::{Digest, FileAction, Graph, GraphError, MountKind, Node, Op};

impl Graph {
    /// Checks that every node stands under its own digest and behind all of its inputs, that
    /// operations have the inputs they speak of, and that targets end in nodes of this graph.
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
            check_inputs(node).map_err(|reason| GraphError::BadNode { node: *digest, reason })?;
        }
        if self.targets.is_empty() {
            return Err(GraphError::NoTarget);
        }
        for target in &self.targets {
            if let Some(root) = target.root {
                self.check_root(&target.name, &root.node)?;
            }
        }
        Ok(())
    }

    fn check_root(&self, name: &str, root: &Digest) -> Result<(), GraphError> {
        if self.nodes.contains_key(root) {
            return Ok(());
        }
        Err(GraphError::UnknownInput { user: format!("target {name:?}"), input: *root })
    }
}

fn check_inputs(node: &Node) -> Result<(), String> {
    let have = node.inputs.len();
    let within = |what: &str, index: u32| {
        if (index as usize) < have {
            Ok(())
        } else {
            Err(format!("{what} names input {index}, but there are {have}"))
        }
    };
    let at_least = |want: usize| {
        if have >= want { Ok(()) } else { Err(format!("has {have} inputs, wants at least {want}")) }
    };
    if let Some(input) = node.inputs.iter().find(|i| i.output != 0) {
        return Err(format!(
            "names output {} of {}, but every node has one",
            input.output, input.node
        ));
    }
    match &node.op {
        Op::Source(_) if have > 0 => Err(format!("a source has no inputs, this one has {have}")),
        Op::Source(_) => Ok(()),
        Op::Exec(exec) => {
            at_least(1)?;
            if exec.args.is_empty() {
                return Err("exec without a command".to_owned());
            }
            for mount in &exec.mounts {
                match mount.kind {
                    MountKind::Bind { input, .. } | MountKind::Cache { input: Some(input), .. } => {
                        within("a mount", input)?;
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        Op::File(file) => {
            at_least(1)?;
            for action in &file.actions {
                if let FileAction::Copy(copy) = action {
                    within("a copy", copy.input)?;
                }
            }
            Ok(())
        }
        Op::Merge => at_least(2),
        Op::Diff if have != 2 => Err(format!("a diff has two inputs, this one has {have}")),
        Op::Diff => Ok(()),
    }
}
