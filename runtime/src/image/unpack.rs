//! From an image's blobs to layers.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use rayon::prelude::*;
use rbc_ir::Digest;
use sha2::Digest as _;

use super::{Descriptor, Document, Documents, ImageError, MAX_MANIFEST, Resolved, describe};
use crate::{
    layer,
    store::{LayerId, Store},
};

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Its name in the store.
    pub id: LayerId,
    /// Its blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// The layers of an image by its manifest, lowest first, whether they are unpacked or not.
pub fn layers_of(store: &Store, manifest: &Digest) -> Result<Vec<ImageLayer>, ImageError> {
    let descriptor = describe(store, manifest)?;
    let bytes = store.document(&descriptor, MAX_MANIFEST)?;
    let Document::Manifest(document) = Document::parse(&bytes, "", manifest)? else {
        return Err(ImageError::BadManifest {
            digest: *manifest,
            reason: "it is an index, but an image manifest was expected".to_owned(),
        });
    };
    let image = Resolved::read(store, descriptor, document)?;
    let layers = image.manifest.layers.into_iter().zip(image.facts.diff_ids);
    Ok(layers
        .map(|(descriptor, diff_id)| ImageLayer {
            id: LayerId::of_diff_id(&diff_id),
            descriptor,
            diff_id,
        })
        .collect())
}

/// Makes sure that every layer of an image is unpacked, in parallel, and names them lowest first.
/// A blob is checked against its digest and against the diff ID of the config on the way; two
/// processes may unpack the same layer, of which one wins.
pub fn unpack(store: &Store, manifest: &Digest) -> Result<Vec<LayerId>, ImageError> {
    let layers = layers_of(store, manifest)?;
    layers.par_iter().try_for_each(|layer| {
        if store.has_layer(&layer.id) { Ok(()) } else { unpack_layer(store, layer) }
    })?;
    Ok(layers.into_iter().map(|layer| layer.id).collect())
}

fn unpack_layer(store: &Store, layer: &ImageLayer) -> Result<(), ImageError> {
    let staging = store.tmp_dir()?;
    let dir = staging.path().join("layer");
    std::fs::create_dir(&dir).map_err(ImageError::io(&dir))?;
    unpack_blob(store, &layer.descriptor.digest, &layer.diff_id, &dir)?;
    store.publish_layer(&dir, &layer.id)?;
    Ok(())
}

/// Unpacks a blob of the store into the empty folder `dir` and checks both of its digests.
pub(crate) fn unpack_blob(
    store: &Store,
    blob: &Digest,
    diff_id: &Digest,
    dir: &Path,
) -> Result<(), ImageError> {
    let blob = *blob;
    let file = store.blobs().open(&blob)?;
    let mut input =
        Checked { input: BufReader::with_capacity(256 << 10, file), hash: sha2::Sha256::new() };
    let applied = apply(&mut input, dir, &blob, store.largest_layer());
    // What is wrong with a damaged blob is its digest, whatever the tar reader made of it.
    let got = input.finish().map_err(ImageError::io(store.blobs().path(&blob)))?;
    if got != blob {
        store.blobs().remove(&blob)?;
        return Err(ImageError::WrongDigest { want: blob, got });
    }
    let got = applied?;
    if got != *diff_id {
        return Err(ImageError::WrongDiffId { blob, want: *diff_id, got });
    }
    Ok(())
}

fn apply(
    input: &mut (dyn Read + Send),
    dir: &Path,
    blob: &Digest,
    most: u64,
) -> Result<Digest, ImageError> {
    let applied = layer::apply_tar_within(input, dir, most);
    applied
        .map(|applied| applied.diff_id)
        .map_err(|error| ImageError::Layer { blob: *blob, reason: error.to_string() })
}

/// Computes the digest of what is read.
struct Checked<R> {
    input: R,
    hash: sha2::Sha256,
}

impl<R: Read> Checked<R> {
    /// Reads what is left and gives the digest of everything.
    fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::from_bytes(self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
