//! The intermediate representation of rbc: a Merkle DAG of build operations.
//!
//! A Dockerfile is lowered into a [`Graph`]; the runtime executes it. Everything from outside that
//! a build depends on is pinned in the graph, so the [`Digest`] of a [`Node`] covers all of its
//! inputs and is its cache key. This crate is pure data: it never does I/O. `SPEC.md` beside this
//! crate states the format so that another implementation can read it.
//!
//! Flow: text → syntax → stages → **graph** → schedule → snapshot → image.

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
