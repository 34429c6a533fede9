//! Runs a graph and copies the files of its result into a folder:
//! `cargo run -p rbc-runtime --example run_graph -- graph.bin out`.
//!
//! Results are kept in `$RBC_ROOT`, else in a folder that is gone at the end.

use std::{env, error::Error, fs, path::PathBuf};

use rbc_ir::Graph;
use rbc_runtime::{
    build::{BuildOptions, Contexts, build},
    export::{Dest, export_files},
    history::{Journal, Subject},
    registry::Client,
    sandbox::{self, Cancel},
    store::Store,
    tree::LayerStack,
};

fn main() -> Result<(), Box<dyn Error>> {
    sandbox::init(); // takes over where the program was started as a step's keeper
    sandbox::enter()?; // while there is one thread
    let [graph, out] = env::args().skip(1).collect::<Vec<_>>().try_into().map_err(
        |_| "give two arguments: the file of a graph, and the folder for the files of its result",
    )?;
    let graph = Graph::decode(&fs::read(graph)?)?;

    let temporary = tempfile::tempdir()?;
    let root = env::var_os("RBC_ROOT").map_or(temporary.path().join("state"), PathBuf::from);
    let store = Store::open(&root)?;
    // No files of this machine are given to the build; images are pulled where FROM wants one.
    let (contexts, client, cancel) = (Contexts::new(), Client::new(), Cancel::new()?);
    let journal = Journal::begin(Subject::default(), Vec::new());
    let options = BuildOptions::new(&contexts, &client, &journal, &cancel);
    let built = build(&store, &graph, &options)?;
    println!("{} steps ran, {} were cached", built.executed, built.cached);

    let layers = built.targets.first().into_iter().flatten().map(|id| store.layer_dir(id));
    export_files(LayerStack::new(layers.collect()), &Dest::Path(out.into()))?;
    Ok(())
}
