//! Layer blobs: the original ones of base images, and tars of the layers that the build made.
//!
//! A tar is made and compressed once for each layer, compression and time; the store remembers
//! which blob it became.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, BufWriter, Write},
};

use rayon::prelude::*;
use rbc_ir::Digest;

use super::{ExportError, ExportOptions, MediaTypes, OutputSpec, Target, spec::BaseLayers};
use crate::{
    archive,
    image::{self, Descriptor, ImageError, media_type},
    layer::{self, Packer, Packing, Recipe},
    registry::Stop,
    store::{LayerId, Store},
};

/// Bytes that are gathered before they are written and hashed.
const BUFFER: usize = 256 << 10;

/// The blob that a layer was unpacked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The blob as the base image's manifest describes it.
    pub descriptor: Descriptor,
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
}

/// Where layers of base images came from.
#[derive(Clone, Debug, Default)]
pub struct Origins(HashMap<LayerId, Origin>);

impl Origins {
    /// The layers of the images with these manifests, which must be in the store. Of two blobs for
    /// one layer the first is taken, so the order of `manifests` should be that of the graph.
    pub fn of_manifests(store: &Store, manifests: &[Digest]) -> Result<Self, ImageError> {
        let mut origins = HashMap::new();
        for manifest in manifests {
            for layer in image::layers_of(store, manifest)? {
                let origin = Origin { descriptor: layer.descriptor, diff_id: layer.diff_id };
                origins.entry(layer.id).or_insert(origin);
            }
        }
        Ok(Self(origins))
    }

    /// The blob that a layer was unpacked from, if it is known.
    pub(crate) fn get(&self, layer: &LayerId) -> Option<&Origin> {
        self.0.get(layer)
    }
}

/// A layer as a manifest lists it.
#[derive(Clone, Debug)]
pub(super) struct LayerBlob {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

/// The blobs of all layers of all targets, made in parallel where they are missing.
pub(super) fn of_targets(
    store: &Store,
    targets: &[Target],
    output: &OutputSpec,
    options: &ExportOptions,
) -> Result<HashMap<LayerId, LayerBlob>, ExportError> {
    let ids: BTreeSet<&LayerId> = targets.iter().flat_map(|target| &target.layers).collect();
    ids.into_par_iter()
        .map(|id| {
            let blob = match options.origins.0.get(id) {
                Some(origin) => base(store, id, origin, output, &options.stop)?,
                None => {
                    let found = own(store, id, output.recipe, options.epoch, &options.stop)?;
                    layer_blob(found, output.recipe.packing, output.media_types)
                }
            };
            Ok((id.clone(), blob))
        })
        .collect()
}

/// A base image's layer: its original blob, unless another compression is forced.
pub(super) fn base(
    store: &Store,
    id: &LayerId,
    origin: &Origin,
    output: &OutputSpec,
    stop: &Stop,
) -> Result<LayerBlob, ExportError> {
    let Origin { descriptor, diff_id } = origin;
    let blob = descriptor.digest;
    let now = compression_of(&descriptor.media_type);
    if output.base_layers == BaseLayers::Keep || now == output.recipe.packing {
        if !store.blobs().has(&blob) {
            return Err(ExportError::BaseLayerGone { blob });
        }
        let found = (descriptor.digest, descriptor.size, *diff_id);
        return Ok(layer_blob(found, now, output.media_types));
    }
    let key = again(output.recipe);
    let found = match store.layer_blob(id, &key, None)? {
        Some(found) => found,
        None => {
            let found = match made_of(store, diff_id, output.recipe)? {
                Some(found) => found,
                None => pack_again(store, id, origin, output.recipe, stop)?,
            };
            store.put_layer_blob(id, &key, None, found)?;
            found
        }
    };
    Ok(layer_blob(found, output.recipe.packing, output.media_types))
}

/// Unpacks a blob and compresses it in another way.
fn pack_again(
    store: &Store,
    id: &LayerId,
    Origin { descriptor, diff_id }: &Origin,
    recipe: Recipe,
    stop: &Stop,
) -> Result<(Digest, u64, Digest), ExportError> {
    let blob = descriptor.digest;
    let failed = |error: io::Error| failed(id, &error);
    let mut plain = archive::decompress(store.blobs().open(&blob)?).map_err(failed)?;
    let made = pack(store, id, recipe, stop, |out| image::copy(&mut plain, out).map(drop))?;
    if made.2 != *diff_id {
        return Err(ImageError::WrongDiffId { blob, want: *diff_id, got: made.2 }.into());
    }
    Ok(made)
}

/// The tar of a layer of the build's own: blob digest, its size, and the diff ID.
pub(crate) fn own(
    store: &Store,
    id: &LayerId,
    recipe: Recipe,
    epoch: Option<i64>,
    stop: &Stop,
) -> Result<(Digest, u64, Digest), ExportError> {
    if let Some(found) = store.layer_blob(id, &recipe.name(), epoch)? {
        return Ok(found);
    }
    if let Some(diff_id) = store.layer_diff_id(id, epoch)?
        && let Some(found) = made_of(store, &diff_id, recipe)?
    {
        store.put_layer_blob(id, &recipe.name(), epoch, found)?;
        return Ok(found);
    }
    let dir = store.layer_dir(id);
    let options = layer::TarOptions { source_date_epoch: epoch };
    let made = pack(store, id, recipe, stop, |out| {
        layer::write_tar(&dir, out, &options).map_err(io::Error::other)
    })?;
    store.put_layer_blob(id, &recipe.name(), epoch, made)?;
    Ok(made)
}

/// What the index calls the blob of another image's layer that was packed again.
fn again(recipe: Recipe) -> String {
    format!("again-{}", recipe.name())
}

/// What was made of the same tar in the same way earlier, for this layer under another name or for
/// one that came out the same. The way says all that the bytes depend on.
fn made_of(
    store: &Store,
    diff_id: &Digest,
    recipe: Recipe,
) -> Result<Option<(Digest, u64, Digest)>, ExportError> {
    let found = store.packed_tar(diff_id, [&recipe.name(), &again(recipe)])?;
    Ok(found.map(|(digest, size)| (digest, size, *diff_id)))
}

/// Compresses what `fill` writes into a new blob. Gives its digest and size and the diff ID.
fn pack(
    store: &Store,
    id: &LayerId,
    recipe: Recipe,
    stop: &Stop,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(Digest, u64, Digest), ExportError> {
    let failed = |error: io::Error| match stop.is_asked() {
        true => ExportError::Stopped,
        false => failed(id, &error),
    };
    let mut blob = store.blobs().writer()?;
    if recipe.packing == Packing::None {
        // The blob is the tar, which need not be hashed twice.
        let mut out = gathering(&mut blob, stop);
        fill(&mut out).and_then(|()| out.flush()).map_err(failed)?;
        drop(out);
        let (digest, size) = blob.finish(store, None)?;
        return Ok((digest, size, digest));
    }
    let packer = Packer::new(blob, recipe).map_err(failed)?;
    let mut out = gathering(packer, stop);
    fill(&mut out).map_err(failed)?;
    let packer = out.into_inner().map_err(|e| failed(e.into_error()))?.out;
    let (blob, packed) = packer.finish().map_err(failed)?;
    let (digest, size) = blob.finish(store, None)?;
    Ok((digest, size, packed.diff_id))
}

/// A writer that passes on what is written in large pieces, before each of which it is asked whether
/// it is time to end: entries of tars are small, and asking is a call of the system.
pub(super) fn gathering<W: Write>(out: W, stop: &Stop) -> BufWriter<Stoppable<'_, W>> {
    BufWriter::with_capacity(BUFFER, Stoppable { out, stop })
}

/// A writer that fails once it is time to end.
pub(super) struct Stoppable<'a, W> {
    pub(super) out: W,
    pub(super) stop: &'a Stop,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.stop.is_asked() {
            return Err(io::Error::other("cancelled"));
        }
        self.out.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn failed(id: &LayerId, error: &io::Error) -> ExportError {
    ExportError::Layer { layer: id.to_string(), reason: error.to_string() }
}

pub(crate) fn compression_of(kind: &str) -> Packing {
    if kind.ends_with("gzip") {
        Packing::Gzip
    } else if kind.ends_with("zstd") {
        Packing::Zstd
    } else {
        Packing::None
    }
}

fn layer_blob(
    (digest, size, diff_id): (Digest, u64, Digest),
    kind: Packing,
    family: MediaTypes,
) -> LayerBlob {
    let media_type = match (family, kind) {
        (MediaTypes::Oci, Packing::Gzip) => media_type::LAYER_GZIP,
        (MediaTypes::Oci, Packing::Zstd) => media_type::LAYER_ZSTD,
        (MediaTypes::Oci, Packing::None) => media_type::LAYER,
        (MediaTypes::Docker, Packing::Gzip) => media_type::DOCKER_LAYER_GZIP,
        (MediaTypes::Docker, Packing::Zstd) => media_type::DOCKER_LAYER_ZSTD,
        (MediaTypes::Docker, Packing::None) => media_type::DOCKER_LAYER,
    };
    let descriptor = Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations: None,
        platform: None,
    };
    LayerBlob { descriptor, diff_id }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;
    use crate::export::{Dest, Format, OutputKind};

    fn layer(store: &Store, content: &str) -> LayerId {
        let work = store.tmp_dir().expect("folder");
        let upper = work.path().join("upper");
        fs::create_dir(&upper).expect("folder");
        fs::write(upper.join("file"), content).expect("file");
        let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::open(upper.join("file")).and_then(|file| file.set_times(old)).expect("time");
        let id = LayerId::unique();
        store.publish_layer(&upper, &id).expect("published");
        id
    }

    #[test]
    fn what_was_compressed_is_not_compressed_again() {
        let dir = tempfile::tempdir().expect("folder");
        let store = Store::open(dir.path()).expect("store");
        let own = |id, packing: Packing| {
            own(&store, id, packing.into(), None, &Stop::default()).expect("packed")
        };
        // A blob that is written again is another file.
        let file = |digest| fs::metadata(store.blobs().path(&digest)).expect("blob").ino();
        let one = layer(&store, "the same");
        let plain = own(&one, Packing::None);
        let packed = own(&one, Packing::Gzip);
        let first = file(packed.0);

        // Pushed from the local store, where the layer has no compression.
        let origin = Origin {
            descriptor: layer_blob(plain, Packing::None, MediaTypes::Oci).descriptor,
            diff_id: plain.2,
        };
        let output = OutputSpec {
            recipe: Packing::Gzip.into(),
            base_layers: BaseLayers::Recompress,
            ..OutputSpec::new(OutputKind::Image(Format::Store), Dest::Stdout)
        };
        let id = LayerId::of_diff_id(&plain.2);
        let pushed = base(&store, &id, &origin, &output, &Stop::default()).expect("packed");
        assert_eq!((pushed.descriptor.digest, file(packed.0)), (packed.0, first));

        // A step that ran again and made the same.
        let two = layer(&store, "the same");
        assert_eq!(own(&two, Packing::None), plain);
        assert_eq!((own(&two, Packing::Gzip), file(packed.0)), (packed, first));
        assert_ne!(own(&layer(&store, "another"), Packing::Gzip), packed);
    }
}
