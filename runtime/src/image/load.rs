//! `rbc load`: images from OCI layouts and from `docker save` archives.

use std::{collections::HashMap, io::Read, path::PathBuf};

use rayon::prelude::*;
use rbc_ir::{Digest, Platform};
use serde::Deserialize;

use super::{
    ConfigFacts, Descriptor, ImageError, Layout, MAX_CONFIG, MAX_MANIFEST, Manifest, Reference,
    bundle::Bundle,
    content, describe, local,
    manifest::{ANNOTATION_NAME, ANNOTATION_REF},
    media_type, resolve, store_manifest, unpack,
};
use crate::{
    archive::{self, Compression},
    store::Store,
};

/// Where an archive is read from.
pub enum Source<'a> {
    /// A file, or a folder with an OCI layout.
    Path(PathBuf),
    /// Standard input or another pipe.
    Stream(&'a mut (dyn Read + Send)),
}

/// An image that is now in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// The names it has got; none if the archive gave it none.
    pub names: Vec<Reference>,
}

/// One line of a Docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Puts all images of an archive into the store, unpacks those that this machine runs, so that a
/// build on one begins at once, and gives them their names. Nothing gets a name unless every blob of
/// every image was there and was what its digest says. What cannot be unpacked for other reasons, for
/// want of room perhaps, is there nevertheless.
pub fn load(store: &Store, source: Source<'_>) -> Result<Vec<Loaded>, ImageError> {
    let bundle = match source {
        Source::Path(path) => Bundle::open(store, &path)?,
        Source::Stream(input) => Bundle::from_stream(store, "standard input".to_owned(), input)?,
    };
    let loaded = match Layout::from_bundle(bundle)? {
        Ok(layout) => load_layout(store, &layout)?,
        Err(bundle) => load_docker(store, &bundle)?,
    };
    for image in &loaded {
        unpack_for_host(store, &image.digest)?;
    }
    for image in &loaded {
        if image.names.is_empty() {
            local::note_untagged(store, &image.digest)?;
        }
        for name in &image.names {
            store.put_image(&name.to_string(), &image.digest)?;
        }
    }
    Ok(loaded)
}

/// Unpacks an image, of an index the one for this machine. If there is none, as an archive may hold
/// some images of an index only, there is nothing to unpack before one is used.
fn unpack_for_host(store: &Store, digest: &Digest) -> Result<(), ImageError> {
    let (root, host) = (describe(store, digest)?, Platform::host());
    let unpacked = match resolve(store, &root, &host, &digest.to_string()) {
        // One that is not in an index is found whatever its platform.
        Ok(found) if found.platform.architecture != host.architecture => Ok(Vec::new()),
        Ok(found) => unpack(store, &found.descriptor.digest),
        Err(ImageError::NoPlatform { .. } | ImageError::MissingBlob { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    match unpacked {
        // Who uses it is told.
        Err(ImageError::Store(_) | ImageError::Layer { .. } | ImageError::Io { .. }) => Ok(()),
        unpacked => unpacked.map(drop),
    }
}

fn load_layout(store: &Store, layout: &Layout) -> Result<Vec<Loaded>, ImageError> {
    let mut loaded: Vec<Loaded> = Vec::new();
    for descriptor in layout.images() {
        if descriptor.is_attestation() {
            continue;
        }
        let name = layout_name(descriptor)?;
        let place = loaded.iter().position(|image| image.digest == descriptor.digest);
        let place = match place {
            Some(place) => place,
            None => {
                layout.import(store, descriptor)?;
                loaded.push(Loaded { digest: descriptor.digest, names: Vec::new() });
                loaded.len() - 1
            }
        };
        let names = &mut loaded[place].names;
        names.extend(name.filter(|name| !names.contains(name)).into_iter().collect::<Vec<_>>());
    }
    if loaded.is_empty() {
        return Err(layout.bundle().error("it holds no image"));
    }
    name_by_repo_tags(store, layout.bundle(), &mut loaded)?;
    Ok(loaded)
}

/// The name that annotations give to an image of a layout. A reference name that is only a tag
/// names nothing by itself.
fn layout_name(descriptor: &Descriptor) -> Result<Option<Reference>, ImageError> {
    if let Some(name) = descriptor.annotation(ANNOTATION_NAME) {
        return Ok(Some(name.parse::<Reference>()?.without_digest()));
    }
    Ok(descriptor
        .annotation(ANNOTATION_REF)
        .filter(|name| name.contains(['/', ':']))
        .and_then(|name| name.parse::<Reference>().ok())
        .map(|name| name.without_digest()))
}

/// A layout that is a Docker archive too may have its names only in `manifest.json`.
fn name_by_repo_tags(
    store: &Store,
    bundle: &Bundle,
    loaded: &mut [Loaded],
) -> Result<(), ImageError> {
    if loaded.iter().all(|image| !image.names.is_empty()) {
        return Ok(());
    }
    let Some(saved) = read_saved(bundle)? else { return Ok(()) };
    let by_config: HashMap<&str, &Saved> =
        saved.iter().map(|saved| (saved.config.as_str(), saved)).collect();
    for image in loaded.iter_mut().filter(|image| image.names.is_empty()) {
        let Some(config) = local::config_digest(store, &image.digest)? else { continue };
        if let Some(saved) = by_config.get(format!("blobs/sha256/{}", config.hex()).as_str()) {
            image.names = repo_tags(saved)?;
        }
    }
    Ok(())
}

fn read_saved(bundle: &Bundle) -> Result<Option<Vec<Saved>>, ImageError> {
    let Some(json) = bundle.read("manifest.json", MAX_MANIFEST)? else { return Ok(None) };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| bundle.error(format!("manifest.json: {error}")))
}

fn repo_tags(saved: &Saved) -> Result<Vec<Reference>, ImageError> {
    let mut names: Vec<Reference> = Vec::new();
    for tag in saved.repo_tags.iter().flatten() {
        let name: Reference = tag.parse()?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn load_docker(store: &Store, bundle: &Bundle) -> Result<Vec<Loaded>, ImageError> {
    let Some(saved) = read_saved(bundle)? else {
        return Err(bundle.error(
            "it is no image archive: it has neither index.json (OCI layout) nor manifest.json \
             (docker save)",
        ));
    };
    if saved.is_empty() {
        return Err(bundle.error("it holds no image"));
    }
    saved
        .iter()
        .map(|saved| {
            let digest = load_saved(store, bundle, saved)?;
            Ok(Loaded { digest, names: repo_tags(saved)? })
        })
        .collect()
}

/// Stores one image of a Docker archive under a manifest made for it.
fn load_saved(store: &Store, bundle: &Bundle, saved: &Saved) -> Result<Digest, ImageError> {
    let missing = |name: &str| bundle.error(format!("{name} is missing"));
    let config_json =
        bundle.read(&saved.config, MAX_CONFIG)?.ok_or_else(|| missing(&saved.config))?;
    check_name(&saved.config, &Digest::of(&config_json))?;
    let config = store_manifest(store, media_type::CONFIG, &config_json)?;
    let facts = ConfigFacts::parse(&config_json, &config.digest)?;
    let names = saved.layers.as_deref().unwrap_or_default();
    if names.len() != facts.diff_ids.len() {
        return Err(bundle.error(format!(
            "manifest.json lists {} layers for {}, but that has {} diff IDs",
            names.len(),
            saved.config,
            facts.diff_ids.len()
        )));
    }
    let layers = names
        .par_iter()
        .zip(&facts.diff_ids)
        .map(|(name, diff_id)| {
            let (mut input, _) = bundle.open_file(name)?.ok_or_else(|| missing(name))?;
            store_layer(store, bundle, name, &mut input, diff_id)
        })
        .collect::<Result<Vec<_>, ImageError>>()?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config,
        layers,
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| bundle.error(format!("cannot make a manifest: {error}")))?;
    Ok(store_manifest(store, media_type::MANIFEST, &bytes)?.digest)
}

/// Stores a layer file as it is. The digest of a plain one is its diff ID, so it is checked here;
/// a compressed one is checked when it is unpacked.
fn store_layer(
    store: &Store,
    bundle: &Bundle,
    name: &str,
    input: &mut dyn Read,
    diff_id: &Digest,
) -> Result<Descriptor, ImageError> {
    let failed = |error: std::io::Error| bundle.error(format!("{name}: {error}"));
    let mut head = Vec::new();
    input.take(16).read_to_end(&mut head).map_err(failed)?;
    let (kind, plain) = match archive::detect(&head) {
        None => (media_type::LAYER, true),
        Some(Compression::Gzip) => (media_type::LAYER_GZIP, false),
        Some(Compression::Zstd) => (media_type::LAYER_ZSTD, false),
        Some(Compression::Xz | Compression::Bzip2) => {
            return Err(bundle.error(format!("{name}: layers are plain, gzip or zstd only")));
        }
    };
    let mut writer = store.blobs().writer()?;
    content::copy(&mut head.as_slice().chain(input), &mut writer).map_err(failed)?;
    let (digest, size) = content::publish(store, writer, plain.then_some(*diff_id))?;
    check_name(name, &digest)?;
    Ok(Descriptor { media_type: kind.to_owned(), digest, size, annotations: None, platform: None })
}

/// A file that is named by a digest must have it: `blobs/sha256/<hex>`, `<hex>.json`, `<hex>.tar`.
fn check_name(name: &str, got: &Digest) -> Result<(), ImageError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let stem = last.strip_suffix(".json").unwrap_or(last);
    match Digest::from_hex(stem) {
        Ok(want) if want != *got => Err(ImageError::WrongDigest { want, got: *got }),
        _ => Ok(()),
    }
}
