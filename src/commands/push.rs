//! `rbc push`, and the push at the end of a build.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rbc_ir::Digest;
use rbc_runtime::{
    export::{BaseLayers, Repacking, repack},
    image::{self, Descriptor, Reference},
    layer::Packing,
    progress::{Event, EventSink},
    registry::{self, Client, Naming, Pushed},
    store::Store,
};

use super::{Failure, Outcome};
use crate::{
    cli::{PushArgs, PushCompression},
    registries, render, signals,
};

pub fn push(store: &Store, args: &PushArgs) -> Outcome {
    let root = image::find(store, &args.image)?;
    let names = if args.names.is_empty() { vec![args.image.clone()] } else { args.names.clone() };
    let names: Vec<Reference> = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Usage(format!("{error}; give a NAME to push it to")))?;
    let compression = match args.compression {
        PushCompression::Gzip => Packing::Gzip,
        PushCompression::Zstd => Packing::Zstd,
        PushCompression::Uncompressed => Packing::None,
    };
    let compressed = if args.force_compression { BaseLayers::Recompress } else { BaseLayers::Keep };
    let root = repack(store, &root, Repacking { compression, compressed })?;
    let client = registries::client(signals::stop_on_them()?)?;
    let sink = render::sink(args.progress, args.quiet, None);
    let pushed = step(store, &client, &root, &names, Naming::Tags, 1, &*sink);
    sink.finish();
    pushed?;
    writeln!(io::stdout(), "{root}")?;
    Ok(())
}

/// Pushes as a step that is shown.
pub fn step(
    store: &Store,
    client: &Client,
    root: &Digest,
    names: &[Reference],
    naming: Naming,
    step: usize,
    sink: &dyn EventSink,
) -> Result<Vec<Pushed>, Failure> {
    let shown: Vec<String> = names.iter().map(Reference::familiar).collect();
    let name = format!("pushing {}", shown.join(", "));
    let begin = Instant::now();
    sink.event(Event::StepStarted { step, name: &name, digest: root });
    let moved = Moved::new(step, sink);
    let pushed =
        registry::push(client, store, root, names, naming, &|blob, done| moved.tell(blob, done));
    let error = pushed.as_ref().err().map(ToString::to_string);
    sink.event(Event::StepFinished { step, error: error.as_deref(), elapsed: begin.elapsed() });
    Ok(pushed?)
}

/// Tells of the bytes of several blobs that move at once as of one number.
pub struct Moved<'a> {
    step: usize,
    sink: &'a dyn EventSink,
    blobs: Mutex<BTreeMap<Digest, (u64, u64)>>,
}

impl<'a> Moved<'a> {
    pub fn new(step: usize, sink: &'a dyn EventSink) -> Self {
        Self { step, sink, blobs: Mutex::default() }
    }

    /// So much of a blob is there.
    pub fn tell(&self, blob: &Descriptor, done: u64) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(blob.digest, (done, blob.size));
        let (done, total) =
            blobs.values().fold((0, 0), |(done, total), (d, t)| (done + d, total + t));
        drop(blobs);
        let what = "layers";
        self.sink.event(Event::StepProgress { step: self.step, what, done, total: Some(total) });
    }
}
