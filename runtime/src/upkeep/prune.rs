//! `rbc prune`: evicts what was not used for longest, within what was asked for.

use std::collections::HashMap;

use super::{
    evict::evict,
    filter::{ItemFilter, all_fit},
    inventory::{Inventory, Item, ItemKind, Measure},
};
use crate::store::{Result, Store, StoreError};

/// What is to be evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Base images and what named images are made of too, not only what builds left.
    pub everything: bool,
    /// Only what was not used since this moment, in seconds since the epoch.
    pub unused_since: Option<i64>,
    /// Only what all of these mean.
    pub filters: Vec<ItemFilter>,
    /// Where to stop.
    pub budget: Budget,
    /// Change nothing, only tell what would go.
    pub dry_run: bool,
}

/// How much is to be left. Without any bound all that is covered goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// So many bytes may stay, whatever else is asked for.
    pub reserved: Option<u64>,
    /// The state folder may take so many bytes.
    pub max_used: Option<u64>,
    /// So many bytes of the disk are to be free.
    pub min_free: Option<u64>,
}

impl Budget {
    /// The bytes that the state folder may take, if it takes `total` now and `free` are left on the
    /// disk; `None` for as few as can be.
    fn keep(&self, total: u64, free: u64) -> Option<u64> {
        let for_free = self.min_free.map(|min| total.saturating_sub(min.saturating_sub(free)));
        let bound = [self.max_used, for_free].into_iter().flatten().min();
        match (bound, self.reserved) {
            (Some(bound), Some(reserved)) => Some(bound.max(reserved)),
            (bound, reserved) => bound.or(reserved),
        }
    }
}

impl PruneOptions {
    fn covers(&self, item: &Item) -> bool {
        let is_base = matches!(item.kind, ItemKind::ImageLayer | ItemKind::PulledImage)
            || item.part_of.is_some();
        item.is_reclaimable()
            // Whoever asks for a base image by its kind or id means it.
            && (self.everything || !is_base || self.filters.iter().any(ItemFilter::is_specific))
            && self.unused_since.is_none_or(|moment| item.last_used <= moment)
            && all_fit(&self.filters, item)
    }

    fn why(&self, item: &Item, keep: Option<u64>) -> Why {
        match keep {
            _ if item.is_unreferenced() => Why::Unreferenced,
            Some(keep) => Why::OverLimit(keep),
            None if self.unused_since.is_some() => Why::Unused,
            None if !self.filters.is_empty() => Why::Filter,
            None if self.everything => Why::Everything,
            None => Why::InNoImage,
        }
    }
}

/// Why something was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No result and no image needs it: it was superseded, or what needed it is gone.
    Unreferenced,
    /// All would take more than so many bytes, and of what is there it was worth least.
    OverLimit(u64),
    /// It was not used for as long as was asked for.
    Unused,
    /// It is what the filters mean.
    Filter,
    /// No image with a name consists of it.
    InNoImage,
    /// Everything was to go.
    Everything,
}

impl Why {
    /// One word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreferenced => "unreferenced",
            Self::OverLimit(_) => "over-limit",
            Self::Unused => "unused",
            Self::Filter => "filter",
            Self::InNoImage => "in-no-image",
            Self::Everything => "all",
        }
    }
}

/// Something that was evicted.
#[derive(Clone, Debug)]
pub struct Evicted {
    /// What it was.
    pub item: Item,
    /// Bytes that came free.
    pub freed: u64,
    /// Why it had to go.
    pub why: Why,
}

/// What [`prune`] did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// What is gone, in the order in which it went.
    pub evicted: Vec<Evicted>,
    /// Bytes that came free.
    pub freed: u64,
    /// Bytes that are left.
    pub left: u64,
}

/// Evicts what `options` cover, the least worth keeping first.
///
/// # Errors
/// If the state folder cannot be read, or something cannot be removed.
pub fn prune(store: &Store, options: &PruneOptions) -> Result<Pruned> {
    let leftovers = if options.dry_run { 0 } else { store.remove_all_hidden()? };
    let inventory = Inventory::take(store, Measure::Disk)?;
    let victims = victims(&inventory, |item| options.covers(item));
    let keep = options.budget.keep(inventory.total(), free_bytes(store)?);
    let mut pruned = Pruned { left: inventory.total(), freed: leftovers, ..Pruned::default() };
    let mut links = Links::of(&inventory);
    let mut rest = victims.as_slice();
    while !rest.is_empty() {
        let excess = keep.map(|keep| pruned.left.saturating_sub(keep));
        let count = match excess {
            None => rest.len(),
            Some(0) => break,
            Some(excess) => enough(rest, excess),
        };
        let (batch, later) = rest.split_at(count);
        let freed: Vec<Option<u64>> = match options.dry_run {
            true => batch.iter().map(|item| Some(links.freed_by(item))).collect(),
            false => evict(store, batch)?,
        };
        for (item, freed) in batch.iter().zip(freed) {
            let Some(freed) = freed else { continue };
            pruned.freed += freed;
            pruned.left = pruned.left.saturating_sub(freed);
            let why = options.why(item, keep);
            pruned.evicted.push(Evicted { item: (*item).clone(), freed, why });
        }
        rest = later;
    }
    Ok(pruned)
}

/// The things that `may_go`, those least worth keeping first.
pub(super) fn victims(inventory: &Inventory, may_go: impl Fn(&Item) -> bool) -> Vec<&Item> {
    let mut victims: Vec<&Item> = inventory.items.iter().filter(|item| may_go(item)).collect();
    victims.sort_by(|a, b| (a.rank, &a.id).cmp(&(b.rank, &b.id)));
    victims
}

/// Bytes that are free on the disk of the state folder, for ordinary users.
fn free_bytes(store: &Store) -> Result<u64> {
    let disk = rustix::fs::statvfs(store.root())
        .map_err(|e| StoreError::io("cannot ask for the disk of", store.root())(e.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// How many of the layers that share a file are left, to tell what removing one frees.
struct Links<'a> {
    inventory: &'a Inventory,
    left: HashMap<(u64, u64), usize>,
}

impl<'a> Links<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        let mut left = HashMap::new();
        for file in inventory.links.values().flatten() {
            *left.entry(file.inode).or_default() += 1;
        }
        Self { inventory, left }
    }

    fn freed_by(&mut self, item: &Item) -> u64 {
        let shared = self.inventory.links.get(&item.id).map(Vec::as_slice).unwrap_or_default();
        let last = shared.iter().filter(|file| {
            let left = self.left.entry(file.inode).or_default();
            *left = left.saturating_sub(1);
            *left == 0
        });
        item.own + last.map(|file| file.bytes).sum::<u64>()
    }
}

/// How many things at most are evicted before it is asked again whether that is enough: what is
/// shared by links is freed by the last of those that share it.
const AT_ONCE: usize = 8;

/// How many of the first items free so many bytes; at least one.
pub(super) fn enough(items: &[&Item], bytes: u64) -> usize {
    let mut sum = 0;
    let freed = items.iter().map(|item| {
        sum += item.own;
        sum
    });
    freed.take_while(|sum| *sum < bytes).count().saturating_add(1).min(items.len()).min(AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_a_budget_work_together() {
        let keep = |reserved: u64, max_used: u64, min_free: u64| {
            let bound = |bytes: u64| (bytes > 0).then_some(bytes);
            let (reserved, max_used) = (bound(reserved), bound(max_used));
            Budget { reserved, max_used, min_free: bound(min_free) }.keep(100, 30)
        };
        assert_eq!(keep(0, 0, 0), None);
        assert_eq!(keep(60, 0, 0), Some(60));
        assert_eq!(keep(0, 60, 0), Some(60));
        assert_eq!(keep(0, 0, 20), Some(100), "enough is free");
        assert_eq!(keep(0, 0, 50), Some(80));
        assert_eq!(keep(0, 70, 50), Some(70));
        assert_eq!(keep(0, 90, 50), Some(80));
        assert_eq!(keep(85, 70, 50), Some(85), "what is reserved may stay");
        assert_eq!(keep(0, 0, 1000), Some(0));
    }
}
