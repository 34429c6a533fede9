//! Executes rbc build graphs: plan ▸ key ▸ lookup ▸ execute ▸ snapshot ▸ export.
//!
//! Everything that touches files, processes, images or the network lives here. The crate knows the
//! graph ([`rbc_ir`]) and nothing of Dockerfiles.

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
pub mod registry;
pub mod sandbox;
pub mod source;
pub mod start;
pub mod store;
pub mod tree;
pub mod upkeep;
