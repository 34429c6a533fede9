//! The local image store: names for manifests and indexes whose blobs are in the state folder.
//!
//! A name in the index is a normalised reference; an image without one is kept by an internal name
//! with its digest. What was pulled for a build is kept in the same way, but not listed. Blobs
//! that no name leads to any more are removed by [`sweep`], unless a running process holds them.

use std::collections::{BTreeSet, HashSet};

use rbc_ir::{Digest, Platform};

use super::{
    ConfigFacts, Document, ImageError, MAX_CONFIG, MAX_MANIFEST, Reference, Resolved, describe,
    resolve,
};
use crate::{
    source::http,
    store::{Held, ImageRecord, Store},
};

/// Before the digest of an image without a name.
const UNTAGGED: &str = "<none>@";
/// Before the digest of an image that a build has pulled.
const PULLED: &str = "<pulled>@";
/// Fewest digits of an identifier that stand for an image.
const MIN_ID: usize = 4;

/// One line of `rbc images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Short repository name; `None` for an image without a name.
    pub repository: Option<String>,
    /// Tag; `None` for an image without a name.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Digest of the config of the host's image; of the first one if there is none for the host.
    /// `None` if the image is damaged.
    pub id: Option<Digest>,
    /// When the image was made, RFC 3339; empty if not said.
    pub created: String,
    /// Bytes of its blobs, each counted once, for all platforms that the store holds.
    pub size: u64,
    /// The platforms that the store holds.
    pub platforms: Vec<Platform>,
}

/// What [`remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone, in short form.
    pub untagged: Vec<String>,
    /// Blobs that are gone. Those that running processes hold are taken by a later sweep.
    pub deleted: Vec<Digest>,
    /// Bytes freed.
    pub freed: u64,
}

/// All images with names, and those without, sorted by name.
pub fn list(store: &Store) -> Result<Vec<ImageRow>, ImageError> {
    let records = store.images()?;
    let named: HashSet<Digest> =
        records.iter().filter(|r| !is_internal(&r.name)).map(|r| r.digest).collect();
    let mut rows = Vec::new();
    for record in records {
        let reference = record.name.parse::<Reference>().ok();
        let hidden = record.name.starts_with(PULLED)
            || (record.name.starts_with(UNTAGGED) && named.contains(&record.digest));
        if hidden || (reference.is_none() && !is_internal(&record.name)) {
            continue;
        }
        let parts = parts(store, &record.digest)?;
        rows.push(ImageRow {
            repository: reference.as_ref().map(Reference::familiar_name),
            tag: reference.as_ref().and_then(|r| r.tag().map(str::to_owned)),
            digest: record.digest,
            id: parts.id,
            created: parts.created,
            size: parts.size,
            platforms: parts.platforms,
        });
    }
    Ok(rows)
}

/// Finds what a name, a digest or the beginning of an image id stands for. A name goes first.
pub fn find(store: &Store, text: &str) -> Result<Digest, ImageError> {
    let reference = text.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(digest) = digest_of(store, reference)?
    {
        return Ok(digest);
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = (MIN_ID..=64).contains(&hex.len())
        && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id {
        reference?;
        return Err(ImageError::NoSuchImage { name: text.to_owned() });
    }
    let mut found = BTreeSet::new();
    for record in store.images()? {
        let id = config_digest(store, &record.digest)?;
        let fits = |digest: &Digest| digest.hex().starts_with(hex);
        if fits(&record.digest) || id.as_ref().is_some_and(fits) {
            found.insert(record.digest);
        }
    }
    match (found.pop_first(), found.is_empty()) {
        (Some(digest), true) => Ok(digest),
        (Some(_), false) => Err(ImageError::Ambiguous { id: text.to_owned() }),
        (None, _) => Err(ImageError::NoSuchImage { name: text.to_owned() }),
    }
}

/// The manifest or index that a reference stands for in the local store.
fn digest_of(store: &Store, reference: &Reference) -> Result<Option<Digest>, ImageError> {
    let Some(digest) = reference.digest() else {
        return Ok(store.image(&reference.to_string())?.map(|record| record.digest));
    };
    // With a digest only the content counts; a name must have held it, so that names stay honest.
    let of_repository = |name: &str| {
        name.parse::<Reference>().is_ok_and(|r| r.name() == reference.name())
            || name.starts_with(PULLED)
            || name.starts_with(UNTAGGED)
    };
    for record in store.images()?.iter().filter(|record| of_repository(&record.name)) {
        if record.digest == digest || holds(store, &record.digest, &digest)? {
            return Ok(Some(digest));
        }
    }
    Ok(None)
}

/// Whether an index in the store lists a manifest, at any depth, and the manifest is there.
fn holds(store: &Store, root: &Digest, wanted: &Digest) -> Result<bool, ImageError> {
    let mut found = false;
    walk(store, root, &mut |digest, _| found |= digest == wanted);
    Ok(found)
}

/// Finds an image for a platform in the local store. `None` if the name is not there, or if what
/// it stands for lacks that platform's blobs, so that a registry may be asked.
pub fn resolve_local(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
) -> Result<Option<Resolved>, ImageError> {
    let Some(digest) = digest_of(store, reference)? else { return Ok(None) };
    let root = match describe(store, &digest) {
        Err(ImageError::MissingBlob { .. }) => return Ok(None),
        other => other?,
    };
    match resolve(store, &root, platform, &reference.familiar()) {
        Err(ImageError::MissingBlob { .. }) => Ok(None),
        Ok(found) if found.manifest.layers.iter().any(|l| !store.blobs().has(&l.digest)) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Gives another name to an image.
pub fn tag(store: &Store, image: &str, name: &Reference) -> Result<(), ImageError> {
    let digest = find(store, image)?;
    store.put_image(&name.without_digest().to_string(), &digest)?;
    Ok(())
}

/// Keeps an image that has no name.
pub(crate) fn note_untagged(store: &Store, digest: &Digest) -> Result<(), ImageError> {
    Ok(store.put_image(&format!("{UNTAGGED}{digest}"), digest)?)
}

/// Keeps the blobs of an image that was pulled for a build, without listing it.
pub fn note_pulled(store: &Store, digest: &Digest) -> Result<(), ImageError> {
    Ok(store.put_image(&format!("{PULLED}{digest}"), digest)?)
}

/// Lets go of everything that `note_pulled` kept, for pruning. A [`sweep`] then frees the space.
pub fn forget_pulled(store: &Store) -> Result<(), ImageError> {
    for record in store.images()? {
        if record.name.starts_with(PULLED) {
            store.remove_image(&record.name)?;
        }
    }
    Ok(())
}

/// Removes a name, or all names of the image with an id, and then the blobs that nothing needs.
pub fn remove(store: &Store, text: &str) -> Result<Removed, ImageError> {
    let mut removed = Removed::default();
    let by_name = match text.parse::<Reference>() {
        Ok(reference) if reference.digest().is_none() => store.image(&reference.to_string())?,
        _ => None,
    };
    if let Some(ImageRecord { name, .. }) = by_name {
        store.remove_image(&name)?;
        removed.untagged.push(short(&name));
    } else {
        let digest = find(store, text)?;
        let records = store.images()?;
        let mut records = records.iter().filter(|record| record.digest == digest).peekable();
        if records.peek().is_none() {
            // A part of an index has no name of its own to take away.
            return Err(ImageError::NoSuchImage { name: text.to_owned() });
        }
        for record in records {
            store.remove_image(&record.name)?;
            if !is_internal(&record.name) {
                removed.untagged.push(short(&record.name));
            }
        }
    }
    (removed.deleted, removed.freed) = sweep(store)?;
    Ok(removed)
}

/// Removes every blob that no image, no container, no cached layer and no download needs; gives
/// their digests and the bytes freed. What a running process holds is left for a later sweep.
pub fn sweep(store: &Store) -> Result<(Vec<Digest>, u64), ImageError> {
    let mut unneeded = store.blobs().list()?;
    let needed = needed_blobs(store)?;
    unneeded.retain(|(digest, _)| !needed.contains(digest));
    let taken = store.nothing_taken()?;
    let mut free = Vec::new();
    for (digest, size) in unneeded {
        if taken.try_take(Held::Blob(&digest))? {
            free.push((digest, size));
        }
    }
    // Who held one of them a moment ago may have given it a name before letting go.
    let needed = needed_blobs(store)?;
    let (mut gone, mut freed) = (Vec::new(), 0);
    for (digest, size) in free.into_iter().filter(|(digest, _)| !needed.contains(digest)) {
        store.blobs().remove(&digest)?;
        gone.push(digest);
        freed += size;
    }
    gone.sort();
    Ok((gone, freed))
}

fn needed_blobs(store: &Store) -> Result<HashSet<Digest>, ImageError> {
    let mut needed: HashSet<Digest> = store.layer_blob_digests()?.into_iter().collect();
    needed.extend(http::notes(store).into_iter().filter_map(|(_, blob)| blob));
    let roots = store.images()?.into_iter().map(|image| image.digest);
    let containers = store.containers()?.into_iter().map(|container| container.manifest);
    for root in roots.chain(containers) {
        walk(store, &root, &mut |digest, _| {
            needed.insert(*digest);
        });
    }
    Ok(needed)
}

/// Digest of the config of the host's image of a manifest or index.
pub(super) fn config_digest(store: &Store, root: &Digest) -> Result<Option<Digest>, ImageError> {
    Ok(parts(store, root)?.id)
}

struct Parts {
    id: Option<Digest>,
    created: String,
    size: u64,
    platforms: Vec<Platform>,
}

/// What `rbc images` shows of an image. A damaged one is shown without its details.
fn parts(store: &Store, root: &Digest) -> Result<Parts, ImageError> {
    let mut out = Parts { id: None, created: String::new(), size: 0, platforms: Vec::new() };
    let mut counted = HashSet::new();
    let mut configs = Vec::new();
    walk(store, root, &mut |digest, part| {
        if counted.insert(*digest) {
            out.size += store.blobs().peek_size(digest).unwrap_or(0);
        }
        if part == Part::Config {
            configs.push(*digest);
        }
    });
    let host = Platform::host();
    for digest in configs {
        let Some(json) = store.blobs().peek(&digest, MAX_CONFIG) else { continue };
        let (Ok((_, platform)), Ok(facts)) =
            (rbc_ir::ImageConfig::from_json(&json), ConfigFacts::parse(&json, &digest))
        else {
            continue;
        };
        if out.id.is_none() || (platform == host && !out.platforms.contains(&host)) {
            out.id = Some(digest);
            out.created = facts.created;
        }
        out.platforms.push(platform);
    }
    Ok(out)
}

/// What a blob is within an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Manifest,
    Config,
    Layer,
    /// A part of an attestation.
    Other,
}

/// Visits everything that a manifest or index in the store leads to, without holding it. What is
/// missing or damaged leads nowhere.
fn walk(store: &Store, root: &Digest, visit: &mut dyn FnMut(&Digest, Part)) {
    let mut pending = vec![(*root, String::new(), false)];
    let mut seen = HashSet::new();
    while let Some((digest, media_type, about)) = pending.pop() {
        if !seen.insert(digest) {
            continue;
        }
        let Some(bytes) = store.blobs().peek(&digest, MAX_MANIFEST) else { continue };
        visit(&digest, Part::Manifest);
        match Document::parse(&bytes, &media_type, &digest) {
            Ok(Document::Index(index)) => {
                pending.extend(index.manifests.into_iter().rev().map(|child| {
                    let about = child.is_attestation();
                    (child.digest, child.media_type, about)
                }));
            }
            Ok(Document::Manifest(manifest)) => {
                visit(&manifest.config.digest, if about { Part::Other } else { Part::Config });
                for layer in &manifest.layers {
                    visit(&layer.digest, if about { Part::Other } else { Part::Layer });
                }
            }
            Err(_) => {}
        }
    }
}

/// Whether a name keeps an image that a build has pulled.
pub(crate) fn is_pulled(name: &str) -> bool {
    name.starts_with(PULLED)
}

fn is_internal(name: &str) -> bool {
    name.starts_with(UNTAGGED) || name.starts_with(PULLED)
}

fn short(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
