//! Immutable layers: `layers/<id>/`, a folder in overlayfs upper format.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::PoisonError,
};

use rbc_ir::Digest;

use super::{LayerKind, Result, SpaceItem, Store, StoreError, hold::Held, remove_tree};
use crate::layer::Usage;

/// Name of a layer in the store: letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

/// Before the diff ID in the name of an image's layer.
const IMAGE: &str = "diff-";

/// A text that is no layer name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a layer id")]
pub struct LayerIdError(String);

impl LayerId {
    /// The layer that an image layer with this diff ID is unpacked to. It is the same for every
    /// image, whatever lies below.
    pub fn of_diff_id(diff_id: &Digest) -> Self {
        Self(format!("{IMAGE}{}", diff_id.hex()))
    }

    /// Whether it is the layer of an image, as [`LayerId::of_diff_id`] makes them.
    pub fn is_of_image(&self) -> bool {
        self.0.starts_with(IMAGE)
    }

    /// A name for a new layer that no other layer has.
    pub fn unique() -> Self {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(
                &mut bytes[filled..],
                rustix::rand::GetRandomFlags::empty(),
            ) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => unreachable!("getrandom without flags does not fail: {e}"),
            }
        }
        Self(format!("{:032x}", u128::from_le_bytes(bytes)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerId {
    type Err = LayerIdError;

    fn from_str(text: &str) -> std::result::Result<Self, LayerIdError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if text.is_empty() || text.len() > 128 || !text.bytes().all(legal) {
            return Err(LayerIdError(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// Where a layer's files are, whether it exists or not.
    pub fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.root().join("layers").join(id.as_str())
    }

    /// Whether the layer is in the store. If so it stays there until the store is closed.
    pub fn has_layer(&self, id: &LayerId) -> bool {
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            return true;
        }
        // What cannot be held may vanish at any time, so it counts as gone.
        let there = self.holds.hold(Held::Layer(id)).is_ok() && self.layer_dir(id).is_dir();
        if there {
            self.see(id);
        }
        there
    }

    /// Notes that a layer which is held is there.
    fn see(&self, id: &LayerId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Whether the layer is in the store at this moment.
    pub fn peek_layer(&self, id: &LayerId) -> bool {
        self.layer_dir(id).is_dir()
    }

    /// All layers, in no order, and the names of what is no layer beside them.
    pub fn list_layers(&self) -> Result<(Vec<LayerId>, Vec<PathBuf>)> {
        let dir = self.root().join("layers");
        let (mut layers, mut strays) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&dir).map_err(StoreError::io("cannot read", &dir))? {
            let entry = entry.map_err(StoreError::io("cannot read", &dir))?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match entry.file_name().to_str().map(str::parse) {
                Some(Ok(id)) if is_dir => layers.push(id),
                _ => strays.push(entry.path()),
            }
        }
        Ok((layers, strays))
    }

    /// Makes a finished folder (below `tmp/`) the layer `id`. If another process published the
    /// layer first, its folder is kept and `dir` is left to be removed.
    pub fn publish_layer(&self, dir: &Path, id: &LayerId) -> Result<()> {
        let own =
            Usage::of(dir).map_err(|e| StoreError::io("cannot publish", dir)(e.into()))?.own();
        self.publish_measured(dir, id, id.usual_kind(), own)
    }

    /// As [`Store::publish_layer`] for a layer of which it is known what made it and how many bytes
    /// are freed when it goes.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is a limit and no room can be made.
    pub fn publish_measured(
        &self,
        dir: &Path,
        id: &LayerId,
        kind: LayerKind,
        own: u64,
    ) -> Result<()> {
        let place = self.layer_dir(id);
        self.holds.hold(Held::Layer(id))?;
        let _room = self.make_room(own)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let renamed =
            rustix::fs::renameat_with(rustix::fs::CWD, dir, rustix::fs::CWD, &place, flags);
        match renamed {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                self.see(id);
                return Ok(());
            }
            // A file system without RENAME_NOREPLACE: a plain rename replaces only an empty folder.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                match fs::rename(dir, &place) {
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
                    Err(e) => return Err(StoreError::io("cannot publish", &place)(e)),
                    Ok(()) => {}
                }
            }
            Err(e) => return Err(StoreError::io("cannot publish", &place)(e.into())),
        }
        self.see(id);
        self.put_layer_space(id, kind, own)
    }

    /// Removes a layer and gives the bytes on disk that were freed. Only for a caller that has
    /// [taken](Store::nothing_taken) it.
    pub(crate) fn remove_layer(&self, id: &LayerId) -> Result<u64> {
        let doomed = self.hide(&self.layer_dir(id))?;
        let freed = doomed.map_or(Ok(0), |doomed| self.remove_hidden(&doomed))?;
        self.drop_space(SpaceItem::Layer(id), freed)?;
        self.drop_copied(id)?;
        Ok(freed)
    }

    /// First half of removing a folder: takes it out of sight, since what is half removed must not be
    /// taken for whole. It stays beside its place, which needs no space on a full disk. `None` if it
    /// is not there.
    pub(crate) fn hide(&self, place: &Path) -> Result<Option<PathBuf>> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        // Another process may still be removing what had the same place before.
        let moved = place.with_file_name(format!("{GONE}{name}.{}", LayerId::unique()));
        match fs::rename(place, &moved) {
            Ok(()) => Ok(Some(moved)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("cannot remove", place)(e)),
        }
    }

    /// Removes what killed processes have taken out of sight and not removed; gives the bytes on disk
    /// that were freed. What a living one is removing is gone the sooner.
    pub(crate) fn remove_all_hidden(&self) -> Result<u64> {
        let mut freed = 0;
        for folder in ["layers", "mounts"] {
            let dir = self.root().join(folder);
            for entry in fs::read_dir(&dir).map_err(StoreError::io("cannot read", &dir))? {
                let entry = entry.map_err(StoreError::io("cannot read", &dir))?;
                if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
                    freed += self.remove_hidden(&entry.path())?;
                }
            }
        }
        Ok(freed)
    }

    /// Second half; gives the bytes on disk that were freed.
    pub(crate) fn remove_hidden(&self, doomed: &Path) -> Result<u64> {
        remove_tree(doomed).map_err(StoreError::io("cannot remove", doomed))
    }
}

/// Before the name of what is being removed; no layer's name has a dot.
const GONE: &str = ".gone-";
