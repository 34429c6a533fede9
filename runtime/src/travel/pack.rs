//! Makes a manifest of results and cache mounts, and blobs of their layers.
//!
//! A layer that is in the store as a blob already is not packed again: the image's own blobs, those
//! of base images and those of an earlier export serve as they are.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

use rayon::prelude::*;
use rbc_ir::Digest;

use super::{
    Gathered, Imports, TravelError,
    format::{
        CONFIG_TYPE, Document, LayerEntry, MOUNT_TYPE, MountEntry, ResultEntry, TIMES_TYPE, VERSION,
    },
    imports::origin_recipe,
    mounts::{self, PackedMount},
    times,
};
use crate::{
    export::{self, Origins, to_json},
    image::{Descriptor, Manifest, media_type},
    layer::{LayerError, Packing, Recipe},
    registry::Stop,
    store::{LayerId, Store},
};

/// What is packed.
#[derive(Debug, Default)]
pub struct Contents {
    /// Results of steps.
    pub results: Gathered,
    /// Cache mounts.
    pub mounts: Mounts,
}

/// Which cache mounts are packed.
#[derive(Debug)]
pub enum Mounts {
    /// All that are there.
    All,
    /// Those with these ids, which must be there.
    Named(Vec<String>),
}

impl Mounts {
    /// No cache mounts.
    pub fn none() -> Self {
        Self::Named(Vec::new())
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self::none()
    }
}

/// How it is packed.
pub struct PackOptions<'a> {
    /// Compression of layers; `None` takes blobs as they are and makes gzip of the rest.
    pub compression: Option<Packing>,
    /// The `SOURCE_DATE_EPOCH` of the build.
    pub epoch: Option<i64>,
    /// The blobs that layers of base images came from.
    pub origins: Origins,
    /// The caches that the build was offered.
    pub imports: Option<&'a Imports<'a>>,
    /// Ends it early.
    pub stop: Stop,
}

/// A cache that is ready to be written.
#[derive(Debug)]
pub struct Packed {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    /// All blobs; those that are elsewhere yet with the layer that brings them.
    pub(super) blobs: Vec<(Descriptor, Option<LayerId>)>,
    /// How many results travel.
    pub results: usize,
    /// How many ids of cache mounts travel.
    pub mounts: usize,
    /// Names of results that cannot travel, since the blob of a base image's layer is not there.
    pub left_out: Vec<String>,
}

impl Packed {
    /// The manifest.
    pub(super) fn root(&self) -> Descriptor {
        Descriptor::of(media_type::MANIFEST, &self.manifest)
    }
}

/// A layer ready to travel: the entry without positions, and its blobs.
struct Ready {
    entry: LayerEntry,
    blob: Descriptor,
    times: Option<Descriptor>,
    /// Whether the blobs are in the store.
    is_here: bool,
}

/// Packs results and cache mounts.
///
/// # Errors
/// If a layer cannot be packed.
pub fn pack(
    store: &Store,
    contents: &Contents,
    options: &PackOptions<'_>,
) -> Result<Packed, TravelError> {
    let mut once = HashSet::new();
    let layers: Vec<&LayerId> = contents
        .results
        .results
        .iter()
        .flat_map(|(_, stored)| &stored.layers)
        .filter(|id| once.insert(*id))
        .collect();
    let ready: HashMap<&LayerId, Ready> = layers
        .par_iter()
        .filter_map(|id| {
            let ready = ready(store, id, options).transpose()?;
            Some(ready.map(|ready| (*id, ready)))
        })
        .collect::<Result<_, TravelError>>()?;

    let mut blobs = Blobs::default();
    let mut document =
        Document { version: VERSION, layers: Vec::new(), results: Vec::new(), mounts: Vec::new() };
    let mut positions: HashMap<LayerId, usize> = HashMap::new();
    let mut left_out = Vec::new();
    for (key, stored) in &contents.results.results {
        if !stored.layers.iter().all(|id| ready.contains_key(id)) {
            left_out.push(stored.name.clone());
            continue;
        }
        let mut at = |id: &LayerId| {
            *positions.entry(id.clone()).or_insert_with(|| {
                let entry = match ready.get(id) {
                    Some(ready) => blobs.add_layer(id, ready),
                    None => spoken_of(id),
                };
                document.layers.push(entry);
                document.layers.len() - 1
            })
        };
        document.results.push(ResultEntry::of(key, stored, &mut at));
    }
    let known;
    let ids = match &contents.mounts {
        Mounts::All => {
            known = mounts::mount_ids(store)?;
            &known
        }
        Mounts::Named(ids) => ids,
    };
    let mut mounts = 0;
    for id in ids {
        let packed = mounts::pack_mounts(store, id, &options.stop)?;
        match (packed.is_empty(), &contents.mounts) {
            (true, Mounts::Named(_)) => {
                let known = mounts::mount_ids(store)?;
                return Err(TravelError::NoMount { id: id.clone(), known });
            }
            // Another process has evicted it in the meantime.
            (true, Mounts::All) => {}
            (false, _) => mounts += 1,
        }
        for packed in packed {
            document.mounts.push(blobs.add_mount(id, packed));
        }
    }
    let config = to_json(&document);
    let manifest = to_json(&Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: Descriptor::of(CONFIG_TYPE, &config),
        layers: blobs.all.iter().map(|(blob, _)| blob.clone()).collect(),
        annotations: None,
    });
    let results = document.results.len();
    Ok(Packed { config, manifest, blobs: blobs.all, results, mounts, left_out })
}

/// The document of results for the config of an image with these layers; `None` if it holds none of
/// them. `recipe` is how its layers are compressed.
pub fn inline(
    gathered: &Gathered,
    layers: &[LayerId],
    epoch: Option<i64>,
    recipe: Option<Packing>,
) -> Option<Vec<u8>> {
    let mut document =
        Document { version: VERSION, layers: Vec::new(), results: Vec::new(), mounts: Vec::new() };
    let mut positions: HashMap<LayerId, usize> = HashMap::new();
    let place = |id: &LayerId| layers.iter().position(|known| known == id);
    for (key, stored) in &gathered.results {
        if !stored.layers.iter().all(|id| place(id).is_some()) {
            continue;
        }
        let mut at = |id: &LayerId| {
            *positions.entry(id.clone()).or_insert_with(|| {
                let recipe = recipe.map(|packing| Recipe::from(packing).name());
                let blob = place(id);
                document.layers.push(LayerEntry { blob, epoch, recipe, ..spoken_of(id) });
                document.layers.len() - 1
            })
        };
        document.results.push(ResultEntry::of(key, stored, &mut at));
    }
    (!document.results.is_empty()).then(|| to_json(&document))
}

/// The entry of a layer that does not travel.
fn spoken_of(id: &LayerId) -> LayerEntry {
    LayerEntry {
        id: id.to_string(),
        blob: None,
        diff_id: None,
        epoch: None,
        recipe: None,
        times: None,
        root: None,
    }
}

/// Blobs by their positions, each once.
#[derive(Default)]
struct Blobs {
    all: Vec<(Descriptor, Option<LayerId>)>,
    positions: HashMap<Digest, usize>,
}

impl Blobs {
    fn add(&mut self, blob: &Descriptor, from: Option<&LayerId>) -> usize {
        let all = &mut self.all;
        *self.positions.entry(blob.digest).or_insert_with(|| {
            all.push((Descriptor { annotations: None, ..blob.clone() }, from.cloned()));
            all.len() - 1
        })
    }

    fn add_layer(&mut self, id: &LayerId, ready: &Ready) -> LayerEntry {
        let from = (!ready.is_here).then_some(id);
        let blob = Some(self.add(&ready.blob, from));
        let times = ready.times.as_ref().map(|times| self.add(times, from));
        LayerEntry { blob, times, ..ready.entry.clone() }
    }

    fn add_mount(&mut self, id: &str, packed: PackedMount) -> MountEntry {
        let blob = Descriptor { media_type: MOUNT_TYPE.to_owned(), ..packed.tar };
        MountEntry {
            id: id.to_owned(),
            key: packed.key,
            blob: self.add(&blob, None),
            diff_id: packed.diff_id,
            times: Some(self.add(&packed.times, None)),
            root: packed.root,
        }
    }
}

/// Gets a layer ready; `None` if it cannot travel.
fn ready(
    store: &Store,
    id: &LayerId,
    options: &PackOptions<'_>,
) -> Result<Option<Ready>, TravelError> {
    if !store.has_layer(id) {
        return Ok(offered(id, options));
    }
    if id.is_of_image() {
        return Ok(match base(store, id, options)? {
            Some((blob, diff_id)) => {
                let entry = LayerEntry { diff_id: Some(diff_id), ..spoken_of(id) };
                Some(Ready { entry, blob, times: None, is_here: true })
            }
            None => offered(id, options),
        });
    }
    let (packing, epoch) = choose(store, id, options)?;
    let (digest, size, diff_id) = export::own(store, id, packing.into(), epoch, &options.stop)?;
    let blob = described(packing.media_type(), digest, size);
    let dir = store.layer_dir(id);
    let failed = |source| LayerError::Io { path: dir.clone(), source };
    let entry = LayerEntry {
        diff_id: Some(diff_id),
        epoch,
        recipe: Some(Recipe::from(packing).name()),
        root: Some(times::root_facts(&dir).map_err(failed)?),
        ..spoken_of(id)
    };
    let times = Some(write_times(store, &dir)?);
    Ok(Some(Ready { entry, blob, times, is_here: true }))
}

/// How a layer of the build's own is packed: as it is already if that serves.
fn choose(
    store: &Store,
    id: &LayerId,
    options: &PackOptions<'_>,
) -> Result<(Packing, Option<i64>), TravelError> {
    let usual = options.compression.unwrap_or_default();
    let packings = match options.compression {
        Some(packing) => vec![packing],
        None => vec![Packing::Gzip, Packing::Zstd],
    };
    let mut epochs = vec![options.epoch];
    epochs.extend(options.epoch.map(|_| None));
    for packing in packings {
        for &epoch in &epochs {
            if store.layer_blob(id, &Recipe::from(packing).name(), epoch)?.is_some() {
                return Ok((packing, epoch));
            }
        }
    }
    Ok((usual, options.epoch))
}

/// A base layer's blob and diff ID, if it is there.
fn base(
    store: &Store,
    id: &LayerId,
    options: &PackOptions<'_>,
) -> Result<Option<(Descriptor, Digest)>, TravelError> {
    if let Some(origin) = options.origins.get(id)
        && store.blobs().size(&origin.descriptor.digest) == Some(origin.descriptor.size)
    {
        return Ok(Some((origin.descriptor.clone(), origin.diff_id)));
    }
    for packing in [Packing::Gzip, Packing::Zstd, Packing::None] {
        if let Some((digest, size, diff_id)) =
            store.layer_blob(id, &origin_recipe(packing), None)?
        {
            return Ok(Some((described(packing.media_type(), digest, size), diff_id)));
        }
    }
    Ok(None)
}

/// A layer that is in a cache which the build was offered.
fn offered(id: &LayerId, options: &PackOptions<'_>) -> Option<Ready> {
    let (_, layer) = options.imports?.layer(id)?;
    let entry = LayerEntry {
        diff_id: Some(layer.diff_id),
        epoch: layer.epoch,
        recipe: layer.recipe.clone(),
        root: layer.root,
        ..spoken_of(id)
    };
    let (blob, times) = (layer.blob.clone(), layer.times.clone());
    Some(Ready { entry, blob, times, is_here: false })
}

/// Makes the blob with the times of a folder.
pub(super) fn write_times(store: &Store, dir: &std::path::Path) -> Result<Descriptor, TravelError> {
    let failed = |source| LayerError::Io { path: dir.to_owned(), source };
    let mut writer = store.blobs().writer()?;
    times::write(dir, &mut writer).and_then(|()| writer.flush()).map_err(failed)?;
    let (digest, size) = writer.finish(store, None)?;
    Ok(described(TIMES_TYPE, digest, size))
}

pub(super) fn described(kind: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: kind.to_owned(), digest, size, annotations: None, platform: None }
}
