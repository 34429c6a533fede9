//! Ways through a graph: as a petgraph graph, from a node to what depends on it, and along the
//! longest path.
//!
//! Nodes are named by their position in [`Graph::nodes`]. As that order is topological, each walk
//! is one pass over the nodes, without recursion. The graph must be valid.

use petgraph::graph::{DiGraph, NodeIndex};

use crate::{Digest, Graph, Node};

impl Graph {
    /// The graph for petgraph's algorithms. Node `i` there is node `i` here; an edge leads from an
    /// input to its user and carries the number of the input.
    pub fn to_petgraph(&self) -> DiGraph<Digest, u32> {
        let edges = self.nodes.values().map(|node| node.inputs.len()).sum();
        let mut graph = DiGraph::with_capacity(self.nodes.len(), edges);
        for digest in self.nodes.keys() {
            graph.add_node(*digest);
        }
        for (user, node) in self.nodes.values().enumerate() {
            for (number, input) in self.input_positions(node).enumerate() {
                graph.add_edge(NodeIndex::new(input), NodeIndex::new(user), number as u32);
            }
        }
        graph
    }

    /// The positions of a node's inputs.
    pub fn input_positions<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = usize> + 'a {
        node.inputs.iter().filter_map(|input| self.nodes.get_index_of(&input.node))
    }

    /// For each node, who uses it, in order. A node that uses it several times is named once.
    pub fn users(&self) -> Vec<Vec<usize>> {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (user, node) in self.nodes.values().enumerate() {
            for input in self.input_positions(node) {
                if users[input].last() != Some(&user) {
                    users[input].push(user);
                }
            }
        }
        users
    }

    /// For each node, whether it is one of `nodes` or depends on one.
    pub fn dependents(&self, nodes: impl IntoIterator<Item = usize>) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        for index in nodes {
            reached[index] = true;
        }
        for (index, node) in self.nodes.values().enumerate() {
            reached[index] |= self.input_positions(node).any(|input| reached[input]);
        }
        reached
    }

    /// For each node, its level: 0 without inputs, else one above its highest input. Nodes of one
    /// level do not depend on each other.
    pub fn levels(&self) -> Vec<usize> {
        let mut levels: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.values() {
            let highest = self.input_positions(node).map(|input| levels[input] + 1).max();
            levels.push(highest.unwrap_or(0));
        }
        levels
    }

    /// For each node, the weight of the heaviest path that starts with it and leads to its users:
    /// what is left to do once it can run. A scheduler takes the node with the most left first.
    pub fn remaining(&self, weight: impl Fn(usize, &Node) -> u64) -> Vec<u64> {
        let mut behind = vec![0_u64; self.nodes.len()];
        for (index, node) in self.nodes.values().enumerate().rev() {
            behind[index] = behind[index].saturating_add(weight(index, node));
            for input in self.input_positions(node) {
                behind[input] = behind[input].max(behind[index]);
            }
        }
        behind
    }

    /// The heaviest path through the graph, first node first: no schedule takes less time. Of equal
    /// ones, that through the nodes that stand first.
    pub fn critical_path(&self, weight: impl Fn(usize, &Node) -> u64) -> Vec<usize> {
        let remaining = self.remaining(weight);
        let users = self.users();
        let heaviest = |candidates: &mut dyn Iterator<Item = usize>| {
            candidates.max_by_key(|&index| (remaining[index], std::cmp::Reverse(index)))
        };
        let mut path = Vec::new();
        let mut next = heaviest(&mut (0..self.nodes.len()));
        while let Some(index) = next {
            path.push(index);
            next = heaviest(&mut users[index].iter().copied());
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use crate::{testing::mkfile, *};

    /// a and b are sources; c uses a and b, d uses b, e uses c and d.
    fn diamond() -> Graph {
        let mut builder = GraphBuilder::new();
        let mut add = |op, inputs| builder.add(op, inputs, None, NodeMeta::default()).unwrap();
        let a = add(Op::Source(Source::Scratch), vec![]);
        let b = add(
            Op::Source(Source::Context(ContextSource {
                name: String::new(),
                selection: Selection::default(),
                digest: Digest::of(b""),
            })),
            vec![],
        );
        let c = add(Op::Merge, vec![a, b, b]);
        let d = add(mkfile("/d", b""), vec![b]);
        let e = add(Op::Diff, vec![c, d]);
        builder.finish(vec![Target {
            name: String::new(),
            root: Some(e),
            platform: Platform::new("linux", "amd64", ""),
            config: ImageConfig::default(),
        }])
    }

    #[test]
    fn edges_lead_from_inputs_to_users() {
        let graph = diamond();
        assert_eq!(graph.users(), [vec![2], vec![2, 3], vec![4], vec![4], vec![]]);
        let petgraph = graph.to_petgraph();
        assert_eq!((petgraph.node_count(), petgraph.edge_count()), (5, 6));
        assert!(petgraph::algo::toposort(&petgraph, None).is_ok());
        assert!(petgraph.node_weights().eq(graph.nodes.keys()));
    }

    #[test]
    fn dependents_are_all_that_is_reached() {
        let graph = diamond();
        assert_eq!(graph.dependents([0]), [true, false, true, false, true]);
        assert_eq!(graph.dependents([3]), [false, false, false, true, true]);
        assert_eq!(graph.dependents([]), [false; 5]);
    }

    #[test]
    fn paths_count_weights() {
        let graph = diamond();
        assert_eq!(graph.levels(), [0, 0, 1, 1, 2]);
        assert_eq!(graph.remaining(|_, _| 1), [3, 3, 2, 2, 1]);
        assert_eq!(graph.critical_path(|_, _| 1), [0, 2, 4]);
        let heavy_d = |index, _: &Node| if index == 3 { 10 } else { 1 };
        assert_eq!(graph.critical_path(heavy_d), [1, 3, 4]);
        assert_eq!(graph.remaining(|_, _| u64::MAX), [u64::MAX; 5]);
        assert!(Graph::default().critical_path(|_, _| 1).is_empty());
    }
}
