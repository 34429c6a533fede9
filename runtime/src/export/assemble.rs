//! From targets to manifests: configs, image manifests, and an index for several platforms.

use rbc_ir::Digest;

use super::{
    AnnotationPlace, Bundle, ExportError, ExportOptions, MediaTypes, Naming, OutputSpec, Target,
    blob::{self, LayerBlob},
    bundle::to_json,
};
use crate::{
    attest::Attestation,
    image::{Descriptor, Index, Manifest, PlatformJson, Reference, media_type},
    store::Store,
};

/// An image that is ready to be written. Its layer blobs are in the store.
pub(super) struct Assembled {
    /// The manifest, or the index of several.
    pub(super) root: Descriptor,
    /// When the image was made, RFC 3339.
    pub(super) created: String,
    platforms: Vec<Platformed>,
    /// Manifests of statements with their parts.
    attestations: Vec<Vec<u8>>,
    /// JSON of the index, if there is one.
    index: Option<Vec<u8>>,
}

/// One platform's image.
struct Platformed {
    manifest: Vec<u8>,
    config: Vec<u8>,
    config_digest: Digest,
    layers: Vec<Descriptor>,
}

/// Makes the image of `targets`.
pub(super) fn image(
    store: &Store,
    targets: &[Target],
    names: &[Reference],
    output: &OutputSpec,
    options: &ExportOptions,
) -> Result<Assembled, ExportError> {
    let created = super::created(options.epoch)?;
    let blobs = blob::of_targets(store, targets, output, options)?;
    let mut platforms = Vec::new();
    let mut descriptors = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let cache = options.caches.get(at).and_then(Option::as_deref);
        let layers: Vec<&LayerBlob> = target.layers.iter().filter_map(|id| blobs.get(id)).collect();
        let (platformed, descriptor) = one(target, &layers, output, (&created, cache));
        platforms.push(platformed);
        descriptors.push(descriptor);
    }
    let mut attestations = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let predicates = options.predicates.get(at).map(Vec::as_slice).unwrap_or_default();
        let form = output.attestations;
        let made = Attestation::of(&descriptors[at], &target.platform, names, predicates, form);
        if let Some(made) = made {
            descriptors.push(made.descriptor);
            attestations.extend(made.documents);
        }
    }
    output.check_holds(targets.len(), !attestations.is_empty())?;
    let (root, index) = match <[Descriptor; 1]>::try_from(descriptors) {
        Ok([only]) => (Descriptor { platform: None, ..only }, None),
        Err(several) => {
            let kind = match output.media_types {
                MediaTypes::Oci => media_type::INDEX,
                MediaTypes::Docker => media_type::DOCKER_INDEX,
            };
            let json = to_json(&Index {
                schema_version: 2,
                media_type: Some(kind.to_owned()),
                manifests: several,
                annotations: output.annotations_of(AnnotationPlace::Index, None),
            });
            let annotations = output.annotations_of(AnnotationPlace::IndexDescriptor, None);
            (Descriptor { annotations, ..Descriptor::of(kind, &json) }, Some(json))
        }
    };
    Ok(Assembled { root, created, platforms, attestations, index })
}

/// One target's config and manifest.
fn one(
    target: &Target,
    layers: &[&LayerBlob],
    output: &OutputSpec,
    (created, cache): (&str, Option<&[u8]>),
) -> (Platformed, Descriptor) {
    let (manifest_type, config_type) = match output.media_types {
        MediaTypes::Oci => (media_type::MANIFEST, media_type::CONFIG),
        MediaTypes::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let mut config = target.config.to_json(&target.platform, created, &diff_ids);
    if let Some(cache) = cache {
        add_cache(&mut config, cache);
    }
    let config_descriptor = Descriptor::of(config_type, &config);
    let layers: Vec<Descriptor> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let manifest = to_json(&Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        config: config_descriptor.clone(),
        layers: layers.clone(),
        annotations: output.annotations_of(AnnotationPlace::Manifest, Some(&target.platform)),
    });
    let place = AnnotationPlace::ManifestDescriptor;
    let descriptor = Descriptor {
        annotations: output.annotations_of(place, Some(&target.platform)),
        platform: Some(PlatformJson::from(&target.platform)),
        ..Descriptor::of(manifest_type, &manifest)
    };
    let config_digest = config_descriptor.digest;
    (Platformed { manifest, config, config_digest, layers }, descriptor)
}

impl Assembled {
    /// Digest of the only platform's config.
    pub(super) fn config_digest(&self) -> Option<Digest> {
        match self.platforms.as_slice() {
            [only] => Some(only.config_digest),
            _ => None,
        }
    }

    /// Stores configs, manifests and the index.
    pub(super) fn put(&self, store: &Store) -> Result<(), ExportError> {
        for platform in &self.platforms {
            store.blobs().write(&platform.config)?;
            store.blobs().write(&platform.manifest)?;
        }
        for document in self.attestations.iter().chain(&self.index) {
            store.blobs().write(document)?;
        }
        Ok(())
    }

    /// Adds the image with all its parts to an archive.
    pub(super) fn add_to(&self, bundle: &mut Bundle, naming: &Naming) {
        for platform in &self.platforms {
            bundle.add_document(platform.config.clone());
            bundle.add_document(platform.manifest.clone());
            for layer in &platform.layers {
                bundle.add_blob(layer.digest, layer.size);
            }
            bundle.add_saved(&platform.config_digest, &platform.layers, naming);
        }
        for document in self.attestations.iter().chain(&self.index) {
            bundle.add_document(document.clone());
        }
        bundle.add_root(&self.root, naming);
    }
}

/// Adds the document of the cache to the JSON object that a config is.
fn add_cache(config: &mut Vec<u8>, cache: &[u8]) {
    if config.pop_if(|last| *last == b'}').is_some() {
        config.extend_from_slice(format!(",\"{}\":", crate::travel::IMAGE_KEY).as_bytes());
        config.extend_from_slice(cache);
        config.push(b'}');
    }
}

/// Seconds since the epoch as RFC 3339 in UTC.
pub(super) fn rfc3339(seconds: i64) -> Result<String, ExportError> {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .ok_or(ExportError::Epoch(seconds))
}
