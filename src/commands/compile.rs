//! `rbc compile`, and compiling for `rbc build`.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::Context;
use rbc_compiler::{CompileOptions, Compiled, NoCache, Pull};
use rbc_ir::Network;
use rbc_runtime::{
    build::Contexts,
    history,
    registry::{Client, Stop},
    store::Store,
};

use super::{Failure, Outcome, report};
use crate::{
    cli::{BuildContext, CompileArgs, CompileFlags, ContextValue, NetworkMode},
    inputs::{self, IgnoreFile, Inputs, Place},
    registries, remote,
    resolver::RuntimeResolver,
    ssh, state,
};

/// What a Dockerfile is compiled against.
pub struct Outside<'a> {
    pub contexts: &'a Contexts,
    pub named: &'a [BuildContext],
    pub registry: &'a Client,
    /// The ssh agent of git sources.
    pub agent: Option<&'a Path>,
}

pub fn compile(root: Option<&Path>, args: &CompileArgs) -> Outcome {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "the graph is binary, and standard output is a terminal: redirect it or use -o FILE"
                .to_owned(),
        ));
    }
    let store = state::open(root)?;
    // Compiling asks git servers only which commit they have.
    let agent = ssh::own_agent();
    let inputs = Inputs::read(
        &store,
        &Place {
            context: &args.context,
            agent: agent.as_deref(),
            file: Some(&args.file),
            build_args: &args.compile.build_arg,
        },
    )?;
    let contexts = contexts_of(&store, &inputs, &args.build_contexts)?;
    let registry = registries::client(Stop::default())?;
    let outside = Outside {
        contexts: &contexts,
        named: &args.build_contexts,
        registry: &registry,
        agent: agent.as_deref(),
    };
    let compiled = with_contexts(&store, &inputs, &outside, &args.compile)?;
    contexts.save();
    // So that explain can name files; a folder that cannot be written is no reason to fail.
    let _ = history::write_listings(&store, &compiled.graph, &contexts);
    tell(&compiled, args.verbose);
    let bytes = compiled.graph.encode()?;
    match &args.output {
        Some(path) => inputs::write_file(path, &bytes)?,
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush()).context("cannot write the graph")?;
        }
    }
    Ok(())
}

/// The local contexts of a build: the main one, and the named ones that are folders.
pub fn contexts_of(
    store: &Store,
    inputs: &Inputs,
    named: &[BuildContext],
) -> anyhow::Result<Contexts> {
    let mut contexts = Contexts::new();
    let ignore = inputs.ignore.as_ref().map(IgnoreFile::texts).unwrap_or_default();
    contexts.add(store, "", inputs.context.clone(), ignore);
    add_named(store, &mut contexts, named)?;
    Ok(contexts)
}

/// Adds the named contexts that are read in place: folders, each with its own ignore file, and
/// files of the web.
pub fn add_named(
    store: &Store,
    contexts: &mut Contexts,
    named: &[BuildContext],
) -> anyhow::Result<()> {
    for BuildContext { name, value } in named {
        match value {
            ContextValue::Folder(path) => {
                if !path.is_dir() {
                    anyhow::bail!("the build context {name:?} is no folder: {}", path.display());
                }
                let ignore = IgnoreFile::read(path.join(".dockerignore"))?;
                let ignore = ignore.as_ref().map(IgnoreFile::texts).unwrap_or_default();
                contexts.add(store, name, path.clone(), ignore);
            }
            ContextValue::File(url) => {
                let fetched = remote::download(store, url)
                    .with_context(|| format!("the build context {name:?}"))?;
                contexts.add(store, name, fetched.folder, Vec::new());
                contexts.hold(fetched.dir);
            }
            ContextValue::Image(_)
            | ContextValue::OciLayout { .. }
            | ContextValue::Stage(_)
            | ContextValue::Git(_) => {}
        }
    }
    Ok(())
}

/// Compiles a Dockerfile whose contexts are open.
pub fn with_contexts(
    store: &Store,
    inputs: &Inputs,
    outside: &Outside<'_>,
    flags: &CompileFlags,
) -> Result<Compiled, Failure> {
    let &Outside { contexts, named, registry, agent } = outside;
    let options = options_for(inputs, named, flags)?;
    let ignore = inputs.ignore.as_ref();
    let resolver =
        RuntimeResolver::new(store, contexts, named, (registry, agent)).with_ignore(ignore);
    rbc_compiler::compile(&inputs.dockerfile, &options, &resolver)
        .map_err(|errors| report::diagnostics(&errors))
}

/// The options of compiling a Dockerfile with its contexts.
pub fn options_for(
    inputs: &Inputs,
    named: &[BuildContext],
    flags: &CompileFlags,
) -> Result<CompileOptions, Failure> {
    let mut options = options(flags)?;
    if let Some(ignore) = &inputs.ignore {
        options.context = ignore.meta();
        options.ignore_lines = ignore.patterns.iter().map(|pattern| pattern.line).collect();
    }
    options.named_contexts = named.iter().map(|context| context.name.clone()).collect();
    Ok(options)
}

fn options(flags: &CompileFlags) -> Result<CompileOptions, Failure> {
    let mut options = CompileOptions {
        target: flags.target.clone(),
        platforms: flags.platform.clone(),
        add_hosts: flags.add_host.clone(),
        ulimits: flags.ulimit.clone(),
        shm_size: flags.shm_size.unwrap_or(0),
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        network: match flags.network {
            NetworkMode::Default => Network::Default,
            NetworkMode::Host => Network::Host,
            NetworkMode::None => Network::None,
        },
        no_cache: match (flags.no_cache, flags.no_cache_filter.as_slice()) {
            (true, _) => NoCache::All,
            (false, []) => NoCache::Never,
            (false, stages) => NoCache::Stages(stages.to_vec()),
        },
        pull: if flags.pull { Pull::Always } else { Pull::IfMissing },
        entitlements: flags.allow.iter().copied().collect(),
        source_date_epoch: source_date_epoch()?,
        ..CompileOptions::default()
    };
    for argument in &flags.build_arg {
        match argument.split_once('=') {
            Some((name, value)) => {
                options.build_args.insert(name.to_owned(), value.to_owned());
            }
            // Like docker: a name alone takes the value of the environment, if it has one.
            None => {
                if let Ok(value) = std::env::var(argument) {
                    options.build_args.insert(argument.clone(), value);
                }
            }
        }
    }
    for label in &flags.label {
        options.labels.insert(label.name.clone(), label.value.clone());
    }
    Ok(options)
}

fn source_date_epoch() -> Result<Option<i64>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => match text.parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Failure::Usage(format!(
                "SOURCE_DATE_EPOCH is {text:?}: want seconds since 1970"
            ))),
        },
    }
}

/// Tells warnings, and with `-v` what is not built.
pub fn tell(compiled: &Compiled, verbose: bool) {
    if !compiled.warnings.is_empty() {
        report::tell(&format!("{}\n", compiled.warnings.render(report::style())));
    }
    if verbose {
        for stage in &compiled.unused {
            report::tell(&format!("stage {stage} is not needed and not built"));
        }
    }
}
