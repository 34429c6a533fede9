//! Scenes as SVG.

use std::io::{self, Write};

use super::{
    Escaped, Layout, Scene, arrange, clip,
    layout::{BOX_HEIGHT, BOX_WIDTH},
};

/// Colours and fonts, for light and dark surroundings. States also differ by the border, not by
/// colour alone.
pub const STYLE: &str = "\
.graph { --ink: #1b1f24; --soft: #57606a; --lane: #f3f5f8; --line: #6e7781; --bad: #c62828;
  --none: #ffffff; --cached: #dcefe0; --ran: #dbe9fb; --failed: #fbdcd9; --source: #fdf3d5;
  font: 12px system-ui, sans-serif; }
.graph text { fill: var(--ink); }
.graph .soft { fill: var(--soft); font-size: 11px; }
.graph .lane { fill: var(--lane); }
.graph .lane-name { font-weight: 600; fill: var(--soft); }
.graph .edge { fill: none; stroke: var(--line); stroke-width: 1.2; stroke-linejoin: round; }
.graph .box { fill: var(--none); stroke: var(--line); stroke-width: 1.2; }
.graph .source .box { fill: var(--source); }
.graph .exec .box, .graph .ran .box { fill: var(--ran); stroke-width: 2.4; }
.graph .file .box, .graph .cached .box { fill: var(--cached); }
.graph .failed .box { fill: var(--failed); stroke: var(--bad); stroke-width: 3; stroke-dasharray: 7 3; }
.graph .stopped .box { stroke-dasharray: 2 3; }
.graph .same .box { fill: var(--cached); stroke-dasharray: 9 3; }
.graph a:focus .box, .graph a:hover .box { stroke: #0b57d0; stroke-width: 3.4; }
@media (prefers-color-scheme: dark) {
  .graph { --ink: #e6edf3; --soft: #9da7b1; --lane: #161b22; --line: #8b949e; --bad: #ff7b72;
    --none: #22272e; --cached: #173a25; --ran: #16335c; --failed: #5a1a17; --source: #42350f; }
  .graph a:focus .box, .graph a:hover .box { stroke: #79b8ff; }
}
";

/// Most characters that fit into a box.
const FIT: usize = 28;

/// Writes a picture that stands alone.
pub fn write_standalone(scene: &Scene, title: &str, out: &mut dyn Write) -> io::Result<()> {
    let layout = arrange(scene);
    let (width, height) = (layout.width, layout.height);
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"graph\" role=\"img\" \
         width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    )?;
    writeln!(out, "<title>{}</title>", Escaped(title))?;
    writeln!(
        out,
        "<style>\n{STYLE}svg {{ background: #ffffff; }}\n\
         @media (prefers-color-scheme: dark) {{ svg {{ background: #0d1117; }} }}\n</style>"
    )?;
    write_nodes(scene, &layout, out)?;
    writeln!(out, "</svg>")
}

/// Writes lanes, arrows and boxes, for an `svg` element of class `graph`.
pub fn write_nodes(scene: &Scene, layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    for (name, lane) in scene.lanes.iter().zip(&layout.lanes) {
        writeln!(
            out,
            "<rect class=\"lane\" x=\"8\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\"/>\
             <text class=\"lane-name\" x=\"20\" y=\"{}\">{}</text>",
            lane.y,
            layout.width - 16,
            lane.height,
            lane.y + 18,
            Escaped(&clip(name, 80))
        )?;
    }
    for (at, node) in scene.nodes.iter().enumerate() {
        for &used in &node.uses {
            let corners = layout.route(used, at);
            let Some((first, rest)) = corners.split_first() else { continue };
            write!(out, "<path class=\"edge\" d=\"M{} {}", first.x, first.y)?;
            let mut last = first;
            for corner in rest {
                match corner.y == last.y {
                    true => write!(out, "H{}", corner.x)?,
                    false => write!(out, "V{}", corner.y)?,
                }
                last = corner;
            }
            // A head, so that it can be seen which way a line runs that turns often.
            writeln!(out, "m-5 -4l5 4l-5 4\"/>")?;
        }
    }
    for (node, place) in scene.nodes.iter().zip(&layout.places) {
        let description = Escaped(&node.description).to_string();
        match &node.link {
            Some(link) => write!(
                out,
                "<a class=\"{}\" href=\"{}\" aria-label=\"{description}\">",
                node.class,
                Escaped(link)
            )?,
            None => write!(out, "<g class=\"{}\">", node.class)?,
        }
        let (x, y) = (place.x, place.y);
        write!(
            out,
            "<title>{description}</title>\
             <rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/>\
             <text x=\"{}\" y=\"{}\">{}</text><text class=\"soft\" x=\"{}\" y=\"{}\">{}</text>",
            x + 10,
            y + 18,
            Escaped(&clip(&node.title, FIT)),
            x + 10,
            y + 35,
            Escaped(&clip(&node.subtitle, FIT + 4)),
        )?;
        writeln!(out, "{}", if node.link.is_some() { "</a>" } else { "</g>" })?;
    }
    Ok(())
}
