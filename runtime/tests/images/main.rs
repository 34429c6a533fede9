//! Images against the tools that others use: skopeo, umoci and Debian's docker-registry.
//!
//! The tools are required: a test fails and names the Debian package if one is missing.

mod export;
mod load;
mod registry;
mod support;
mod upload;
