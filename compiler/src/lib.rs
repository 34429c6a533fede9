//! The compiler of rbc: turns a Dockerfile into a build graph.
//!
//! Flow: text → [`syntax`] → [`instruction`] → stages → graph. [`shellword`] expands the words of
//! an instruction; [`diagnostic`] is how every step reports what is wrong with the text.

pub mod diagnostic;
pub mod ignore;
pub mod instruction;
pub mod shellword;
pub mod suggest;
pub mod syntax;
