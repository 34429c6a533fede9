//! Cache mounts: folders below `mounts/` that outlive builds (`RUN --mount=type=cache`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rbc_ir::{CacheSharing, Digest};

use crate::{
    sandbox::Cancel,
    store::{MountLock, Store, StoreError},
};

/// A cache folder in use; given back when dropped.
pub(super) struct CacheMount {
    path: PathBuf,
    _lock: MountLock,
}

/// How a new cache folder comes to be.
pub(super) struct CacheSpec<'a> {
    /// The name in lists.
    pub id: &'a str,
    /// What tells it from others; one of those with a name has just the name here.
    pub key: &'a str,
    pub sharing: CacheSharing,
    /// Fills a new, empty folder with its first content, mode and owner.
    pub prepare: &'a dyn Fn(&Path) -> Result<(), super::BuildError>,
}

impl CacheMount {
    /// Takes the folder for `spec`, making it if it is new, and waiting for it if it is locked.
    pub(super) fn take(
        store: &Store,
        spec: &CacheSpec<'_>,
        cancel: &Cancel,
    ) -> Result<Self, super::BuildError> {
        let key = Digest::of(spec.key.as_bytes());
        let mut number = 0;
        loop {
            let name = Store::cache_mount_name(&key, number);
            let lock = store.cache_mount_lock(&name)?;
            let taken = match spec.sharing {
                CacheSharing::Shared => lock.try_share()?,
                CacheSharing::Private | CacheSharing::Locked => lock.try_alone()?,
            };
            if taken {
                lock.note(spec.id);
                let path = store.cache_mount_dir(&name);
                make(store, &path, spec)?;
                return Ok(Self { path, _lock: lock });
            }
            if spec.sharing == CacheSharing::Private {
                number += 1;
                continue;
            }
            if cancel.is_cancelled() {
                return Err(super::BuildError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the folder whole or not at all: several steps may find it missing at the same time.
fn make(store: &Store, path: &Path, spec: &CacheSpec<'_>) -> Result<(), super::BuildError> {
    if path.is_dir() {
        return Ok(());
    }
    let work = store.tmp_dir()?;
    let fresh = work.path().join("cache");
    fs::create_dir(&fresh).map_err(StoreError::io("cannot create", &fresh))?;
    (spec.prepare)(&fresh)?;
    match fs::rename(&fresh, path) {
        Ok(()) => Ok(()),
        // Another step was first.
        Err(_) if path.is_dir() => Ok(()),
        Err(e) => Err(StoreError::io("cannot create", path)(e).into()),
    }
}
