//! Draws build graphs as SVG.
//!
//! [`layout`] gives every node a place: a lane for each stage, and in it from left to right, each
//! node behind all that it uses. Arrows run between the boxes. [`svg`] draws what has a place. Both take time in proportion to the
//! graph, and nothing here recurses. All text is escaped by [`escape`].

mod escape;
mod layout;
mod svg;

pub use escape::{Escaped, clip};
pub use layout::{Layout, arrange};
pub use svg::{STYLE, write_nodes, write_standalone};

/// What is drawn.
#[derive(Debug, Default)]
pub struct Scene {
    /// The nodes; each stands behind those that it uses.
    pub nodes: Vec<SceneNode>,
    /// Names of the lanes, in the order in which they are drawn.
    pub lanes: Vec<String>,
}

/// One box.
#[derive(Debug)]
pub struct SceneNode {
    /// First line.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// What is read out, and shown while a pointer rests on the box.
    pub description: String,
    /// Class of the box for its colours: letters and `-`.
    pub class: &'static str,
    /// Where the box links to, if anywhere.
    pub link: Option<String>,
    /// Index of its lane.
    pub lane: usize,
    /// The nodes that it uses, as indices of earlier nodes.
    pub uses: Vec<usize>,
}
