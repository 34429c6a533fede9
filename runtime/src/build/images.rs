//! Brings the image of a source node into the store and unpacks it.

use std::{collections::HashMap, path::PathBuf};

use rbc_ir::{Digest, ImageLocation, ImageSource};

use super::{BuildError, schedule::on_cpu_pool};
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
    if !is_complete(store, &source.manifest)? {
        match &source.location {
            ImageLocation::OciLayout(name) => {
                let path = places
                    .layouts
                    .get(name)
                    .ok_or_else(|| super::ContextError::NotGiven(name.clone()))?;
                let layout = Layout::open(store, path)?;
                let image = layout.find(&LayoutName::Digest(source.manifest))?;
                layout.import(store, &image)?;
            }
            ImageLocation::StoreOrRegistry => {
                let reference: Reference = source.reference.parse()?;
                let tell = |blob: &Descriptor, done: u64| {
                    if let Some(step) = progress.step {
                        let what = blob.digest.short();
                        let total = Some(blob.size);
                        progress.events.event(Event::StepProgress {
                            step,
                            what: &what,
                            done,
                            total,
                        });
                    }
                };
                registry::fetch(places.registry, store, &reference, &source.manifest, &tell)?;
            }
        }
    }
    Ok(on_cpu_pool(|| image::unpack(store, &source.manifest))?)
}

/// Whether every part of an image is in the store, unpacked or not.
fn is_complete(store: &Store, manifest: &Digest) -> Result<bool, ImageError> {
    match image::layers_of(store, manifest) {
        Ok(layers) => Ok(layers.iter().all(|layer| {
            store.has_layer(&layer.id) || store.blobs().has(&layer.descriptor.digest)
        })),
        Err(ImageError::MissingBlob { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
