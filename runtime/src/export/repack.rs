//! An image of the store with other compression: for `rbc push`, since what was built for the local
//! store only is not compressed.

use rayon::prelude::*;
use rbc_ir::Digest;
use serde_json::{Value, json};

use super::{
    ExportError, MediaTypes, Origin, OutputKind, OutputSpec,
    blob::{base, compression_of},
    spec::{BaseLayers, Dest, Format},
};
use crate::{
    attest::{ABOUT, Attestation, MAX_STATEMENT},
    image::{
        ConfigFacts, Descriptor, Document, Documents, ImageError, MAX_CONFIG, MAX_MANIFEST,
        Manifest, describe, media_type, store_manifest,
    },
    layer::Packing,
    registry::Stop,
    store::{LayerId, Store},
};

/// What is packed again, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repacking {
    /// Compression of the layers.
    pub compression: Packing,
    /// Whether layers that have another compression get this one too, or only those without any.
    pub compressed: BaseLayers,
}

/// Makes sure that the layers of an image are compressed. Gives the digest of its manifest or
/// index, which is `root` if nothing had to change. All that is new is in the store.
///
/// # Errors
/// If a part of the image is missing or damaged.
pub fn repack(store: &Store, root: &Digest, repacking: Repacking) -> Result<Digest, ExportError> {
    let descriptor = describe(store, root)?;
    let bytes = store.document(&descriptor, MAX_MANIFEST)?;
    match Document::parse(&bytes, "", root)? {
        Document::Manifest(manifest) => {
            let descriptor = one(store, &descriptor, &bytes, manifest, repacking)?;
            Ok(descriptor.digest)
        }
        Document::Index(index) => {
            let mut renamed = Vec::new();
            let mut manifests = Vec::with_capacity(index.manifests.len());
            for child in &index.manifests {
                let mut changed = child.clone();
                let is_image = !child.is_attestation() && store.blobs().has(&child.digest);
                if is_image {
                    let bytes = store.document(child, MAX_MANIFEST)?;
                    let document = Document::parse(&bytes, &child.media_type, &child.digest)?;
                    if let Document::Manifest(manifest) = document {
                        changed = one(store, child, &bytes, manifest, repacking)?;
                        renamed.push((child.digest.to_string(), changed.clone()));
                    }
                }
                manifests.push(changed);
            }
            if manifests == index.manifests {
                return Ok(*root);
            }
            for child in &mut manifests {
                let about = child.annotation(ABOUT).map(str::to_owned);
                let now = renamed.iter().find(|(before, _)| Some(before) == about.as_ref());
                if let Some((before, now)) = now {
                    *child = restate(store, child, before, now)?;
                }
            }
            let kind = index.media_type.clone().unwrap_or_else(|| media_type::INDEX.to_owned());
            let mut json: Value = parse(&bytes, root)?;
            put_descriptors(&mut json["manifests"], &manifests);
            Ok(store_manifest(store, &kind, json.to_string().as_bytes())?.digest)
        }
    }
}

/// The entry of a manifest of statements after the image that it is about has changed.
fn restate(
    store: &Store,
    child: &Descriptor,
    before: &str,
    now: &Descriptor,
) -> Result<Descriptor, ExportError> {
    let mut changed = child.clone();
    if store.blobs().has(&child.digest) {
        let bytes = store.document(child, MAX_MANIFEST)?;
        let read = |statement: &Descriptor| store.document(statement, MAX_STATEMENT).ok();
        if let Some(made) = Attestation::moved(&bytes, &read, before, now) {
            for document in &made.documents {
                store.blobs().write(document)?;
            }
            (changed.digest, changed.size) = (made.descriptor.digest, made.descriptor.size);
        }
    }
    if let Some(about) = changed.annotations.as_mut().and_then(|all| all.get_mut(ABOUT)) {
        *about = now.digest.to_string();
    }
    Ok(changed)
}

fn parse(bytes: &[u8], digest: &Digest) -> Result<Value, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::BadManifest { digest: *digest, reason: error.to_string() })
}

/// Puts what is new of descriptors into the list that they were read from; what rbc does not know of
/// (`urls`, `data`, `artifactType`) stays.
fn put_descriptors(list: &mut Value, descriptors: &[Descriptor]) {
    let Value::Array(list) = list else { return };
    for (old, new) in list.iter_mut().zip(descriptors) {
        if let (Value::Object(old), Value::Object(new)) = (old, json!(new)) {
            old.extend(new);
        }
    }
}

/// One platform's image. What its descriptor says beside the digest stays.
fn one(
    store: &Store,
    descriptor: &Descriptor,
    bytes: &[u8],
    manifest: Manifest,
    repacking: Repacking,
) -> Result<Descriptor, ExportError> {
    let Repacking { compression, compressed } = repacking;
    let kind = manifest.media_type.clone().unwrap_or_else(|| media_type::MANIFEST.to_owned());
    let output = OutputSpec {
        recipe: compression.into(),
        base_layers: BaseLayers::Recompress,
        media_types: match kind.as_str() {
            media_type::DOCKER_MANIFEST => MediaTypes::Docker,
            _ => MediaTypes::Oci,
        },
        ..OutputSpec::new(OutputKind::Image(Format::Store), Dest::Stdout)
    };
    let facts = ConfigFacts::parse(
        &store.document(&manifest.config, MAX_CONFIG)?,
        &manifest.config.digest,
    )?;
    if facts.diff_ids.len() != manifest.layers.len() {
        let (layers, diff_ids) = (manifest.layers.len(), facts.diff_ids.len());
        return Err(ImageError::LayerCount { manifest: descriptor.digest, layers, diff_ids }.into());
    }
    let layers = manifest.layers.par_iter().zip(&facts.diff_ids).map(|(layer, diff_id)| {
        let now = compression_of(&layer.media_type);
        let stays = now == compression || (now != Packing::None && compressed == BaseLayers::Keep);
        // Those of others are named as they are published.
        if stays || media_type::is_foreign(&layer.media_type) {
            return Ok(layer.clone());
        }
        let origin = Origin { descriptor: layer.clone(), diff_id: *diff_id };
        let packed =
            base(store, &LayerId::of_diff_id(diff_id), &origin, &output, &Stop::default())?;
        Ok(Descriptor { annotations: layer.annotations.clone(), ..packed.descriptor })
    });
    let layers: Vec<Descriptor> = layers.collect::<Result<_, ExportError>>()?;
    if layers == manifest.layers {
        return Ok(descriptor.clone());
    }
    let mut json = parse(bytes, &descriptor.digest)?;
    put_descriptors(&mut json["layers"], &layers);
    let made = store_manifest(store, &kind, json.to_string().as_bytes())?;
    Ok(Descriptor { digest: made.digest, size: made.size, ..descriptor.clone() })
}
