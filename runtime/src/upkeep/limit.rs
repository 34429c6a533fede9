//! A limit to what the state folder may take, which holds also while a build runs.
//!
//! What layers, blobs and cache mounts take is one sum in the index. Before a layer is published
//! there must be room for it; if there is none, what nobody holds is evicted as `rbc prune` would,
//! and if that is not enough the build fails. What a step writes before it is done does not count.

use std::{
    fmt::Write as _,
    fs::{self, File},
};

use super::{
    evict::evict,
    inventory::{Inventory, Item, Measure},
    prune::enough,
    show_bytes,
};
use crate::store::{Store, StoreError};

/// Once something must go, so many tenths of the limit are left: whoever is at the limit does not
/// evict for each layer anew.
const KEEP_TENTHS: u64 = 9;

/// Why the limit cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// There is not enough that could be evicted.
    #[error(
        "the state folder is limited to {}, and {} are needed: {holders}",
        show_bytes(*.max),
        show_bytes(*.needed)
    )]
    Full {
        /// The limit in bytes.
        max: u64,
        /// What would be taken.
        needed: u64,
        /// What holds the space, for people.
        holders: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The limit of a state folder.
pub struct Limit<'a> {
    store: &'a Store,
    max: u64,
}

/// Room that was made. Until it is dropped nobody else takes it.
pub struct Room {
    _lock: File,
}

impl<'a> Limit<'a> {
    /// A limit of `max` bytes.
    ///
    /// # Errors
    /// If the index cannot be completed by what killed processes did not note.
    pub fn new(store: &'a Store, max: u64) -> Result<Self, LimitError> {
        store.remove_all_hidden()?;
        store.complete_space()?;
        store.bound_layers(max);
        Ok(Self { store, max })
    }

    /// Makes room for so many bytes that are about to be published.
    ///
    /// # Errors
    /// [`LimitError::Full`] if what nobody holds is not enough.
    pub fn make_room(&self, bytes: u64) -> Result<Room, LimitError> {
        let store = self.store;
        let lock = store.lock_room()?;
        let room = Room { _lock: lock };
        let index = fs::metadata(store.root().join("index.db")).map_or(0, |facts| facts.len());
        let taken = || store.space().map(|space| space + index + bytes);
        if taken()? <= self.max {
            return Ok(room);
        }
        let inventory = Inventory::take(store, Measure::Index)?;
        let mut victims: Vec<&Item> =
            inventory.items.iter().filter(|item| item.is_reclaimable() && item.counts()).collect();
        victims.sort_by(|a, b| (a.rank, &a.id).cmp(&(b.rank, &b.id)));
        let aim = self.max / 10 * KEEP_TENTHS;
        let mut rest = victims.as_slice();
        loop {
            let excess = taken()?.saturating_sub(aim);
            if excess == 0 || rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at(enough(rest, excess));
            evict(store, batch)?;
            rest = later;
        }
        match taken()? {
            needed if needed > self.max => {
                let holders = holders(&inventory, bytes);
                Err(LimitError::Full { max: self.max, needed, holders })
            }
            _ => Ok(room),
        }
    }

    /// Lets go of all that this process holds, at the end of its work, and evicts what is too much.
    ///
    /// # Errors
    /// [`LimitError::Full`] if what is left cannot be evicted.
    pub fn settle(&self) -> Result<(), LimitError> {
        self.store.let_go()?;
        self.make_room(0).map(drop)
    }
}

/// What holds the space.
fn holders(inventory: &Inventory, new: u64) -> String {
    let sum = |fits: &dyn Fn(&&Item) -> bool| {
        inventory.items.iter().filter(fits).map(|item| item.own).sum::<u64>()
    };
    let named = sum(&|item| !item.replaceable && item.part_of.is_some());
    let is_held = |item: &&Item| item.replaceable && item.in_use;
    let mut held: Vec<&Item> = inventory.items.iter().filter(is_held).collect();
    held.sort_by_key(|item| std::cmp::Reverse(item.own));
    let mut parts = Vec::new();
    if new > 0 {
        parts.push(format!("{} are new", show_bytes(new)));
    }
    if !held.is_empty() {
        let mut text = format!("running builds hold {}", show_bytes(sum(&is_held)));
        let largest = held.iter().filter(|item| !item.name.is_empty()).take(3);
        for (at, item) in largest.enumerate() {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "{} {} for {}",
                if at == 0 { ":" } else { "," },
                show_bytes(item.own),
                item.name
            );
        }
        parts.push(text);
    }
    if named > 0 {
        parts.push(format!("images with names take {}, see `rbc rmi`", show_bytes(named)));
    }
    if parts.is_empty() {
        parts.push("the index alone is larger".to_owned());
    }
    parts.join("; ")
}
