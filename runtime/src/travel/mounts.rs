//! Cache mounts on their way: a tar of the folder, and the times of its files.
//!
//! A mount is locked alone while it is read or replaced, so that no step sees or makes half of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::Duration,
};

use rbc_ir::Digest;

use super::{
    TravelError, Travelled,
    format::{MOUNT_TYPE, MountEntry, RootFacts},
    open::Part,
    pack::{described, write_times},
    times,
};
use crate::{
    image::{self, Descriptor, ImageError},
    layer::{self, LayerError, Packer, Packing, TarOptions, Usage},
    registry::Stop,
    store::{MountLock, SpaceItem, Store, StoreError},
};

/// Longest id that is taken from a stranger, in bytes.
const MAX_ID: usize = 4096;
/// How long is waited before it is asked again whether a mount is free.
const POLL: Duration = Duration::from_millis(20);

/// A cache mount as blobs of the store.
pub(super) struct PackedMount {
    pub(super) key: Digest,
    pub(super) tar: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) times: Descriptor,
    pub(super) root: RootFacts,
}

/// The ids of all cache mounts, sorted.
pub(super) fn mount_ids(store: &Store) -> Result<Vec<String>, StoreError> {
    let ids: BTreeSet<String> =
        store.cache_mounts()?.iter().map(|name| store.cache_mount_id(name)).collect();
    Ok(ids.into_iter().filter(|id| !id.is_empty()).collect())
}

/// Waits until nobody uses a folder.
fn lock_alone(store: &Store, name: &str, stop: &Stop) -> Result<MountLock, TravelError> {
    let lock = store.cache_mount_lock(name)?;
    while !lock.try_alone()? {
        if stop.is_asked() {
            return Err(TravelError::Stopped);
        }
        std::thread::sleep(POLL);
    }
    Ok(lock)
}

/// The folders with an id, by what tells them apart. Of several that steps had at the same time, it
/// is the first.
fn folders_of(store: &Store, id: &str) -> Result<BTreeMap<Digest, String>, TravelError> {
    let mut found: BTreeMap<Digest, (usize, String)> = BTreeMap::new();
    for name in store.cache_mounts()? {
        let parts = name.split_once('-');
        let parts = parts.and_then(|(key, n)| Some((Digest::from_hex(key).ok()?, n.parse().ok()?)));
        if let Some((key, number)) = parts
            && store.cache_mount_id(&name) == id
            && found.get(&key).is_none_or(|(first, _)| number < *first)
        {
            found.insert(key, (number, name));
        }
    }
    Ok(found.into_iter().map(|(key, (_, name))| (key, name)).collect())
}

/// Makes blobs of the cache mounts with an id; none if there are none, or none any more.
pub(super) fn pack_mounts(
    store: &Store,
    id: &str,
    stop: &Stop,
) -> Result<Vec<PackedMount>, TravelError> {
    let folders = folders_of(store, id)?;
    let packed = folders.into_iter().map(|(key, name)| pack_mount(store, key, &name, stop));
    packed.filter_map(Result::transpose).collect()
}

fn pack_mount(
    store: &Store,
    key: Digest,
    name: &str,
    stop: &Stop,
) -> Result<Option<PackedMount>, TravelError> {
    let _lock = lock_alone(store, name, stop)?;
    let dir = store.cache_mount_dir(name);
    // It may have been evicted before it was locked.
    if !dir.is_dir() {
        return Ok(None);
    }
    let failed = |source: io::Error| LayerError::Io { path: dir.clone(), source };
    let root = times::root_facts(&dir).map_err(failed)?;
    let mut packer = Packer::new(store.blobs().writer()?, Packing::Zstd).map_err(failed)?;
    layer::write_tar(&dir, &mut packer, &TarOptions::default())?;
    let (writer, packed) = packer.finish().map_err(failed)?;
    let (digest, size) = writer.finish(store, None)?;
    let times = write_times(store, &dir)?;
    Ok(Some(PackedMount {
        key,
        tar: described(MOUNT_TYPE, digest, size),
        diff_id: packed.diff_id,
        times,
        root,
    }))
}

/// Restores cache mounts under their ids, in place of what they held; all of them, or those that are
/// named. Gives the ids.
///
/// # Errors
/// If one that is named is not there, or one is damaged. Those that were restored before stay.
pub fn import_mounts(
    store: &Store,
    travelled: &Travelled<'_>,
    named: &[String],
    stop: &Stop,
) -> Result<Vec<String>, TravelError> {
    let all: Vec<(&Part, &MountEntry)> = travelled
        .parts()
        .iter()
        .flat_map(|part| part.document.mounts.iter().map(move |entry| (part, entry)))
        .collect();
    if let Some(id) = named.iter().find(|id| !all.iter().any(|(_, entry)| entry.id == **id)) {
        let known = all.iter().map(|(_, entry)| entry.id.clone()).collect();
        return Err(TravelError::NoMount { id: id.clone(), known });
    }
    let mut done = Vec::new();
    for (part, entry) in all {
        if named.is_empty() || named.contains(&entry.id) {
            restore(store, travelled, (part, entry), stop)?;
            if !done.contains(&entry.id) {
                done.push(entry.id.clone());
            }
        }
    }
    Ok(done)
}

fn restore(
    store: &Store,
    travelled: &Travelled<'_>,
    (part, entry): (&Part, &MountEntry),
    stop: &Stop,
) -> Result<(), TravelError> {
    let missing = || travelled.bad("a cache mount has no blob");
    if entry.id.is_empty() || entry.id.len() > MAX_ID {
        return Err(travelled.bad("a cache mount has no proper id"));
    }
    let tar = part.blobs.get(entry.blob).ok_or_else(missing)?;
    travelled.bring(store, tar)?;
    let staging = store.tmp_dir()?;
    let fresh = staging.path().join("mount");
    fs::create_dir(&fresh).map_err(ImageError::io(&fresh))?;
    image::unpack_blob(store, &tar.digest, &entry.diff_id, &fresh)?;
    times::set_root(&fresh, &entry.root)?;
    if let Some(at) = entry.times {
        let blob = part.blobs.get(at).ok_or_else(missing)?;
        travelled.bring(store, blob)?;
        times::apply(&fresh, store.blobs().open(&blob.digest)?)
            .map_err(|e| travelled.bad(&format!("times of a cache mount: {e}")))?;
    }
    let own = Usage::of(&fresh)?.own();
    let name = Store::cache_mount_name(&entry.key, 0);
    let lock = lock_alone(store, &name, stop)?;
    lock.note(&entry.id);
    let room = store.make_room(own)?;
    let place = store.cache_mount_dir(&name);
    let old = store.hide(&place)?;
    fs::rename(&fresh, &place).map_err(StoreError::io("cannot create", &place))?;
    store.put_other_space(SpaceItem::CacheMount(&name), own)?;
    drop((room, lock));
    if let Some(old) = old {
        store.remove_hidden(&old)?;
    }
    Ok(())
}
