//! Cache mounts: folders below `mounts/`, each with a lock file beside it that holds its id.
//!
//! A folder is in use while its lock file is held; the kernel gives a dead process's locks back. A
//! mount that one step may use at a time has several folders, numbered from 0.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::PathBuf,
    time::SystemTime,
};

use rbc_ir::Digest;

use super::{Result, Store, StoreError, lock::open_lock_file};

/// The lock on a cache mount's folder; given back when dropped.
pub(crate) struct MountLock {
    file: File,
    path: PathBuf,
}

impl Store {
    /// The name of one of the folders of the cache mount that a digest tells from others.
    pub(crate) fn cache_mount_name(key: &Digest, number: usize) -> String {
        format!("{}-{number}", key.hex())
    }

    /// Where a cache mount's files are.
    pub(crate) fn cache_mount_dir(&self, name: &str) -> PathBuf {
        self.root().join("mounts").join(name)
    }

    /// The names of all cache mounts.
    pub(crate) fn cache_mounts(&self) -> Result<Vec<String>> {
        let dir = self.root().join("mounts");
        let entries = fs::read_dir(&dir).map_err(StoreError::io("cannot read", &dir))?;
        let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    /// The id of the cache mount that a folder is of; empty if it is not known.
    pub(crate) fn cache_mount_id(&self, name: &str) -> String {
        let lock = self.cache_mount_dir(name).with_extension("lock");
        fs::read_to_string(lock).unwrap_or_default()
    }

    /// The lock of a cache mount's folder, not taken yet.
    pub(crate) fn cache_mount_lock(&self, name: &str) -> Result<MountLock> {
        let path = self.cache_mount_dir(name).with_extension("lock");
        Ok(MountLock { file: open_lock_file(&path)?, path })
    }
}

impl MountLock {
    /// Takes the folder together with others who share it; `false` while somebody has it alone.
    pub(crate) fn try_share(&self) -> Result<bool> {
        self.taken(self.file.try_lock_shared())
    }

    /// Takes the folder alone; `false` while somebody has it.
    pub(crate) fn try_alone(&self) -> Result<bool> {
        self.taken(self.file.try_lock())
    }

    fn taken(&self, result: std::result::Result<(), TryLockError>) -> Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(StoreError::io("cannot lock", &self.path)(e)),
        }
    }

    /// Keeps the id and the time of use in the lock file, for those who list and evict cache mounts.
    /// Without them the mount works all the same.
    pub(crate) fn note(&self, id: &str) {
        match self.file.metadata() {
            Ok(facts) if facts.len() == 0 => {
                let _ = (&self.file).write_all(id.as_bytes());
            }
            _ => {
                let _ = self.file.set_modified(SystemTime::now());
            }
        }
    }
}
