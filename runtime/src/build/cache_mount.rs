//! Cache mounts: folders below `mounts/` that outlive builds (`RUN --mount=type=cache`).
//!
//! A folder is in use while its lock file is held; the kernel gives a dead process's locks back.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rbc_ir::{CacheSharing, Digest};

use crate::{
    sandbox::Cancel,
    store::{Store, StoreError},
};

/// A cache folder in use; given back when dropped.
pub(super) struct CacheMount {
    path: PathBuf,
    _lock: File,
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
        let name = Digest::of(spec.key.as_bytes()).hex();
        let mounts = store.root().join("mounts");
        let mut number = 0;
        loop {
            let path = mounts.join(format!("{name}-{number}"));
            let lock_path = mounts.join(format!("{name}-{number}.lock"));
            let lock = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&lock_path)
                .map_err(StoreError::io("cannot open", &lock_path))?;
            let taken = match spec.sharing {
                CacheSharing::Shared => lock.try_lock_shared(),
                CacheSharing::Private | CacheSharing::Locked => lock.try_lock(),
            };
            match taken {
                Ok(()) => {
                    note(&lock, spec.id);
                    make(store, &path, spec)?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(TryLockError::WouldBlock) if spec.sharing == CacheSharing::Private => {
                    number += 1
                }
                Err(TryLockError::WouldBlock) => {
                    if cancel.is_cancelled() {
                        return Err(super::BuildError::Cancelled);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::Error(e)) => {
                    return Err(StoreError::io("cannot lock", &lock_path)(e).into());
                }
            }
        }
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Keeps the id and the time of use in the lock file, for those who list and evict cache mounts.
/// Without them the mount works all the same.
fn note(mut lock: &File, id: &str) {
    match lock.metadata() {
        Ok(facts) if facts.len() == 0 => {
            let _ = lock.write_all(id.as_bytes());
        }
        _ => {
            let _ = lock.set_modified(SystemTime::now());
        }
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
