//! Upkeep of the state folder: checking it (`rbc fsck`), telling what takes space (`rbc du`),
//! evicting what was not used for longest (`rbc prune`, or for a [`Limit`] to its size).
//!
//! Everything here works beside running builds and takes nothing that one of them holds. What is
//! evicted is made or fetched again when it is needed; images with names are never touched.

mod check;
mod evict;
mod filter;
mod inventory;
mod limit;
mod prune;

pub use check::{CheckMode, Checked, Finding, Kind, Repair, Report, check};
pub use filter::{ItemFilter, all_fit, bare};
pub use inventory::{Inventory, Item, ItemKind, Measure};
pub use limit::Limit;
pub use prune::{Budget, Evicted, PruneOptions, Pruned, Why, prune};

/// Bytes in decimal units, as docker shows them.
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}

#[cfg(test)]
mod tests;
