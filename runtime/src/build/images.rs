//! Brings the image of a source node into the store and unpacks it.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use rbc_ir::{Digest, Graph, ImageLocation, ImageSource, Op, Source};

use super::{BuildError, BuildOptions, schedule::on_cpu_pool};
use crate::{
    image::{self, Descriptor, ImageError, Layout, LayoutName, Reference},
    progress::{Event, EventSink, StepId},
    registry,
    store::{LayerId, Store},
};

/// Where the bytes of a pull are told.
pub(super) struct FetchProgress<'a> {
    pub events: &'a dyn EventSink,
    pub step: Option<StepId>,
}

/// Where images are.
pub(super) struct ImagePlaces<'a> {
    /// Folders or archives of OCI layouts, by context name.
    pub layouts: &'a HashMap<String, PathBuf>,
    pub registry: &'a registry::Client,
}

/// The layers of the image that `source` pins, lowest first.
pub(super) fn fetch_layers(
    store: &Store,
    source: &ImageSource,
    places: &ImagePlaces<'_>,
    progress: &FetchProgress<'_>,
) -> Result<Vec<LayerId>, BuildError> {
    if !can_unpack(store, &source.manifest)? {
        fetch(store, source, places, progress)?;
    }
    Ok(on_cpu_pool(|| image::unpack(store, &source.manifest))?)
}

/// Makes sure that the blobs of the base images that `targets` stand on are there, as an image of
/// them needs. A result may have been in the cache while they were evicted or removed. Gives the
/// manifests of the graph's images that are complete.
///
/// # Errors
/// If an image cannot be fetched again.
pub fn bring_base_images(
    store: &Store,
    graph: &Graph,
    targets: &[Vec<LayerId>],
    options: &BuildOptions<'_>,
) -> Result<Vec<Digest>, BuildError> {
    let mut without_origin: HashSet<&LayerId> =
        targets.iter().flatten().filter(|id| id.is_of_image()).collect();
    let (mut complete, mut incomplete) = (Vec::new(), Vec::new());
    for node in graph.nodes.values() {
        let Op::Source(Source::Image(source)) = &node.op else { continue };
        match whole_layers(store, &source.manifest)? {
            Some(layers) => {
                without_origin.retain(|id| layers.iter().all(|layer| layer.id != **id));
                complete.push(source.manifest);
            }
            None => incomplete.push(source),
        }
    }
    let places = ImagePlaces { layouts: &options.oci_layouts, registry: options.registry };
    for source in incomplete {
        if without_origin.is_empty() {
            break;
        }
        // Nothing of an image that the targets do not stand on is fetched.
        let is_other =
            |layers: Vec<LayerId>| layers.iter().all(|layer| !without_origin.contains(layer));
        if layer_ids(store, source, &places).is_ok_and(is_other) {
            continue;
        }
        fetch(store, source, &places, &FetchProgress { events: options.events, step: None })?;
        let layers = image::layers_of(store, &source.manifest)?;
        without_origin.retain(|id| layers.iter().all(|layer| layer.id != **id));
        complete.push(source.manifest);
    }
    Ok(complete)
}

/// The layers of an image, of which nothing but the manifest and the config is looked at.
fn layer_ids(
    store: &Store,
    source: &ImageSource,
    places: &ImagePlaces<'_>,
) -> Result<Vec<LayerId>, BuildError> {
    match image::layers_of(store, &source.manifest) {
        Ok(layers) => return Ok(layers.into_iter().map(|layer| layer.id).collect()),
        Err(ImageError::MissingBlob { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let ImageLocation::StoreOrRegistry = &source.location else {
        return Err(ImageError::MissingBlob { digest: source.manifest }.into());
    };
    let reference: Reference = source.reference.parse()?;
    let remote = registry::Remote::open(places.registry, &reference.with_digest(source.manifest))?;
    let image = remote.resolve(&rbc_ir::Platform::host())?;
    Ok(image.facts.diff_ids.iter().map(LayerId::of_diff_id).collect())
}

/// Brings all blobs of an image into the store.
fn fetch(
    store: &Store,
    source: &ImageSource,
    places: &ImagePlaces<'_>,
    progress: &FetchProgress<'_>,
) -> Result<(), BuildError> {
    match &source.location {
        ImageLocation::OciLayout(name) => {
            let path = places
                .layouts
                .get(name)
                .ok_or_else(|| super::ContextError::NotGiven(name.clone()))?;
            let layout = Layout::open(store, path)?;
            let image = layout.find(&LayoutName::Digest(source.manifest))?;
            layout.import(store, &image)?;
            image::note_pulled(store, &source.manifest)?;
        }
        ImageLocation::StoreOrRegistry => {
            let reference: Reference = source.reference.parse()?;
            let tell = |blob: &Descriptor, done: u64| {
                if let Some(step) = progress.step {
                    let what = blob.digest.short();
                    let total = Some(blob.size);
                    progress.events.event(Event::StepProgress { step, what: &what, done, total });
                }
            };
            registry::fetch(places.registry, store, &reference, &source.manifest, &tell)?;
        }
    }
    Ok(())
}

/// The layers of an image if all of its blobs are in the store.
fn whole_layers(
    store: &Store,
    manifest: &Digest,
) -> Result<Option<Vec<image::ImageLayer>>, ImageError> {
    match image::layers_of(store, manifest) {
        Ok(layers) => {
            let is_here = |layer: &image::ImageLayer| {
                store.blobs().size(&layer.descriptor.digest) == Some(layer.descriptor.size)
            };
            Ok(layers.iter().all(is_here).then_some(layers))
        }
        Err(ImageError::MissingBlob { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether every layer of an image is in the store, unpacked or as a blob.
fn can_unpack(store: &Store, manifest: &Digest) -> Result<bool, ImageError> {
    match image::layers_of(store, manifest) {
        Ok(layers) => Ok(layers.iter().all(|layer| {
            store.has_layer(&layer.id) || store.blobs().has(&layer.descriptor.digest)
        })),
        Err(ImageError::MissingBlob { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
