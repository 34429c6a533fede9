//! `rbc fsck`: verifies every digest that the state folder records, and drops what is bad.
//!
//! Whatever is dropped is made, unpacked or fetched again when it is needed, except for the names of
//! images whose parts are gone. The order matters: a bad blob makes the images that need it bad, a
//! bad layer the results that need it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rayon::prelude::*;
use rbc_ir::Digest;
use sha2::Digest as _;

use crate::{
    image::{self, ImageError},
    layer::{self, TarOptions},
    source::http,
    store::{Held, LayerId, Result, Store, StoreError, Taken, remove_tree},
    tree::StatIndex,
};

/// Temporary files that are older than this belong to nobody any more.
const TEMPORARY: Duration = Duration::from_secs(3600);

/// What is done about what is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMode {
    /// Nothing.
    Report,
    /// It is dropped.
    Repair,
}

/// What something bad is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The index itself.
    Index,
    /// A blob.
    Blob,
    /// A layer.
    Layer,
    /// A cached result.
    Result,
    /// The note which blob a layer has as a tar.
    LayerBlob,
    /// A name of an image.
    Image,
    /// A container.
    Container,
    /// The note of a download.
    Download,
    /// The stat index of a context.
    Context,
}

impl Kind {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Result => "result",
            Self::LayerBlob => "layer-blob",
            Self::Image => "image",
            Self::Container => "container",
            Self::Download => "download",
            Self::Context => "context",
        }
    }
}

/// What was done about something bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing was asked for.
    None,
    /// It is gone.
    Dropped,
    /// A running process uses it.
    InUse,
    /// It could not be done.
    Failed(String),
}

/// Something bad.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub id: String,
    /// What is wrong with it.
    pub problem: String,
    /// What was done about it.
    pub repair: Repair,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Blobs whose digest was computed.
    pub blobs: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Layers that are there.
    pub layers: usize,
    /// Layers whose content was compared with a digest: those that are known as a tar.
    pub verified_layers: usize,
    /// Cached results.
    pub results: usize,
    /// Names of images.
    pub images: usize,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How much was looked at.
    pub checked: Checked,
    /// What is bad.
    pub bad: Vec<Finding>,
    /// What killed processes left behind. It harms nobody.
    pub leftovers: Vec<PathBuf>,
}

impl Report {
    /// Whether nothing bad is left.
    pub fn is_sound(&self) -> bool {
        self.bad.iter().all(|finding| finding.repair == Repair::Dropped)
    }
}

/// Checks the state folder, and drops what is bad if `mode` says so.
///
/// # Errors
/// If the folder or its index cannot be read at all.
pub fn check(store: &Store, mode: CheckMode) -> Result<Report> {
    let mut check = Check {
        store,
        mode,
        report: Report::default(),
        bad_blobs: HashSet::new(),
        bad_layers: HashSet::new(),
    };
    check.index()?;
    check.blobs()?;
    // What layers are verified by is dropped only after that.
    check.layers()?;
    check.layer_blobs()?;
    check.images()?;
    check.results()?;
    check.small_files();
    check.leftovers();
    let mut report = check.report;
    report.bad.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    report.leftovers.sort();
    Ok(report)
}

struct Check<'a> {
    store: &'a Store,
    mode: CheckMode,
    report: Report,
    bad_blobs: HashSet<Digest>,
    bad_layers: HashSet<LayerId>,
}

impl Check<'_> {
    /// Notes something bad and drops it with `drop`.
    fn bad(&mut self, kind: Kind, id: String, problem: String, drop: impl FnOnce() -> Result<()>) {
        self.bad_or_held(kind, id, problem, || drop().map(|()| true));
    }

    /// As [`Check::bad`] for what a process may hold: `drop` gives `false` then.
    fn bad_or_held(
        &mut self,
        kind: Kind,
        id: String,
        problem: String,
        drop: impl FnOnce() -> Result<bool>,
    ) {
        let repair = match self.mode {
            CheckMode::Report => Repair::None,
            CheckMode::Repair => match drop() {
                Ok(true) => Repair::Dropped,
                Ok(false) => Repair::InUse,
                Err(error) => Repair::Failed(error.to_string()),
            },
        };
        self.report.bad.push(Finding { kind, id, problem, repair });
    }

    fn index(&mut self) -> Result<()> {
        if let Some(fault) = self.store.salvaged() {
            self.bad(Kind::Index, "index.db".to_owned(), fault.to_owned(), || Ok(()));
        }
        let faults = self.store.index_faults()?;
        if let Some(first) = faults.first() {
            let more = match faults.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let store = self.store;
            self.bad(Kind::Index, "index.db".to_owned(), format!("{first}{more}"), || {
                store.rebuild_index()
            });
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        let store = self.store;
        let listed = store.blobs().list()?;
        let hashed: Vec<(Digest, u64, io::Result<Digest>)> = listed
            .into_par_iter()
            .map(|(digest, size)| (digest, size, hash_file(&store.blobs().path(&digest))))
            .collect();
        for (digest, size, actual) in hashed {
            let problem = match actual {
                Ok(actual) if actual == digest => None,
                Ok(actual) => Some(format!("its content has digest {actual}")),
                // Removed while we looked.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => Some(format!("cannot be read: {e}")),
            };
            self.report.checked.blobs += 1;
            self.report.checked.bytes += size;
            if let Some(problem) = problem {
                self.bad_blobs.insert(digest);
                self.bad_or_held(Kind::Blob, digest.to_string(), problem, || {
                    take(store, Held::Blob(&digest), |_| store.blobs().remove(&digest))
                });
            }
        }
        Ok(())
    }

    fn layer_blobs(&mut self) -> Result<()> {
        let store = self.store;
        for row in store.layer_blob_rows()? {
            let name = row.layer.as_ref().map_or("?", LayerId::as_str).to_owned();
            let problem = match row.digests {
                None => "cannot be read".to_owned(),
                Some((blob, _)) if self.bad_blobs.contains(&blob) => {
                    format!("blob {blob} is damaged")
                }
                Some((blob, _)) => match store.blobs().peek_size(&blob) {
                    None => format!("blob {blob} is missing"),
                    Some(size) if size != row.size => {
                        format!("blob {blob} has {size} bytes instead of {}", row.size)
                    }
                    Some(_) => continue,
                },
            };
            self.bad(Kind::LayerBlob, name, problem, || store.drop_layer_blob(&row));
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        let store = self.store;
        let records = store.images()?;
        self.report.checked.images = records.len();
        for record in records {
            if let Some(problem) = self.lack(&record.digest) {
                self.bad(Kind::Image, record.name.clone(), problem, || {
                    store.remove_image_of(&record.name, &record.digest)
                });
            }
        }
        for container in store.containers()? {
            if let Some(problem) = self.lack(&container.manifest) {
                self.bad(Kind::Container, container.name.clone(), problem, || {
                    store.remove_container(&container.name).map(drop)
                });
            }
        }
        Ok(())
    }

    /// What an image lacks.
    fn lack(&self, root: &Digest) -> Option<String> {
        let missing = image::reach(self.store, root, &|d| self.bad_blobs.contains(d)).missing;
        let first = missing.first()?;
        let what = if self.bad_blobs.contains(first) { "damaged" } else { "missing" };
        Some(match missing.len() {
            1 => format!("blob {first} is {what}"),
            n => format!("blob {first} is {what}, and {} more", n - 1),
        })
    }

    fn layers(&mut self) -> Result<()> {
        let store = self.store;
        let (layers, strays) = store.list_layers()?;
        self.report.leftovers.extend(strays);
        self.report.checked.layers = layers.len();
        let tars = self.tars()?;
        let unpacked = self.unpacked_from()?;
        let verified: Vec<(LayerId, Verdict)> = layers
            .into_par_iter()
            .map(|id| {
                let verdict = match (tars.get(&id), unpacked.get(&id)) {
                    (Some((epoch, diff_id)), _) => verify_tar(store, &id, *epoch, diff_id),
                    (None, Some(blob)) => verify_unpacked(store, &id, blob),
                    (None, None) => Verdict::Unknown,
                };
                (id, verdict)
            })
            .collect();
        for (id, verdict) in verified {
            match verdict {
                Verdict::Unknown => {}
                Verdict::Sound => self.report.checked.verified_layers += 1,
                // Evicted while we looked.
                Verdict::Bad(_) if !store.peek_layer(&id) => {}
                Verdict::Bad(problem) => {
                    self.report.checked.verified_layers += 1;
                    self.bad_layers.insert(id.clone());
                    self.bad_or_held(Kind::Layer, id.to_string(), problem, || {
                        take(store, Held::Layer(&id), |_| store.remove_layer(&id).map(drop))
                    });
                }
            }
        }
        Ok(())
    }

    /// For layers that were exported: the time it was done with and the diff ID.
    fn tars(&self) -> Result<HashMap<LayerId, (Option<i64>, Digest)>> {
        let rows = self.store.layer_blob_rows()?;
        // Those of base images were packed again from their blobs, not from the layer.
        let own = rows.into_iter().filter(|row| !row.compression.starts_with("again-"));
        Ok(own.filter_map(|row| Some((row.layer?, (row.epoch, row.digests?.1)))).collect())
    }

    /// The blobs that layers of images were unpacked from, as far as they are there and sound.
    fn unpacked_from(&self) -> Result<HashMap<LayerId, Digest>> {
        let is_gone = |digest: &Digest| self.bad_blobs.contains(digest);
        let mut out = HashMap::new();
        for record in self.store.images()? {
            for (diff_id, blob) in image::reach(self.store, &record.digest, &is_gone).layers {
                if !is_gone(&blob) && self.store.blobs().peek_size(&blob).is_some() {
                    out.insert(LayerId::of_diff_id(&diff_id), blob);
                }
            }
        }
        Ok(out)
    }

    fn results(&mut self) -> Result<()> {
        let store = self.store;
        let rows = store.result_rows()?;
        self.report.checked.results = rows.len();
        for row in rows {
            let problem = match &row.layers {
                None => "cannot be read".to_owned(),
                Some(layers) => {
                    let is_gone =
                        |id: &&LayerId| self.bad_layers.contains(*id) || !store.peek_layer(id);
                    match layers.iter().find(is_gone) {
                        Some(id) if self.bad_layers.contains(id) => {
                            format!("layer {id} is damaged")
                        }
                        Some(id) => format!("layer {id} is missing"),
                        None => continue,
                    }
                }
            };
            if store.is_result_of_now(&row)? {
                let name = if row.name.is_empty() { "(without a name)" } else { &row.name };
                self.bad(Kind::Result, name.to_owned(), problem, || store.drop_result(&row));
            }
        }
        Ok(())
    }

    /// Notes of downloads and stat indexes of contexts.
    fn small_files(&mut self) {
        let store = self.store;
        for (path, blob) in http::notes(store) {
            if is_digest_name(&path) && blob.is_none() {
                self.bad_file(Kind::Download, &path);
            }
        }
        for path in files_in(&store.root().join("contexts")) {
            if is_digest_name(&path) && !StatIndex::is_intact(&path) {
                self.bad_file(Kind::Context, &path);
            }
        }
    }

    fn bad_file(&mut self, kind: Kind, path: &Path) {
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.bad(kind, id, "it is damaged".to_owned(), || {
            fs::remove_file(path).map_err(StoreError::io("cannot remove", path))
        });
    }

    fn leftovers(&mut self) {
        let root = self.store.root();
        self.report.leftovers.extend(self.store.leftovers());
        let hidden = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        self.report.leftovers.extend(files_in(&root.join("mounts")).filter(hidden));
        for folder in ["contexts", "downloads", "blobs/sha256"] {
            let temporary = |path: &PathBuf| !is_digest_name(path) && is_old(path);
            self.report.leftovers.extend(files_in(&root.join(folder)).filter(temporary));
        }
        if self.mode == CheckMode::Repair {
            for path in &self.report.leftovers {
                // What cannot be removed is told again by the next check.
                let _ = match fs::symlink_metadata(path) {
                    Ok(facts) if facts.is_dir() => remove_tree(path).map(drop),
                    _ => fs::remove_file(path),
                };
            }
        }
    }
}

/// What is known of a layer's content.
enum Verdict {
    /// There is no digest to compare it with.
    Unknown,
    Sound,
    Bad(String),
}

/// Packs a layer again and compares the digest.
fn verify_tar(store: &Store, id: &LayerId, epoch: Option<i64>, diff_id: &Digest) -> Verdict {
    match tar_digest(&store.layer_dir(id), epoch) {
        Ok(actual) if actual == *diff_id => Verdict::Sound,
        Ok(actual) => Verdict::Bad(format!("its diff ID is {actual} instead of {diff_id}")),
        Err(error) => Verdict::Bad(error.to_string()),
    }
}

fn tar_digest(dir: &Path, epoch: Option<i64>) -> std::result::Result<Digest, layer::LayerError> {
    let mut hash = Hash(sha2::Sha256::new());
    layer::write_tar(dir, &mut hash, &TarOptions { source_date_epoch: epoch })?;
    Ok(Digest::from_bytes(hash.0.finalize().into()))
}

/// Unpacks a layer of an image again and compares the files.
fn verify_unpacked(store: &Store, id: &LayerId, blob: &Digest) -> Verdict {
    let compare = || -> std::result::Result<bool, ImageError> {
        let staging = store.tmp_dir()?;
        let dir = staging.path().join("layer");
        fs::create_dir(&dir).map_err(ImageError::io(&dir))?;
        let path = store.blobs().path(blob);
        let file = File::open(&path).map_err(ImageError::io(&path))?;
        let failed =
            |error: layer::LayerError| ImageError::Layer { blob: *blob, reason: error.to_string() };
        layer::apply_tar(file, &dir).map_err(failed)?;
        // Folders that the blob does not list have the time of their making, so all times are cut
        // down to the same one.
        let digest = |dir: &Path| tar_digest(dir, Some(0)).map_err(failed);
        Ok(digest(&dir)? == digest(&store.layer_dir(id))?)
    };
    match compare() {
        Ok(true) => Verdict::Sound,
        Ok(false) => Verdict::Bad(format!("its files are not those of blob {blob}")),
        // The blob was evicted, or there is no place to unpack it to: nothing is known.
        Err(_) => Verdict::Unknown,
    }
}

/// Does something with what nobody holds; `false` if somebody does.
fn take(store: &Store, what: Held<'_>, act: impl FnOnce(&Taken) -> Result<()>) -> Result<bool> {
    let taken = store.nothing_taken()?;
    if !taken.try_take(what)? {
        return Ok(false);
    }
    act(&taken)?;
    Ok(true)
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut hash = Hash(sha2::Sha256::new());
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hash.0.finalize().into())),
            n => hash.0.update(&buffer[..n]),
        }
    }
}

struct Hash(sha2::Sha256);

impl io::Write for Hash {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn files_in(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_digest_name(path: &Path) -> bool {
    path.file_name().and_then(|name| Digest::from_hex(name.to_str()?).ok()).is_some()
}

fn is_old(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|facts| facts.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|d| d > TEMPORARY))
}

#[cfg(test)]
mod tests;
