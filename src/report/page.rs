//! The page: what stands where, and what keeps it from running anything that is not its own.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use rbc_ir::Digest;
use rbc_runtime::layer::shown;

use super::{Report, executed, look, size, steps, time, timeline};
use crate::{
    inspect::{lane_name, step_text},
    picture::{self, Escaped, Scene, SceneNode, arrange, write_nodes},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let record = &report.past.record;
    let style = format!("{}{STYLE}", picture::STYLE);
    let title = format!("Build of {}", record.subject.dockerfile);
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>{style}</style>\n</head>\n<body>",
        base64(Digest::of(style.as_bytes()).as_bytes()),
        base64(Digest::of(SCRIPT.as_bytes()).as_bytes()),
        Escaped(&title),
    )?;
    writeln!(
        out,
        "<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header><h1>{}</h1>",
        Escaped(&title)
    )?;
    write_summary(report, out)?;
    writeln!(
        out,
        "<nav aria-label=\"Parts of this page\"><ul><li><a href=\"#graph\">Graph</a></li>\
         <li><a href=\"#timeline\">Timeline</a></li><li><a href=\"#steps\">Steps</a></li>\
         <li><a href=\"#space\">Space</a></li><li><a href=\"#details\">Details</a></li></ul></nav>\
         </header>\n<main id=\"main\">"
    )?;
    writeln!(out, "<section aria-labelledby=\"graph\"><h2 id=\"graph\">Graph</h2>")?;
    write_graph(report, out)?;
    writeln!(
        out,
        "</section>\n<section aria-labelledby=\"timeline\"><h2 id=\"timeline\">Timeline</h2>"
    )?;
    timeline::write(report, out)?;
    write_critical(report, out)?;
    writeln!(out, "</section>\n<section aria-labelledby=\"steps\"><h2 id=\"steps\">Steps</h2>")?;
    write_filter(out)?;
    steps::write_table(report, out)?;
    writeln!(out, "</section>\n<section aria-labelledby=\"space\"><h2 id=\"space\">Space</h2>")?;
    write_space(report, out)?;
    writeln!(
        out,
        "</section>\n<section aria-labelledby=\"details\"><h2 id=\"details\">Details</h2>"
    )?;
    steps::write_details(report, out)?;
    writeln!(out, "</section>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>")
}

fn write_summary(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let record = &report.past.record;
    let status = match record.status {
        rbc_runtime::history::Status::Succeeded => ("ran", "✔ succeeded"),
        rbc_runtime::history::Status::Failed => ("failed", "✖ failed"),
        rbc_runtime::history::Status::Cancelled => ("stopped", "■ cancelled"),
        rbc_runtime::history::Status::Running => ("stopped", "running"),
        rbc_runtime::history::Status::Killed => ("stopped", "■ killed"),
    };
    writeln!(
        out,
        "<dl class=\"summary\">\n<div><dt>Status</dt><dd class=\"status {}\">{}</dd></div>",
        status.0, status.1
    )?;
    let mut fact = |name: &str, value: &str| {
        writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", Escaped(value))
    };
    fact("Build", &record.id)?;
    fact("Took", &time(record.millis))?;
    fact("Steps", &format!("{} cached, {}", record.cached(), executed(record)))?;
    fact("Context", &record.subject.context)?;
    let targets: Vec<&str> =
        record.subject.targets.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    if !targets.is_empty() {
        fact("Target", &targets.join(", "))?;
    }
    fact("Platform", &record.subject.platforms.join(", "))?;
    if !record.tags.is_empty() {
        fact("Names", &record.tags.join(", "))?;
    }
    if let Some(earlier) = &report.why.compared_with {
        fact("Compared with", earlier)?;
    }
    let mut wide = |name: &str, class: &str, value: &str| {
        writeln!(
            out,
            "<div class=\"wide {class}\"><dt>{name}</dt><dd>{}</dd></div>",
            Escaped(value)
        )
    };
    if let Some(error) = &record.error {
        wide("Error", "error", error)?;
    }
    match report.why.first() {
        Some(first) => {
            let causes: Vec<String> = first.causes.iter().map(ToString::to_string).collect();
            let text = format!("#{} {}: {}", first.step, first.name, causes.join("; "));
            wide("First miss", "", &text)?;
        }
        None => wide("First miss", "", "none: every step was in the cache")?,
    }
    writeln!(out, "</dl>")
}

fn write_graph(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let scene = scene(report);
    let layout = arrange(&scene);
    let (width, height) = (layout.width, layout.height);
    writeln!(
        out,
        "<p>A lane for each stage; each step stands behind what it uses, and long stages go on below. \
         Arrow keys move between steps, Enter shows one.</p><ul class=\"legend\" aria-label=\"Signs\">\
         <li class=\"cached\">= cached</li><li class=\"same\">≈ inputs have the same content</li>\
         <li class=\"ran\">▶ ran</li><li class=\"failed\">✖ failed</li>\
         <li class=\"stopped\">■ stopped or not reached</li><li>★ critical path</li></ul>\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Build graph\">\
         <svg class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"group\" aria-label=\"Steps by stage\">"
    )?;
    write_nodes(&scene, &layout, out)?;
    writeln!(out, "</svg></div>")
}

/// The steps that users see, and between them the ways over what they do not see.
fn scene(report: &Report) -> Scene {
    let graph = &report.past.graph;
    let mut scene = Scene::default();
    let mut lanes: HashMap<&str, usize> = HashMap::new();
    let mut boxes: HashMap<Digest, usize> = HashMap::new();
    // What stands for the nodes that have no box: the boxes before them.
    let mut behind: HashMap<Digest, Vec<usize>> = HashMap::new();
    let steps: HashMap<Digest, usize> =
        steps::visible(report).map(|(at, step)| (step.node, at)).collect();
    for (digest, node) in &graph.nodes {
        let mut uses: Vec<usize> = Vec::new();
        for input in &node.inputs {
            match boxes.get(&input.node) {
                Some(at) => uses.push(*at),
                None => uses.extend(behind.get(&input.node).into_iter().flatten()),
            }
        }
        uses.sort_unstable();
        uses.dedup();
        let Some(&at) = steps.get(digest) else {
            uses.truncate(64);
            behind.insert(*digest, uses);
            continue;
        };
        let step = &report.past.record.steps[at];
        let lane = *lanes.entry(step.stage.as_str()).or_insert_with(|| {
            scene.lanes.push(lane_name(&step.stage));
            scene.lanes.len() - 1
        });
        let (class, word) = look(step);
        let star = if report.critical.contains(&at) { " ★" } else { "" };
        let mut subtitle = format!("{word}{star}");
        if let Some(cost) = step.millis.or(step.cost_ms) {
            subtitle.push_str(&format!(" · {}", time(cost)));
        }
        if let Some(bytes) = report.bytes_of(at) {
            subtitle.push_str(&format!(" · {}", size(bytes)));
        }
        boxes.insert(*digest, scene.nodes.len());
        scene.nodes.push(SceneNode {
            title: step_text(&step.name).to_owned(),
            description: format!("{}: {subtitle}", report.title(at)),
            subtitle,
            class,
            link: Some(format!("#step-{at}")),
            lane,
            uses,
        });
    }
    scene
}

fn write_critical(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.critical.is_empty() {
        return Ok(());
    }
    let steps = &report.past.record.steps;
    let total: u64 = report.critical.iter().filter_map(|at| steps[*at].millis).sum();
    writeln!(
        out,
        "<h3>Critical path ★</h3><p>The build could not end before these steps, one after the \
         other: {} of {}.</p><ol>",
        time(total),
        time(report.past.record.millis)
    )?;
    for at in &report.critical {
        let took = steps[*at].millis.map(time).unwrap_or_default();
        let title = report.title(*at);
        match steps[*at].number {
            Some(_) => {
                writeln!(out, "<li><a href=\"#step-{at}\">{}</a> {took}</li>", Escaped(&title))?;
            }
            None => writeln!(out, "<li>{} {took}</li>", Escaped(&title))?,
        }
    }
    writeln!(out, "</ol>")
}

fn write_filter(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<div class=\"filter\" role=\"group\" aria-label=\"Steps to show\" hidden>\
         <button type=\"button\" data-show=\"all\" aria-pressed=\"true\">All</button>\
         <button type=\"button\" data-show=\"ran\" aria-pressed=\"false\">▶ Ran</button>\
         <button type=\"button\" data-show=\"cached\" aria-pressed=\"false\">= Cached</button>\
         <button type=\"button\" data-show=\"failed\" aria-pressed=\"false\">✖ Failed</button>\
         <output aria-live=\"polite\"></output></div>"
    )
}

fn write_space(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Some(survey) = &report.survey else {
        return writeln!(
            out,
            "<p>The layers of this build are not, or no longer, in the store.</p>"
        );
    };
    let total: u64 = survey.layers.iter().map(|layer| layer.size.bytes).sum();
    let lost: u64 = survey.layers.iter().map(|layer| layer.lost_bytes).sum();
    writeln!(
        out,
        "<p>{} in {} layers, of which {} are removed or replaced by later layers.{}</p>",
        size(total),
        survey.layers.len(),
        size(lost),
        if survey.is_partial { " There were too many files to look at all of them." } else { "" }
    )?;
    if survey.duplicates.is_empty() {
        return writeln!(out, "<p>No file of 4 kB or more is there twice.</p>");
    }
    writeln!(
        out,
        "<h3>Equal files</h3><table><thead><tr><th scope=\"col\" class=\"n\">Size of each</th>\
         <th scope=\"col\">Files</th></tr></thead><tbody>"
    )?;
    for one in &survey.duplicates {
        write!(out, "<tr><td class=\"n\">{}</td><td><ul>", size(one.bytes))?;
        for (layer, path) in one.places.iter().take(10) {
            let step = report.layer_steps.get(*layer).map(|step| report.title(*step));
            let step = step.unwrap_or_default();
            write!(
                out,
                "<li>{} <span class=\"soft\">{}</span></li>",
                Escaped(&shown(path)),
                Escaped(&step)
            )?;
        }
        if one.places.len() > 10 {
            write!(out, "<li>and {} more</li>", one.places.len() - 10)?;
        }
        writeln!(out, "</ul></td></tr>")?;
    }
    writeln!(out, "</tbody></table>")
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            match at <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, want) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(text.as_bytes()), want);
        }
    }
}
