//! Places for boxes: lanes from top to bottom, and in each of them columns from left to right.
//!
//! The column of a node is the length of the longest way to it, so every arrow points to the right.
//! Nodes of one lane that share a column stand below each other, ordered by the mean row of what
//! they use, which keeps arrows short and mostly free of crossings.

use super::Scene;

/// Width of a box.
pub const BOX_WIDTH: u32 = 220;
/// Height of a box.
pub const BOX_HEIGHT: u32 = 44;
const COLUMN: u32 = BOX_WIDTH + 60;
const ROW: u32 = BOX_HEIGHT + 16;
const LANE_HEAD: u32 = 26;
const LANE_GAP: u32 = 18;
const MARGIN: u32 = 16;

/// Where a box is: its upper left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub x: u32,
    pub y: u32,
}

/// A lane across the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub y: u32,
    pub height: u32,
}

/// Places for a scene.
#[derive(Debug)]
pub struct Layout {
    pub places: Vec<Place>,
    pub lanes: Vec<Lane>,
    pub width: u32,
    pub height: u32,
}

/// Gives every node a place.
pub fn arrange(scene: &Scene) -> Layout {
    let mut columns: Vec<u32> = Vec::with_capacity(scene.nodes.len());
    for node in &scene.nodes {
        let before = node.uses.iter().filter_map(|used| columns.get(*used)).max();
        columns.push(before.map_or(0, |column| column + 1));
    }
    // Nodes by column and then by lane, so that rows of a column can follow those before it.
    let mut order: Vec<usize> = (0..scene.nodes.len()).collect();
    order.sort_by_key(|&at| (columns[at], scene.nodes[at].lane, at));
    let mut rows: Vec<u32> = vec![0; scene.nodes.len()];
    let mut heights: Vec<u32> = vec![1; scene.lanes.len()];
    for group in order
        .chunk_by(|&a, &b| (columns[a], scene.nodes[a].lane) == (columns[b], scene.nodes[b].lane))
    {
        let mut group = group.to_vec();
        let lane = scene.nodes[group[0]].lane;
        if group.len() > 1 {
            // The mean row of what is used in the same lane, in thousandths.
            let mean = |at: usize| {
                let own: Vec<u64> = scene.nodes[at]
                    .uses
                    .iter()
                    .filter(|used| scene.nodes.get(**used).is_some_and(|n| n.lane == lane))
                    .map(|used| u64::from(rows[*used]))
                    .collect();
                own.iter().sum::<u64>() * 1000 / (own.len().max(1) as u64)
            };
            group.sort_by_cached_key(|&at| (mean(at), at));
        }
        for (row, at) in group.iter().enumerate() {
            rows[*at] = row as u32;
        }
        if let Some(height) = heights.get_mut(lane) {
            *height = (*height).max(group.len() as u32);
        }
    }
    let mut y = MARGIN;
    let mut lanes = Vec::with_capacity(heights.len());
    for height in heights {
        let height = LANE_HEAD + height * ROW;
        lanes.push(Lane { y, height });
        y += height + LANE_GAP;
    }
    let places = scene.nodes.iter().enumerate().map(|(at, node)| Place {
        x: MARGIN + 8 + columns[at] * COLUMN,
        y: lanes.get(node.lane).map_or(MARGIN, |lane| lane.y) + LANE_HEAD + rows[at] * ROW,
    });
    let last = columns.iter().max().copied().unwrap_or(0);
    Layout {
        places: places.collect(),
        lanes,
        width: 2 * MARGIN + 16 + last * COLUMN + BOX_WIDTH,
        height: y - LANE_GAP + MARGIN,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::picture::SceneNode;

    fn scene(uses: Vec<(usize, Vec<usize>)>) -> Scene {
        let lanes = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let node = |(lane, uses): (usize, Vec<usize>)| SceneNode {
            title: String::new(),
            subtitle: String::new(),
            description: String::new(),
            class: "exec",
            link: None,
            lane,
            uses,
        };
        Scene { nodes: uses.into_iter().map(node).collect(), lanes }
    }

    fn graphs() -> impl Strategy<Value = Scene> {
        let node = (0usize..3, proptest::collection::vec(any::<prop::sample::Index>(), 0..4));
        proptest::collection::vec(node, 1..60).prop_map(|nodes| {
            let nodes = nodes.into_iter().enumerate().map(|(at, (lane, uses))| {
                let uses =
                    if at == 0 { vec![] } else { uses.iter().map(|i| i.index(at)).collect() };
                (lane, uses)
            });
            scene(nodes.collect())
        })
    }

    proptest! {
        #[test]
        fn boxes_do_not_overlap_and_arrows_point_to_the_right(scene in graphs()) {
            let layout = arrange(&scene);
            for (at, place) in layout.places.iter().enumerate() {
                let lane = layout.lanes[scene.nodes[at].lane];
                prop_assert!(place.y >= lane.y && place.y + BOX_HEIGHT <= lane.y + lane.height);
                prop_assert!(place.x + BOX_WIDTH <= layout.width);
                for &used in &scene.nodes[at].uses {
                    prop_assert!(layout.places[used].x + BOX_WIDTH < place.x);
                }
                for other in &layout.places[..at] {
                    let apart = place.x.abs_diff(other.x) >= BOX_WIDTH
                        || place.y.abs_diff(other.y) >= BOX_HEIGHT;
                    prop_assert!(apart);
                }
            }
        }
    }
}
