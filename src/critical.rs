//! The critical path: the steps that a build waited for.

use std::collections::{HashMap, HashSet};

use rbc_ir::{Digest, Graph};

/// More inputs than this are not looked through between two steps that ran.
const MAX_SKIPPED: usize = 1000;

/// The steps that a build waited for: the last one to end, and before each the one of its inputs
/// that ended last. `ends` has what ran and when it ended. In the order of time.
pub fn path(graph: &Graph, ends: &HashMap<Digest, u64>) -> Vec<Digest> {
    let mut path = Vec::new();
    // Of steps that ended at once, the one that stands last in the graph.
    let mut last = graph
        .nodes
        .keys()
        .filter_map(|digest| Some((*digest, *ends.get(digest)?)))
        .max_by_key(|(_, end)| *end);
    while let Some((digest, _)) = last {
        path.push(digest);
        // Inputs that did not run, and so took no time, are looked through.
        let mut seen = HashSet::from([digest]);
        let mut pending = vec![digest];
        last = None;
        while let Some(node) = pending.pop().and_then(|digest| graph.nodes.get(&digest)) {
            for input in &node.inputs {
                match ends.get(&input.node) {
                    Some(end) if last.is_none_or(|(_, known)| known < *end) => {
                        last = Some((input.node, *end));
                    }
                    Some(_) => {}
                    None if seen.len() < MAX_SKIPPED && seen.insert(input.node) => {
                        pending.push(input.node);
                    }
                    None => {}
                }
            }
        }
    }
    path.reverse();
    path
}
