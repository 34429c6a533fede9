//! Upkeep of the state folder: `du`, `prune`, `fsck`.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rbc_runtime::{
    store::Store,
    upkeep::{
        self, CheckMode, Inventory, Item, ItemKind, Measure, PruneOptions, Repair, Report,
        show_bytes,
    },
};
use serde_json::json;

use super::{Failure, Outcome, plain::print_table};
use crate::cli::{DuArgs, FsckArgs, ListFormat, PruneArgs, PruneFilter};

pub fn du(store: &Store, args: &DuArgs) -> Outcome {
    let mut inventory = Inventory::take(store, Measure::Disk)?;
    inventory.sort();
    let mut out = io::stdout().lock();
    match (args.format, args.verbose) {
        (ListFormat::Json, _) => {
            for item in &inventory.items {
                writeln!(out, "{}", item_json(item))?;
            }
            return Ok(());
        }
        (ListFormat::Table, true) => {
            let mut table = vec![
                ["ID", "KIND", "SIZE", "SHARED", "LAST USED", "MADE IN", "RECLAIMABLE", "NAME"]
                    .map(str::to_owned),
            ];
            table.extend(inventory.items.iter().map(row));
            print_table(&mut out, &table)?;
        }
        (ListFormat::Table, false) => {
            let mut table =
                vec![["KIND", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"].map(str::to_owned)];
            for kind in ItemKind::ALL {
                let of_kind = || inventory.items.iter().filter(move |item| item.kind == kind);
                let sum = |bytes: fn(&Item) -> u64| show_bytes(of_kind().map(bytes).sum());
                if of_kind().next().is_some() {
                    let free = of_kind().filter(|i| i.is_reclaimable()).map(|i| i.own).sum();
                    table.push([
                        kind.name().to_owned(),
                        of_kind().count().to_string(),
                        sum(|item| item.own),
                        sum(|item| item.shared),
                        show_bytes(free),
                    ]);
                }
            }
            print_table(&mut out, &table)?;
        }
    }
    writeln!(out, "Shared by layers: {}", show_bytes(inventory.shared))?;
    writeln!(out, "Reclaimable: {}", show_bytes(inventory.reclaimable()))?;
    writeln!(out, "Total: {}", show_bytes(inventory.total()))?;
    Ok(())
}

fn row(item: &Item) -> [String; 8] {
    [
        short_id(item),
        item.kind.name().to_owned(),
        show_bytes(item.own),
        show_bytes(item.shared),
        ago(item.last_used),
        span(item.rebuild),
        match (item.is_reclaimable(), item.in_use) {
            (true, _) => "yes",
            (false, true) => "in use",
            (false, false) => "no",
        }
        .to_owned(),
        item.name.clone(),
    ]
}

fn item_json(item: &Item) -> serde_json::Value {
    json!({
        "id": item.id,
        "kind": item.kind.name(),
        "name": item.name,
        "size": item.own,
        "shared": item.shared,
        "lastUsed": (item.last_used > 0).then_some(item.last_used),
        "madeInSeconds": item.rebuild.as_secs_f64(),
        "inUse": item.in_use,
        "partOf": item.part_of,
        "reclaimable": item.is_reclaimable(),
    })
}

pub fn prune(store: &Store, args: &PruneArgs) -> Outcome {
    let mut options = PruneOptions {
        everything: args.all,
        keep: args.keep_storage.or(args.max_used_space),
        ..PruneOptions::default()
    };
    for filter in &args.filter {
        match filter {
            PruneFilter::Until(time) => options.unused_for = Some(*time),
            PruneFilter::Kind(kind) => options.kinds.push(*kind),
            PruneFilter::Id(id) => options.ids.push(id.clone()),
        }
    }
    if !args.force && !agrees(args)? {
        return Ok(());
    }
    let pruned = upkeep::prune(store, &options)?;
    let mut out = io::stdout().lock();
    if args.format == ListFormat::Json {
        for evicted in &pruned.evicted {
            let mut line = item_json(&evicted.item);
            line["freed"] = evicted.freed.into();
            line["reason"] = reason(&evicted.item).into();
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    if !pruned.evicted.is_empty() {
        let mut table = vec![["ID", "KIND", "FREED", "REASON", "NAME"].map(str::to_owned)];
        table.extend(pruned.evicted.iter().map(|evicted| {
            let item = &evicted.item;
            [
                short_id(item),
                item.kind.name().to_owned(),
                show_bytes(evicted.freed),
                reason(item),
                item.name.clone(),
            ]
        }));
        print_table(&mut out, &table)?;
    }
    writeln!(out, "Freed: {}", show_bytes(pruned.freed))?;
    writeln!(out, "Left: {}", show_bytes(pruned.left))?;
    Ok(())
}

/// Asks whether to go on.
fn agrees(args: &PruneArgs) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody is there to be asked: use --force".to_owned()));
    }
    let what = if args.all {
        "all of the cache that is not in use"
    } else {
        "the cache that no image consists of"
    };
    eprint!("This removes {what}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Why something was evicted before others.
fn reason(item: &Item) -> String {
    if item.last_used == 0 {
        return "nothing needs it".to_owned();
    }
    match item.rebuild.as_millis() {
        0 => format!("used {}", ago(item.last_used)),
        _ => format!("used {}, made in {}", ago(item.last_used), span(item.rebuild)),
    }
}

fn short_id(item: &Item) -> String {
    let bare = item.id.trim_start_matches("sha256:").trim_start_matches("diff-");
    bare.chars().take(12).collect()
}

/// How long ago a moment was, coarsely.
fn ago(seconds: i64) -> String {
    if seconds == 0 {
        return "-".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let past = now.saturating_sub(seconds.unsigned_abs());
    match past {
        0..60 => format!("{past}s ago"),
        60..3600 => format!("{}m ago", past / 60),
        3600..86_400 => format!("{}h ago", past / 3600),
        _ => format!("{}d ago", past / 86_400),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs_f64() {
        0.0 => "-".to_owned(),
        seconds if seconds < 60.0 => format!("{seconds:.1}s"),
        seconds => format!("{:.0}m", seconds / 60.0),
    }
}

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
        show_bytes(checked.bytes),
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
