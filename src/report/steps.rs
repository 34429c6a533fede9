//! The table of steps, and what is known of each.

use std::io::{self, Write};

use rbc_runtime::{explain::Why, history::StepRecord, layer::shown};

use super::{Report, look, size, time};
use crate::picture::{Escaped, clip};

/// One row a step.
pub fn write_table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Table of steps\"><table>\
         <caption>Every step with its cost: the time that its result took to make, in this build or \
         an earlier one</caption>\
         <thead><tr><th scope=\"col\">Step</th><th scope=\"col\">State</th>\
         <th scope=\"col\" class=\"n\">Ran for</th><th scope=\"col\" class=\"n\">Cost</th>\
         <th scope=\"col\" class=\"n\">Adds</th><th scope=\"col\">Why it was not in the cache</th>\
         </tr></thead><tbody>"
    )?;
    for (at, step) in visible(report) {
        let (class, word) = look(step);
        let none = || "–".to_owned();
        let star = if report.critical.contains(&at) { " ★" } else { "" };
        writeln!(
            out,
            "<tr class=\"{class}\" data-state=\"{class}\"><th scope=\"row\"><a href=\"#step-{at}\">{}</a></th>\
             <td class=\"state\">{word}{star}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td></tr>",
            Escaped(&clip(&report.title(at), 100)),
            step.millis.map_or_else(none, time),
            step.cost_ms.map_or_else(none, time),
            report.bytes_of(at).map_or_else(none, size),
            Escaped(&why(report, step).map(causes).unwrap_or_default().join("; ")),
        )?;
    }
    writeln!(out, "</tbody></table></div>")
}

/// A part that opens for each step.
pub fn write_details(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (at, step) in visible(report) {
        let (class, word) = look(step);
        writeln!(
            out,
            "<details id=\"step-{at}\" class=\"step {class}\" data-state=\"{class}\">\
             <summary><span class=\"name\">{}</span> <span class=\"state\">{word}</span></summary>",
            Escaped(&report.title(at))
        )?;
        write_facts(report, at, step, out)?;
        if let Some(why) = why(report, step) {
            writeln!(out, "<h3>Why it was not in the cache</h3><ul>")?;
            for cause in causes(why) {
                writeln!(out, "<li>{}</li>", Escaped(&cause))?;
            }
            writeln!(out, "</ul>")?;
        }
        if let Some(error) = &step.error {
            writeln!(out, "<h3>Error</h3><pre class=\"error\">{}</pre>", Escaped(error))?;
        }
        write_files(report, at, out)?;
        if let Some(log) = &report.logs[at] {
            let cut = if log.is_cut { " (its end; rbc logs has all)" } else { "" };
            writeln!(
                out,
                "<h3>Log{cut}</h3><pre class=\"log\" tabindex=\"0\">{}</pre>",
                Escaped(&log.text)
            )?;
        }
        writeln!(out, "</details>")?;
    }
    Ok(())
}

fn write_facts(
    report: &Report,
    at: usize,
    step: &StepRecord,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "<dl>")?;
    let mut fact =
        |name: &str, value: &str| writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    if let Some(place) = &step.place {
        fact("Instruction", &format!("{}:{}", place.file, place.line))?;
    }
    fact("Key", &step.node.to_string())?;
    if let (Some(start), Some(millis)) = (step.start_ms, step.millis) {
        fact("Ran", &format!("from {} for {}", time(start), time(millis)))?;
    }
    if let (Some(cost), None) = (step.cost_ms, step.millis) {
        fact("Took when it was made", &time(cost))?;
    }
    if let Some(bytes) = report.bytes_of(at) {
        fact("Adds", &size(bytes))?;
    }
    writeln!(out, "</dl>")
}

/// What the layers of a step hold.
fn write_files(report: &Report, at: usize, out: &mut dyn Write) -> io::Result<()> {
    for layer in report.layers_of(at) {
        if !layer.largest.is_empty() {
            writeln!(
                out,
                "<h3>Largest of its {} files and folders</h3><table><thead><tr>\
                 <th scope=\"col\">File</th><th scope=\"col\" class=\"n\">Size</th></tr></thead><tbody>",
                layer.size.files
            )?;
            for (path, bytes) in &layer.largest {
                let path = shown(path);
                writeln!(
                    out,
                    "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
                    Escaped(&path),
                    size(*bytes)
                )?;
            }
            writeln!(out, "</tbody></table>")?;
        }
        if !layer.lost.is_empty() {
            writeln!(
                out,
                "<h3>Removed or replaced later: {} that the image carries in vain</h3><table><thead>\
                 <tr><th scope=\"col\">File</th><th scope=\"col\" class=\"n\">Size</th>\
                 <th scope=\"col\">By</th></tr></thead><tbody>",
                size(layer.lost_bytes)
            )?;
            for lost in &layer.lost {
                let by = report.layer_steps.get(lost.by).map(|by| report.title(*by));
                writeln!(
                    out,
                    "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td>{}</td></tr>",
                    Escaped(&shown(&lost.path)),
                    size(lost.bytes),
                    Escaped(&by.unwrap_or_default())
                )?;
            }
            writeln!(out, "</tbody></table>")?;
        }
    }
    Ok(())
}

/// The steps that users see, with their positions.
pub fn visible(report: &Report) -> impl Iterator<Item = (usize, &StepRecord)> {
    report.past.record.steps.iter().enumerate().filter(|(_, step)| step.number.is_some())
}

fn why<'a>(report: &'a Report, step: &StepRecord) -> Option<&'a Why> {
    report.why.steps.iter().find(|why| Some(why.step) == step.number)
}

fn causes(why: &Why) -> Vec<String> {
    why.causes.iter().map(ToString::to_string).collect()
}
