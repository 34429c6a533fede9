//! Removing folders that builds have filled.
//!
//! A step may nest folders deeper than any path or call stack reaches. Sub-folders are therefore
//! moved up beside the folder being removed before their own content is looked at.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Removes a folder and all in it, however deep, and gives the bytes on disk that were freed: files
/// with another name elsewhere free nothing. Symlinks are removed, never followed. What is not there
/// is no error: another process may be removing the same.
pub fn remove_tree(path: &Path) -> io::Result<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut freed = 0;
    let mut pending: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(folder) = pending.pop() {
        let Some(entries) = there(fs::read_dir(&folder))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(facts) = there(entry.metadata())? else { continue };
            if !facts.is_dir() {
                let removed = there(fs::remove_file(entry.path()))?.is_some();
                if removed && facts.nlink() == 1 {
                    freed += facts.blocks() * 512;
                }
            } else if fs::remove_dir(entry.path()).is_ok() {
                freed += facts.blocks() * 512;
            } else {
                let mut moved = name.to_owned();
                moved.push(format!(
                    ".{}-{}",
                    std::process::id(),
                    NEXT.fetch_add(1, Ordering::Relaxed)
                ));
                let moved = parent.join(moved);
                if there(fs::rename(entry.path(), &moved))?.is_some() {
                    pending.push(moved);
                }
            }
        }
        let Some(facts) = there(fs::symlink_metadata(&folder))? else { continue };
        if there(fs::remove_dir(&folder))?.is_some() {
            freed += facts.blocks() * 512;
        }
    }
    Ok(freed)
}

/// The value of what was done, unless the thing was not there.
fn there<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
