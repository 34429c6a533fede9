//! A limit to what the state folder may take, which holds also while a build runs.
//!
//! What layers, blobs and cache mounts take is one sum in the index. Before a layer or a blob is
//! published there must be room for it; if there is none, what nobody holds is evicted as `rbc prune`
//! would, then what the build itself needs no more. If that is not enough the step waits or the build
//! fails. What a step writes before it is done does not count.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Evicted, Why,
    evict::evict,
    inventory::{Inventory, Item, Measure},
    prune::{enough, victims},
    show_bytes,
};
use crate::store::{Result, Room, Store, StoreError};

/// Once something must go, so many tenths of the limit are left: whoever is at the limit does not
/// evict for each layer anew.
const KEEP_TENTHS: u64 = 9;

/// The limit of a state folder, from the moment when it is made until its store is closed.
pub struct Limit<'a> {
    store: &'a Store,
    bound: Arc<Bound>,
}

/// What must not be gone beyond.
struct Bound {
    max: u64,
    /// What is there beside layers, blobs, cache mounts and the index: records of builds, what is
    /// known of contexts. It was measured once; builds do not add much to it.
    fixed: u64,
    evicted: Mutex<Vec<Evicted>>,
}

impl<'a> Limit<'a> {
    /// A limit of `max` bytes: nothing is published from now on that there is no room for.
    ///
    /// # Errors
    /// If the index cannot be completed by what killed processes did not note.
    pub fn new(store: &'a Store, max: u64) -> Result<Self> {
        store.remove_all_hidden()?;
        store.complete_space()?;
        store.bound_layers(max);
        let fixed = Inventory::fixed_bytes(store);
        let bound = Arc::new(Bound { max, fixed, evicted: Mutex::default() });
        let maker = Arc::clone(&bound);
        store.publish_with(Box::new(move |store, bytes| maker.make_room(store, bytes)));
        Ok(Self { store, bound })
    }

    /// The limit in bytes.
    pub fn max(&self) -> u64 {
        self.bound.max
    }

    /// What was evicted for it so far.
    pub fn evicted(&self) -> Vec<Evicted> {
        self.bound.evicted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of all that this process holds, at the end of its work, and evicts what is too much.
    ///
    /// # Errors
    /// [`StoreError::Full`] if what is left cannot be evicted.
    pub fn settle(&self) -> Result<()> {
        self.store.let_go()?;
        self.bound.make_room(self.store, 0).map(drop)
    }
}

impl Bound {
    /// Makes room for so many bytes that are about to be published.
    fn make_room(&self, store: &Store, bytes: u64) -> Result<Room> {
        let room = store.lock_room()?;
        if self.taken(store, bytes)? <= self.max {
            return Ok(room);
        }
        let mut inventory = self.evict(store, bytes)?;
        // A build gives up what it has made only if there is nothing else.
        while self.taken(store, bytes)? > self.max && store.let_go_of_spare()? {
            inventory = self.evict(store, bytes)?;
        }
        match self.taken(store, bytes)? {
            needed if needed > self.max => {
                let stays = sum(&inventory, &|item| !item.replaceable && item.counts());
                let alone = stays + Inventory::index_bytes(store) + self.fixed + bytes;
                Err(StoreError::Full {
                    max: show_bytes(self.max),
                    needed: show_bytes(needed),
                    holders: holders(&inventory, bytes),
                    may_fit: alone <= self.max,
                })
            }
            _ => Ok(room),
        }
    }

    /// What the folder takes once so many bytes are published.
    fn taken(&self, store: &Store, bytes: u64) -> Result<u64> {
        Ok(store.space()? + Inventory::index_bytes(store) + self.fixed + bytes)
    }

    /// Evicts what nobody holds until there is room for so many bytes and some more, and gives what
    /// was there before.
    fn evict(&self, store: &Store, bytes: u64) -> Result<Inventory> {
        let inventory = Inventory::take(store, Measure::Index)?;
        let victims = victims(&inventory, |item| item.is_reclaimable() && item.counts());
        let aim = self.max / 10 * KEEP_TENTHS;
        let mut rest = victims.as_slice();
        loop {
            let excess = self.taken(store, bytes)?.saturating_sub(aim);
            if excess == 0 || rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at(enough(rest, excess));
            for (item, freed) in batch.iter().zip(evict(store, batch)?) {
                let Some(freed) = freed else { continue };
                let why = match item.is_unreferenced() {
                    true => Why::Unreferenced,
                    false => Why::OverLimit(self.max),
                };
                let evicted = Evicted { item: (*item).clone(), freed, why };
                self.evicted.lock().unwrap_or_else(PoisonError::into_inner).push(evicted);
            }
            rest = later;
        }
        Ok(inventory)
    }
}

/// Bytes of the things that are meant.
fn sum(inventory: &Inventory, is_meant: &dyn Fn(&Item) -> bool) -> u64 {
    inventory.items.iter().filter(|item| is_meant(item)).map(|item| item.own).sum()
}

/// What holds the space.
fn holders(inventory: &Inventory, new: u64) -> String {
    let named = sum(inventory, &|item| !item.replaceable && item.part_of.is_some());
    let is_held = |item: &Item| item.replaceable && item.in_use;
    let mut held: Vec<&Item> = inventory.items.iter().filter(|item| is_held(item)).collect();
    held.sort_by_key(|item| std::cmp::Reverse(item.own));
    let mut parts = Vec::new();
    if new > 0 {
        parts.push(format!("{} are new", show_bytes(new)));
    }
    if !held.is_empty() {
        let mut text = format!("running builds hold {}", show_bytes(sum(inventory, &is_held)));
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
