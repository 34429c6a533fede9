//! The folder below `tmp/` that belongs to one process.
//!
//! A session folder holds a file `lock` that its process keeps locked. At start each process
//! removes the session folders whose lock is free: their owners are dead. A process makes its own
//! when it first needs one, so that what only reads works on a full disk.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Result, StoreError, lock::open_lock_file, remove_tree};

pub(super) struct Session {
    tmp: PathBuf,
    /// The folder and its lock, once there is one.
    own: Mutex<Option<(PathBuf, File)>>,
    next: AtomicU64,
}

impl Session {
    /// A session below `tmp` without a folder yet.
    pub(super) fn new(tmp: PathBuf) -> Self {
        Self { tmp, own: Mutex::new(None), next: AtomicU64::new(0) }
    }

    /// This process's folder, made at the first call.
    pub(super) fn path(&self) -> Result<PathBuf> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, _)) = &*own {
            return Ok(path.clone());
        }
        let gate_path = self.tmp.join(GATE);
        let gate = open_lock_file(&gate_path)?;
        // Held while a session folder exists whose lock is not taken yet; the sweep needs it alone.
        gate.lock_shared().map_err(StoreError::io("cannot lock", &gate_path))?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&self.tmp)
            .map_err(StoreError::io("cannot create a folder in", &self.tmp))?
            .keep();
        let lock_path = path.join("lock");
        let lock = open_lock_file(&lock_path)?;
        lock.lock().map_err(StoreError::io("cannot lock", &lock_path))?;
        *own = Some((path.clone(), lock));
        Ok(path)
    }

    pub(super) fn steps_dir(&self) -> Result<PathBuf> {
        let path = self.path()?.join("steps");
        fs::create_dir_all(&path).map_err(StoreError::io("cannot create", &path))?;
        Ok(path)
    }

    pub(super) fn tmp_dir(&self) -> Result<TmpDir> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path()?.join(format!("d{number}"));
        fs::create_dir(&path).map_err(StoreError::io("cannot create", &path))?;
        Ok(TmpDir { path })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, _lock)) = own.take() {
            // What is left here is swept by the next process.
            let _ = remove_tree(&path);
        }
    }
}

/// The lock between those who make session folders and those who sweep them.
const GATE: &str = "gate.lock";
/// How names of session folders begin.
const PREFIX: &str = "s-";

/// The session folders of dead processes, with the lock that keeps new ones from being made.
/// `None` while another process makes one.
fn dead(tmp: &Path) -> io::Result<Option<(Vec<PathBuf>, File)>> {
    let gate =
        File::options().read(true).write(true).create(true).truncate(false).open(tmp.join(GATE))?;
    match gate.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    let mut dead = Vec::new();
    for entry in fs::read_dir(tmp)?.flatten() {
        // What a sweep was killed over has the name of a session and no lock.
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_dead(&entry.path()) {
            dead.push(entry.path());
        }
    }
    Ok(Some((dead, gate)))
}

/// Whether a session folder's process is dead. While the gate is held a folder without a lock has
/// lost its maker; where the lock cannot be opened nothing is known, so it is let alone.
fn is_dead(session: &Path) -> bool {
    match File::options().read(true).write(true).open(session.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

/// Removes the session folders of dead processes and gives how many. Failing to is no reason not
/// to build.
pub(super) fn sweep(tmp: &Path) -> usize {
    let Ok(Some((dead, _gate))) = dead(tmp) else { return 0 };
    dead.iter().filter(|path| remove_tree(path).is_ok()).count()
}

/// The session folders of dead processes, which the next [`sweep`] removes.
pub(super) fn leftovers(tmp: &Path) -> Vec<PathBuf> {
    dead(tmp).ok().flatten().map(|(dead, _gate)| dead).unwrap_or_default()
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
