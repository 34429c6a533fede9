//! Removes things from the state folder beside running builds.
//!
//! First everything of a batch is taken, so that nobody can begin to use it. Then the index is asked
//! again: who held something until a moment ago may have given it a name. Then what is made of it
//! is forgotten, it is moved out of sight and given back, and only then removed: nobody waits for
//! the removal of a large folder.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::PathBuf,
};

use rbc_ir::Digest;

use super::inventory::{Item, Place, named_blobs};
use crate::{
    image,
    source::http,
    store::{Held, LayerId, Result, ResultRow, SpaceItem, Store, Taken},
};

/// How many things are taken at the same time.
const BATCH: usize = 64;

/// Evicts things and gives for each the bytes that came free; `None` for one that is in use, or
/// needed by now.
pub(super) fn evict(store: &Store, items: &[&Item]) -> Result<Vec<Option<u64>>> {
    let mut freed = Vec::with_capacity(items.len());
    for batch in items.chunks(BATCH) {
        freed.extend(evict_batch(store, batch)?);
    }
    Ok(freed)
}

/// What is left to be done for one thing.
enum Doomed {
    /// It stays.
    Kept,
    /// Bytes of files that are gone already.
    Gone(u64),
    Folder(Option<PathBuf>),
}

fn evict_batch(store: &Store, items: &[&Item]) -> Result<Vec<Option<u64>>> {
    let taken = store.nothing_taken()?;
    let mut ours = Vec::with_capacity(items.len());
    for item in items {
        ours.push(match &item.place {
            Place::Layer(id) => taken.try_take(Held::Layer(id))?,
            Place::Blob(digest) | Place::Pulled(_, digest) => taken.try_take(Held::Blob(digest))?,
            // Has a lock of its own.
            Place::CacheMount(_) | Place::File(_) => true,
            Place::Fixed => false,
        });
    }
    let chosen: Vec<&Item> =
        items.iter().zip(&ours).filter_map(|(item, ours)| ours.then_some(*item)).collect();
    let marked = forget_results(store, &chosen)?;
    let needed = match chosen.iter().any(|i| matches!(i.place, Place::Blob(_) | Place::Pulled(..)))
    {
        true => named_blobs(store)?,
        false => HashSet::new(),
    };
    let mut doomed = Vec::with_capacity(items.len());
    for (item, ours) in items.iter().zip(&ours) {
        doomed.push(match &item.place {
            _ if !ours => Doomed::Kept,
            Place::Layer(id) => Doomed::Folder(store.hide(&store.layer_dir(id))?),
            Place::Blob(digest) if needed.contains(digest) => Doomed::Kept,
            Place::Blob(digest) => if_writable(remove_blob(store, digest, item.own).map(Some))?,
            Place::Pulled(name, digest) => {
                if_writable(remove_pulled(store, &taken, name, digest, &needed))?
            }
            Place::CacheMount(name) => hide_cache_mount(store, name)?,
            Place::File(path) => match fs::remove_file(path) {
                Ok(()) => Doomed::Gone(item.own),
                Err(_) => Doomed::Kept,
            },
            Place::Fixed => Doomed::Kept,
        });
    }
    drop(taken);
    let freed = items
        .iter()
        .zip(doomed)
        .map(|(item, doomed)| remove(store, item, doomed))
        .collect::<Result<_>>()?;
    if let Marked::NoSpace(lost) = marked {
        // By now there is some. If not, they miss for the lack of their layers.
        let _ = store.mark_evicted(&lost.iter().collect::<Vec<_>>());
    }
    Ok(freed)
}

/// On a full disk the index may not take a change; then the thing stays for now.
fn if_writable(done: Result<Option<u64>>) -> Result<Doomed> {
    match done {
        Ok(Some(freed)) => Ok(Doomed::Gone(freed)),
        Ok(None) => Ok(Doomed::Kept),
        Err(error) if error.is_unwritable() => Ok(Doomed::Kept),
        Err(error) => Err(error),
    }
}

fn remove(store: &Store, item: &Item, doomed: Doomed) -> Result<Option<u64>> {
    let freed = match doomed {
        Doomed::Kept => return Ok(None),
        Doomed::Gone(bytes) => return Ok(Some(bytes)),
        Doomed::Folder(None) => 0,
        Doomed::Folder(Some(path)) => store.remove_hidden(&path)?,
    };
    let noted = match &item.place {
        Place::Layer(id) => store.drop_space(SpaceItem::Layer(id), freed),
        Place::CacheMount(name) => store.drop_space(SpaceItem::CacheMount(name), freed),
        Place::Blob(_) | Place::Pulled(..) | Place::File(_) | Place::Fixed => Ok(()),
    };
    match noted {
        // The next one to take stock puts it right.
        Err(error) if error.is_unwritable() => Ok(Some(freed)),
        other => other.map(|()| Some(freed)),
    }
}

/// Whether results were marked as evicted.
enum Marked {
    Yes,
    /// The disk is too full for that.
    NoSpace(Vec<ResultRow>),
}

/// Marks the results as evicted that have one of the layers.
fn forget_results(store: &Store, items: &[&Item]) -> Result<Marked> {
    let layers: HashSet<&LayerId> = items
        .iter()
        .filter_map(|item| match &item.place {
            Place::Layer(id) => Some(id),
            _ => None,
        })
        .collect();
    if layers.is_empty() {
        return Ok(Marked::Yes);
    }
    let rows = store.result_rows()?;
    let lost: Vec<ResultRow> = rows
        .into_iter()
        .filter(|row| {
            row.layers.as_ref().is_some_and(|ids| ids.iter().any(|id| layers.contains(id)))
        })
        .collect();
    match store.mark_evicted(&lost.iter().collect::<Vec<_>>()) {
        Err(error) if error.is_unwritable() => Ok(Marked::NoSpace(lost)),
        other => other.map(|()| Marked::Yes),
    }
}

/// Removes a blob of so many bytes and what leads to it.
fn remove_blob(store: &Store, digest: &Digest, size: u64) -> Result<u64> {
    for row in store.layer_blob_rows()? {
        if row.digests.is_some_and(|(blob, _)| blob == *digest) {
            store.drop_layer_blob(&row)?;
        }
    }
    for (note, blob) in http::notes(store) {
        if blob.as_ref() == Some(digest) {
            // The note of a file that is not there makes the next build download it.
            let _ = fs::remove_file(note);
        }
    }
    store.blobs().remove(digest)?;
    Ok(size)
}

/// Forgets an image that was pulled, and removes the blobs that nothing else needs. `None`, and nothing
/// is done, if somebody holds one of them: without its name the rest would go for nothing.
fn remove_pulled(
    store: &Store,
    taken: &Taken,
    name: &str,
    digest: &Digest,
    named: &HashSet<Digest>,
) -> Result<Option<u64>> {
    let others = store.images()?.into_iter();
    let others = others.filter(|other| image::is_pulled(&other.name) && other.name != name);
    let mut needed: HashSet<Digest> =
        others.flat_map(|other| image::reach(store, &other.digest, &|_| false).blobs).collect();
    needed.extend(store.layer_blob_digests()?);
    let mut going = Vec::new();
    for blob in image::reach(store, digest, &|_| false).blobs {
        if named.contains(&blob) || needed.contains(&blob) {
            continue;
        }
        if let Some(size) = store.blobs().peek_size(&blob) {
            if !taken.try_take(Held::Blob(&blob))? {
                return Ok(None);
            }
            going.push((blob, size));
        }
    }
    store.remove_image(name)?;
    for (blob, _) in &going {
        store.blobs().remove(blob)?;
    }
    Ok(Some(going.iter().map(|(_, size)| size).sum()))
}

/// A cache mount is in use while its lock file is locked. The lock file stays: who opened it and
/// waits must not wait for a file that is gone.
fn hide_cache_mount(store: &Store, name: &str) -> Result<Doomed> {
    let dir = store.cache_mount_dir(name);
    match File::open(dir.with_extension("lock")) {
        Ok(lock) if lock.try_lock().is_err() => Ok(Doomed::Kept),
        // It is locked until it is out of sight.
        _lock => Ok(Doomed::Folder(store.hide(&dir)?)),
    }
}
