//! Upkeep of the state folder: `du`, `prune`, `fsck`.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rbc_runtime::{
    store::Store,
    upkeep::{
        self, Budget, CheckMode, Evicted, Inventory, Item, ItemFilter, ItemKind, Limit, Measure,
        PruneOptions, Repair, Report, Why, all_fit, show_bytes,
    },
};
use serde_json::json;

use super::{Failure, Outcome, plain::print_table, report};
use crate::cli::{DuArgs, FsckArgs, ListFormat, ProgressKind, PruneArgs, PruneFilter};

pub fn du(store: &Store, args: &DuArgs) -> Outcome {
    let mut inventory = Inventory::take(store, Measure::Disk)?;
    inventory.sort();
    let (filters, since) = conditions(&args.filter);
    inventory.retain(|item| {
        all_fit(&filters, item) && since.is_none_or(|moment| item.last_used <= moment)
    });
    let mut out = io::stdout().lock();
    let kinds: Vec<KindSum> =
        ItemKind::ALL.into_iter().filter_map(|kind| KindSum::of(&inventory, kind)).collect();
    if args.format == ListFormat::Json {
        for item in &inventory.items {
            writeln!(out, "{}", item_json(item))?;
        }
        let kinds: serde_json::Map<_, _> = kinds.iter().map(KindSum::json).collect();
        let summary = json!({
            "total": inventory.total(),
            "sharedByLayers": inventory.shared,
            "reclaimable": inventory.reclaimable(),
            "kinds": kinds,
        });
        writeln!(out, "{}", json!({ "summary": summary }))?;
        return Ok(());
    }
    if args.verbose {
        let mut table = vec![
            ["ID", "KIND", "SIZE", "SHARED", "LAST USED", "MADE IN", "RECLAIMABLE", "NAME"]
                .map(str::to_owned),
        ];
        table.extend(inventory.items.iter().map(row));
        print_table(&mut out, &table)?;
    } else {
        let mut table = vec![["KIND", "COUNT", "SIZE", "SHARED", "RECLAIMABLE"].map(str::to_owned)];
        table.extend(kinds.iter().map(KindSum::row));
        print_table(&mut out, &table)?;
    }
    writeln!(out, "Shared by layers: {}", show_bytes(inventory.shared))?;
    writeln!(out, "Reclaimable: {}", show_bytes(inventory.reclaimable()))?;
    writeln!(out, "Total: {}", show_bytes(inventory.total()))?;
    Ok(())
}

/// What the things of one kind take together. What they share counts for each.
struct KindSum {
    kind: ItemKind,
    count: usize,
    size: u64,
    shared: u64,
    reclaimable: u64,
}

impl KindSum {
    /// `None` if there is nothing of the kind.
    fn of(inventory: &Inventory, kind: ItemKind) -> Option<Self> {
        let mut sum = Self { kind, count: 0, size: 0, shared: 0, reclaimable: 0 };
        for item in inventory.items.iter().filter(|item| item.kind == kind) {
            sum.count += 1;
            sum.size += item.own;
            sum.shared += item.shared;
            sum.reclaimable += if item.is_reclaimable() { item.own } else { 0 };
        }
        (sum.count > 0).then_some(sum)
    }

    fn row(&self) -> [String; 5] {
        [
            self.kind.name().to_owned(),
            self.count.to_string(),
            show_bytes(self.size),
            show_bytes(self.shared),
            show_bytes(self.reclaimable),
        ]
    }

    fn json(&self) -> (String, serde_json::Value) {
        let value = json!({
            "count": self.count,
            "size": self.size,
            "shared": self.shared,
            "reclaimable": self.reclaimable,
        });
        (self.kind.name().to_owned(), value)
    }
}

/// What filters ask for: conditions, and the moment since which things must not have been used.
fn conditions(filters: &[PruneFilter]) -> (Vec<ItemFilter>, Option<i64>) {
    let mut conditions = Vec::new();
    let mut since: Option<i64> = None;
    for filter in filters {
        match filter {
            PruneFilter::Item(filter) => conditions.push(filter.clone()),
            PruneFilter::Until(moment) => {
                since = Some(since.map_or(*moment, |earlier| earlier.min(*moment)));
            }
        }
    }
    (conditions, since)
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
    let (filters, unused_since) = conditions(&args.filter);
    let options = PruneOptions {
        everything: args.all,
        unused_since,
        filters,
        budget: Budget {
            reserved: args.reserved_space,
            max_used: args.max_used_space,
            min_free: args.min_free_space,
        },
        dry_run: args.dry_run,
    };
    if !args.force && !args.dry_run && !agrees(args)? {
        return Ok(());
    }
    let pruned = upkeep::prune(store, &options)?;
    let mut out = io::stdout().lock();
    if args.format == ListFormat::Json {
        for evicted in &pruned.evicted {
            writeln!(out, "{}", evicted_json(evicted))?;
        }
        let summary =
            json!({ "freed": pruned.freed, "left": pruned.left, "dryRun": options.dry_run });
        writeln!(out, "{}", json!({ "summary": summary }))?;
        return Ok(());
    }
    if !pruned.evicted.is_empty() {
        print_table(&mut out, &evicted_table(&pruned.evicted))?;
    }
    let (freed, left) = match options.dry_run {
        true => ("Would free", "Would leave"),
        false => ("Freed", "Left"),
    };
    writeln!(out, "{freed}: {}", show_bytes(pruned.freed))?;
    writeln!(out, "{left}: {}", show_bytes(pruned.left))?;
    Ok(())
}

fn evicted_table(evicted: &[Evicted]) -> Vec<[String; 5]> {
    let mut table = vec![["ID", "KIND", "FREED", "REASON", "NAME"].map(str::to_owned)];
    table.extend(evicted.iter().map(|evicted| {
        let item = &evicted.item;
        [
            short_id(item),
            item.kind.name().to_owned(),
            show_bytes(evicted.freed),
            reason(evicted),
            item.name.clone(),
        ]
    }));
    table
}

fn evicted_json(evicted: &Evicted) -> serde_json::Value {
    let mut line = item_json(&evicted.item);
    line["freed"] = evicted.freed.into();
    line["why"] = evicted.why.name().into();
    line["reason"] = reason(evicted).into();
    line
}

/// How many of the things are listed that a build has evicted.
const MOST_TOLD: usize = 20;

/// Tells on stderr what was evicted for a limit.
pub fn tell_evicted(limit: &Limit<'_>, progress: ProgressKind, is_quiet: bool) {
    let evicted = limit.evicted();
    if evicted.is_empty() || is_quiet {
        return;
    }
    if progress == ProgressKind::Rawjson {
        for evicted in &evicted {
            let mut line = evicted_json(evicted);
            line["event"] = "evicted".into();
            report::tell(&line.to_string());
        }
        return;
    }
    let freed = evicted.iter().map(|evicted| evicted.freed).sum();
    report::tell(&format!(
        "evicted {} of the state folder, {}, to keep within {}:",
        match evicted.len() {
            1 => "1 thing".to_owned(),
            n => format!("{n} things"),
        },
        show_bytes(freed),
        show_bytes(limit.max())
    ));
    let told = &evicted[..evicted.len().min(MOST_TOLD)];
    let mut text = Vec::new();
    // Writing to a vector does not fail.
    let _ = print_table(&mut text, &evicted_table(told));
    report::tell(String::from_utf8_lossy(&text).trim_end());
    if evicted.len() > told.len() {
        report::tell(&format!("and {} more", evicted.len() - told.len()));
    }
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

/// Why something was evicted, and before others.
fn reason(evicted: &Evicted) -> String {
    let item = &evicted.item;
    let why = match evicted.why {
        Why::Unreferenced => return "unreferenced: no result and no image needs it".to_owned(),
        Why::OverLimit(limit) => format!("over {}", show_bytes(limit)),
        Why::Unused => "unused for as long as asked".to_owned(),
        Why::Filter => "matches the filters".to_owned(),
        Why::InNoImage => "in no named image".to_owned(),
        Why::Everything => "--all".to_owned(),
    };
    let used = match item.last_used {
        0 => "never used".to_owned(),
        moment => format!("last used {}", ago(moment)),
    };
    match item.rebuild.as_millis() {
        0 => format!("{why}: {used}"),
        _ => format!("{why}: {used}, made in {}", span(item.rebuild)),
    }
}

fn short_id(item: &Item) -> String {
    upkeep::bare(&item.id).chars().take(12).collect()
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
        seconds if seconds < 1.0 => format!("{}ms", time.as_millis()),
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
