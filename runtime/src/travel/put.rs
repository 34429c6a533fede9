//! Writes a packed cache somewhere.

use super::{Imports, Packed, TravelError};
use crate::{
    export::{Bundle, Dest, ExportError, Format, Naming, OutputKind, OutputSpec, Packaging},
    image::{ANNOTATION_REF, Descriptor, ImageError, Reference},
    registry::{self, Client, RegistryError},
    store::Store,
};

/// Writes an OCI layout: a folder, where what has another tag stays and what the same tag had before
/// goes, or a tar.
///
/// # Errors
/// If it cannot be written. A tar that was there before is left as it was then.
pub fn put_layout(
    store: &Store,
    packed: &Packed,
    imports: Option<&Imports<'_>>,
    (dest, packaging): (&Dest, Packaging),
    tag: &str,
    progress: &dyn Fn(u64, u64) -> Result<(), ExportError>,
) -> Result<(), TravelError> {
    let is_there = |blob: &Descriptor| match (dest, packaging) {
        (Dest::Path(path), Packaging::Folder) => {
            let place = path.join("blobs/sha256").join(blob.digest.hex());
            std::fs::metadata(place).is_ok_and(|facts| facts.is_file() && facts.len() == blob.size)
        }
        _ => false,
    };
    bring(store, packed, imports, &is_there)?;
    let mut bundle = Bundle::default();
    bundle.add_document(packed.config.clone());
    bundle.add_document(packed.manifest.clone());
    for (blob, _) in &packed.blobs {
        bundle.add_blob(blob.digest, blob.size);
    }
    let tag = [(ANNOTATION_REF.to_owned(), tag.to_owned())].into();
    let root = Descriptor { annotations: Some(tag), ..packed.root() };
    bundle.add_root(&root, &Naming { names: Vec::new(), created: String::new() });
    let mut output = OutputSpec::new(OutputKind::Image(Format::Oci), dest.clone());
    output.packaging = packaging;
    bundle.sweep_folder();
    let written = bundle.write(store, &output, progress);
    if matches!(&written, Err(error) if !matches!(error, ExportError::Stopped)) {
        // Another process may have replaced the cache in the folder just now.
        bring(store, packed, imports, &is_there)?;
    }
    Ok(written?)
}

/// Pushes to a registry: blobs first, the manifest under its tag last.
///
/// # Errors
/// If the registry does not take it.
pub fn put_registry(
    store: &Store,
    client: &Client,
    packed: &Packed,
    imports: Option<&Imports<'_>>,
    reference: &Reference,
    progress: registry::Progress<'_>,
) -> Result<(), TravelError> {
    let own = (reference.domain(), reference.path());
    let is_there = |_: &Descriptor| false;
    match imports {
        // What was read from the repository that is written to is there.
        Some(imports) => bring(store, packed, Some(imports), &|blob| imports.is_in(blob, own))?,
        None => bring(store, packed, None, &is_there)?,
    }
    store.blobs().write(&packed.config)?;
    let root = store.blobs().write(&packed.manifest)?;
    let names = [reference.clone()];
    registry::push(client, store, &root, &names, registry::Naming::Tags, progress)?;
    Ok(())
}

/// Fetches blobs that are neither in the store nor where they are to go.
///
/// # Errors
/// [`TravelError::Lost`] if some are not where they were read any more.
fn bring(
    store: &Store,
    packed: &Packed,
    imports: Option<&Imports<'_>>,
    is_there: &dyn Fn(&Descriptor) -> bool,
) -> Result<(), TravelError> {
    let mut lost = None;
    for (blob, layer) in &packed.blobs {
        if let (Some(layer), Some(imports)) = (layer, imports)
            && !is_there(blob)
            && let Some((travelled, _)) = imports.layer(layer)
        {
            match travelled.bring(store, blob) {
                Err(error) if is_gone(&error) => {
                    imports.lose(layer);
                    lost = Some(travelled.what().to_owned());
                }
                brought => brought?,
            }
        }
    }
    lost.map_or(Ok(()), |what| Err(TravelError::Lost { what }))
}

/// Whether an error says that a blob is not there, or not as it was.
fn is_gone(error: &TravelError) -> bool {
    let image = |error: &ImageError| {
        matches!(
            error,
            ImageError::MissingBlob { .. }
                | ImageError::WrongDigest { .. }
                | ImageError::WrongSize { .. }
                | ImageError::Archive { .. }
        )
    };
    match error {
        TravelError::Image(error) => image(error),
        TravelError::Registry(error) => match &**error {
            RegistryError::NotFound { .. } => true,
            RegistryError::Image { source, .. } => image(source),
            _ => false,
        },
        _ => false,
    }
}
