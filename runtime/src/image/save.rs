//! `rbc save`: images of the local store as an archive.

use std::collections::HashSet;

use rbc_ir::Platform;

use super::{
    Descriptor, Document, Documents, ImageError, MAX_CONFIG, MAX_MANIFEST, Reference, Resolved,
    describe, find, media_type, resolve,
};
use crate::{
    export::{Bundle, Dest, ExportError, Naming, Sink},
    store::Store,
};

/// The forms of a saved archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaveFormat {
    /// For `docker load`; it is an OCI layout as well. Of images for several platforms it holds
    /// the host's.
    #[default]
    DockerArchive,
    /// An OCI layout with everything that the names stand for.
    Oci,
}

/// Writes the named images (names or ids) to one archive. The same images give the same bytes.
pub fn save(
    store: &Store,
    names: &[String],
    format: SaveFormat,
    dest: &Dest,
) -> Result<(), ExportError> {
    let mut bundle = Bundle::default();
    for name in names {
        let digest = find(store, name)?;
        let root = typed(store, describe(store, &digest)?)?;
        // An id is no name to give to what is saved.
        let named = name.parse::<Reference>().ok().filter(|reference| {
            reference.digest().is_none()
                && store.image(&reference.to_string()).is_ok_and(|found| found.is_some())
        });
        match format {
            SaveFormat::DockerArchive => {
                let image = resolve(store, &root, &Platform::host(), name)?;
                let naming =
                    Naming { names: Vec::from_iter(named), created: image.facts.created.clone() };
                add_image(store, &mut bundle, &image)?;
                bundle
                    .add_root(&Descriptor { platform: None, ..image.descriptor.clone() }, &naming);
                bundle.add_saved(&image.manifest.config.digest, &image.manifest.layers, &naming);
            }
            SaveFormat::Oci => {
                let naming = Naming { names: Vec::from_iter(named), created: String::new() };
                add_all(store, &mut bundle, &root)?;
                bundle.add_root(&root, &naming);
            }
        }
    }
    if format == SaveFormat::DockerArchive {
        bundle.add_docker_manifest();
    }
    Sink::write(dest, |out| bundle.write_tar(store, out, &|_, _| Ok(())))
}

/// A root's descriptor with its media type, which the store does not keep.
fn typed(store: &Store, root: Descriptor) -> Result<Descriptor, ImageError> {
    let bytes = store.document(&root, MAX_MANIFEST)?;
    let (own, usual) = match Document::parse(&bytes, "", &root.digest)? {
        Document::Index(index) => (index.media_type, media_type::INDEX),
        Document::Manifest(manifest) => (manifest.media_type, media_type::MANIFEST),
    };
    Ok(Descriptor { media_type: own.unwrap_or_else(|| usual.to_owned()), ..root })
}

fn add_image(store: &Store, bundle: &mut Bundle, image: &Resolved) -> Result<(), ImageError> {
    bundle.add_document(store.document(&image.descriptor, MAX_MANIFEST)?);
    bundle.add_document(image.config_json.clone());
    for layer in &image.manifest.layers {
        bundle.add_blob(layer.digest, layer.size);
    }
    Ok(())
}

/// Adds everything that an index leads to. Manifests that the store does not hold are left out, as
/// they were when the index came in.
fn add_all(store: &Store, bundle: &mut Bundle, root: &Descriptor) -> Result<(), ImageError> {
    let mut pending = vec![root.clone()];
    let mut seen = HashSet::new();
    while let Some(descriptor) = pending.pop() {
        if !seen.insert(descriptor.digest) {
            continue;
        }
        let bytes = match store.document(&descriptor, MAX_MANIFEST) {
            Err(ImageError::MissingBlob { .. }) if descriptor.digest != root.digest => continue,
            other => other?,
        };
        match Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)? {
            Document::Index(index) => pending.extend(index.manifests),
            Document::Manifest(manifest) => {
                bundle.add_document(store.document(&manifest.config, MAX_CONFIG)?);
                for layer in &manifest.layers {
                    bundle.add_blob(layer.digest, layer.size);
                }
            }
        }
        bundle.add_document(bytes);
    }
    Ok(())
}
