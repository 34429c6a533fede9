//! What lies in the state folder: how much space it takes, when it was used last, who needs it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rayon::prelude::*;
use rbc_ir::Digest;

use crate::{
    image,
    layer::{SharedFile, Usage},
    source::http,
    store::{
        Held, ImageRecord, LayerId, LayerKind, Noted, Result, SpaceItem, Store, StoreError, Taken,
    },
};

/// What something in the state folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// The layer of a step.
    Layer,
    /// A layer that was unpacked from an image.
    ImageLayer,
    /// The blobs of an image that was pulled for a build.
    PulledImage,
    /// Any other blob: those of named images, and layers packed as tars.
    Blob,
    /// A cache mount.
    CacheMount,
    /// A part of a build context, or what is known of one.
    Context,
    /// A git checkout.
    Git,
    /// A file of the web.
    Http,
    /// Logs and records of builds.
    History,
    /// The index.
    Index,
    /// What running processes are writing, or killed ones have left.
    Temporary,
    /// Folders, locks and what is put aside for cleaning up a full disk.
    Other,
}

impl ItemKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Layer,
        Self::ImageLayer,
        Self::PulledImage,
        Self::Blob,
        Self::CacheMount,
        Self::Context,
        Self::Git,
        Self::Http,
        Self::History,
        Self::Index,
        Self::Temporary,
        Self::Other,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::ImageLayer => "image-layer",
            Self::PulledImage => "pulled-image",
            Self::Blob => "blob",
            Self::CacheMount => "cache-mount",
            Self::Context => "context",
            Self::Git => "git",
            Self::Http => "http",
            Self::History => "history",
            Self::Index => "index",
            Self::Temporary => "temporary",
            Self::Other => "other",
        }
    }

    /// Whether it changes in its place, so that no digest stands for it.
    pub(super) fn is_mutable(self) -> bool {
        match self {
            Self::CacheMount | Self::History | Self::Index | Self::Temporary | Self::Other => true,
            Self::Layer
            | Self::ImageLayer
            | Self::PulledImage
            | Self::Blob
            | Self::Context
            | Self::Git
            | Self::Http => false,
        }
    }

    /// A kind by its name or by what BuildKit calls it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "regular" => Self::Layer,
            "exec.cachemount" => Self::CacheMount,
            "source.local" => Self::Context,
            "source.git.checkout" => Self::Git,
            "source.http" => Self::Http,
            _ => Self::ALL.into_iter().find(|kind| kind.name() == name)?,
        })
    }
}

/// One thing that can be removed as a whole, if anything of it can.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its name: of the layer, the digest of the blob, of the folder.
    pub id: String,
    /// What it is for people: the step, the image, the id of the cache mount.
    pub name: String,
    /// Bytes that are freed when it goes alone.
    pub own: u64,
    /// Bytes that it shares with others by links.
    pub shared: u64,
    /// When it was used last, in seconds since the epoch; 0 if that is not known.
    pub last_used: i64,
    /// How long it took to make.
    pub rebuild: Duration,
    /// Whether a running process holds it.
    pub in_use: bool,
    /// Names of the image that it belongs to, if it is a part of one.
    pub part_of: Option<String>,
    /// Whether it can be made or fetched again. What cannot is not evicted.
    pub replaceable: bool,
    /// The order of eviction: the lowest goes first.
    pub(super) rank: Rank,
    pub(super) place: Place,
}

impl Item {
    /// Whether it is a part of the sum that a limit is about.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.place, Place::File(_) | Place::Fixed)
    }

    /// Whether nothing is known that needs it: no result, image or running process.
    pub fn is_unreferenced(&self) -> bool {
        self.last_used == 0 && self.part_of.is_none()
    }

    /// Whether it can be evicted now.
    pub fn is_reclaimable(&self) -> bool {
        self.replaceable && !self.in_use
    }
}

/// First the moment until which something is worth keeping, then what is made of others before
/// what others are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Last use, made later by a thousand times the time that it took to make: what took a minute
    /// is kept as long as what took no time and was used 17 hours later.
    worth: i64,
    class: u8,
    /// Fewest dependants first.
    dependants: usize,
}

/// Where something is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Layer(LayerId),
    Blob(Digest),
    /// The name of the record with its digest.
    Pulled(String, Digest),
    CacheMount(String),
    /// A file that nothing in the index speaks of.
    File(PathBuf),
    /// Not to be removed.
    Fixed,
}

/// Where sizes are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Every file is looked at. What the index notes is put right on the way.
    Disk,
    /// The index says what was measured when something was published; nobody shares anything then.
    Index,
}

/// Everything that is there.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The things.
    pub items: Vec<Item>,
    /// Bytes on disk that several layers share, each counted once.
    pub shared: u64,
    /// The files that layers share, by the ids of the layers.
    pub(super) links: HashMap<String, Vec<SharedFile>>,
}

impl Inventory {
    /// Looks at everything that takes space.
    ///
    /// # Errors
    /// If the state folder cannot be read.
    pub fn take(store: &Store, measure: Measure) -> Result<Self> {
        let mut inventory = Self { items: Vec::new(), shared: 0, links: HashMap::new() };
        let facts = Facts::gather(store)?;
        match measure {
            Measure::Disk => inventory.layers(store, &facts)?,
            Measure::Index => inventory.noted_layers(store, &facts)?,
        }
        inventory.blobs(store, &facts, measure)?;
        inventory.cache_mounts(store, &facts, measure)?;
        inventory.files(store);
        if measure == Measure::Disk {
            inventory.note(store);
        }
        Ok(inventory)
    }

    /// Puts the things into the order in which they would be evicted; what cannot be comes last.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| {
            let key = |item: &Item| (!item.replaceable, item.rank);
            key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
        });
    }

    /// Bytes of all things, each counted once.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|item| item.own).sum::<u64>() + self.shared
    }

    /// Bytes that are freed if all that can be evicted is.
    pub fn reclaimable(&self) -> u64 {
        let going = || self.items.iter().filter(|item| item.is_reclaimable());
        let gone: HashSet<&str> = going().map(|item| item.id.as_str()).collect();
        let stay: HashSet<(u64, u64)> = self
            .links
            .iter()
            .filter(|(id, _)| !gone.contains(id.as_str()))
            .flat_map(|(_, files)| files.iter().map(|file| file.inode))
            .collect();
        let shared = self.linked(|item| item.is_reclaimable(), &stay);
        going().map(|item| item.own).sum::<u64>() + shared
    }

    /// Keeps only some of the things.
    pub fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        self.items.retain(keep);
        self.shared = self.linked(|_| true, &HashSet::new());
    }

    /// Bytes of files that some of the layers share, each counted once, but for those that `stay`.
    fn linked(&self, choose: impl Fn(&Item) -> bool, stay: &HashSet<(u64, u64)>) -> u64 {
        let mut once = HashSet::new();
        let chosen = self.items.iter().filter(|item| choose(item));
        let files = chosen.filter_map(|item| self.links.get(&item.id)).flatten();
        files
            .filter(|file| !stay.contains(&file.inode) && once.insert(file.inode))
            .map(|file| file.bytes)
            .sum()
    }

    fn layers(&mut self, store: &Store, facts: &Facts) -> Result<()> {
        let (layers, _) = store.list_layers()?;
        let measured: Vec<(LayerId, Usage)> = layers
            .into_par_iter()
            // One that vanishes in between is not there.
            .filter_map(|id| Usage::of(&store.layer_dir(&id)).ok().map(|usage| (id, usage)))
            .collect();
        for (id, usage) in &measured {
            let files: Vec<SharedFile> = usage.shared().collect();
            let shared = files.iter().map(|file| file.bytes).sum();
            self.items.push(facts.layer(id, usage.own(), shared));
            if !files.is_empty() {
                self.links.insert(id.to_string(), files);
            }
        }
        self.shared = self.linked(|_| true, &HashSet::new());
        Ok(())
    }

    fn noted_layers(&mut self, store: &Store, facts: &Facts) -> Result<()> {
        for id in store.list_layers()?.0 {
            let own = facts.noted.get(&SpaceItem::Layer(&id).key()).map_or(0, |noted| noted.bytes);
            self.items.push(facts.layer(&id, own, 0));
        }
        Ok(())
    }

    fn blobs(&mut self, store: &Store, facts: &Facts, measure: Measure) -> Result<()> {
        let on_disk = |digest: &Digest, size: u64| match measure {
            Measure::Disk => {
                fs::metadata(store.blobs().path(digest)).map_or(size, |facts| facts.blocks() * 512)
            }
            Measure::Index => {
                facts.noted.get(&SpaceItem::Blob(digest).key()).map_or(size, |noted| noted.bytes)
            }
        };
        let listed = store.blobs().list()?.into_iter();
        let sizes: HashMap<Digest, u64> =
            listed.map(|(digest, size)| (digest, on_disk(&digest, size))).collect();
        let mut counted: HashSet<Digest> = HashSet::new();
        for record in &facts.pulled {
            let reach = image::reach(store, &record.digest, &|_| false);
            let own: Vec<Digest> = reach
                .blobs
                .into_iter()
                .filter(|blob| !facts.named.contains_key(blob) && sizes.contains_key(blob))
                .filter(|blob| counted.insert(*blob))
                .collect();
            let mut layers = reach
                .layers
                .iter()
                .filter_map(|(diff_id, _)| facts.layers.get(&LayerId::of_diff_id(diff_id)));
            let first = layers.next();
            let known = layers
                .fold(first, |a, b| if a.is_none_or(|a| a.worth < b.worth) { Some(b) } else { a });
            let last_used = known.map_or(record.created, |k| k.last_used.max(record.created));
            self.items.push(Item {
                kind: ItemKind::PulledImage,
                id: record.digest.to_string(),
                name: known.map(|known| known.name.clone()).unwrap_or_default(),
                own: own.iter().filter_map(|blob| sizes.get(blob)).sum(),
                shared: 0,
                last_used,
                rebuild: known.map(|known| known.rebuild).unwrap_or_default(),
                in_use: facts.is_held(Held::Blob(&record.digest)),
                part_of: None,
                replaceable: true,
                rank: Rank {
                    worth: known.map_or(last_used, |known| known.worth.max(last_used)),
                    // After the layers that are unpacked from it.
                    class: 2,
                    dependants: 0,
                },
                place: Place::Pulled(record.name.clone(), record.digest),
            });
        }
        for (digest, size) in sizes {
            if counted.contains(&digest) {
                continue;
            }
            let part_of = facts.named.get(&digest).cloned();
            let packed = facts.packed.get(&digest);
            let known = packed.and_then(|layer| facts.layers.get(layer));
            let download = facts.downloads.get(&digest).copied();
            let last_used = known.map(|known| known.last_used).or(download).unwrap_or(0);
            self.items.push(Item {
                kind: if download.is_some() { ItemKind::Http } else { ItemKind::Blob },
                id: digest.to_string(),
                name: match (known, &part_of) {
                    (Some(known), _) => format!("tar of {}", known.name),
                    (None, Some(image)) => format!("part of {image}"),
                    (None, None) => String::new(),
                },
                own: size,
                shared: 0,
                last_used,
                rebuild: Duration::ZERO,
                in_use: facts.is_held(Held::Blob(&digest)),
                replaceable: part_of.is_none(),
                part_of,
                rank: Rank {
                    // A tar is worth less than its layer, which it is made of in no time.
                    worth: known.map_or(last_used, |known| known.worth),
                    class: 0,
                    dependants: 0,
                },
                place: Place::Blob(digest),
            });
        }
        Ok(())
    }

    fn cache_mounts(&mut self, store: &Store, facts: &Facts, measure: Measure) -> Result<()> {
        for name in store.cache_mounts()? {
            let dir = store.cache_mount_dir(&name);
            let noted = facts.noted.get(&SpaceItem::CacheMount(&name).key());
            let own = match (measure, noted) {
                (Measure::Index, Some(noted)) => noted.bytes,
                _ => match Usage::of(&dir) {
                    Ok(usage) => usage.own(),
                    Err(_) => continue,
                },
            };
            let lock = dir.with_extension("lock");
            let id = store.cache_mount_id(&name);
            let last_used = modified(&lock);
            self.items.push(Item {
                kind: ItemKind::CacheMount,
                id: name.clone(),
                name: id,
                own,
                shared: 0,
                last_used,
                rebuild: Duration::ZERO,
                in_use: facts.can_take && is_locked(&lock),
                part_of: None,
                replaceable: true,
                rank: Rank { worth: last_used, class: 1, dependants: 0 },
                place: Place::CacheMount(name),
            });
        }
        Ok(())
    }

    /// What lies in single files: what is known of contexts, logs, the index.
    fn files(&mut self, store: &Store) {
        let root = store.root();
        for entry in fs::read_dir(root.join("contexts")).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(facts) = entry.metadata() else { continue };
            let id = entry.file_name().to_string_lossy().into_owned();
            let last_used = modified(&path);
            let item = Item::file(ItemKind::Context, &id, facts.blocks() * 512, last_used);
            self.items.push(Item { replaceable: true, place: Place::File(path), ..item });
        }
        for (kind, folder) in [
            (ItemKind::Http, "downloads"),
            (ItemKind::History, "logs"),
            (ItemKind::History, "builds"),
        ] {
            let dir = root.join(folder);
            let Ok(usage) = Usage::of(&dir) else { continue };
            self.items.push(Item::file(kind, folder, usage.own(), modified(&dir)));
        }
        let used = modified(&root.join("index.db"));
        self.items.push(Item::file(ItemKind::Index, "index.db", Self::index_bytes(store), used));
        let tmp = root.join("tmp");
        let (size, used) = (Usage::of_what_changes(&tmp).own(), modified(&tmp));
        self.items.push(Item::file(ItemKind::Temporary, "tmp", size, used));
        self.items.push(Item::file(ItemKind::Other, "rest", rest_bytes(root), 0));
    }

    /// Bytes on disk of the index.
    pub(super) fn index_bytes(store: &Store) -> u64 {
        INDEX.iter().map(|name| disk_bytes(&store.root().join(name))).sum()
    }

    /// Bytes on disk of what is neither in the index nor the index itself.
    pub(super) fn fixed_bytes(store: &Store) -> u64 {
        let mut inventory = Self { items: Vec::new(), shared: 0, links: HashMap::new() };
        inventory.files(store);
        let counts = |item: &&Item| !matches!(item.kind, ItemKind::Index | ItemKind::Temporary);
        inventory.items.iter().filter(counts).map(|item| item.own).sum()
    }

    /// Tells the index what was measured. Only the next look at its sum is the worse for a failure.
    fn note(&self, store: &Store) {
        let rows: Vec<(SpaceItem<'_>, u64)> = self
            .items
            .iter()
            .filter_map(|item| match &item.place {
                Place::Layer(id) => Some((SpaceItem::Layer(id), item.own)),
                Place::CacheMount(name) => Some((SpaceItem::CacheMount(name), item.own)),
                // Blobs have had their rows since they were written.
                Place::Blob(_) | Place::Pulled(..) | Place::File(_) | Place::Fixed => None,
            })
            .collect();
        let _ = store.set_space(&rows, self.shared);
    }
}

impl Item {
    fn file(kind: ItemKind, name: &str, size: u64, last_used: i64) -> Self {
        Self {
            kind,
            id: name.to_owned(),
            name: String::new(),
            own: size,
            shared: 0,
            last_used,
            rebuild: Duration::ZERO,
            in_use: false,
            part_of: None,
            replaceable: false,
            rank: Rank { worth: last_used, class: 0, dependants: 0 },
            place: Place::Fixed,
        }
    }
}

/// The files of the index.
const INDEX: [&str; 3] = ["index.db", "index.db-wal", "index.db-shm"];

/// What lies beside all things: the folders that hold them, locks, what an evictor was killed over.
fn rest_bytes(root: &Path) -> u64 {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sum = disk_bytes(root);
    for entry in entries(root) {
        let is_index = INDEX.iter().any(|name| entry.file_name() == *name);
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && !is_index {
            sum += disk_bytes(&entry.path());
        }
    }
    for folder in ["blobs", "blobs/sha256", "layers", "mounts", "contexts"] {
        sum += disk_bytes(&root.join(folder));
    }
    for folder in ["layers", "mounts"] {
        for entry in entries(&root.join(folder)) {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                sum += Usage::of_what_changes(&entry.path()).own();
            } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                sum += disk_bytes(&entry.path());
            }
        }
    }
    sum
}

/// Bytes on disk of a file, or of a folder without what is in it; 0 if it is not there.
fn disk_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |facts| facts.blocks() * 512)
}

/// What the results say of a layer.
struct Known {
    /// Name of the step that made it.
    name: String,
    rebuild: Duration,
    last_used: i64,
    worth: i64,
    /// How many results have it.
    results: usize,
    /// How many layers the smallest of them has: the one that made it has the fewest.
    depth: usize,
}

/// What the index says, gathered once.
struct Facts {
    noted: HashMap<String, Noted>,
    layers: HashMap<LayerId, Known>,
    pulled: Vec<ImageRecord>,
    /// Blobs of images with names and of containers.
    named: HashMap<Digest, String>,
    /// Layers of those images.
    image_layers: HashMap<LayerId, String>,
    /// Layers by their tars.
    packed: HashMap<Digest, LayerId>,
    /// When downloads were asked for last.
    downloads: HashMap<Digest, i64>,
    taken: Option<Taken>,
    can_take: bool,
}

impl Facts {
    fn gather(store: &Store) -> Result<Self> {
        let mut layers: HashMap<LayerId, Known> = HashMap::new();
        for row in store.result_rows()? {
            let Some(ids) = row.layers else { continue };
            let seconds = i64::try_from(row.millis).unwrap_or(i64::MAX).min(MAX_BONUS);
            let worth = row.last_used.saturating_add(seconds);
            for id in &ids {
                let known = layers.entry(id.clone()).or_insert_with(|| Known {
                    name: String::new(),
                    rebuild: Duration::ZERO,
                    last_used: row.last_used,
                    worth,
                    results: 0,
                    depth: usize::MAX,
                });
                known.last_used = known.last_used.max(row.last_used);
                known.worth = known.worth.max(worth);
                known.results += 1;
                if ids.len() < known.depth {
                    known.depth = ids.len();
                    known.name.clone_from(&row.name);
                    known.rebuild = Duration::from_millis(row.millis);
                }
            }
        }
        let pulled = store.images()?.into_iter().filter(|r| image::is_pulled(&r.name)).collect();
        let (mut named, mut image_layers) = (HashMap::new(), HashMap::new());
        for (root, name) in named_images(store)? {
            let reach = image::reach(store, &root, &|_| false);
            for blob in reach.blobs {
                named.entry(blob).or_insert_with(|| name.clone());
            }
            for (diff_id, _) in reach.layers {
                image_layers.entry(LayerId::of_diff_id(&diff_id)).or_insert_with(|| name.clone());
            }
        }
        let mut packed = HashMap::new();
        for row in store.layer_blob_rows()? {
            if let (Some(layer), Some((blob, _))) = (row.layer, row.digests) {
                if let Some(image) = named.get(&blob) {
                    image_layers.entry(layer.clone()).or_insert_with(|| image.clone());
                }
                packed.insert(blob, layer);
            }
        }
        let downloads = http::notes(store)
            .into_iter()
            .filter_map(|(path, blob)| Some((blob?, modified(&path))))
            .collect();
        // On a read-only disk nothing can be held.
        let taken = store.nothing_taken().ok();
        let noted = store.noted_space()?;
        let can_take = taken.is_some();
        Ok(Self { noted, layers, pulled, named, image_layers, packed, downloads, taken, can_take })
    }

    fn layer(&self, id: &LayerId, own: u64, shared: u64) -> Item {
        let kind = match self.noted.get(&SpaceItem::Layer(id).key()).and_then(|noted| noted.kind) {
            Some(LayerKind::Image) => ItemKind::ImageLayer,
            Some(LayerKind::Context) => ItemKind::Context,
            Some(LayerKind::Git) => ItemKind::Git,
            Some(LayerKind::Http) => ItemKind::Http,
            Some(LayerKind::Step) | None => match id.is_of_image() {
                true => ItemKind::ImageLayer,
                false => ItemKind::Layer,
            },
        };
        let known = self.layers.get(id);
        Item {
            kind,
            id: id.to_string(),
            name: known.map(|known| known.name.clone()).unwrap_or_default(),
            own,
            shared,
            last_used: known.map_or(0, |known| known.last_used),
            rebuild: known.map(|known| known.rebuild).unwrap_or_default(),
            in_use: self.is_held(Held::Layer(id)),
            part_of: self.image_layers.get(id).cloned(),
            replaceable: true,
            rank: Rank {
                worth: known.map_or(0, |known| known.worth),
                class: 1,
                dependants: known.map_or(0, |known| known.results),
            },
            place: Place::Layer(id.clone()),
        }
    }

    fn is_held(&self, what: Held<'_>) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.is_held(what).unwrap_or(true))
    }
}

/// What users gave names to: images and containers.
fn named_images(store: &Store) -> Result<Vec<(Digest, String)>> {
    let images = store.images()?.into_iter().filter(|record| !image::is_pulled(&record.name));
    let mut named: Vec<_> = images.map(|record| (record.digest, record.name)).collect();
    named.extend(store.containers()?.into_iter().map(|c| (c.manifest, c.name)));
    Ok(named)
}

/// The blobs of what users gave names to, which nothing replaces.
pub(super) fn named_blobs(store: &Store) -> Result<HashSet<Digest>> {
    let roots = named_images(store)?;
    Ok(roots.iter().flat_map(|(root, _)| image::reach(store, root, &|_| false).blobs).collect())
}

/// The most seconds by which the time that something took to make lets it count as used later.
const MAX_BONUS: i64 = 30 * 24 * 3600;

fn modified(path: &Path) -> i64 {
    let time = fs::metadata(path).and_then(|facts| facts.modified());
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|d| d.as_secs());
    time.ok().and_then(|time| seconds(time).ok()).map_or(0, |s| s as i64)
}

fn is_locked(lock: &Path) -> bool {
    let file = fs::File::open(lock).map_err(StoreError::io("cannot open", lock));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}
