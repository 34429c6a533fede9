//! When each step ran, as bars over time.

use std::io::{self, Write};

use super::{Report, look, time};
use crate::picture::{Escaped, clip};

const ROW: u64 = 24;
const NAMES: u64 = 290;
const BARS: u64 = 640;

/// Draws a bar for each step that ran; those on the critical path have a star and a thick border.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let steps = &report.past.record.steps;
    let mut ran: Vec<(usize, u64, u64)> = steps
        .iter()
        .enumerate()
        .filter_map(|(at, step)| Some((at, step.start_ms?, step.millis?)))
        .collect();
    ran.sort_by_key(|(at, start, _)| (*start, *at));
    if ran.is_empty() {
        return writeln!(out, "<p>No step ran in this build.</p>");
    }
    let end = ran.iter().map(|(_, start, took)| start + took).max().unwrap_or(0).max(1);
    let height = ran.len() as u64 * ROW + 30;
    let width = NAMES + BARS + 90;
    writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Timeline\">\
         <svg class=\"timeline\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"group\" aria-label=\"When each step ran\">"
    )?;
    for tick in 0..=4 {
        let x = NAMES + BARS * tick / 4;
        let at = time(end * tick / 4);
        writeln!(
            out,
            "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"18\" y2=\"{height}\"/>\
             <text class=\"soft\" x=\"{x}\" y=\"12\" text-anchor=\"middle\">{at}</text>"
        )?;
    }
    for (row, (at, start, took)) in ran.into_iter().enumerate() {
        let y = 22 + row as u64 * ROW;
        let (class, word) = look(&steps[at]);
        let is_critical = report.critical.contains(&at);
        let critical = if is_critical { " critical" } else { "" };
        let star = if is_critical { "★ " } else { "" };
        let title = report.title(at);
        let on_path = if is_critical { ", on the critical path" } else { "" };
        let label = format!("{title}: {word}, from {} for {}{on_path}", time(start), time(took));
        let x = NAMES + BARS * start / end;
        let bar = (BARS * took / end).max(2);
        writeln!(
            out,
            "<a class=\"{class}{critical}\" href=\"#step-{at}\" aria-label=\"{label}\">\
             <title>{label}</title>\
             <text x=\"4\" y=\"{}\">{star}{}</text>\
             <rect class=\"bar\" x=\"{x}\" y=\"{y}\" width=\"{bar}\" height=\"{}\" rx=\"3\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{}\">{}</text></a>",
            y + 15,
            Escaped(&clip(&title, 40)),
            ROW - 5,
            x + bar + 5,
            y + 15,
            time(took),
            label = Escaped(&label),
        )?;
    }
    writeln!(out, "</svg></div>")
}
