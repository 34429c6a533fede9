//! The text tree: each target, and below it what it is made of.

use std::io::{self, Write};

use rbc_ir::{Graph, Target};

use super::text;

/// Deeper nodes are indented no further, so that output stays linear.
const MAX_INDENT: usize = 40;

/// Writes the tree of each target. A node that was shown before is only named again.
pub fn write(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    let mut shown = vec![false; graph.nodes.len()];
    for target in &graph.targets {
        head(target, out)?;
        let root = target.root.and_then(|root| graph.nodes.get_index_of(&root.node));
        let mut pending: Vec<(usize, usize)> = root.map(|at| (at, 1)).into_iter().collect();
        while let Some((at, depth)) = pending.pop() {
            let Some((digest, node)) = graph.nodes.get_index(at) else { continue };
            let indent = "  ".repeat(depth.min(MAX_INDENT));
            let title = text::title(graph, at);
            if std::mem::replace(&mut shown[at], true) {
                writeln!(out, "{indent}{} {title} (see above)", digest.short())?;
                continue;
            }
            writeln!(out, "{indent}{} {title}", digest.short())?;
            for line in text::details(node) {
                writeln!(out, "{indent}    {line}")?;
            }
            let inputs = node.inputs.iter().rev();
            pending.extend(
                inputs.filter_map(|i| Some((graph.nodes.get_index_of(&i.node)?, depth + 1))),
            );
        }
    }
    Ok(())
}

fn head(target: &Target, out: &mut dyn Write) -> io::Result<()> {
    let name =
        if target.name.is_empty() { "(unnamed)".to_owned() } else { text::clean(&target.name) };
    writeln!(out, "target {name} {} {}", target.platform, target.digest().short())?;
    let config = &target.config.config;
    for (what, words) in [("entrypoint", &config.entrypoint), ("cmd", &config.cmd)] {
        if let Some(words) = words {
            writeln!(out, "    {what} {}", text::clean(&format!("{words:?}")))?;
        }
    }
    for (what, value) in [("user", &config.user), ("workdir", &config.working_dir)] {
        if !value.is_empty() {
            writeln!(out, "    {what} {}", text::clean(value))?;
        }
    }
    for variable in &config.env {
        writeln!(out, "    env {}", text::clean(variable))?;
    }
    Ok(())
}
