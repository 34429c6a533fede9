//! The folder below `tmp/` that belongs to one process.
//!
//! A session folder holds a file `lock` that its process keeps locked. At start each process
//! removes the session folders whose lock is free: their owners are dead.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Result, StoreError, lock::open_lock_file, remove_tree};

pub(super) struct Session {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Session {
    pub(super) fn start(tmp: &Path) -> Result<Self> {
        let gate_path = tmp.join("gate.lock");
        let gate = open_lock_file(&gate_path)?;
        // Held while a session folder exists whose lock is not taken yet; the sweep needs it alone.
        gate.lock_shared().map_err(StoreError::io("cannot lock", &gate_path))?;
        let path = tempfile::Builder::new()
            .prefix("s-")
            .tempdir_in(tmp)
            .map_err(StoreError::io("cannot create a folder in", tmp))?
            .keep();
        let lock_path = path.join("lock");
        let lock = open_lock_file(&lock_path)?;
        lock.lock().map_err(StoreError::io("cannot lock", &lock_path))?;
        drop(gate);
        sweep(tmp, &gate_path);
        Ok(Self { path, next: AtomicU64::new(0), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tmp_dir(&self) -> Result<TmpDir> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("d{number}"));
        fs::create_dir(&path).map_err(StoreError::io("cannot create", &path))?;
        Ok(TmpDir { path })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What is left here is swept by the next process.
        let _ = remove_tree(&self.path);
    }
}

/// Removes the session folders of dead processes. Failing to is no reason not to build.
fn sweep(tmp: &Path, gate_path: &Path) {
    let Ok(gate) = open_lock_file(gate_path) else { return };
    if gate.try_lock().is_err() {
        return;
    }
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("s-") {
            continue;
        }
        let path = entry.path();
        let lock = File::options().read(true).write(true).open(path.join("lock"));
        match lock.map(|lock| lock.try_lock().map(|()| lock)) {
            Ok(Err(TryLockError::WouldBlock)) => {}
            _ => {
                let _ = remove_tree(&path);
            }
        }
    }
}

/// A folder of this process for work in progress; removed with all in it when dropped.
#[derive(Debug)]
pub struct TmpDir {
    path: PathBuf,
}

impl TmpDir {
    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}
