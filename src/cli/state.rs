//! The options of the commands that look after the state folder.

use std::time::Duration;

use clap::Args;
use rbc_runtime::upkeep::ItemKind;

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
  rbc du --verbose
  rbc du --format json";

/// `rbc du`.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// List every single thing, the one that is evicted first on top
    #[arg(short, long)]
    pub verbose: bool,
    /// Form of the list; JSON has every single thing
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
    /// Only some: until=24h (not used for so long), type=KIND, id=PREFIX
    #[arg(long, value_name = "NAME=VALUE", value_parser = prune_filter)]
    pub filter: Vec<PruneFilter>,
    /// Stop when the state folder takes no more than this, such as 10GB
    #[arg(long, visible_alias = "reserved-space", value_name = "BYTES", value_parser = values::size)]
    pub keep_storage: Option<u64>,
    /// The same: evict until no more than this is taken
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = values::size,
        conflicts_with = "keep_storage"
    )]
    pub max_used_space: Option<u64>,
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
    Until(Duration),
    Kind(ItemKind),
    Id(String),
}

fn prune_filter(text: &str) -> Result<PruneFilter, String> {
    let (name, value) = text.split_once('=').ok_or("want NAME=VALUE")?;
    match name {
        "until" | "unused-for" => values::duration(value).map(PruneFilter::Until),
        "type" => ItemKind::from_name(value).map(PruneFilter::Kind).ok_or_else(|| {
            let names = ItemKind::ALL.map(ItemKind::name);
            format!("no type {value:?}: want {}", names.join(", "))
        }),
        "id" if !value.is_empty() => Ok(PruneFilter::Id(value.to_owned())),
        _ => Err("want until=TIME, type=KIND or id=PREFIX".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let seconds = |n| Ok(PruneFilter::Until(Duration::from_secs(n)));
        assert_eq!(prune_filter("until=24h"), seconds(86_400));
        assert_eq!(prune_filter("until=1h30m10s"), seconds(5_410));
        assert_eq!(prune_filter("until=2d"), seconds(172_800));
        assert_eq!(prune_filter("type=regular"), Ok(PruneFilter::Kind(ItemKind::Layer)));
        assert_eq!(prune_filter("type=git"), Ok(PruneFilter::Kind(ItemKind::Git)));
        for wrong in [
            "until",
            "until=",
            "until=5",
            "until=h",
            "until=5x",
            "until=99999999999999999d",
            "type=x",
            "id=",
            "x=1",
        ] {
            assert!(prune_filter(wrong).is_err(), "{wrong}");
        }
    }
}
