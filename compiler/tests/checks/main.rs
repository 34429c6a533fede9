//! Build checks and descriptions of Dockerfiles: which rules say what about which text.

mod outline;
mod render;
mod rules;
