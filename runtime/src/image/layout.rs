//! OCI image layouts: a folder or tar with `index.json` and `blobs/sha256/`.

use std::{collections::HashSet, path::Path};

use rayon::prelude::*;
use rbc_ir::Digest;

use super::{
    Descriptor, Document, Documents, ImageError, Index, MAX_CONFIG, MAX_MANIFEST, Reference,
    bundle::Bundle,
    content,
    manifest::{ANNOTATION_NAME, ANNOTATION_REF},
};
use crate::store::Store;

/// How many manifests and indexes one image may be made of.
const MAX_DOCUMENTS: usize = 1024;

/// An open OCI layout.
pub struct Layout {
    bundle: Bundle,
    index: Index,
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutName {
    /// The only image there is, or the one tagged `latest`.
    Default,
    /// The image whose reference name is this.
    Tag(String),
    /// The manifest or index with this digest.
    Digest(Digest),
}

impl Layout {
    /// Opens a layout folder or tar, compressed or not.
    pub fn open(store: &Store, path: &Path) -> Result<Self, ImageError> {
        let bundle = Bundle::open(store, path)?;
        match Self::from_bundle(bundle)? {
            Ok(layout) => Ok(layout),
            Err(bundle) => Err(bundle.error("it is no OCI layout: it has no index.json")),
        }
    }

    /// Takes a bundle as a layout; gives it back if it is none.
    pub(super) fn from_bundle(bundle: Bundle) -> Result<Result<Self, Bundle>, ImageError> {
        let Some(json) = bundle.read("index.json", MAX_MANIFEST)? else { return Ok(Err(bundle)) };
        let index: Index = serde_json::from_slice(&json)
            .map_err(|error| bundle.error(format!("index.json: {error}")))?;
        Ok(Ok(Self { bundle, index }))
    }

    /// The images that `index.json` lists.
    pub fn images(&self) -> &[Descriptor] {
        &self.index.manifests
    }

    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Finds an image by name.
    pub fn find(&self, name: &LayoutName) -> Result<Descriptor, ImageError> {
        let images = self.images();
        let tagged = |tag: &str| {
            images.iter().find(|image| {
                image.annotation(ANNOTATION_REF) == Some(tag)
                    || image.annotation(ANNOTATION_NAME).is_some_and(|full| {
                        full.parse::<Reference>().is_ok_and(|r| r.tag() == Some(tag))
                    })
            })
        };
        let found = match name {
            LayoutName::Default => match images {
                [only] => Some(only),
                _ => tagged("latest"),
            },
            LayoutName::Tag(tag) => tagged(tag),
            LayoutName::Digest(digest) => {
                if let Some(found) = images.iter().find(|image| image.digest == *digest) {
                    Some(found)
                } else if let Some((_, size)) = self.bundle.open_file(&blob_name(digest))? {
                    return Ok(Descriptor {
                        media_type: String::new(),
                        digest: *digest,
                        size,
                        annotations: None,
                        platform: None,
                    });
                } else {
                    None
                }
            }
        };
        found.cloned().ok_or_else(|| {
            let what = match name {
                LayoutName::Default if images.is_empty() => "it holds no image".to_owned(),
                LayoutName::Default => {
                    "it holds several images and none is tagged latest: name one".to_owned()
                }
                LayoutName::Tag(tag) => format!("it holds no image tagged {tag}"),
                LayoutName::Digest(digest) => format!("it holds no image {digest}"),
            };
            self.bundle.error(what)
        })
    }

    /// Copies an image or an index with all that it refers to into the store. Of an index, images
    /// that the layout does not hold are passed over if there is at least one that it holds.
    pub fn import(&self, store: &Store, root: &Descriptor) -> Result<(), ImageError> {
        let mut pending = vec![root.clone()];
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut documents = Vec::new();
        let mut blobs: Vec<Descriptor> = Vec::new();
        let mut images = 0;
        while let Some(descriptor) = pending.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            if seen.len() > MAX_DOCUMENTS {
                return Err(self.bundle.error("an image of it has too many manifests"));
            }
            let bytes = match self.document(&descriptor, MAX_MANIFEST) {
                Err(ImageError::MissingBlob { .. }) if descriptor.digest != root.digest => continue,
                other => other?,
            };
            match Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)? {
                Document::Index(index) => pending.extend(index.manifests),
                Document::Manifest(manifest) => {
                    if !descriptor.is_attestation() {
                        manifest.check_is_image(&descriptor.digest)?;
                        images += 1;
                    }
                    let config = self.document(&manifest.config, MAX_CONFIG)?;
                    documents.push(config);
                    blobs.extend(manifest.layers);
                }
            }
            documents.push(bytes);
        }
        if images == 0 {
            return Err(self.bundle.error(format!("{} holds no image", root.digest)));
        }
        let mut once = HashSet::new();
        blobs.retain(|blob| once.insert(blob.digest));
        blobs.par_iter().try_for_each(|blob| self.copy(store, blob))?;
        for bytes in documents {
            store.blobs().write(&bytes)?;
        }
        Ok(())
    }

    /// Copies a blob into the store unless it is there.
    pub(crate) fn copy(&self, store: &Store, blob: &Descriptor) -> Result<(), ImageError> {
        if store.blobs().size(&blob.digest) == Some(blob.size) {
            return Ok(());
        }
        let digest = blob.digest;
        let Some((mut input, size)) = self.bundle.open_file(&blob_name(&digest))? else {
            return Err(self.bundle.error(ImageError::MissingBlob { digest }.to_string()));
        };
        if size != blob.size {
            return Err(ImageError::WrongSize { digest, want: blob.size, got: size });
        }
        content::copy_blob(store, blob, &mut input)
    }
}

impl Documents for Layout {
    fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        let digest = descriptor.digest;
        if descriptor.size > limit {
            return Err(ImageError::TooLarge { digest, size: descriptor.size, limit });
        }
        let bytes = self
            .bundle
            .read(&blob_name(&digest), limit)?
            .ok_or(ImageError::MissingBlob { digest })?;
        descriptor.check(&bytes)?;
        Ok(bytes)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
