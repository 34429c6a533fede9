//! Reads what has travelled: the documents and where their blobs are.

use rbc_ir::Digest;
use serde::Deserialize;

use super::{
    CacheFrom, FromPlace, TravelError,
    format::{CONFIG_TYPE, Document, IMAGE_KEY, MAX_DOCUMENT},
};
use crate::{
    image::{
        self, ConfigFacts, Descriptor, Documents, ImageError, Layout, LayoutName, MAX_CONFIG,
        MAX_MANIFEST,
    },
    registry::{Client, Remote},
    store::Store,
};

/// How many manifests and indexes one cache may be made of.
const MAX_MANIFESTS: usize = 256;

/// A cache that is somewhere else.
pub struct Travelled<'a> {
    what: String,
    place: Place<'a>,
    parts: Vec<Part>,
}

enum Place<'a> {
    Layout(Layout),
    Registry(Remote<'a>),
}

/// One manifest with its document.
pub(super) struct Part {
    pub(super) document: Document,
    /// The manifest's layers.
    pub(super) blobs: Vec<Descriptor>,
    /// Of an image: digests of the uncompressed layers.
    pub(super) diff_ids: Option<Vec<Digest>>,
}

/// The part of an image's config that is ours.
#[derive(Deserialize)]
struct Carrier {
    #[serde(rename = "vnd.rbc.cache.v1")]
    cache: Option<Document>,
}

impl<'a> Travelled<'a> {
    /// Reads the documents of a cache; no layer is fetched.
    ///
    /// # Errors
    /// If it is not there, or not a cache.
    pub fn open(store: &Store, client: &'a Client, from: &CacheFrom) -> Result<Self, TravelError> {
        let what = from.shown();
        let (place, root) = match &from.place {
            FromPlace::Local { src, tag, digest } => {
                let layout = Layout::open(store, src)?;
                let name = match (digest, tag) {
                    (Some(digest), _) => LayoutName::Digest(*digest),
                    (None, Some(tag)) => LayoutName::Tag(tag.clone()),
                    (None, None) => LayoutName::Default,
                };
                let root = layout.find(&name)?;
                (Place::Layout(layout), root)
            }
            FromPlace::Registry(reference) => {
                let remote = Remote::open_briefly(client, reference)?;
                let root = remote.root().clone();
                (Place::Registry(remote), root)
            }
        };
        let mut travelled = Self { what, place, parts: Vec::new() };
        travelled.read(root)?;
        Ok(travelled)
    }

    fn read(&mut self, root: Descriptor) -> Result<(), TravelError> {
        let mut pending = vec![root];
        let mut seen = 0;
        while let Some(descriptor) = pending.pop() {
            seen += 1;
            if seen > MAX_MANIFESTS {
                return Err(self.bad("it is made of too many manifests"));
            }
            let bytes = match self.documents().document(&descriptor, MAX_MANIFEST) {
                // An index may list images that were not copied with it.
                Err(ImageError::MissingBlob { .. }) if seen > 1 => continue,
                bytes => bytes?,
            };
            match image::Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)? {
                image::Document::Index(index) => {
                    pending.extend(index.manifests.into_iter().filter(|m| !m.is_attestation()));
                }
                image::Document::Manifest(manifest) => {
                    if let Some(part) = self.part(manifest)? {
                        self.parts.push(part);
                    }
                }
            }
        }
        if self.parts.is_empty() {
            return Err(self.bad(
                "it holds no cache of rbc's (an image has one if it was built with --cache-to \
                 type=inline)",
            ));
        }
        Ok(())
    }

    fn part(&self, manifest: image::Manifest) -> Result<Option<Part>, TravelError> {
        let blobs = manifest.layers;
        if manifest.config.media_type == CONFIG_TYPE {
            let json = self.documents().document(&manifest.config, MAX_DOCUMENT)?;
            let document = Document::parse(&json).map_err(|reason| self.bad(&reason))?;
            return Ok(Some(Part { document, blobs, diff_ids: None }));
        }
        let json = self.documents().document(&manifest.config, MAX_CONFIG)?;
        let carrier: Carrier = serde_json::from_slice(&json)
            .map_err(|error| self.bad(&format!("{IMAGE_KEY} of its config: {error}")))?;
        let Some(document) = carrier.cache else { return Ok(None) };
        let document = document
            .checked()
            .map_err(|reason| self.bad(&format!("{IMAGE_KEY} of its config: {reason}")))?;
        let facts = ConfigFacts::parse(&json, &manifest.config.digest)?;
        Ok(Some(Part { document, blobs, diff_ids: Some(facts.diff_ids) }))
    }

    fn documents(&self) -> &dyn Documents {
        match &self.place {
            Place::Layout(layout) => layout,
            Place::Registry(remote) => remote,
        }
    }

    pub(super) fn bad(&self, reason: &str) -> TravelError {
        TravelError::Bad { what: self.what.clone(), reason: reason.to_owned() }
    }

    /// What it is called.
    pub fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The repository that it is in, if it is in a registry.
    pub(super) fn repository(&self) -> Option<(&str, &str)> {
        match &self.place {
            Place::Layout(_) => None,
            Place::Registry(remote) => Some(remote.repository()),
        }
    }

    /// Brings a blob into the store unless it is there. Its digest is checked on the way.
    pub(super) fn bring(&self, store: &Store, blob: &Descriptor) -> Result<(), TravelError> {
        match &self.place {
            Place::Layout(layout) => Ok(layout.copy(store, blob)?),
            Place::Registry(remote) => Ok(remote.bring(store, blob)?),
        }
    }
}
