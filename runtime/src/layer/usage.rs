//! How much of the disk a layer takes, when files may be links into other layers.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::LayerError;

/// A file with names outside of the folder that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFile {
    /// Device and inode.
    pub inode: (u64, u64),
    /// Bytes on disk.
    pub bytes: u64,
}

/// Adds up what a folder takes.
#[derive(Debug, Default)]
pub struct Usage {
    alone: u64,
    /// Files with several names: how many were not seen yet, and bytes.
    linked: HashMap<(u64, u64), (u64, u64)>,
}

impl Usage {
    /// Measures a folder and all below it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(dir: &Path) -> Result<Self, LayerError> {
        let mut usage = Self::default();
        usage.add(&fs::symlink_metadata(dir).map_err(LayerError::io(dir))?);
        let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(&folder).map_err(LayerError::io(&folder))? {
                let entry = entry.map_err(LayerError::io(&folder))?;
                let facts = entry.metadata().map_err(LayerError::io(&entry.path()))?;
                if facts.is_dir() {
                    pending.push(entry.path());
                }
                usage.add(&facts);
            }
        }
        Ok(usage)
    }

    /// Measures a folder that others are changing: what vanishes meanwhile is not there.
    pub fn of_what_changes(dir: &Path) -> Self {
        let mut usage = Self::default();
        let mut pending: Vec<PathBuf> = vec![dir.to_owned()];
        while let Some(path) = pending.pop() {
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            usage.add(&facts);
            if facts.is_dir() {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                pending.extend(entries.map(|entry| entry.path()));
            }
        }
        usage
    }

    /// Adds one entry.
    pub fn add(&mut self, facts: &Metadata) {
        let bytes = facts.blocks() * 512;
        if facts.is_dir() || facts.nlink() == 1 {
            self.alone += bytes;
            return;
        }
        let unseen =
            &mut self.linked.entry((facts.dev(), facts.ino())).or_insert((facts.nlink(), bytes)).0;
        *unseen = unseen.saturating_sub(1);
    }

    /// Bytes that would be freed if the folder were removed.
    pub fn own(&self) -> u64 {
        let inside = self.linked.values().filter(|(unseen, _)| *unseen == 0);
        self.alone + inside.map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// The files that have names elsewhere too.
    pub fn shared(&self) -> impl Iterator<Item = SharedFile> {
        let outside = self.linked.iter().filter(|(_, (unseen, _))| *unseen > 0);
        outside.map(|(&inode, &(_, bytes))| SharedFile { inode, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_where_all_of_them_are() {
        let dir = tempfile::tempdir().expect("folder");
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        fs::create_dir(&one).expect("mkdir");
        fs::create_dir(&two).expect("mkdir");
        let empty = Usage::of(&one).expect("usage").own();
        fs::write(one.join("a"), vec![1; 100_000]).expect("write");
        fs::hard_link(one.join("a"), one.join("b")).expect("link");
        let both = Usage::of(&one).expect("usage");
        let file = both.own() - empty;
        assert!((100_000..200_000).contains(&file), "counted once: {file}");
        assert_eq!(both.shared().count(), 0);
        fs::hard_link(one.join("a"), two.join("c")).expect("link");
        let usage = Usage::of(&one).expect("usage");
        assert_eq!(usage.own(), empty);
        assert_eq!(usage.shared().map(|file| file.bytes).collect::<Vec<_>>(), [file]);
    }
}
