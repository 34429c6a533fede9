//! Finishes the upper folder of a step before it becomes a layer.

use std::{
    fs,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use serde::{Deserialize, Serialize};

use super::{LayerError, MADE_NSEC, Usage};

/// Attributes that overlayfs leaves on files of an upper folder and that mean nothing in a layer.
const LEFTOVERS: [&str; 5] = [
    "user.overlay.origin",
    "user.overlay.impure",
    "user.overlay.nlink",
    "user.overlay.upper",
    "user.overlay.uuid",
];

/// When a step began, by the clock of the file system that its upper folder is on.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    seconds: i64,
    nanos: i64,
}

impl Started {
    /// Takes the time from the folder that was just made for the step: kernels stamp files by a
    /// coarse clock that lags behind the one that programs see.
    pub fn of(upper: &Path) -> Result<Self, LayerError> {
        let facts = fs::symlink_metadata(upper).map_err(LayerError::io(upper))?;
        Ok(Self { seconds: facts.mtime(), nanos: facts.mtime_nsec() })
    }
}

/// What layers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Entries of any kind.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Bytes on disk that are freed when the layer goes; files that are links to those of other
    /// layers take none.
    #[serde(default)]
    pub own: u64,
}

/// Marks everything in `upper` that is newer than the start of the step as made by the build (see
/// [`MADE_NSEC`]) and removes what overlayfs leaves behind. Older files are not touched: they may
/// be hard links into other layers. Gives what the layer holds.
///
/// On a thread of a pool, folders are looked at in parallel.
pub fn commit(upper: &Path, started: &Started) -> Result<Size, LayerError> {
    let totals = Mutex::default();
    let mut level: Vec<PathBuf> = vec![upper.to_owned()];
    while !level.is_empty() {
        let finish = |folder: PathBuf| finish_entries(&folder, started, &totals);
        let below: Vec<Result<Vec<PathBuf>, LayerError>> =
            if level.len() > 1 && rayon::current_thread_index().is_some() {
                level.into_par_iter().map(finish).collect()
            } else {
                level.into_iter().map(finish).collect()
            };
        level = Vec::new();
        for folders in below {
            level.extend(folders?);
        }
    }
    // The root as well: no tar has it, but layers are compared by it.
    let facts = fs::symlink_metadata(upper).map_err(LayerError::io(upper))?;
    let time = (facts.mtime(), facts.mtime_nsec());
    if time >= (started.seconds, started.nanos) {
        mark(upper, facts.mtime())?;
    }
    strip(upper)?;
    let Totals { size, usage } = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Size { own: usage.own(), ..size })
}

/// What was found so far.
#[derive(Default)]
struct Totals {
    size: Size,
    usage: Usage,
}

/// Marks and strips what is in a folder, adds it to `totals`, and gives the folders in it.
fn finish_entries(
    folder: &Path,
    started: &Started,
    totals: &Mutex<Totals>,
) -> Result<Vec<PathBuf>, LayerError> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).map_err(LayerError::io(folder))? {
        let entry = entry.map_err(LayerError::io(folder))?;
        let facts = entry.metadata().map_err(LayerError::io(&entry.path()))?;
        debug_assert_eq!(facts.ino(), entry.ino());
        let time = (facts.mtime(), facts.mtime_nsec());
        let new = time >= (started.seconds, started.nanos);
        if new && time.1 != i64::from(MADE_NSEC) {
            mark(&entry.path(), facts.mtime())?;
        }
        if facts.is_dir() || (facts.is_file() && facts.nlink() == 1) || new {
            strip(&entry.path())?;
        }
        if facts.is_dir() {
            below.push(entry.path());
        }
        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.size.files += 1;
        totals.size.bytes += if facts.is_file() { facts.len() } else { 0 };
        totals.usage.add(&facts);
    }
    Ok(below)
}

fn mark(path: &Path, seconds: i64) -> Result<(), LayerError> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: MADE_NSEC.into() },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(LayerError::os(path))
}

fn strip(path: &Path) -> Result<(), LayerError> {
    let mut names = [0; 1024];
    // Most files have none at all, which one call tells. Where the list is too long to read, the
    // leftovers stay; tars leave them out in any case.
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Ok(()) };
    let names: &[u8] = &names[..length];
    for name in LEFTOVERS {
        if names.split(|b| *b == 0).any(|listed| listed == name.as_bytes()) {
            match rustix::fs::lremovexattr(path, name) {
                Ok(()) | Err(rustix::io::Errno::NODATA) => {}
                Err(e) => return Err(LayerError::os(path)(e)),
            }
        }
    }
    Ok(())
}
