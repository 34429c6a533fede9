//! Reading graph files: `rbc inspect`, and for `rbc run`.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, bail};
use rbc_ir::Graph;

use super::Outcome;
use crate::{
    cli::{InspectArgs, InspectFormat},
    inspect,
};

/// The largest graph.bin that is read: far beyond a million nodes.
const MAX_GRAPH: u64 = 512 << 20;

pub fn inspect(args: &InspectArgs) -> Outcome {
    let graph = read(&args.graph)?;
    let format = match args.format {
        InspectFormat::Tree => inspect::Format::Tree,
        InspectFormat::Json => inspect::Format::Json,
        InspectFormat::Dot => inspect::Format::Dot,
        InspectFormat::Mermaid => inspect::Format::Mermaid,
        InspectFormat::Svg => inspect::Format::Svg,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    inspect::render(&graph, format, &mut out)?;
    out.flush()?;
    Ok(())
}

/// Reads a graph from a file, or from standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<Graph> {
    let mut bytes = Vec::new();
    let shown = path.display();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_GRAPH + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)
            .and_then(|file| file.take(MAX_GRAPH + 1).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read the graph {shown}"))?;
    }
    if bytes.len() as u64 > MAX_GRAPH {
        bail!("the graph {shown} is larger than {MAX_GRAPH} bytes");
    }
    Graph::decode(&bytes).with_context(|| format!("cannot read the graph {shown}"))
}
