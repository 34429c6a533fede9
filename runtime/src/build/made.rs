//! From what a step has written to a layer of the store.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    BuildError,
    execute::{Attempt, Executor},
    schedule::on_cpu_pool,
};
use crate::{
    fileop, layer,
    store::{
        CachedResult, Candidates, InputContent, LayerId, LayerKind, Store, StoreError, TmpDir,
    },
};

/// What went into layers of fewer files is not noted: copying them again is as quick.
const MIN_NOTED: usize = 32;

/// A layer being made: its folder and the time of the file system when it was begun.
pub(super) struct NewLayer {
    work: TmpDir,
    started: layer::Started,
}

impl NewLayer {
    pub(super) fn begin(store: &Store) -> Result<Self, BuildError> {
        let work = store.tmp_dir()?;
        let path = work.path().join("upper");
        fs::create_dir(&path).map_err(StoreError::io("cannot create", &path))?;
        // It is the root that the step sees, whatever the user's umask is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(StoreError::io("cannot change the mode of", &path))?;
        let started = layer::Started::of(&path)?;
        Ok(Self { work, started })
    }

    /// The folder that becomes the layer.
    pub(super) fn upper(&self) -> PathBuf {
        self.work.path().join("upper")
    }

    /// The folder that goes when the layer is done; holds `upper`.
    pub(super) fn work(&self) -> &Path {
        self.work.path()
    }

    /// Finishes the folder.
    fn commit(&self) -> Result<layer::Size, BuildError> {
        Ok(on_cpu_pool(|| layer::commit(&self.upper(), &self.started))?)
    }
}

/// A finished layer that is not published yet.
pub(super) struct Unplaced {
    new: NewLayer,
    size: layer::Size,
    copied: fileop::Copied,
    /// What it was made from.
    pub(super) contents: Vec<InputContent>,
    /// How long it took to make.
    pub(super) took: Duration,
}

impl Executor<'_> {
    /// The layer of a node that is made and found no room.
    pub(super) fn unplaced(&self, at: usize) -> MutexGuard<'_, Option<Unplaced>> {
        self.unplaced[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes what an operation has made of `root` and publishes it, unless the operation made the
    /// same before. Gives the layers of the result.
    pub(super) fn finish(
        &self,
        attempt: &Attempt<'_>,
        (new, copied): (NewLayer, fileop::Copied),
        root: &[LayerId],
        contents: &[InputContent],
        earlier: &Candidates,
    ) -> Result<Vec<LayerId>, BuildError> {
        let size = new.commit()?;
        self.options.journal.note(attempt.at, |note| note.size = Some(size));
        match self.same_layer(&attempt.node.op, root, &new.upper(), earlier)? {
            Some(known) => {
                self.note_copied(&known, &copied, earlier)?;
                Ok([root, &[known]].concat())
            }
            None => {
                let took = attempt.begin.elapsed();
                let contents = contents.to_vec();
                self.place(attempt, Unplaced { new, size, copied, contents, took }, earlier)
            }
        }
    }

    /// Publishes a finished layer and gives the layers of the result. Where there is no room, the layer
    /// is put aside for the next attempt.
    pub(super) fn place(
        &self,
        attempt: &Attempt<'_>,
        made: Unplaced,
        earlier: &Candidates,
    ) -> Result<Vec<LayerId>, BuildError> {
        let mut layers = self.layers_of(attempt.store, &attempt.node.inputs[0])?;
        // They may be what has to make room.
        earlier.let_go()?;
        match publish_committed(attempt.store, &made.new, LayerKind::Step, &made.size) {
            Ok(layer) => {
                self.note_copied(&layer, &made.copied, earlier)?;
                self.remains.lock().unwrap_or_else(PoisonError::into_inner).push(made.new);
                layers.push(layer);
                Ok(layers)
            }
            Err(error) => {
                *self.unplaced(attempt.at) = Some(made);
                Err(error.into())
            }
        }
    }

    /// Notes what went into a layer, for the next copy.
    fn note_copied(
        &self,
        layer: &LayerId,
        copied: &fileop::Copied,
        earlier: &[CachedResult],
    ) -> Result<(), BuildError> {
        if copied.len() >= MIN_NOTED {
            let before = earlier.first().and_then(|before| before.stored.layers.last());
            self.store.put_copied(layer, copied, before)?;
        }
        Ok(())
    }
}

/// Finishes and publishes a layer from outside.
pub(super) fn publish_source(
    store: &Store,
    new: &NewLayer,
    kind: LayerKind,
) -> Result<LayerId, BuildError> {
    let size = new.commit()?;
    Ok(publish_committed(store, new, kind, &size)?)
}

/// Publishes a layer that is finished, if there is room for it.
fn publish_committed(
    store: &Store,
    new: &NewLayer,
    kind: LayerKind,
    size: &layer::Size,
) -> Result<LayerId, StoreError> {
    let id = LayerId::unique();
    store.publish_measured(&new.upper(), &id, kind, size.own)?;
    Ok(id)
}
