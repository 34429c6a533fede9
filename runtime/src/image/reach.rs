//! What an image in the store consists of, and what of it is missing.

use std::collections::HashSet;

use rbc_ir::Digest;

use super::{ConfigFacts, Document, MAX_CONFIG, MAX_MANIFEST};
use crate::store::{Store, StoreError};

/// All that a manifest or index leads to.
#[derive(Default)]
pub(crate) struct Reach {
    /// The blobs that the image needs, whether they are there or not.
    pub blobs: HashSet<Digest>,
    /// Those that are not there.
    pub missing: Vec<Digest>,
    /// Diff IDs of layers with their blobs.
    pub layers: Vec<(Digest, Digest)>,
}

/// The manifests of all images that have names or were pulled and are there, in the order of the
/// names.
///
/// # Errors
/// If the index cannot be read.
pub fn manifests(store: &Store) -> Result<Vec<Digest>, StoreError> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for image in store.images()? {
        let mut pending = vec![image.digest];
        while let Some(digest) = pending.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some(bytes) = store.blobs().peek(&digest, MAX_MANIFEST) else { continue };
            match Document::parse(&bytes, "", &digest) {
                Ok(Document::Index(index)) => {
                    let images = index.manifests.into_iter().filter(|m| !m.is_attestation());
                    pending.extend(images.map(|image| image.digest));
                }
                Ok(Document::Manifest(_)) => found.push(digest),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// Follows `root` without holding anything. A blob for which `is_gone` says so counts as missing.
/// Of an index, images that the store never had may be missing if there is one that it has.
pub(crate) fn reach(store: &Store, root: &Digest, is_gone: &dyn Fn(&Digest) -> bool) -> Reach {
    let read = |digest: &Digest, limit| match is_gone(digest) {
        true => None,
        false => store.blobs().peek(digest, limit),
    };
    let is_missing = |digest: &Digest| is_gone(digest) || store.blobs().peek_size(digest).is_none();
    let mut out = Reach::default();
    let mut pending = vec![(*root, String::new())];
    let mut images = 0;
    while let Some((digest, media_type)) = pending.pop() {
        if digest != *root && is_missing(&digest) {
            continue;
        }
        if !out.blobs.insert(digest) {
            continue;
        }
        let Some(document) = read(&digest, MAX_MANIFEST)
            .and_then(|bytes| Document::parse(&bytes, &media_type, &digest).ok())
        else {
            out.missing.push(digest);
            continue;
        };
        match document {
            Document::Index(index) => {
                pending.extend(index.manifests.into_iter().map(|m| (m.digest, m.media_type)));
            }
            Document::Manifest(manifest) => {
                images += 1;
                out.blobs.insert(manifest.config.digest);
                match read(&manifest.config.digest, MAX_CONFIG) {
                    None => out.missing.push(manifest.config.digest),
                    Some(json) => {
                        let facts = ConfigFacts::parse(&json, &manifest.config.digest);
                        let diff_ids = facts.map(|facts| facts.diff_ids).unwrap_or_default();
                        let blobs = manifest.layers.iter().map(|layer| layer.digest);
                        out.layers.extend(diff_ids.into_iter().zip(blobs));
                    }
                }
                for layer in &manifest.layers {
                    if out.blobs.insert(layer.digest) && is_missing(&layer.digest) {
                        out.missing.push(layer.digest);
                    }
                }
            }
        }
    }
    if images == 0 && out.missing.is_empty() {
        out.missing.push(*root);
    }
    out
}
