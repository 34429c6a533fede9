//! An image of the store with other compression: for `rbc push`, since what was built for the local
//! store only is not compressed.

use rayon::prelude::*;
use rbc_ir::Digest;

use super::{
    ExportError, MediaTypes, Origin, OutputKind, OutputSpec,
    blob::{base, compression_of},
    bundle::to_json,
    spec::{BaseLayers, Dest, Format},
};
use crate::{
    image::{
        ConfigFacts, Descriptor, Document, Documents, ImageError, Index, MAX_CONFIG, MAX_MANIFEST,
        Manifest, describe, media_type, store_manifest,
    },
    layer::Packing,
    registry::Stop,
    store::{LayerId, Store},
};

/// Annotation of an attestation with the digest of the image that it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

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
            let descriptor = one(store, &descriptor, manifest, repacking)?;
            Ok(descriptor.digest)
        }
        Document::Index(index) => {
            let mut renamed = Vec::new();
            let mut manifests = Vec::with_capacity(index.manifests.len());
            for child in &index.manifests {
                let mut changed = child.clone();
                let is_image = !child.is_attestation() && store.blobs().has(&child.digest);
                if is_image
                    && let Document::Manifest(manifest) = Document::parse(
                        &store.document(child, MAX_MANIFEST)?,
                        &child.media_type,
                        &child.digest,
                    )?
                {
                    changed = one(store, child, manifest, repacking)?;
                    renamed.push((child.digest.to_string(), changed.digest.to_string()));
                }
                manifests.push(changed);
            }
            if manifests == index.manifests {
                return Ok(*root);
            }
            for child in &mut manifests {
                if let Some(about) = child.annotations.as_mut().and_then(|all| all.get_mut(ABOUT))
                    && let Some((_, now)) = renamed.iter().find(|(before, _)| before == about)
                {
                    about.clone_from(now);
                }
            }
            let kind = index.media_type.clone().unwrap_or_else(|| media_type::INDEX.to_owned());
            let json = to_json(&Index { manifests, ..index });
            Ok(store_manifest(store, &kind, &json)?.digest)
        }
    }
}

/// One platform's image. What its descriptor says beside the digest stays.
fn one(
    store: &Store,
    descriptor: &Descriptor,
    manifest: Manifest,
    repacking: Repacking,
) -> Result<Descriptor, ExportError> {
    let Repacking { compression, compressed } = repacking;
    let kind = manifest.media_type.clone().unwrap_or_else(|| media_type::MANIFEST.to_owned());
    let output = OutputSpec {
        compression,
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
        if stays {
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
    let json = to_json(&Manifest { layers, ..manifest });
    let made = store_manifest(store, &kind, &json)?;
    Ok(Descriptor { digest: made.digest, size: made.size, ..descriptor.clone() })
}
