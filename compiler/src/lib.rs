//! The compiler of rbc: turns a Dockerfile into a build graph.
//!
//! Flow: text → [`syntax`] → [`instruction`] → stages → graph; [`compile`] is the whole way.
//! [`shellword`] expands the words of an instruction; [`diagnostic`] is how every step reports what
//! is wrong with the text. The outside is reached through [`Resolver`] alone.
//!
//! ```
//! use std::sync::Arc;
//!
//! use rbc_compiler::{CompileOptions, Resolver, compile, syntax::SourceFile};
//!
//! /// There is no outside: no images, no contexts, no network.
//! struct Nowhere;
//! impl Resolver for Nowhere {}
//!
//! let text = "FROM scratch\nCOPY <<EOF /etc/motd\nhello\nEOF\nCMD [\"/app\"]\n";
//! let source = Arc::new(SourceFile::new("Dockerfile", text));
//! let compiled = compile(&source, &CompileOptions::default(), &Nowhere).unwrap();
//! let graph_bin = compiled.graph.encode().unwrap();
//! # assert!(graph_bin.len() > 100);
//!
//! let wrong = Arc::new(SourceFile::new("Dockerfile", "FROM scratch\nCPOY a /\n"));
//! let errors = compile(&wrong, &CompileOptions::default(), &Nowhere).unwrap_err();
//! assert!(errors.to_string().contains("COPY"), "{errors}");
//! ```

#![allow(
    clippy::result_large_err,
    reason = "an error ends the compilation, so its size costs less than a box at every place"
)]

mod check;
mod compile;
mod cycle;
pub mod diagnostic;
pub mod fmt;
pub mod git_ref;
mod globals;
mod go_format;
pub mod ignore;
mod image_config;
pub mod instruction;
pub mod lint;
mod lower;
mod options;
pub mod outline;
mod path;
mod pins;
mod platform_args;
pub mod reference;
mod resolver;
pub mod shellword;
mod stage;
pub mod suggest;
pub mod syntax;

pub use check::{Checked, Finding, check};
pub use compile::{Compiled, compile};
pub use options::{CompileOptions, Entitlement, NoCache, Pull, UnknownEntitlement};
pub use resolver::{
    GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError, ResolvedHttp, ResolvedImage,
    Resolver,
};
