//! Shows every event of two builds of the same graph, the second one from the cache:
//! `cargo run -p rbc-runtime --example watch_events`.

use std::error::Error;

use rbc_ir::{Graph, GraphBuilder, Mkfile, NodeMeta, Op, Platform, Source, Target};
use rbc_runtime::{
    build::{BuildOptions, Contexts, build},
    history::{Journal, Subject},
    progress::Event,
    registry::Client,
    sandbox::{self, Cancel},
    store::Store,
};

fn graph() -> Result<Graph, Box<dyn Error>> {
    let named = |name: &str| NodeMeta { name: name.to_owned(), ..NodeMeta::default() };
    let mut builder = GraphBuilder::new();
    let mut last = builder.add(Op::Source(Source::Scratch), vec![], None, named("scratch"))?;
    for path in ["/one", "/two"] {
        let write = Op::File(Mkfile::new(path, "some text\n").into());
        last = builder.add(write, vec![last], None, named(&format!("write {path}")))?;
    }
    Ok(builder.finish(vec![Target { root: Some(last), ..Target::new(Platform::host()) }]))
}

/// Called by the threads that run steps, one event after the other.
fn show(event: Event<'_>) {
    match event {
        Event::Planned { steps } => println!("{steps} steps are planned"),
        Event::StepStarted { step, name, .. } => println!("#{step} began: {name}"),
        Event::StepFinished { step, error: None, elapsed } => {
            println!("#{step} is done after {} ms", elapsed.as_millis());
        }
        Event::StepFinished { step, error: Some(error), .. } => println!("#{step} failed: {error}"),
        Event::StepCached { step, name, .. } => println!("#{step} was cached: {name}"),
        Event::StepOutput { step, data, .. } => {
            println!("#{step} prints {:?}", String::from_utf8_lossy(data));
        }
        // More kinds of events may come.
        _ => {}
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    sandbox::init(); // takes over where the program was started as a step's keeper
    sandbox::enter()?; // while there is one thread
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"))?;
    let (contexts, client, cancel) = (Contexts::new(), Client::new(), Cancel::new()?);
    let graph = graph()?;
    for _ in 0..2 {
        let journal = Journal::begin(Subject::default(), Vec::new());
        let options = BuildOptions {
            events: &show,
            ..BuildOptions::new(&contexts, &client, &journal, &cancel)
        };
        build(&store, &graph, &options)?;
    }
    Ok(())
}
