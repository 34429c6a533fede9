//! The options of the commands that look after the state folder.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use rbc_runtime::upkeep::ItemFilter;

use super::{ListFormat, values};

pub const FSCK_EXAMPLES: &str = "\
Examples:
  rbc fsck
  rbc fsck --check --format json

What is dropped is made or fetched again when it is needed. Running builds are not disturbed.";

/// `rbc fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Change nothing; exit with 1 if something is bad
    #[arg(long)]
    pub check: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

pub const DU_EXAMPLES: &str = "\
Examples:
  rbc du
  rbc du --verbose --filter type=layer
  rbc du --format json";

/// `rbc du`.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// List every single thing, the one that is evicted first on top
    #[arg(short, long)]
    pub verbose: bool,
    /// Only some, as with rbc prune
    #[arg(long, value_name = "NAME=VALUE", value_parser = prune_filter)]
    pub filter: Vec<PruneFilter>,
    /// Form of the list; JSON has every single thing and then the sums
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

pub const PRUNE_EXAMPLES: &str = "\
Examples:
  rbc prune                                  what builds left and no image consists of
  rbc prune --all --filter until=24h -f      what was not used for a day
  rbc prune --all --keep-storage 10GB -f     down to 10 GB, least recently used first
  rbc prune --filter type=cache-mount        the folders of RUN --mount=type=cache

What took long to make is kept longer: each second of it counts as 1000 seconds of use. Images with
names are never touched (see rbc rmi), nor what a running build holds.";

/// `rbc prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Base images and what named images consist of too
    #[arg(short, long)]
    pub all: bool,
    /// Only some: until=24h (not used for so long, or since a date), type=KIND, id=PREFIX,
    /// name=TEXT, inuse, shared, private, mutable, immutable; != for all others, ~= for a part
    #[arg(long, value_name = "NAME=VALUE", value_parser = prune_filter)]
    pub filter: Vec<PruneFilter>,
    /// What may stay in any case, such as 10GB; alone, what is to be left
    #[arg(
        long,
        visible_alias = "keep-storage",
        value_name = "BYTES",
        value_parser = values::size
    )]
    pub reserved_space: Option<u64>,
    /// Evict until the state folder takes no more than this
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    pub max_used_space: Option<u64>,
    /// Evict until this much of the disk is free
    #[arg(long, value_name = "BYTES", value_parser = values::size)]
    pub min_free_space: Option<u64>,
    /// Change nothing, only list what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

/// A value of `--filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PruneFilter {
    /// Not used since this moment, in seconds since the epoch.
    Until(i64),
    Item(ItemFilter),
}

fn prune_filter(text: &str) -> Result<PruneFilter, String> {
    match text.split_once('=') {
        Some(("until" | "unused-for", value)) => until(value).map(PruneFilter::Until),
        _ if text == "until" => Err("want until=TIME, for example until=24h".to_owned()),
        _ => text.parse().map(PruneFilter::Item),
    }
}

/// A time span before now, a date or a moment.
fn until(value: &str) -> Result<i64, String> {
    if let Some(moment) = values::moment(value) {
        return Ok(moment);
    }
    let span = values::duration(value).map_err(|error| {
        format!("{error}, or a date such as 2026-01-31 or 2026-01-31T12:00:00Z")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Whole seconds are noted of each use: what has been unused for a second and a half counts as
    // unused for one.
    let moment = now.saturating_sub(span).as_secs();
    Ok(i64::try_from(moment).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let now = until("0s").expect("now");
        for (text, seconds) in [
            ("until=24h", 86_400),
            ("until=1h30m10s", 5_410),
            ("until=2d", 172_800),
            ("until=1.5h", 5_400),
            ("unused-for=1500ms", 1),
        ] {
            let PruneFilter::Until(moment) = prune_filter(text).expect(text) else {
                panic!("{text}")
            };
            // The clock may have gone on, and parts of a second are cut off.
            assert!((seconds - 3..=seconds + 2).contains(&(now - moment)), "{text}");
        }
        assert_eq!(prune_filter("until=2001-09-09"), Ok(PruneFilter::Until(999_993_600)));
        let moment = prune_filter("until=2001-09-09T03:46:40+02:00");
        assert_eq!(moment, Ok(PruneFilter::Until(1_000_000_000)));
        assert_eq!(prune_filter("type=regular"), prune_filter("type=layer"));
        assert!(prune_filter("shared").is_ok());
        for wrong in [
            "until",
            "until=",
            "until=5",
            "until=h",
            "until=5x",
            "until=.s",
            "until=99999999999999999d",
            "until=2001-13-09",
            "type=x",
            "id=",
            "x=1",
        ] {
            assert!(prune_filter(wrong).is_err(), "{wrong}");
        }
    }
}
