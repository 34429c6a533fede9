//! `--cache-from` and `--cache-to` of a build.

use std::time::Instant;

use rbc_ir::{Digest, Graph};
use rbc_runtime::{
    build::{BuildError, BuildOptions, bring_base_images},
    export::{Dest, ExportError, Origins, OutputKind, OutputSpec, Packaging},
    layer::Packing,
    progress::{Event, EventSink},
    registry::{Client, Stop},
    store::{LayerId, Store},
    travel::{
        self, CacheTo, Contents, Imports, Mode, Mounts, PackOptions, Packed, ToPlace, TravelError,
    },
};

use super::{Failure, Outcome, push};
use crate::cli::BuildFlags;

/// Finds out what cannot work before anything is done.
pub fn check(flags: &BuildFlags, has_image: bool) -> Outcome {
    if flags.cache_to.iter().any(|to| to.place == ToPlace::Inline) && !has_image {
        return Err(Failure::Usage(
            "--cache-to type=inline puts the cache into an image, and no output is one".to_owned(),
        ));
    }
    Ok(())
}

/// Opens the caches of `--cache-from`.
pub fn open<'a>(
    store: &Store,
    registry: &'a Client,
    flags: &BuildFlags,
    events: &dyn EventSink,
) -> Result<Option<Imports<'a>>, Failure> {
    if flags.cache_from.is_empty() {
        return Ok(None);
    }
    Ok(Some(Imports::open(store, registry, &flags.cache_from, events)?))
}

/// Which results have to be there for `--cache-to` once the build has ended.
pub fn kept(flags: &BuildFlags) -> Mode {
    let of_all = |to: &CacheTo| to.mode == Mode::Max && to.place != ToPlace::Inline;
    if flags.cache_to.iter().any(of_all) { Mode::Max } else { Mode::Min }
}

/// A build that has ended, of which caches are made.
pub struct Caches<'a> {
    pub store: &'a Store,
    pub graph: &'a Graph,
    pub options: &'a BuildOptions<'a>,
    pub flags: &'a BuildFlags,
}

impl Caches<'_> {
    /// The documents for the images of the targets, if `type=inline` is asked for.
    pub fn inline(
        &self,
        targets: &[Vec<LayerId>],
        outputs: &[OutputSpec],
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        if !self.flags.cache_to.iter().any(|to| to.place == ToPlace::Inline) {
            return Ok(Vec::new());
        }
        let gathered = travel::of_build(self.store, self.graph, self.options.imports, Mode::Min)?;
        let images = outputs.iter().filter(|output| matches!(output.kind, OutputKind::Image(_)));
        let mut packings: Vec<Packing> = images.map(|output| output.recipe.packing).collect();
        packings.dedup();
        // Of one image in two compressions, neither is the one that was meant.
        let packing = if let [only] = packings.as_slice() { Some(*only) } else { None };
        let epoch = self.graph.meta.source_date_epoch;
        let document = |layers: &Vec<LayerId>| travel::inline(&gathered, layers, epoch, packing);
        Ok(targets.iter().map(document).collect())
    }

    /// Writes the caches that are no part of the image. Steps are shown from `step` on.
    pub fn put(&self, stop: &Stop, step: usize) -> Outcome {
        let mut elsewhere = self.flags.cache_to.iter().filter(|to| to.place != ToPlace::Inline);
        elsewhere.try_for_each(|to| {
            let name = format!("exporting {}", to.shown());
            let digest = Digest::of(name.as_bytes());
            let events = self.options.events;
            let begin = Instant::now();
            events.event(Event::StepStarted { step, name: &name, digest: &digest });
            let put = self.put_one(to, stop, step);
            let error = put.as_ref().err().and_then(Failure::summary);
            let elapsed = begin.elapsed();
            events.event(Event::StepFinished { step, error: error.as_deref(), elapsed });
            match put {
                Err(failure) if to.ignore_error && !stop.is_asked() => {
                    let reason = failure.summary().unwrap_or_default();
                    events.event(Event::Warning(&format!("{name} failed: {reason}")));
                    Ok(())
                }
                put => put,
            }
        })
    }

    fn put_one(&self, to: &CacheTo, stop: &Stop, step: usize) -> Outcome {
        let imports = self.options.imports;
        let results = travel::of_build(self.store, self.graph, imports, to.mode)?;
        let stacks: Vec<Vec<LayerId>> =
            results.results.iter().map(|(_, stored)| here(self.store, &stored.layers)).collect();
        let manifests = bring_base_images(self.store, self.graph, &stacks, self.options)?;
        let options = PackOptions {
            compression: to.compression,
            epoch: self.graph.meta.source_date_epoch,
            origins: Origins::of_manifests(self.store, &manifests)?,
            imports,
            stop: stop.clone(),
        };
        let contents = Contents { results, mounts: Mounts::none() };
        let place = match &to.place {
            ToPlace::Local { dest, tag } => {
                Place::Layout { dest: &Dest::Path(dest.clone()), packaging: Packaging::Folder, tag }
            }
            ToPlace::Registry(reference) => {
                Place::Registry { client: self.options.registry, reference }
            }
            ToPlace::Inline => return Ok(()),
        };
        loop {
            let packed = travel::pack(self.store, &contents, &options)?;
            match write(self.store, &packed, imports, place, (step, self.options.events, stop)) {
                // Another build replaced it. Each time at least one layer more is left out.
                Err(lost @ TravelError::Lost { .. }) => {
                    let text = format!("{lost}: {} goes on without them", to.shown());
                    self.options.events.event(Event::Warning(&text));
                }
                written => return outcome(written),
            }
        }
    }
}

/// Those of the layers that are in the store.
fn here(store: &Store, layers: &[LayerId]) -> Vec<LayerId> {
    layers.iter().filter(|id| store.has_layer(id)).cloned().collect()
}

/// What becomes of a command that wrote a cache or not.
pub fn outcome(written: Result<(), TravelError>) -> Outcome {
    match written {
        Err(TravelError::Stopped) => Err(BuildError::Cancelled.into()),
        written => Ok(written?),
    }
}

/// Where a packed cache goes.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Layout { dest: &'a Dest, packaging: Packaging, tag: &'a str },
    Registry { client: &'a Client, reference: &'a rbc_runtime::image::Reference },
}

/// Writes a packed cache, and tells of the bytes as those of a step.
pub fn write(
    store: &Store,
    packed: &Packed,
    imports: Option<&Imports<'_>>,
    place: Place<'_>,
    (step, events, stop): (usize, &dyn EventSink, &Stop),
) -> Result<(), TravelError> {
    match place {
        Place::Layout { dest, packaging, tag } => {
            let progress = |done, total| {
                let total = Some(total);
                events.event(Event::StepProgress { step, what: "writing", done, total });
                if stop.is_asked() { Err(ExportError::Stopped) } else { Ok(()) }
            };
            travel::put_layout(store, packed, imports, (dest, packaging), tag, &progress)
        }
        Place::Registry { client, reference } => {
            let moved = push::Moved::new(step, events);
            travel::put_registry(store, client, packed, imports, reference, &|blob, done| {
                moved.tell(blob, done);
            })
        }
    }
}
