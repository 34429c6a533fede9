//! The intermediate representation of rbc: a Merkle DAG of build operations.
//!
//! A Dockerfile is lowered into a [`Graph`]; the runtime executes it. Everything from outside that
//! a build depends on is pinned in the graph, so the [`Digest`] of a [`Node`] covers all of its
//! inputs and is its cache key. This crate is pure data: it never does I/O. `SPEC.md` beside this
//! crate states the format so that another implementation can read it.
//!
//! Flow: text → syntax → stages → **graph** → schedule → snapshot → image.
//!
//! A graph needs no Dockerfile. This one writes a file and runs a command; its encoded form is
//! what `rbc run` takes:
//!
//! ```
//! use rbc_ir::{
//!     Exec, Graph, GraphBuilder, Mkfile, NodeMeta, Op, Platform, Source, Target,
//! };
//!
//! let platform = Platform::new("linux", "amd64", "");
//! let named = |name: &str| NodeMeta { name: name.to_owned(), ..NodeMeta::default() };
//! let mut builder = GraphBuilder::new();
//! let empty = builder.add(Op::Source(Source::Scratch), vec![], None, named("scratch"))?;
//! let notice = Op::File(Mkfile::new("/etc/motd", "built without a Dockerfile\n").into());
//! let notice = builder.add(notice, vec![empty], None, named("write /etc/motd"))?;
//! let check = Op::Exec(Exec::new(["/bin/check", "/etc/motd"]));
//! let checked = builder.add(check, vec![notice], Some(platform.clone()), named("check"))?;
//! let graph = builder.finish(vec![Target { root: Some(checked), ..Target::new(platform) }]);
//!
//! // The digest of a node covers its operation and all below it: it is the key of the result.
//! assert_eq!(graph.nodes.len(), 3);
//! let bytes = graph.encode()?;
//! assert_eq!(Graph::decode(&bytes)?.targets[0].digest(), graph.targets[0].digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod check_op;
mod codec;
mod diff;
mod digest;
mod graph;
mod image;
mod json;
mod op;
pub mod pattern;
mod platform;
#[cfg(test)]
mod testing;
mod validate;
mod walk;

pub use builder::{BuilderError, GraphBuilder};
pub use codec::{CodecError, IR_VERSION, MAGIC, MAX_PAYLOAD};
pub use diff::{Change, GraphDiff};
pub use digest::{Digest, DigestParseError, Hasher};
pub use graph::{
    ContextMeta, Graph, GraphError, Input, Meta, Node, NodeMeta, SourceFile, Span, Target,
};
pub use image::{ContainerConfig, Healthcheck, History, ImageConfig};
pub use json::JsonError;
pub use op::{
    CacheSharing, ContextSource, CopyAction, Exec, ExtraHost, FileAction, FileOp, GitSource,
    HttpSource, ImageLocation, ImageSource, Mkdir, Mkfile, ModeChange, Mount, MountKind, Network,
    Op, Owner, Remove, SecretEnv, Security, SelectPath, Selection, Source, Symlink, Ulimit,
    UserRef,
};
pub use platform::{Platform, PlatformParseError};
