//! Results of other state folders, offered to a build.
//!
//! Documents are read at the start; a layer is fetched when a result that needs it is taken. What
//! cannot be had is told once as a warning, and results that need it are not offered any more.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rbc_ir::Digest;

use super::{
    CacheFrom, TravelError, Travelled,
    format::{LayerEntry, RootFacts},
    open::Part,
    times,
};
use crate::{
    export::compression_of,
    image::{self, Descriptor, ImageError},
    layer::{DEFAULT_EPOCH, Packing, Recipe, Usage},
    progress::{Event, EventSink},
    registry::{Client, RegistryError},
    store::{CachedResult, LayerId, LayerKind, Store, StoredResult, result_id},
};

/// How many layers are fetched at once.
const PARALLEL: usize = 4;
/// How many results of one operation are compared with: as many as of the own store.
const MAX_CANDIDATES: usize = 8;

/// Caches of other state folders, in the order in which they are asked.
#[derive(Default)]
pub struct Imports<'a> {
    sources: Vec<Source<'a>>,
    /// Layers that could not be had.
    lost: Mutex<HashSet<LayerId>>,
}

struct Source<'a> {
    travelled: Travelled<'a>,
    layers: HashMap<LayerId, Layer>,
    results: HashMap<Digest, StoredResult>,
    /// Keys by operation.
    operations: HashMap<Digest, Vec<Digest>>,
}

/// A layer that can be fetched.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) blob: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) epoch: Option<i64>,
    pub(super) recipe: Option<String>,
    pub(super) times: Option<Descriptor>,
    pub(super) root: Option<RootFacts>,
}

/// A result that a cache offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The result.
    pub result: CachedResult,
    source: usize,
}

/// What fetching goes by.
#[derive(Clone, Copy)]
pub(crate) struct Fetching<'a> {
    pub(crate) store: &'a Store,
    pub(crate) events: &'a dyn EventSink,
}

impl<'a> Imports<'a> {
    /// Opens caches. One that cannot be read is told as a warning.
    ///
    /// # Errors
    /// Only if the user stops it.
    pub fn open(
        store: &Store,
        client: &'a Client,
        places: &[CacheFrom],
        events: &dyn EventSink,
    ) -> Result<Self, TravelError> {
        let mut imports = Self::default();
        for place in places {
            match Travelled::open(store, client, place) {
                Ok(travelled) => imports.sources.push(Source::new(travelled, events)),
                Err(TravelError::Stopped) => return Err(TravelError::Stopped),
                Err(error) => {
                    let text = format!("--cache-from {}: {error}", place.shown());
                    events.event(Event::Warning(&text));
                }
            }
        }
        Ok(imports)
    }

    /// What the cache is called that an offer is from.
    pub fn origin(&self, offer: &Offer) -> &str {
        self.sources.get(offer.source).map_or("", |source| source.travelled.what())
    }

    /// Results of a key.
    pub(crate) fn results(&self, key: &Digest) -> Vec<Offer> {
        let found = |(source, known): (usize, &Source<'_>)| {
            let stored = known.results.get(key)?.clone();
            let result = CachedResult { id: result_id(key, &stored.layers), stored };
            Some(Offer { result, source })
        };
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = |offer: &Offer| !offer.result.stored.layers.iter().any(|id| lost.contains(id));
        self.sources.iter().enumerate().filter_map(found).filter(whole).collect()
    }

    /// Results of the same operation on any inputs.
    pub(crate) fn results_of_operation(&self, operation: &Digest) -> Vec<Offer> {
        let keys: BTreeSet<&Digest> =
            self.sources.iter().filter_map(|s| s.operations.get(operation)).flatten().collect();
        keys.into_iter().flat_map(|key| self.results(key)).take(MAX_CANDIDATES).collect()
    }

    /// Where a layer can be fetched: the first cache that has it.
    pub(super) fn layer(&self, id: &LayerId) -> Option<(&Travelled<'a>, &Layer)> {
        if self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
            return None;
        }
        self.sources.iter().find_map(|source| Some((&source.travelled, source.layers.get(id)?)))
    }

    /// Notes that a layer cannot be had after all.
    pub(super) fn lose(&self, id: &LayerId) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Fetches those layers that are not in the store; `false` if there is one that cannot be had.
    ///
    /// # Errors
    /// If the user stops it, or the state folder cannot be used.
    pub(crate) fn bring(
        &self,
        fetching: &Fetching<'_>,
        layers: &[LayerId],
    ) -> Result<bool, TravelError> {
        let mut once = HashSet::new();
        let missing: Vec<&LayerId> =
            layers.iter().filter(|id| once.insert(*id) && !fetching.store.has_layer(id)).collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut all = true;
            while let Some(id) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                all &= self.bring_one(fetching, id)?;
            }
            Ok(all)
        };
        let results: Vec<Result<bool, TravelError>> = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..PARALLEL.min(missing.len())).map(|_| scope.spawn(work)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        results.into_iter().try_fold(true, |all, one| Ok(all & one?))
    }

    fn bring_one(&self, fetching: &Fetching<'_>, id: &LayerId) -> Result<bool, TravelError> {
        let Some((travelled, layer)) = self.layer(id) else { return Ok(false) };
        let error = match fetch(fetching, travelled, id, layer) {
            Ok(()) => return Ok(true),
            Err(error) if is_own(&error) => return Err(error),
            Err(error) => error,
        };
        self.lose(id);
        let text = format!("--cache-from {}: layer not used: {error}", travelled.what());
        fetching.events.event(Event::Warning(&text));
        Ok(false)
    }
}

/// Whether an error is not one of the cache that is read.
fn is_own(error: &TravelError) -> bool {
    let image = |error: &ImageError| matches!(error, ImageError::Store(e) if e.is_unwritable());
    match error {
        TravelError::Stopped | TravelError::Store(_) => true,
        TravelError::Image(error) => image(error),
        TravelError::Registry(error) => {
            matches!(&**error, RegistryError::Image { source, .. } if image(source))
        }
        _ => false,
    }
}

impl<'a> Source<'a> {
    /// Takes what a document says. Entries that cannot be right are passed over.
    fn new(travelled: Travelled<'a>, events: &dyn EventSink) -> Self {
        let (mut layers, mut results) = (HashMap::new(), HashMap::new());
        let mut operations: HashMap<Digest, Vec<Digest>> = HashMap::new();
        let mut wrong = 0_usize;
        for part in travelled.parts() {
            let Ok(ids) = part.document.layer_ids() else {
                wrong += part.document.results.len();
                continue;
            };
            for (id, entry) in ids.iter().zip(&part.document.layers) {
                if let Some(layer) = Layer::of(part, id, entry) {
                    layers.entry(id.clone()).or_insert(layer);
                }
            }
            for entry in &part.document.results {
                match entry.stored(&ids) {
                    Some(stored) if stored.layers.iter().all(|id| layers.contains_key(id)) => {
                        if results.insert(entry.key, stored).is_none() {
                            operations.entry(entry.operation).or_default().push(entry.key);
                        }
                    }
                    _ => wrong += 1,
                }
            }
        }
        if wrong > 0 {
            let what = travelled.what();
            let text = format!("--cache-from {what}: {wrong} damaged results are not used");
            events.event(Event::Warning(&text));
        }
        Self { travelled, layers, results, operations }
    }
}

impl Layer {
    /// What an entry says; `None` if it has no blob or cannot be right.
    fn of(part: &Part, id: &LayerId, entry: &LayerEntry) -> Option<Self> {
        let at = entry.blob?;
        let blob = part.blobs.get(at)?.clone();
        let diff_id = match &part.diff_ids {
            Some(diff_ids) => *diff_ids.get(at)?,
            None => entry.diff_id?,
        };
        // The name of a base image's layer is a promise of what is in it.
        if id.is_of_image() && *id != LayerId::of_diff_id(&diff_id) {
            return None;
        }
        let times = match entry.times {
            Some(at) => Some(part.blobs.get(at)?.clone()),
            None => None,
        };
        let (epoch, recipe, root) = (entry.epoch, entry.recipe.clone(), entry.root);
        Some(Self { blob, diff_id, epoch, recipe, times, root })
    }
}

/// How a base layer's own blob is found again, see [`Store::layer_blob`]. What begins so is no tar
/// of the layer's folder.
pub(super) fn origin_recipe(packing: Packing) -> String {
    format!("again-origin-{}", packing.name())
}

/// Brings a layer into the store.
fn fetch(
    fetching: &Fetching<'_>,
    travelled: &Travelled<'_>,
    id: &LayerId,
    layer: &Layer,
) -> Result<(), TravelError> {
    let store = fetching.store;
    travelled.bring(store, &layer.blob)?;
    let staging = store.tmp_dir()?;
    let dir = staging.path().join("layer");
    std::fs::create_dir(&dir).map_err(ImageError::io(&dir))?;
    image::unpack_blob(store, &layer.blob.digest, &layer.diff_id, &dir)?;
    let packing = compression_of(&layer.blob.media_type);
    let blob = (layer.blob.digest, layer.blob.size, layer.diff_id);
    if !id.is_of_image() {
        let usual = RootFacts { mode: 0o755, uid: 0, gid: 0 };
        times::set_root(&dir, &layer.root.unwrap_or(usual))?;
        set_times(store, travelled, layer, &dir)?;
    }
    let own = Usage::of(&dir)?.own();
    let kind = if id.is_of_image() { LayerKind::Image } else { LayerKind::Step };
    store.publish_measured(&dir, id, kind, own)?;
    if id.is_of_image() {
        store.put_layer_blob(id, &origin_recipe(packing), None, blob)?;
    } else if layer.recipe.as_deref() == Some(Recipe::from(packing).name().as_str()) {
        store.put_layer_blob(id, &Recipe::from(packing).name(), layer.epoch, blob)?;
    }
    Ok(())
}

/// Gives unpacked files the times that they had.
fn set_times(
    store: &Store,
    travelled: &Travelled<'_>,
    layer: &Layer,
    dir: &std::path::Path,
) -> Result<(), TravelError> {
    match &layer.times {
        None => times::mark_made(dir, layer.epoch.unwrap_or(DEFAULT_EPOCH))?,
        Some(blob) => {
            travelled.bring(store, blob)?;
            let file = store.blobs().open(&blob.digest)?;
            times::apply(dir, file)
                .map_err(|e| travelled.bad(&format!("times of a layer: {e}")))?;
        }
    }
    Ok(())
}

/// What an import brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Results that were put into the cache.
    pub results: usize,
    /// Results that were there already.
    pub known: usize,
    /// Results whose layers could not be had.
    pub lost: usize,
}

/// Puts all results of a cache into the store. Results that the store has stay.
///
/// # Errors
/// If the state folder cannot be used.
pub fn import_all(
    store: &Store,
    travelled: Travelled<'_>,
    events: &dyn EventSink,
) -> Result<Imported, TravelError> {
    let imports = Imports { sources: vec![Source::new(travelled, events)], lost: Mutex::default() };
    let fetching = Fetching { store, events };
    let mut done = Imported::default();
    let keys: BTreeSet<&Digest> = imports.sources.iter().flat_map(|s| s.results.keys()).collect();
    let mut wanted = Vec::new();
    for key in keys {
        if store.result(key)?.is_some() {
            done.known += 1;
        } else {
            wanted.extend(imports.results(key).into_iter().map(|offer| (*key, offer)));
        }
    }
    let layers: Vec<LayerId> =
        wanted.iter().flat_map(|(_, offer)| &offer.result.stored.layers).cloned().collect();
    imports.bring(&fetching, &layers)?;
    for (key, offer) in wanted {
        if store.has_layers(&offer.result.stored.layers) {
            store.put_result(&key, offer.result.stored)?;
            done.results += 1;
        } else {
            done.lost += 1;
        }
    }
    Ok(done)
}

impl Imports<'_> {
    /// Whether a blob is known to be in a repository.
    pub(super) fn is_in(&self, blob: &Descriptor, repository: (&str, &str)) -> bool {
        let holds = |source: &Source<'_>| {
            let mut parts = source.travelled.parts().iter();
            source.travelled.repository() == Some(repository)
                && parts.any(|part| part.blobs.iter().any(|known| known.digest == blob.digest))
        };
        self.sources.iter().any(holds)
    }
}
