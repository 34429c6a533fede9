//! Dockerfiles in, graphs, image configs and messages out. The outside is [`world::World`], in
//! memory.

mod config;
mod graph;
mod messages;
mod render;
mod scale;
mod stages;
mod world;
