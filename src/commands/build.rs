//! `rbc build` and `rbc run`: from a graph to outputs.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use anyhow::Context;
use rbc_ir::{Digest, Graph};
use rbc_runtime::{
    build::{
        BuildError, BuildOptions, Contexts, FailedCommand, bring_base_images, build as run_graph,
    },
    export::{
        self, Ahead, Dest, ExportError, ExportOptions, Exported, Format, Origins, OutputKind,
        OutputSpec, Push, Target,
    },
    history::{self, Journal, Status, Subject},
    image::{Descriptor, Reference},
    layer::Packing,
    progress::{Event, EventSink},
    registry::{Client, Naming, Patience},
    sandbox::Cancel,
    store::{LayerId, Store},
    travel::{FromPlace, ToPlace},
};

use super::{
    Failure, Outcome, attest::Attestations, caches, call, compile, debug, graph, push, report,
    upkeep,
};
use crate::{
    cli::{BuildArgs, BuildContext, BuildFlags, ContextValue, RunArgs, SecretSource, SecretSpec},
    inputs::{self, Inputs, Place},
    registries, remote, render, signals,
    ssh::Agents,
    state,
};

/// Commands and downloads that run at the same time at least, since many of them wait most of the time.
const MIN_JOBS: usize = 8;

pub fn build(store: &Store, args: &BuildArgs) -> Outcome {
    check(&args.build)?;
    if args.context == "-" && args.file.as_deref() == Some("-") {
        return Err(Failure::Usage(
            "the context and the Dockerfile cannot both be standard input".to_owned(),
        ));
    }
    let agents = Agents::start(&args.build.ssh, &args.context)?;
    let inputs = Inputs::read(
        store,
        &Place {
            context: &args.context,
            agent: agents.of_git(),
            file: args.file.as_deref(),
            build_args: &args.compile.build_arg,
        },
    )?;
    let named = &args.build.build_contexts;
    let cancel = Cancel::new()?;
    // Checks do without images that cannot be had.
    let patience = if args.call().is_some() { Patience::Short } else { Patience::Long };
    let insecure = insecure_hosts(&args.build)?;
    let registry = registries::client_for(signals::stop_of(&cancel), &insecure, patience)?;
    if let Some(how) = args.call() {
        return call::call(store, &inputs, named, &args.compile, &registry, how);
    }
    let contexts = compile::contexts_of(store, &inputs, named)?;
    let agent = agents.of_git();
    let outside = compile::Outside { contexts: &contexts, named, registry: &registry, agent };
    let compiled = compile::with_contexts(store, &inputs, &outside, &args.compile)?;
    if !args.build.quiet {
        compile::tell(&compiled, args.build.verbose);
    }
    let outside =
        Outside { contexts: &contexts, registry: &registry, agents: &agents, cancel: &cancel };
    let place = (inputs.dockerfile.name(), args.context.as_str());
    let outcome = execute(store, &compiled.graph, place, &outside, &args.build);
    contexts.leave();
    outcome
}

/// What a graph is run with, beside its options.
struct Outside<'a> {
    contexts: &'a Contexts,
    registry: &'a Client,
    agents: &'a Agents,
    cancel: &'a Cancel,
}

pub fn run(store: &Store, args: &RunArgs) -> Outcome {
    check(&args.build)?;
    let agents = Agents::start(&args.build.ssh, &args.context)?;
    let graph = graph::read(&args.graph)?;
    let mut contexts = Contexts::new();
    let ignore = graph.meta.contexts.get("").map(|meta| meta.ignore.clone()).unwrap_or_default();
    let folder = PathBuf::from(&args.context);
    match remote::address(&args.context)? {
        Some(address) if !folder.is_dir() => {
            let fetched = remote::fetch(store, &address, &[], agents.of_git())?;
            contexts.add(store, "", fetched.folder, ignore);
            contexts.hold(fetched.dir);
        }
        _ => contexts.add(store, "", folder, ignore),
    }
    compile::add_named(store, &mut contexts, &args.build.build_contexts)?;
    let cancel = Cancel::new()?;
    let insecure = insecure_hosts(&args.build)?;
    let registry = registries::client_for(signals::stop_of(&cancel), &insecure, Patience::Long)?;
    let outside =
        Outside { contexts: &contexts, registry: &registry, agents: &agents, cancel: &cancel };
    let dockerfile = graph.meta.files.first().map_or("", |file| &file.name);
    let outcome = execute(store, &graph, (dockerfile, &args.context), &outside, &args.build);
    contexts.leave();
    outcome
}

/// Finds out what cannot work before anything is done.
fn check(flags: &BuildFlags) -> Outcome {
    for option in flags.ignored.missed() {
        report::tell(&format!("warning: {option} has no effect"));
    }
    for (option, path) in [("--iidfile", &flags.iidfile), ("--metadata-file", &flags.metadata_file)]
    {
        let folder = path.as_deref().and_then(Path::parent).filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Failure::Usage(format!(
                "{option}: there is no folder {}",
                folder.display()
            )));
        }
    }
    let outputs = outputs(flags)?;
    check_pushes(&outputs, &names(flags)?)?;
    let is_image = |output: &OutputSpec| matches!(output.kind, OutputKind::Image(_));
    caches::check(flags, outputs.iter().any(is_image))?;
    Ok(())
}

/// Runs a graph, puts out what it makes, and leaves a record of it. `place` are the names of the
/// Dockerfile and of the context.
fn execute(
    store: &Store,
    graph: &Graph,
    place: (&str, &str),
    outside: &Outside<'_>,
    flags: &BuildFlags,
) -> Outcome {
    let names = names(flags)?;
    let tags = names.iter().map(Reference::to_string).collect();
    let journal = Journal::begin(subject(graph, place), tags);
    let limit = state::limit(store, flags.state_max_size)?;
    let mut result = run_and_export(store, graph, &journal, names, outside, flags);
    if let Some(limit) = limit {
        // Nothing is needed any more, so what this build held may go too.
        let settled = limit.settle();
        upkeep::tell_evicted(&limit, flags.progress, flags.quiet);
        result = result.and_then(|()| Ok(settled?));
    }
    let outcome = match &result {
        Ok(()) => history::Outcome { status: Status::Succeeded, error: None },
        Err(_) if outside.cancel.is_cancelled() && !journal.has_failure() => {
            history::Outcome { status: Status::Cancelled, error: None }
        }
        Err(failure) => {
            let error = journal.failure().or_else(|| failure.summary());
            history::Outcome { status: Status::Failed, error }
        }
    };
    if let Err(error) = journal.close(store, graph, outside.contexts, outcome) {
        // The build is what it is, with or without a record.
        report::tell(&format!("warning: this build has no record: {error}"));
    }
    result
}

/// What a build is of, named so that the same thing has the same name from any folder.
fn subject(graph: &Graph, (dockerfile, context): (&str, &str)) -> Subject {
    let absolute = |name: &str| match std::fs::canonicalize(name) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => name.to_owned(),
    };
    Subject {
        dockerfile: absolute(dockerfile),
        context: absolute(context),
        targets: graph.targets.iter().map(|target| target.name.clone()).collect(),
        platforms: graph.targets.iter().map(|target| target.platform.to_string()).collect(),
    }
}

fn run_and_export(
    store: &Store,
    graph: &Graph,
    journal: &Journal,
    names: Vec<Reference>,
    outside: &Outside<'_>,
    flags: &BuildFlags,
) -> Outcome {
    let &Outside { contexts, registry, agents, cancel } = outside;
    let outputs = outputs(flags)?;
    let attestations = Attestations::of(flags);
    for output in &outputs {
        output.check_holds(graph.targets.len(), attestations.are_wanted())?;
    }
    let secrets = secrets(&flags.secret)?;
    let sink = render::sink(flags.progress, flags.quiet, Some(graph));
    let stopped = signals::cancel_on_them(cancel)?;
    let show_failed = |failed: &FailedCommand| {
        sink.finish();
        debug::enter(store, failed, flags.debug_shell.as_deref().unwrap_or_default(), &|| {
            stopped.load(Ordering::Relaxed)
        });
    };
    let imports = caches::open(store, registry, flags, &*sink)?;
    let ahead = Ahead::new(store, &outputs, graph.meta.source_date_epoch, signals::stop_of(cancel));
    let add_ahead = |layer: &LayerId| ahead.add(layer);
    let options = BuildOptions {
        contexts,
        oci_layouts: oci_layouts(&flags.build_contexts),
        secrets,
        ssh_agents: agents.sockets().clone(),
        jobs: jobs(flags),
        events: &*sink,
        cancel,
        registry,
        imports: imports.as_ref(),
        keep: caches::kept(flags),
        journal,
        on_failure: flags.debug_shell.is_some().then_some(&show_failed),
        on_layer: Some(&add_ahead),
    };
    let built = match ahead.during(|| run_graph(store, graph, &options).map_err(Box::new)) {
        Ok(built) => built,
        Err(error) => {
            sink.finish();
            return Err(report::build_failure(graph, *error));
        }
    };
    let caches = caches::Caches { store, graph, options: &options, flags };
    let prepared = origins(store, graph, &built.targets, &outputs, &options)
        .and_then(|origins| Ok((origins, caches.inline(&built.targets, &outputs)?)));
    let (origins, inline) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            sink.finish();
            return Err(failure);
        }
    };
    let targets: Vec<Target> = graph
        .targets
        .iter()
        .zip(built.targets)
        .map(|(target, layers)| Target {
            platform: target.platform.clone(),
            config: target.config.clone(),
            layers,
        })
        .collect();
    let export_options = ExportOptions {
        names: names.clone(),
        epoch: graph.meta.source_date_epoch,
        origins,
        caches: inline,
        predicates: attestations.predicates(store, graph, &targets, &names)?,
        stop: signals::stop_of(cancel),
    };
    let step = graph.nodes.len() + 1;
    let mut made = None;
    for output in &outputs {
        // The last step of all may have been a copy, which does not look at signals.
        if cancel.is_cancelled() {
            sink.finish();
            return Err(BuildError::Cancelled.into());
        }
        let exported = export_one(store, &targets, output, &export_options, step, &*sink)?;
        let own = if output.names.is_empty() { &names } else { &output.names };
        if let (Some(root), true) = (&exported.root, output.push != Push::No) {
            let naming = match output.push {
                Push::ByDigest => Naming::DigestOnly,
                _ => Naming::Tags,
            };
            let pushed = push::step(store, registry, &root.digest, own, naming, step, &*sink);
            if let Err(failure) = pushed {
                sink.finish();
                return Err(failure);
            }
        }
        made = made.or(exported.root.map(|root| (root, exported.config, own.clone())));
    }
    let kept = caches.put(&signals::stop_of(cancel), step + 1);
    sink.finish();
    kept?;
    if let Some((root, config, names)) = made {
        // Like buildx: the id of one platform's image, the digest of an index.
        let id = config.unwrap_or(root.digest);
        if flags.quiet {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{id}")?;
        }
        if let Some(path) = &flags.iidfile {
            inputs::write_file(path, id.to_string().as_bytes())?;
        }
        if let Some(path) = &flags.metadata_file {
            let facts = metadata(&root, config.as_ref(), &names);
            inputs::write_file(path, &serde_json::to_vec_pretty(&facts)?)?;
        }
    }
    Ok(())
}

/// What buildx writes to `--metadata-file`, under the same keys.
fn metadata(
    root: &Descriptor,
    config: Option<&Digest>,
    names: &[Reference],
) -> serde_json::Map<String, serde_json::Value> {
    let mut facts = serde_json::Map::new();
    if let Some(config) = config {
        facts.insert("containerimage.config.digest".to_owned(), config.to_string().into());
    }
    let descriptor = serde_json::json!({
        "mediaType": root.media_type,
        "digest": root.digest.to_string(),
        "size": root.size,
    });
    facts.insert("containerimage.descriptor".to_owned(), descriptor);
    facts.insert("containerimage.digest".to_owned(), root.digest.to_string().into());
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        facts.insert("image.name".to_owned(), names.join(",").into());
    }
    facts
}

/// The registries that an output calls insecure.
fn insecure_hosts(flags: &BuildFlags) -> Result<Vec<String>, Failure> {
    let names = names(flags)?;
    let outputs = flags.output.iter().filter(|output| output.insecure);
    let names = outputs.flat_map(|o| if o.names.is_empty() { &names } else { &o.names });
    let caches = flags.cache_to.iter().filter(|to| to.insecure).filter_map(|to| match &to.place {
        ToPlace::Registry(reference) => Some(reference),
        _ => None,
    });
    let sources =
        flags.cache_from.iter().filter(|from| from.insecure).filter_map(|from| match &from.place {
            FromPlace::Registry(reference) => Some(reference),
            FromPlace::Local { .. } => None,
        });
    Ok(names.chain(caches).chain(sources).map(|name| name.domain().to_owned()).collect())
}

/// A push needs a name.
fn check_pushes(outputs: &[OutputSpec], names: &[Reference]) -> Outcome {
    let nameless = |output: &OutputSpec| {
        output.push != Push::No && output.names.is_empty() && names.is_empty()
    };
    if outputs.iter().any(nameless) {
        return Err(Failure::Usage(
            "a push needs a name: give -t NAME, or name=NAME in the output".to_owned(),
        ));
    }
    Ok(())
}

fn export_one(
    store: &Store,
    targets: &[Target],
    output: &OutputSpec,
    options: &ExportOptions,
    step: usize,
    sink: &dyn EventSink,
) -> Result<Exported, Failure> {
    let name = match (&output.kind, &output.dest) {
        (OutputKind::Nothing, _) => return Ok(Exported { root: None, config: None }),
        (OutputKind::Image(Format::Store), _) => "exporting to the local image store".to_owned(),
        (_, Dest::Stdout) => "exporting to standard output".to_owned(),
        (_, Dest::Path(path)) => format!("exporting to {}", path.display()),
    };
    let digest = Digest::of(name.as_bytes());
    let begin = std::time::Instant::now();
    sink.event(Event::StepStarted { step, name: &name, digest: &digest });
    let result = export::export(store, targets, output, options, step, sink);
    let error = result.as_ref().err().map(ToString::to_string);
    let elapsed = begin.elapsed();
    sink.event(Event::StepFinished { step, error: error.as_deref(), elapsed });
    match result {
        Err(ExportError::Stopped) => Err(BuildError::Cancelled.into()),
        result => Ok(result?),
    }
}

fn names(flags: &BuildFlags) -> Result<Vec<Reference>, Failure> {
    flags
        .tag
        .iter()
        .map(|name| name.parse().map_err(|e| Failure::Usage(format!("-t {name}: {e}"))))
        .collect()
}

/// What was asked for; an image in the local store if nothing was. An output with names of its own
/// gets those of `-t` as well: whoever gives both wants both.
fn outputs(flags: &BuildFlags) -> Result<Vec<OutputSpec>, Failure> {
    let mut outputs = flags.output.clone();
    if flags.push {
        let is_image = |output: &&mut OutputSpec| {
            output.kind == OutputKind::Image(Format::Store) && output.push == Push::No
        };
        let mut images = outputs.iter_mut().filter(is_image).peekable();
        if images.peek().is_some() {
            images.for_each(|output| output.push = Push::ByName);
        } else if outputs.iter().all(|output| output.push == Push::No) {
            let mut output = OutputSpec::new(OutputKind::Image(Format::Store), Dest::Stdout);
            output.push = Push::ByName;
            outputs.push(output);
        }
    }
    let is_here = |output: &OutputSpec| output.kind == OutputKind::Image(Format::Store);
    if outputs.is_empty() || (flags.load && !outputs.iter().any(is_here)) {
        let mut output = OutputSpec::new(OutputKind::Image(Format::Store), Dest::Stdout);
        // Nothing is sent anywhere, so compressing would only cost time.
        output.recipe = Packing::None.into();
        outputs.push(output);
    }
    let names = names(flags)?;
    for output in &mut outputs {
        for annotation in &flags.annotation {
            output.annotations.extend(annotation.0.iter().cloned());
        }
        if !output.names.is_empty() {
            let more: Vec<Reference> =
                names.iter().filter(|name| !output.names.contains(name)).cloned().collect();
            output.names.extend(more);
        }
    }
    Ok(outputs)
}

/// The blobs of the graph's base images, to be used as they came. Outputs that are no images need
/// none.
fn origins(
    store: &Store,
    graph: &Graph,
    targets: &[Vec<LayerId>],
    outputs: &[OutputSpec],
    options: &BuildOptions<'_>,
) -> Result<Origins, Failure> {
    if !outputs.iter().any(|output| matches!(output.kind, OutputKind::Image(_))) {
        return Ok(Origins::default());
    }
    let manifests = bring_base_images(store, graph, targets, options)?;
    Ok(Origins::of_manifests(store, &manifests)?)
}

fn secrets(specs: &[SecretSpec]) -> anyhow::Result<HashMap<String, Vec<u8>>> {
    let file = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read the secret {}", path.display()))
    };
    let env = |name: &String| {
        use std::os::unix::ffi::OsStringExt;
        std::env::var_os(name).map(OsStringExt::into_vec)
    };
    specs
        .iter()
        .map(|spec| {
            let data = match &spec.source {
                SecretSource::File(path) => file(path)?,
                SecretSource::Env(name) => {
                    env(name).with_context(|| format!("the environment has no variable {name}"))?
                }
                SecretSource::EnvOrFile(name) => match env(name) {
                    Some(data) => data,
                    None => file(&PathBuf::from(name))?,
                },
            };
            Ok((spec.id.clone(), data))
        })
        .collect()
}

fn oci_layouts(named: &[BuildContext]) -> HashMap<String, PathBuf> {
    named
        .iter()
        .filter_map(|context| match &context.value {
            ContextValue::OciLayout { path, .. } => Some((context.name.clone(), path.clone())),
            _ => None,
        })
        .collect()
}

fn jobs(flags: &BuildFlags) -> usize {
    flags.jobs.map_or_else(
        || std::thread::available_parallelism().map_or(MIN_JOBS, |n| n.get().max(MIN_JOBS)),
        usize::from,
    )
}
