//! Places for boxes: a lane for each stage, in it columns from left to right, and ways for arrows.
//!
//! The column of a node is the length of the longest way to it, so arrows point to the right. Nodes
//! of one lane that share a column stand below each other, ordered by the mean row of what they use.
//! Where the longest way has more columns than can be taken in, each lane begins at the left and goes
//! on below when it is full, as a text does.
//!
//! All boxes stand on one grid, so the gaps between its columns and rows are free from end to end.
//! Arrows keep to them: they go along a gap between columns, one between rows, and another one
//! between columns, and cross no box. This takes time in proportion to the arrows.

use std::collections::HashSet;

use super::Scene;

/// Width of a box.
pub const BOX_WIDTH: u32 = 220;
/// Height of a box.
pub const BOX_HEIGHT: u32 = 44;
const COLUMN: u32 = BOX_WIDTH + 60;
const ROW: u32 = BOX_HEIGHT + 16;
const LANE_HEAD: u32 = 34;
const LANE_GAP: u32 = 18;
const MARGIN: u32 = 16;
/// What is free before the first column, for arrows.
const LEFT: u32 = MARGIN + 36;
/// In pictures of so many columns at most, nodes of all lanes stand behind what they use. In wider
/// ones each lane begins at the left, so that it is seen without a search.
const COLUMNS: u32 = 5;
/// Lines beside each other in a gap between columns, and between rows. Arrows from one box share
/// theirs.
const TRACKS: u32 = 6;
const ROW_TRACKS: u32 = 4;

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

/// A box's place on the grid; rows count through all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Cell {
    column: u32,
    row: u32,
}

/// Places for a scene.
#[derive(Debug)]
pub struct Layout {
    pub places: Vec<Place>,
    pub lanes: Vec<Lane>,
    pub width: u32,
    pub height: u32,
    cells: Vec<Cell>,
    taken: HashSet<Cell>,
}

impl Layout {
    /// The corners of an arrow from one box to another.
    pub fn route(&self, from: usize, to: usize) -> Vec<Place> {
        let (Some(begin), Some(end)) = (self.places.get(from), self.places.get(to)) else {
            return Vec::new();
        };
        let (first, last) = (self.cells[from], self.cells[to]);
        let track = from as u32;
        let start = Place { x: begin.x + BOX_WIDTH, y: begin.y + BOX_HEIGHT / 2 };
        let goal = Place { x: end.x, y: end.y + BOX_HEIGHT / 2 };
        let mut between = first.column + 1..last.column;
        let is_free = |column| !self.taken.contains(&Cell { column, row: last.row });
        if first.column < last.column && first.row == last.row && between.all(is_free) {
            return vec![start, goal];
        }
        let out = start.x + 8 + 4 * (track % TRACKS);
        if last.column == first.column + 1 {
            return vec![start, Place { x: out, ..start }, Place { x: out, ..goal }, goal];
        }
        let above = end.y - 4 - 2 * (track % ROW_TRACKS);
        let before = goal.x - 10 - 3 * (track % TRACKS);
        vec![
            start,
            Place { x: out, ..start },
            Place { x: out, y: above },
            Place { x: before, y: above },
            Place { x: before, ..goal },
            goal,
        ]
    }
}

/// Gives every node a place.
pub fn arrange(scene: &Scene) -> Layout {
    let count = scene.nodes.len();
    let mut levels: Vec<u32> = Vec::with_capacity(count);
    for node in &scene.nodes {
        let before = node.uses.iter().filter_map(|used| levels.get(*used)).max();
        levels.push(before.map_or(0, |level| level + 1));
    }
    draw_near(scene, &mut levels);
    let depth = levels.iter().max().map_or(0, |last| last + 1);
    // About as wide as high, if it were full.
    let square = (count as f64 * f64::from(ROW) / f64::from(COLUMN)).sqrt() as u32;
    let columns = if depth <= COLUMNS { depth.max(1) } else { square.clamp(8, 24) };
    let slots = slots(scene, &levels, columns, depth > COLUMNS);
    let columns = columns.min(slots.iter().max().map_or(1, |last| last + 1));

    // Nodes by place in their lane, so that rows of a column can follow those before it.
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&at| (scene.nodes[at].lane, slots[at], at));
    let mut within: Vec<u32> = vec![0; count];
    // For each lane the bands that it has, and how many rows each of them takes.
    let mut bands: Vec<Vec<(u32, u32)>> = vec![Vec::new(); scene.lanes.len()];
    for group in
        order.chunk_by(|&a, &b| (scene.nodes[a].lane, slots[a]) == (scene.nodes[b].lane, slots[b]))
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
                    .map(|used| u64::from(within[*used]))
                    .collect();
                match own.len() as u64 {
                    0 => u64::MAX,
                    count => own.iter().sum::<u64>() * 1000 / count,
                }
            };
            group.sort_by_cached_key(|&at| (mean(at), at));
        }
        for (row, at) in group.iter().enumerate() {
            within[*at] = row as u32;
        }
        let (band, rows) = (slots[group[0]] / columns, group.len() as u32);
        let Some(bands) = bands.get_mut(lane) else { continue };
        match bands.last_mut() {
            Some((last, height)) if *last == band => *height = (*height).max(rows),
            _ => bands.push((band, rows)),
        }
    }

    let mut y = MARGIN;
    let mut row = 0;
    let mut lanes = Vec::with_capacity(bands.len());
    // Where each band begins: its first row, and the y of it.
    let mut begins: Vec<Vec<(u32, u32, u32)>> = Vec::with_capacity(bands.len());
    for bands in bands {
        let top = y;
        y += LANE_HEAD;
        let mut begin = Vec::with_capacity(bands.len());
        for (band, rows) in bands {
            begin.push((band, row, y));
            row += rows;
            y += rows * ROW;
        }
        begins.push(begin);
        lanes.push(Lane { y: top, height: y - top });
        y += LANE_GAP;
    }
    let mut layout = Layout {
        places: Vec::with_capacity(count),
        lanes,
        width: LEFT + columns * COLUMN,
        height: y.saturating_sub(LANE_GAP) + MARGIN,
        cells: Vec::with_capacity(count),
        taken: HashSet::with_capacity(count),
    };
    for (at, node) in scene.nodes.iter().enumerate() {
        let (band, column) = (slots[at] / columns, slots[at] % columns);
        let begins = begins.get(node.lane).map_or(&[][..], Vec::as_slice);
        let begin = begins.binary_search_by_key(&band, |(band, ..)| *band);
        let (_, row, y) = begin.map_or((band, 0, MARGIN), |found| begins[found]);
        let cell = Cell { column, row: row + within[at] };
        layout.places.push(Place { x: LEFT + column * COLUMN, y: y + within[at] * ROW });
        layout.cells.push(cell);
        layout.taken.insert(cell);
    }
    layout
}

/// Moves nodes that use nothing of their own lane to where they are used first.
fn draw_near(scene: &Scene, levels: &mut [u32]) {
    let mut first_use: Vec<Option<u32>> = vec![None; levels.len()];
    let mut begins = vec![true; levels.len()];
    for (at, node) in scene.nodes.iter().enumerate() {
        for &used in &node.uses {
            let Some(other) = scene.nodes.get(used) else { continue };
            begins[at] &= other.lane != node.lane;
            let first = first_use[used].get_or_insert(levels[at]);
            *first = (*first).min(levels[at]);
        }
    }
    for (at, level) in levels.iter_mut().enumerate() {
        if let (true, Some(first)) = (begins[at], first_use[at]) {
            *level = first - 1;
        }
    }
}

/// The place of each node in its lane, counted along the columns of one band after the other.
fn slots(scene: &Scene, levels: &[u32], columns: u32, is_wrapped: bool) -> Vec<u32> {
    if !is_wrapped {
        return levels.to_vec();
    }
    #[derive(Clone, Default)]
    struct Facts {
        nodes: u32,
        /// Whether a node uses another one of the lane.
        is_chained: bool,
        first: Option<u32>,
    }
    let mut facts = vec![Facts::default(); scene.lanes.len()];
    for (node, level) in scene.nodes.iter().zip(levels) {
        let Some(lane) = facts.get_mut(node.lane) else { continue };
        lane.nodes += 1;
        lane.first = Some(lane.first.map_or(*level, |first| first.min(*level)));
        let in_lane = |used: &usize| scene.nodes.get(*used).is_some_and(|n| n.lane == node.lane);
        lane.is_chained |= node.uses.iter().any(in_lane);
    }
    let mut placed = vec![0; scene.lanes.len()];
    let slot = |(node, level): (&super::SceneNode, &u32)| {
        let Some(lane) = facts.get(node.lane) else { return *level };
        // Many that do not depend on each other need not stand below each other.
        if lane.is_chained || lane.nodes <= columns {
            return level - lane.first.unwrap_or(0);
        }
        placed[node.lane] += 1;
        placed[node.lane] - 1
    };
    scene.nodes.iter().zip(levels).map(slot).collect()
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

    /// Whether two stretches have more than an end in common.
    fn overlap((a, b): (u32, u32), (c, d): (u32, u32)) -> bool {
        a.min(b) < d && c < a.max(b).max(a.min(b) + 1)
    }

    fn check(scene: &Scene) -> Result<Layout, TestCaseError> {
        let layout = arrange(scene);
        let boxes: HashSet<(u32, u32)> =
            layout.places.iter().map(|place| (place.x, place.y)).collect();
        prop_assert_eq!(boxes.len(), scene.nodes.len(), "no two boxes have one place");
        for (at, place) in layout.places.iter().enumerate() {
            let lane = layout.lanes[scene.nodes[at].lane];
            prop_assert!(place.y >= lane.y && place.y + BOX_HEIGHT <= lane.y + lane.height);
            prop_assert!(place.x + BOX_WIDTH <= layout.width);
            prop_assert!(place.y + BOX_HEIGHT <= layout.height);
            for &used in &scene.nodes[at].uses {
                for line in layout.route(used, at).windows(2) {
                    prop_assert!(line[0].x == line[1].x || line[0].y == line[1].y);
                    for (x, y) in &boxes {
                        let crosses = overlap((line[0].x, line[1].x), (*x, x + BOX_WIDTH))
                            && overlap((line[0].y, line[1].y), (*y, y + BOX_HEIGHT));
                        // Begin and end touch a box from outside.
                        let touches = line[0].y == line[1].y
                            && (line[0].x.max(line[1].x) == *x
                                || line[0].x.min(line[1].x) == x + BOX_WIDTH);
                        prop_assert!(!crosses || touches, "{line:?} crosses {x} {y}");
                    }
                }
            }
        }
        Ok(layout)
    }

    proptest! {
        #[test]
        fn boxes_do_not_overlap_and_arrows_cross_none(scene in graphs()) {
            let layout = check(&scene)?;
            let mut depths: Vec<u32> = Vec::new();
            for node in &scene.nodes {
                depths.push(1 + node.uses.iter().map(|used| depths[*used]).max().unwrap_or(0));
            }
            let depth = depths.into_iter().max().unwrap_or(0);
            for (at, node) in scene.nodes.iter().enumerate() {
                for &used in &node.uses {
                    let right = layout.places[used].x + BOX_WIDTH < layout.places[at].x;
                    prop_assert!(right || depth > COLUMNS, "small pictures go to the right");
                }
            }
        }
    }

    #[test]
    fn a_long_chain_is_wrapped() {
        let nodes = (0..300).map(|at: usize| (0, at.checked_sub(1).into_iter().collect()));
        let layout = check(&scene(nodes.collect())).unwrap();
        assert!(layout.width < 2500 && layout.height < 2700, "{} {}", layout.width, layout.height);
    }

    #[test]
    fn many_sources_stand_beside_each_other() {
        let mut nodes: Vec<(usize, Vec<usize>)> = (0..300).map(|_| (0, vec![])).collect();
        nodes.extend((0..300).map(|at| (1, if at == 0 { vec![0] } else { vec![at, 299 + at] })));
        let layout = check(&scene(nodes)).unwrap();
        assert!(layout.width < 3500 && layout.height < 3900, "{} {}", layout.width, layout.height);
    }
}
