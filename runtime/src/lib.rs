//! Executes rbc build graphs: plan ▸ key ▸ lookup ▸ execute ▸ snapshot ▸ export.
//!
//! Everything that touches files, processes, images or the network lives here. The crate knows the
//! graph ([`rbc_ir`]) and nothing of Dockerfiles.
//!
//! Running a graph and watching it:
//!
//! ```standalone_crate
//! use rbc_ir::{GraphBuilder, Mkfile, NodeMeta, Op, Platform, Source, Target};
//! use rbc_runtime::{
//!     build::{BuildOptions, Contexts, build},
//!     export::{Dest, export_files},
//!     history::{Journal, Subject},
//!     progress::Event,
//!     registry::Client,
//!     sandbox::{self, Cancel},
//!     store::Store,
//!     tree::LayerStack,
//! };
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     sandbox::init(); // takes over where the program was started as a step's keeper
//!     sandbox::enter()?; // while there is one thread
//!
//!     let mut builder = GraphBuilder::new();
//!     let named = |name: &str| NodeMeta { name: name.to_owned(), ..NodeMeta::default() };
//!     let empty = builder.add(Op::Source(Source::Scratch), vec![], None, named("scratch"))?;
//!     let write = Op::File(Mkfile::new("/motd", "hello\n").into());
//!     let root = Some(builder.add(write, vec![empty], None, named("write /motd"))?);
//!     let graph = builder.finish(vec![Target { root, ..Target::new(Platform::host()) }]);
//!
//!     let dir = tempfile::tempdir()?;
//!     let store = Store::open(&dir.path().join("state"))?;
//!     let (contexts, client, cancel) = (Contexts::new(), Client::new(), Cancel::new()?);
//!     let journal = Journal::begin(Subject::default(), Vec::new());
//!     let watch = |event: Event<'_>| {
//!         if let Event::StepStarted { name, .. } = event {
//!             println!("{name}");
//!         }
//!     };
//!     let options = BuildOptions {
//!         events: &watch,
//!         ..BuildOptions::new(&contexts, &client, &journal, &cancel)
//!     };
//!     let built = build(&store, &graph, &options)?;
//!     assert_eq!((built.executed, built.cached), (1, 0));
//!
//!     let layers = built.targets[0].iter().map(|id| store.layer_dir(id)).collect();
//!     export_files(LayerStack::new(layers), &Dest::Path(dir.path().join("out")))?;
//!     assert_eq!(std::fs::read_to_string(dir.path().join("out/motd"))?, "hello\n");
//!     Ok(())
//! }
//! ```

pub mod archive;
pub mod attest;
pub mod build;
pub mod explain;
pub mod export;
pub mod fileop;
pub mod history;
pub mod image;
pub mod layer;
pub mod progress;
mod read_buffer;
pub mod registry;
pub mod sandbox;
pub mod source;
pub mod start;
pub mod store;
pub mod travel;
pub mod tree;
pub mod upkeep;
