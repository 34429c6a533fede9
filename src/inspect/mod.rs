//! Shows a graph: as a text tree, JSON, Graphviz DOT, Mermaid or SVG.
//!
//! Graphs come from strangers and may have a million nodes: nothing here recurses, output is
//! linear in the size of the graph, and names are cleaned of whatever a terminal or a renderer
//! would take for more than text.

mod diagram;
mod picture;
mod text;
mod tree;

use std::io::{self, Write};

use rbc_ir::Graph;

pub use picture::lane_name;
pub use text::{clean, step_text, title};

/// The forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Indented text.
    Tree,
    /// JSON that says everything.
    Json,
    /// Graphviz.
    Dot,
    /// Mermaid flowchart.
    Mermaid,
    /// SVG.
    Svg,
}

/// Writes `graph` to `out`.
pub fn render(graph: &Graph, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Tree => tree::write(graph, out),
        Format::Json => writeln!(out, "{}", graph.to_json()),
        Format::Dot => diagram::write_dot(graph, out),
        Format::Mermaid => diagram::write_mermaid(graph, out),
        Format::Svg => picture::write(graph, out),
    }
}

#[cfg(test)]
mod tests;
