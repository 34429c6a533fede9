//! Builds a graph without a Dockerfile and shows what its digests do:
//! `cargo run -p rbc-ir --example build_graph [FILE]` also writes it for `rbc run FILE`.

use std::{env, error::Error, fs};

use rbc_ir::{Graph, GraphBuilder, Mkfile, NodeMeta, Op, Platform, Source, Target};

/// Two files in an image that is empty otherwise.
fn graph(motd: &str) -> Result<Graph, Box<dyn Error>> {
    let named = |name: &str| NodeMeta { name: name.to_owned(), ..NodeMeta::default() };
    let mut builder = GraphBuilder::new();
    let empty = builder.add(Op::Source(Source::Scratch), vec![], None, named("scratch"))?;
    let hosts = Op::File(Mkfile::new("/hosts", "127.0.0.1 localhost\n").into());
    let hosts = builder.add(hosts, vec![empty], None, named("write /hosts"))?;
    let motd = Op::File(Mkfile::new("/motd", motd).into());
    let motd = builder.add(motd, vec![hosts], None, named("write /motd"))?;
    Ok(builder.finish(vec![Target { root: Some(motd), ..Target::new(Platform::host()) }]))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (graph, other) = (graph("hello from a graph\n")?, graph("goodbye\n")?);
    for (digest, node) in &graph.nodes {
        let name = &graph.node_meta(digest).name;
        // A digest covers the operation and all that it stands on, so it is the key of the result.
        let shared = if other.nodes.contains_key(digest) { "same in both" } else { "differs" };
        println!("{} {name}: {} inputs, {shared}", digest.short(), node.inputs.len());
    }
    let bytes = graph.encode()?;
    assert_eq!(Graph::decode(&bytes)?.encode()?, bytes);
    if let Some(file) = env::args().nth(1) {
        fs::write(file, bytes)?;
    }
    Ok(())
}
