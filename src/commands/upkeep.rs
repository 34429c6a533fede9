//! Upkeep of the state folder: `fsck`.

use std::io::{self, Write};

use rbc_runtime::{
    store::Store,
    upkeep::{self, CheckMode, Repair, Report},
};
use serde_json::json;

use super::{Failure, Outcome, plain::human_size};
use crate::cli::{FsckArgs, ListFormat};

pub fn fsck(store: &Store, args: &FsckArgs) -> Outcome {
    let mode = if args.check { CheckMode::Report } else { CheckMode::Repair };
    let report = upkeep::check(store, mode)?;
    let mut out = io::stdout().lock();
    match args.format {
        ListFormat::Json => writeln!(out, "{}", report_json(&report))?,
        ListFormat::Table => tell_report(&mut out, &report, mode)?,
    }
    if report.is_sound() { Ok(()) } else { Err(Failure::Negative) }
}

fn report_json(report: &Report) -> serde_json::Value {
    let checked = &report.checked;
    let bad = report.bad.iter().map(|finding| {
        json!({
            "kind": finding.kind.name(),
            "id": finding.id,
            "problem": finding.problem,
            "repaired": finding.repair == Repair::Dropped,
        })
    });
    json!({
        "checked": {
            "blobs": checked.blobs,
            "bytes": checked.bytes,
            "layers": checked.layers,
            "verifiedLayers": checked.verified_layers,
            "results": checked.results,
            "images": checked.images,
        },
        "bad": bad.collect::<Vec<_>>(),
        "leftovers": report.leftovers,
    })
}

fn tell_report(out: &mut dyn Write, report: &Report, mode: CheckMode) -> io::Result<()> {
    for finding in &report.bad {
        let done = match &finding.repair {
            Repair::None => String::new(),
            Repair::Dropped => " (dropped)".to_owned(),
            Repair::InUse => " (left: a running process uses it)".to_owned(),
            Repair::Failed(error) => format!(" (left: {error})"),
        };
        writeln!(out, "{} {}: {}{done}", finding.kind.name(), finding.id, finding.problem)?;
    }
    for path in &report.leftovers {
        let done = if mode == CheckMode::Repair { " (removed)" } else { "" };
        writeln!(out, "left behind by a killed process: {}{done}", path.display())?;
    }
    let checked = &report.checked;
    writeln!(
        out,
        "checked {} blobs ({}), {} layers ({} of them by a digest), {} results, {} images: {}",
        checked.blobs,
        human_size(checked.bytes),
        checked.layers,
        checked.verified_layers,
        checked.results,
        checked.images,
        match report.bad.len() {
            0 => "all is sound".to_owned(),
            n => format!("{n} bad"),
        }
    )
}
