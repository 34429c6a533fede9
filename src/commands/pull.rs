//! `rbc pull`.

use std::{
    io::{self, Write},
    time::Instant,
};

use rbc_ir::{Digest, Platform};
use rbc_runtime::{image::Reference, progress::Event, registry, store::Store};

use super::{Outcome, push::Moved};
use crate::{cli::PullArgs, registries, render, signals};

pub fn pull(store: &Store, args: &PullArgs) -> Outcome {
    let reference: Reference = args.image.parse()?;
    let client = registries::client(signals::stop_on_them()?)?;
    let sink = render::sink(args.progress, args.quiet, None);
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let (step, begin) = (1, Instant::now());
    let name = format!("pulling {}", reference.familiar());
    let digest = Digest::of(name.as_bytes());
    sink.event(Event::StepStarted { step, name: &name, digest: &digest });
    let moved = Moved::new(step, &*sink);
    let pulled = registry::pull(&client, store, &reference, &platform, &|blob, done| {
        moved.tell(blob, done);
    });
    let error = pulled.as_ref().err().map(ToString::to_string);
    sink.event(Event::StepFinished { step, error: error.as_deref(), elapsed: begin.elapsed() });
    sink.finish();
    let manifest = pulled?.descriptor.digest;
    // What is named by its digest alone gets no name here; it is kept as what builds pull is.
    if reference.tag().is_some() {
        store.put_image(&reference.without_digest().to_string(), &manifest)?;
    }
    writeln!(io::stdout(), "{manifest}")?;
    Ok(())
}
