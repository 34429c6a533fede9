//! `rbc prune`: evicts what was not used for longest, within what was asked for.

use std::time::Duration;

use super::{
    evict::evict,
    inventory::{Inventory, Item, ItemKind, Measure},
};
use crate::store::{Result, Store, now};

/// What is to be evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Base images and what named images are made of too, not only what builds left.
    pub everything: bool,
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only things of these kinds; of all if empty.
    pub kinds: Vec<ItemKind>,
    /// Only things whose ids begin like this; all if empty.
    pub ids: Vec<String>,
    /// Stop when the state folder takes no more than so many bytes.
    pub keep: Option<u64>,
}

impl PruneOptions {
    fn covers(&self, item: &Item, now: i64) -> bool {
        let hex = |id: &str| id.trim_start_matches("sha256:").to_owned();
        let is_base = matches!(item.kind, ItemKind::ImageLayer | ItemKind::PulledImage)
            || item.part_of.is_some();
        let is_old = |least: Duration| {
            now.saturating_sub(item.last_used) >= i64::try_from(least.as_secs()).unwrap_or(i64::MAX)
        };
        item.is_reclaimable()
            // Whoever asks for a base image by its kind or id means it.
            && (self.everything || !is_base || !self.kinds.is_empty() || !self.ids.is_empty())
            && self.unused_for.is_none_or(is_old)
            && (self.kinds.is_empty() || self.kinds.contains(&item.kind))
            && (self.ids.is_empty() || self.ids.iter().any(|id| hex(&item.id).starts_with(&hex(id))))
    }
}

/// Something that was evicted.
#[derive(Clone, Debug)]
pub struct Evicted {
    /// What it was.
    pub item: Item,
    /// Bytes that came free.
    pub freed: u64,
}

/// What [`prune`] did.
#[derive(Clone, Debug, Default)]
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
    let leftovers = store.remove_all_hidden()?;
    let inventory = Inventory::take(store, Measure::Disk)?;
    let now = now();
    let mut victims: Vec<&Item> =
        inventory.items.iter().filter(|item| options.covers(item, now)).collect();
    victims.sort_by(|a, b| (a.rank, &a.id).cmp(&(b.rank, &b.id)));
    let mut pruned = Pruned { left: inventory.total(), freed: leftovers, ..Pruned::default() };
    let mut rest = victims.as_slice();
    while !rest.is_empty() {
        let excess = options.keep.map(|keep| pruned.left.saturating_sub(keep));
        let count = match excess {
            None => rest.len(),
            Some(0) => break,
            Some(excess) => enough(rest, excess),
        };
        let (batch, later) = rest.split_at(count);
        for (item, freed) in batch.iter().zip(evict(store, batch)?) {
            let Some(freed) = freed else { continue };
            pruned.freed += freed;
            pruned.left = pruned.left.saturating_sub(freed);
            pruned.evicted.push(Evicted { item: (*item).clone(), freed });
        }
        rest = later;
    }
    Ok(pruned)
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
