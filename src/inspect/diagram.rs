//! Diagrams for other programs to draw: DOT and Mermaid.

use std::io::{self, Write};

use rbc_ir::{Graph, Node, Op};

use super::text;

/// Writes the graph in Graphviz's DOT language.
pub fn write_dot(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    let quote = |label: &str| {
        let escaped = label.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    };
    writeln!(out, "digraph build {{\n  rankdir=BT;\n  node [fontname=\"sans-serif\"];")?;
    for (at, (digest, node)) in graph.nodes.iter().enumerate() {
        let label = quote(&text::title(graph, at));
        let tip = quote(&digest.to_string());
        writeln!(out, "  n{at} [label={label}, shape={}, tooltip={tip}];", shape(node))?;
        for before in inputs(graph, node) {
            writeln!(out, "  n{before} -> n{at};")?;
        }
    }
    for (number, target) in graph.targets.iter().enumerate() {
        let label = quote(&target_label(&target.name, &target.platform.to_string()));
        writeln!(out, "  t{number} [label={label}, shape=doubleoctagon];")?;
        if let Some(at) = target.root.and_then(|root| graph.nodes.get_index_of(&root.node)) {
            writeln!(out, "  n{at} -> t{number};")?;
        }
    }
    writeln!(out, "}}")
}

/// Writes the graph as a Mermaid flowchart.
pub fn write_mermaid(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "flowchart BT")?;
    for (at, node) in graph.nodes.values().enumerate() {
        writeln!(out, "  n{at}[\"{}\"]", entities(&text::title(graph, at)))?;
        for before in inputs(graph, node) {
            writeln!(out, "  n{before} --> n{at}")?;
        }
    }
    for (number, target) in graph.targets.iter().enumerate() {
        let label = target_label(&target.name, &target.platform.to_string());
        writeln!(out, "  t{number}([\"{}\"])", entities(&label))?;
        if let Some(at) = target.root.and_then(|root| graph.nodes.get_index_of(&root.node)) {
            writeln!(out, "  n{at} --> t{number}")?;
        }
    }
    Ok(())
}

fn target_label(name: &str, platform: &str) -> String {
    let name = if name.is_empty() { "image" } else { name };
    format!("{} ({platform})", text::clean(name))
}

/// Everything that Mermaid or the page around it could take for markup, as entity codes.
fn entities(label: &str) -> String {
    let mut out = String::with_capacity(label.len());
    for c in label.chars() {
        if c.is_alphanumeric() || " .,/:=_-+@()".contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("#{};", u32::from(c)));
        }
    }
    out
}

fn inputs<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = usize> + 'a {
    node.inputs.iter().filter_map(|input| graph.nodes.get_index_of(&input.node))
}

fn shape(node: &Node) -> &'static str {
    match node.op {
        Op::Source(_) => "cylinder",
        Op::Exec(_) => "box",
        Op::File(_) => "note",
        Op::Merge | Op::Diff => "diamond",
    }
}
