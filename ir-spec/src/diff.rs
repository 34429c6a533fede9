//! What differs between two graphs, told by the steps that people know.
//!
//! Nodes with the same digest are the same. The others are paired by place: within a stage first
//! those that are named alike, then those that do the same kind of thing, in order.

use indexmap::IndexMap;
use serde_json::Value;

use crate::{Digest, Graph, Node, Op};

/// The nodes by which two graphs differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphDiff {
    /// Nodes of the old graph that have no counterpart in the new one.
    pub removed: Vec<Digest>,
    /// Nodes of the new graph that have no counterpart in the old one.
    pub added: Vec<Digest>,
    /// Nodes at the same place that are not the same, in the order of the new graph.
    pub changed: Vec<Change>,
}

/// A node that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node in the old graph.
    pub old: Digest,
    /// The node in the new graph.
    pub new: Digest,
    /// The first field that differs, as a path through the JSON form, such as
    /// `op.exec.args[2]`. A node that differs in nothing but inputs that changed themselves has
    /// `inputs[N].node`.
    pub field: String,
    /// The field's old value as JSON; empty if it is not there.
    pub old_value: String,
    /// The field's new value as JSON; empty if it is not there.
    pub new_value: String,
}

impl GraphDiff {
    /// Whether the graphs have the same nodes.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }
}

impl Graph {
    /// How `new` differs from this graph.
    pub fn diff(&self, new: &Graph) -> GraphDiff {
        let mut old_left: Vec<Digest> = only_in(self, new);
        let mut new_left: Vec<Digest> = only_in(new, self);
        let mut pairs = Vec::new();
        let alike = |graph: &Graph, digest: &Digest| {
            let meta = graph.node_meta(digest);
            (meta.stage.clone(), step_text(&meta.name).to_owned())
        };
        let same_kind = |graph: &Graph, digest: &Digest| {
            (graph.node_meta(digest).stage.clone(), op_kind(&graph.nodes[digest].op).to_owned())
        };
        for key in [&alike as &dyn Fn(&Graph, &Digest) -> (String, String), &same_kind] {
            let mut waiting: IndexMap<_, std::collections::VecDeque<Digest>> = IndexMap::new();
            for digest in old_left.drain(..) {
                waiting.entry(key(self, &digest)).or_default().push_back(digest);
            }
            new_left.retain(|digest| {
                let partner =
                    waiting.get_mut(&key(new, digest)).and_then(|queue| queue.pop_front());
                pairs.extend(partner.map(|old| (old, *digest)));
                partner.is_none()
            });
            old_left.extend(waiting.into_values().flatten());
        }
        old_left.sort_by_key(|digest| self.nodes.get_index_of(digest));
        pairs.sort_by_key(|(_, digest)| new.nodes.get_index_of(digest));
        let changed = pairs.iter().map(|(old, digest)| change(self, old, new, digest)).collect();
        GraphDiff { removed: old_left, added: new_left, changed }
    }
}

fn only_in(graph: &Graph, other: &Graph) -> Vec<Digest> {
    graph.nodes.keys().filter(|digest| !other.nodes.contains_key(*digest)).copied().collect()
}

/// The name of a step without its counter: `RUN make` of `[build 2/4] RUN make`.
fn step_text(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => name,
    }
}

fn op_kind(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge => "merge",
        Op::Diff => "diff",
    }
}

fn change(old: &Graph, before: &Digest, new: &Graph, after: &Digest) -> Change {
    let (field, old_value, new_value) = first_difference(&old.nodes[before], &new.nodes[after]);
    let text = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
    Change {
        old: *before,
        new: *after,
        field,
        old_value: text(old_value),
        new_value: text(new_value),
    }
}

/// The first field in which two nodes differ, and its values. The operation comes first, then the
/// platform, then the inputs, so that a cause is named before a consequence.
fn first_difference(old: &Node, new: &Node) -> (String, Option<Value>, Option<Value>) {
    let json = |node: &Node| serde_json::json!({ "op": node.op, "platform": node.platform, "inputs": node.inputs });
    let (mut path, mut old, mut new) = (String::new(), json(old), json(new));
    loop {
        let (step, next_old, next_new) = match (&mut old, &mut new) {
            (Value::Object(old), Value::Object(new)) => {
                let keys = old.keys().chain(new.keys());
                let Some(key) = keys.into_iter().find(|&key| old.get(key) != new.get(key)).cloned()
                else {
                    break;
                };
                let dot = if path.is_empty() { "" } else { "." };
                (format!("{dot}{key}"), old.remove(&key), new.remove(&key))
            }
            (Value::Array(old), Value::Array(new)) => {
                let longest = old.len().max(new.len());
                let Some(at) = (0..longest).find(|&at| old.get(at) != new.get(at)) else { break };
                let take = |list: &mut Vec<Value>| list.get_mut(at).map(Value::take);
                (format!("[{at}]"), take(old), take(new))
            }
            _ => break,
        };
        path.push_str(&step);
        match (next_old, next_new) {
            (Some(next_old), Some(next_new)) => (old, new) = (next_old, next_new),
            (next_old, next_new) => return (path, next_old, next_new),
        }
    }
    (path, Some(old), Some(new))
}

#[cfg(test)]
mod tests {
    use crate::{
        testing::{exec, mkfile},
        *,
    };

    /// A chain of steps in one stage on top of scratch.
    fn chain(steps: &[(&str, Op)]) -> Graph {
        let mut builder = GraphBuilder::new();
        let meta = |name: &str| NodeMeta {
            name: format!("[0 1/9] {name}"),
            stage: "0".to_owned(),
            ..NodeMeta::default()
        };
        let mut last =
            builder.add(Op::Source(Source::Scratch), vec![], None, meta("FROM scratch")).unwrap();
        for (name, op) in steps {
            last = builder.add(op.clone(), vec![last], None, meta(name)).unwrap();
        }
        builder.finish(vec![Target {
            name: String::new(),
            root: Some(last),
            platform: Platform::new("linux", "amd64", ""),
            config: ImageConfig::default(),
        }])
    }

    fn summary(old: &Graph, new: &Graph) -> String {
        let diff = old.diff(new);
        let names = |graph: &Graph, list: &[Digest]| {
            list.iter().map(|digest| graph.node_meta(digest).name.clone()).collect::<Vec<_>>()
        };
        let mut lines = vec![
            format!("removed {:?}", names(old, &diff.removed)),
            format!("added {:?}", names(new, &diff.added)),
        ];
        for change in &diff.changed {
            let is_digest = change.old_value.starts_with("\"sha256:");
            let values = format!("{} -> {}", change.old_value, change.new_value);
            lines.push(format!(
                "{}: {} {}",
                new.node_meta(&change.new).name,
                change.field,
                if is_digest { "(digest)" } else { &values }
            ));
        }
        lines.join("\n")
    }

    #[test]
    fn equal_graphs_do_not_differ() {
        let graph = chain(&[("RUN a", exec(&["a"]))]);
        assert!(graph.diff(&graph).is_empty());
    }

    #[test]
    fn an_edited_step_names_its_field_and_its_followers_their_input() {
        let old = chain(&[("RUN a", exec(&["sh", "a"])), ("RUN c", exec(&["c"]))]);
        let new = chain(&[("RUN b", exec(&["sh", "b"])), ("RUN c", exec(&["c"]))]);
        insta::assert_snapshot!(summary(&old, &new), @r#"
        removed []
        added []
        [0 1/9] RUN b: op.exec.args[1] "a" -> "b"
        [0 1/9] RUN c: inputs[0].node (digest)
        "#);
    }

    #[test]
    fn an_inserted_step_is_added_and_the_rest_keeps_its_pairs() {
        let old = chain(&[("RUN a", exec(&["a"])), ("RUN c", exec(&["c"]))]);
        let new = chain(&[
            ("RUN a", exec(&["a"])),
            ("RUN b", exec(&["b"])),
            ("RUN c", exec(&["c"])),
            ("COPY", mkfile("/x", b"x")),
        ]);
        insta::assert_snapshot!(summary(&old, &new), @r#"
        removed []
        added ["[0 1/9] RUN b", "[0 1/9] COPY"]
        [0 1/9] RUN c: inputs[0].node (digest)
        "#);
        insta::assert_snapshot!(summary(&new, &old), @r#"
        removed ["[0 1/9] RUN b", "[0 1/9] COPY"]
        added []
        [0 1/9] RUN c: inputs[0].node (digest)
        "#);
    }

    #[test]
    fn a_longer_list_names_the_new_entry() {
        let old = chain(&[("RUN", exec(&["a"]))]);
        let new = chain(&[("RUN", exec(&["a", "b"]))]);
        let change = &old.diff(&new).changed[0];
        assert_eq!((&*change.field, &*change.new_value), ("op.exec.args[1]", "\"b\""));
        assert_eq!(change.old_value, "");
    }
}
