//! The Dockerfiles of the conformance corpus, as they are, in other layouts and broken, through the
//! formatter and the compiler.

mod broken;
mod files;
mod layout;
