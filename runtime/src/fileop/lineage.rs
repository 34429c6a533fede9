//! The result that the same operation gave last time, to take unchanged files from.
//!
//! A copy of many files of which one has changed links the others to the layer that the previous
//! run of the same operation made. A file is the same if it was copied to the same path, had the
//! same content by its digest, and the copy has all facts that the new one is to have. Which content
//! went where is noted for each layer ([`Copied`]).

use std::{
    collections::HashMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rbc_ir::Digest;

use super::target::Facts;
use crate::{layer::owner, tree::Entry};

/// Bytes of a path's digest that are kept.
const KEY: usize = 16;

/// The contents that files of a layer were copied from, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied(HashMap<[u8; KEY], Digest>);

impl Copied {
    /// Reads what [`Copied::encode`] gave. Anything else is nothing.
    pub fn decode(bytes: &[u8]) -> Self {
        let (records, rest) = bytes.as_chunks::<{ KEY + 32 }>();
        if !rest.is_empty() {
            return Self::default();
        }
        let record = |record: &[u8; KEY + 32]| {
            let (key, digest) = record.split_first_chunk::<KEY>()?;
            Some((*key, Digest::from_bytes(digest.try_into().ok()?)))
        };
        Self(records.iter().filter_map(record).collect())
    }

    /// As bytes, for the index.
    pub fn encode(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|(key, digest)| key.iter().chain(digest.as_bytes()))
            .copied()
            .collect()
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a file operation may take from an earlier run of itself, and notes for the next.
pub struct Lineage<'a> {
    /// The folder of the layer that it made, and what went into it.
    earlier: Option<(PathBuf, Copied)>,
    /// The known digest of a file of a context.
    digest_of: &'a (dyn Fn(&Entry) -> Option<Digest> + Sync),
    made: Mutex<Copied>,
}

impl<'a> Lineage<'a> {
    /// After `earlier`, the folder of a layer that never changes and what was copied into it.
    pub fn new(
        earlier: Option<(PathBuf, Copied)>,
        digest_of: &'a (dyn Fn(&Entry) -> Option<Digest> + Sync),
    ) -> Self {
        Self { earlier, digest_of, made: Mutex::default() }
    }

    /// What was copied.
    pub fn into_copied(self) -> Copied {
        self.made.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of the earlier layer that is what the copy of a context's file `entry` to the path
    /// `to` will be. Notes the copy.
    pub(super) fn same_file(&self, entry: &Entry, to: &Path, facts: &Facts) -> Option<PathBuf> {
        let key = key(to);
        let digest = (self.digest_of)(entry);
        match digest {
            Some(digest) => self.made().0.insert(key, digest),
            // Another source may have left its file here.
            None => self.made().0.remove(&key),
        };
        let (layer, copied) = self.earlier.as_ref()?;
        if copied.0.get(&key) != Some(&digest?) {
            return None;
        }
        let place = layer.join(to);
        let there = fs::symlink_metadata(&place).ok()?;
        let (uid, gid) = owner::get(&place, there.uid(), there.gid()).ok()?;
        let same = there.is_file()
            && there.len() == entry.size
            && there.mode() & 0o7777 == facts.mode
            && (uid, gid) == (facts.uid, facts.gid)
            && (there.mtime(), there.mtime_nsec()) == (facts.mtime.0, i64::from(facts.mtime.1));
        same.then_some(place)
    }

    /// Whether the earlier layer has at `to` the very file `entry` of another layer: it was linked
    /// there, so it may be again, however many names it has by now.
    pub(super) fn was_linked(&self, entry: &Entry, to: &Path) -> bool {
        let there =
            self.earlier.as_ref().and_then(|(layer, _)| fs::symlink_metadata(layer.join(to)).ok());
        there.is_some_and(|there| there.is_file() && (there.dev(), there.ino()) == entry.inode)
    }

    fn made(&self) -> MutexGuard<'_, Copied> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(path: &Path) -> [u8; KEY] {
    let digest = Digest::of(path.as_os_str().as_bytes());
    let mut key = [0; KEY];
    key.copy_from_slice(&digest.as_bytes()[..KEY]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_survives_the_index_and_damage_is_nothing() {
        let copied = Copied(HashMap::from([
            (key(Path::new("a/b")), Digest::of(b"x")),
            (key(Path::new("a/c")), Digest::of(b"y")),
        ]));
        let bytes = copied.encode();
        assert_eq!(Copied::decode(&bytes), copied);
        assert!(Copied::decode(&bytes[1..]).is_empty());
    }
}
