//! Upkeep of the state folder: checking it (`rbc fsck`), telling what takes space (`rbc du`),
//! evicting what was not used for longest (`rbc prune`).
//!
//! Everything here works beside running builds and takes nothing that one of them holds. What is
//! evicted is made or fetched again when it is needed; images with names are never touched.

mod check;
mod evict;
mod inventory;
mod prune;

pub use check::{CheckMode, Checked, Finding, Kind, Repair, Report, check};
pub use inventory::{Inventory, Item, ItemKind};
pub use prune::{Evicted, PruneOptions, Pruned, prune};

#[cfg(test)]
mod tests;
