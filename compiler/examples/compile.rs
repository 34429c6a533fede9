//! Compiles a Dockerfile to a graph: `cargo run -p rbc-compiler --example compile [DOCKERFILE]`.
//!
//! Without a file it compiles one of its own. `graph.bin` on standard output is what
//! `rbc inspect -` and `rbc run -` read.

use std::{env, error::Error, fs, io::Write, sync::Arc};

use rbc_compiler::{CompileOptions, Resolver, compile, syntax::SourceFile};

const OWN: &str = "FROM scratch\nCOPY <<EOF /motd\nhello from a Dockerfile\nEOF\n";

/// The outside. This one has nothing: a FROM that needs an image is an error at its line.
struct Nowhere;

impl Resolver for Nowhere {}

fn main() -> Result<(), Box<dyn Error>> {
    let (name, text) = match env::args().nth(1) {
        Some(name) => (name.clone(), fs::read_to_string(name)?),
        None => ("Dockerfile".to_owned(), OWN.to_owned()),
    };
    let source = Arc::new(SourceFile::new(name, text));
    let compiled = match compile(&source, &CompileOptions::default(), &Nowhere) {
        Ok(compiled) => compiled,
        Err(errors) => {
            eprintln!("{errors}");
            std::process::exit(1);
        }
    };
    eprintln!("{} nodes", compiled.graph.nodes.len());
    std::io::stdout().write_all(&compiled.graph.encode()?)?;
    Ok(())
}
