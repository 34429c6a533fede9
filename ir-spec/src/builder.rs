//! Puts a graph together node by node, sharing equal nodes.

use indexmap::IndexMap;

use crate::{Digest, Graph, Input, Meta, Node, NodeMeta, Op, Platform, Target};

/// Why a node cannot be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is not a node of this graph yet: add inputs before what uses them")]
pub struct BuilderError(pub Digest);

/// Collects nodes, then gives a [`Graph`] of those that the targets need.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: IndexMap<Digest, Node>,
    /// What goes beside the nodes.
    pub meta: Meta,
}

impl GraphBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or finds the equal one that is there already. The description of the first
    /// one is kept, except that a mark `no_cache` of either counts.
    pub fn add(
        &mut self,
        op: Op,
        inputs: Vec<Input>,
        platform: Option<Platform>,
        meta: NodeMeta,
    ) -> Result<Input, BuilderError> {
        if let Some(missing) = inputs.iter().find(|i| !self.nodes.contains_key(&i.node)) {
            return Err(BuilderError(missing.node));
        }
        let node = Node { op, inputs, platform };
        let digest = node.digest();
        self.nodes.entry(digest).or_insert(node);
        match self.meta.nodes.entry(digest) {
            indexmap::map::Entry::Occupied(mut known) => known.get_mut().no_cache |= meta.no_cache,
            indexmap::map::Entry::Vacant(free) => {
                free.insert(meta);
            }
        }
        Ok(Input::from(digest))
    }

    /// The graph of all nodes that `targets` need, in the order in which they were added.
    pub fn finish(self, targets: Vec<Target>) -> Graph {
        let mut needed = vec![false; self.nodes.len()];
        let mut stack: Vec<usize> =
            targets.iter().filter_map(|t| self.nodes.get_index_of(&t.root?.node)).collect();
        while let Some(index) = stack.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            let inputs = &self.nodes[index].inputs;
            stack.extend(inputs.iter().filter_map(|i| self.nodes.get_index_of(&i.node)));
        }
        let mut meta = self.meta;
        let mut keep = needed.iter();
        let mut nodes = self.nodes;
        nodes.retain(|_, _| *keep.next().unwrap_or(&false));
        meta.nodes.retain(|digest, _| nodes.contains_key(digest));
        Graph { nodes, targets, meta }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Source,
        testing::{exec, target},
    };

    fn meta(name: &str, no_cache: bool) -> NodeMeta {
        NodeMeta { name: name.to_owned(), no_cache, ..NodeMeta::default() }
    }

    #[test]
    fn equal_nodes_are_shared_and_unneeded_ones_left_out() {
        let mut builder = GraphBuilder::new();
        let scratch = Op::Source(Source::Scratch);
        let base = builder.add(scratch, vec![], None, meta("base", false)).unwrap();
        let first = builder.add(exec(&["x"]), vec![base], None, meta("first", false)).unwrap();
        let unused = builder.add(exec(&["y"]), vec![base], None, meta("unused", false)).unwrap();
        let second = builder.add(exec(&["x"]), vec![base], None, meta("second", true)).unwrap();
        assert_eq!(first, second);
        assert_ne!(first, unused);
        let graph = builder.finish(vec![target(Some(first))]);
        assert!(graph.nodes.keys().eq([&base.node, &first.node]));
        assert!(graph.meta.nodes.keys().eq([&base.node, &first.node]));
        assert_eq!(graph.node_meta(&first.node), &meta("first", true));
        assert_eq!(graph.validate(), Ok(()));
    }

    #[test]
    fn inputs_come_first() {
        let stranger = Digest::of(b"stranger");
        let mut builder = GraphBuilder::new();
        let error =
            builder.add(exec(&["x"]), vec![Input::from(stranger)], None, NodeMeta::default());
        assert_eq!(error, Err(BuilderError(stranger)));
    }
}
