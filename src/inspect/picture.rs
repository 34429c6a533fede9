//! A graph as a picture: SVG that any browser shows.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use rbc_ir::{Graph, Node, Op};

use super::text;
use crate::picture::{Scene, SceneNode, write_standalone};

pub fn write(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    let title = match graph.meta.files.first() {
        Some(file) => format!("Build graph of {}", file.name),
        None => "Build graph".to_owned(),
    };
    write_standalone(&scene(graph), &title, out)
}

/// All nodes of a graph, in a lane for each stage.
fn scene(graph: &Graph) -> Scene {
    let mut scene = Scene::default();
    let mut lanes: HashMap<&str, usize> = HashMap::new();
    for (at, (digest, node)) in graph.nodes.iter().enumerate() {
        let meta = graph.node_meta(digest);
        let lane = *lanes.entry(meta.stage.as_str()).or_insert_with(|| {
            scene.lanes.push(lane_name(&meta.stage));
            scene.lanes.len() - 1
        });
        let details = text::details(node).join("\n");
        let name = text::title(graph, at);
        scene.nodes.push(SceneNode {
            title: text::step_text(&name).to_owned(),
            subtitle: format!("{} {}", text::kind(node), digest.short()),
            description: format!("{name}\n{details}\n{digest}"),
            class: class(node),
            link: None,
            lane,
            uses: node.inputs.iter().filter_map(|i| graph.nodes.get_index_of(&i.node)).collect(),
        });
    }
    scene
}

/// What a stage is called in pictures.
pub fn lane_name(stage: &str) -> String {
    match stage {
        "" => "sources".to_owned(),
        number if number.bytes().all(|b| b.is_ascii_digit()) => format!("stage {number}"),
        name => format!("stage {name}"),
    }
}

fn class(node: &Node) -> &'static str {
    match node.op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) | Op::Merge | Op::Diff => "file",
    }
}
