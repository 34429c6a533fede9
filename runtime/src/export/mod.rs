//! Outputs: what a build's result becomes outside of the cache.
//!
//! [`OutputSpec`] is a parsed `-o` option. [`export`] turns targets (config and layers) into image
//! manifests, making layer blobs that are not in the store yet, and writes each output: an OCI
//! layout or a `docker load` archive, a plain tar or folder of the merged files, or a name in the
//! local image store. The same targets give the same bytes wherever and whenever they are written.

mod ahead;
mod assemble;
mod blob;
mod bundle;
mod dest;
mod error;
mod files;
mod folder;
mod garbage;
mod repack;
mod spec;
mod staged;
mod statements;

use std::io::Write;

use blob::gathering;
use rbc_ir::{Digest, ImageConfig, Platform};

pub use ahead::Ahead;
pub use blob::{Origin, Origins};
pub(crate) use blob::{compression_of, own};
pub(crate) use bundle::{Bundle, Naming, to_json};
pub(crate) use dest::Sink;
pub use error::ExportError;
pub use repack::{Repacking, repack};
pub(crate) use spec::csv::split as split_csv;
pub use spec::{
    Annotation, AnnotationError, AnnotationPlace, BaseLayers, Dest, Format, MediaTypes, OutputKind,
    OutputSpec, OutputSpecError, Packaging, Push,
};

use crate::{
    attest::Predicate,
    image::{Descriptor, Reference},
    progress::{Event, EventSink, StepId},
    registry::Stop,
    store::{LayerId, Store},
    tree::LayerStack,
};

/// One platform's result.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is for.
    pub platform: Platform,
    /// The image config, without `rootfs`.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
}

/// What holds for all outputs of a build.
#[derive(Clone, Default)]
pub struct ExportOptions {
    /// Names of the image (`-t`); an output's own `name=` replaces them.
    pub names: Vec<Reference>,
    /// `SOURCE_DATE_EPOCH`: time of the image, and the latest that a file of its own layers has.
    pub epoch: Option<i64>,
    /// The unchanged layers of base images.
    pub origins: Origins,
    /// What is to be stated about each target's image, in the order of the targets.
    pub predicates: Vec<Vec<Predicate>>,
    /// Documents of the cache that the images' configs carry, in the order of the targets (see
    /// [`crate::travel`]).
    pub caches: Vec<Option<Vec<u8>>>,
    /// Ends the export early.
    pub stop: Stop,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The manifest, or the index of several platforms. `None` for `tar` and `local`.
    pub root: Option<Descriptor>,
    /// Digest of the config, which is the image's id. `None` for several platforms, and for `tar`
    /// and `local`.
    pub config: Option<Digest>,
}

impl Exported {
    /// Digest of the manifest or index.
    pub fn digest(&self) -> Option<Digest> {
        self.root.as_ref().map(|root| root.digest)
    }
}

/// The time of an image that is made under a `SOURCE_DATE_EPOCH`, or under none, in RFC 3339.
///
/// # Errors
/// If the number is no time.
pub fn created(epoch: Option<i64>) -> Result<String, ExportError> {
    assemble::rfc3339(epoch.unwrap_or(crate::layer::DEFAULT_EPOCH))
}

/// Writes `targets` (one for each platform) to one output. Events are those of step `step`.
///
/// # Errors
/// What keeps the output from being written; [`ExportError::Stopped`] once `options.stop` is asked
/// for. A file that was there before is left as it was then.
pub fn export(
    store: &Store,
    targets: &[Target],
    output: &OutputSpec,
    options: &ExportOptions,
    step: StepId,
    events: &dyn EventSink,
) -> Result<Exported, ExportError> {
    write(store, targets, output, options, step, events).map_err(|error| {
        // Whatever a stop made fail, it failed for the stop.
        if options.stop.is_asked() { ExportError::Stopped } else { error }
    })
}

fn write(
    store: &Store,
    targets: &[Target],
    output: &OutputSpec,
    options: &ExportOptions,
    step: StepId,
    events: &dyn EventSink,
) -> Result<Exported, ExportError> {
    let names = if output.names.is_empty() { &options.names } else { &output.names };
    let files = |target: &Target| {
        LayerStack::new(target.layers.iter().map(|id| store.layer_dir(id)).collect())
    };
    match output.kind {
        OutputKind::Image(format) => {
            let image = assemble::image(store, targets, names, output, options)?;
            let exported =
                Exported { root: Some(image.root.clone()), config: image.config_digest() };
            match format {
                Format::Store => {
                    image.put(store)?;
                    if names.is_empty() {
                        crate::image::note_untagged(store, &image.root.digest)?;
                    }
                    for name in names {
                        store.put_image(&name.without_digest().to_string(), &image.root.digest)?;
                    }
                }
                Format::Oci | Format::Docker => {
                    let naming = Naming { names: names.clone(), created: image.created.clone() };
                    let mut bundle = Bundle::default();
                    image.add_to(&mut bundle, &naming);
                    if format == Format::Docker {
                        bundle.add_docker_manifest();
                    }
                    let progress = |done: u64, total: u64| {
                        let total = Some(total);
                        events.event(Event::StepProgress { step, what: "exporting", done, total });
                        if options.stop.is_asked() { Err(ExportError::Stopped) } else { Ok(()) }
                    };
                    bundle.write(store, output, &progress)?;
                }
            }
            Ok(exported)
        }
        OutputKind::Nothing => Ok(Exported { root: None, config: None }),
        OutputKind::Tar | OutputKind::Local => {
            let split = output.platform_split.unwrap_or(targets.len() > 1);
            let times = files::Times { epoch: options.epoch };
            if !split && targets.len() > 1 {
                return Err(ExportError::PlatformsMix);
            }
            let mut documents = Vec::new();
            for (at, target) in targets.iter().enumerate() {
                let predicates = options.predicates.get(at).map(Vec::as_slice).unwrap_or_default();
                let prefix = &output.attestation_prefix;
                documents.push(statements::of_files(&files(target), predicates, prefix)?);
            }
            let trees: Vec<(String, LayerStack)> = targets
                .iter()
                .map(|target| {
                    let folder = target.platform.to_string().replace('/', "_");
                    (if split { folder } else { String::new() }, files(target))
                })
                .collect();
            if output.kind == OutputKind::Tar {
                Sink::write(&output.dest, |out| {
                    let mut out = gathering(out, &options.stop);
                    files::write_tar(&trees, &documents, &mut out, &times)?;
                    out.flush().map_err(ExportError::write("the archive"))
                })?;
            } else {
                let Dest::Path(dest) = &output.dest else {
                    return Err(ExportError::FolderToStdout);
                };
                for ((folder, tree), documents) in trees.iter().zip(&documents) {
                    let dest = dest.join(folder);
                    folder::write(tree, &dest, &times, &options.stop)?;
                    folder::write_documents(documents, &dest, &times)?;
                }
            }
            Ok(Exported { root: None, config: None })
        }
    }
}

/// Writes the files of a tree, which no image needs to hold, into a folder or as a tar.
pub fn export_files(tree: LayerStack, dest: &Dest) -> Result<(), ExportError> {
    let times = files::Times { epoch: None };
    match dest {
        Dest::Path(folder) => folder::write(&tree, folder, &times, &Stop::default()),
        Dest::Stdout => {
            let trees = [(String::new(), tree)];
            Sink::write(dest, |out| files::write_tar(&trees, &[], out, &times))
        }
    }
}
