//! What running processes use: an evictor takes nothing that is held.
//!
//! Every layer and blob has a byte of the file `holds.lock` that its name stands for. Whoever looks
//! one up or publishes it takes a shared lock on the byte *before* it looks, and keeps it until its
//! store is closed or it needs the thing no more: what it has seen stays there. An evictor needs the
//! byte alone. The kernel drops the locks of a dead process, so nothing is held for ever. Two names
//! that share a byte are merely held together.

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rbc_ir::Digest;

use super::{
    LayerId, Result, StoreError,
    lock::{self, ByteLock},
};

/// What is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held<'a> {
    /// A layer.
    Layer(&'a LayerId),
    /// A blob.
    Blob(&'a Digest),
}

impl Held<'_> {
    fn offset(self) -> i64 {
        match self {
            Self::Layer(id) => {
                let mut hasher = rbc_ir::Hasher::new("rbc.hold");
                hasher.part(id.as_str().as_bytes());
                lock::offset(&hasher.finish())
            }
            Self::Blob(digest) => lock::offset(digest),
        }
    }
}

/// What one process holds, or for how long it looked at something.
pub(crate) struct Holds {
    path: PathBuf,
    /// `None` if there is no such file and none can be made: then nothing can be evicted either.
    file: Option<File>,
    held: Mutex<HashSet<i64>>,
}

impl Holds {
    /// Opens the lock file, making it if it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let file = Some(lock::open_lock_file(&path)?);
        Ok(Self { path, file, held: Mutex::default() })
    }

    /// Opens the lock file of a state folder that cannot be written to.
    pub(super) fn open_read_only(path: PathBuf) -> Self {
        let file = File::open(&path).ok();
        Self { path, file, held: Mutex::default() }
    }

    /// Holds for as long as the returned value lives, apart from what this one holds.
    pub(super) fn apart(&self) -> Result<Self> {
        Self::open(self.path.clone())
    }

    /// Holds something, whether it exists or not. Waits for an evictor that is at it.
    pub(super) fn hold(&self, what: Held<'_>) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let offset = what.offset();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains(&offset) {
            return Ok(());
        }
        lock::wait_for_byte(file, offset, ByteLock::Shared)
            .map_err(StoreError::io("cannot lock", &self.path))?;
        held.insert(offset);
        Ok(())
    }

    /// Gives back one thing; `false` if it was not held.
    pub(super) fn let_go_of(&self, what: Held<'_>) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let offset = what.offset();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.remove(&offset) {
            return Ok(false);
        }
        lock::free_byte(file, offset).map_err(StoreError::io("cannot unlock", &self.path))?;
        Ok(true)
    }

    /// Gives back everything.
    pub(super) fn let_go(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        lock::free_all_bytes(file).map_err(StoreError::io("cannot unlock", &self.path))?;
        held.clear();
        Ok(())
    }
}

/// What an evictor has taken: until this is dropped, nobody else can begin to use it.
pub(crate) struct Taken {
    path: PathBuf,
    file: File,
}

impl Taken {
    pub(super) fn nothing(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: lock::open_lock_file(path)? })
    }

    /// Takes something unless a process (this one included) holds it.
    pub(crate) fn try_take(&self, what: Held<'_>) -> Result<bool> {
        lock::try_byte(&self.file, what.offset(), ByteLock::Alone)
            .map_err(StoreError::io("cannot lock", &self.path))
    }

    /// Whether somebody holds something.
    pub(crate) fn is_held(&self, what: Held<'_>) -> Result<bool> {
        lock::is_locked(&self.file, what.offset())
            .map_err(StoreError::io("cannot ask for locks of", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_cannot_be_taken_and_what_is_taken_cannot_be_held() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("holds.lock");
        let (one, two) = (LayerId::unique(), LayerId::unique());
        let holds = Holds::open(path.clone()).expect("holds");
        let apart = holds.apart().expect("holds");
        apart.hold(Held::Layer(&one)).expect("held");
        apart.hold(Held::Layer(&one)).expect("held twice");
        let taken = Taken::nothing(&path).expect("lock file");
        assert!(!taken.try_take(Held::Layer(&one)).expect("tried"));
        assert!(taken.try_take(Held::Layer(&two)).expect("tried"));
        assert!(apart.let_go_of(Held::Layer(&one)).expect("let go of"));
        assert!(!apart.let_go_of(Held::Layer(&one)).expect("not held any more"));
        assert!(taken.try_take(Held::Layer(&one)).expect("tried"));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| holds.hold(Held::Layer(&two)));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waiter.is_finished(), "it waits for the evictor");
            drop(taken);
            waiter.join().expect("no panic").expect("held");
        });
        let again = Taken::nothing(&path).expect("lock file");
        assert!(again.is_held(Held::Layer(&two)).expect("asked"));
        assert!(!again.is_held(Held::Layer(&one)).expect("asked"));
    }
}
