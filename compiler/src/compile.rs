//! The whole way from a Dockerfile to a graph.

use std::{collections::HashSet, sync::Arc};

use indexmap::IndexMap;
use rbc_ir::{Graph, GraphBuilder, GraphError, Platform};

use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    globals::Globals,
    instruction::{self, Command, Instruction},
    lint::Linter,
    lower::{self, Job, Scope},
    options::CompileOptions,
    pins::Pins,
    platform_args,
    resolver::Resolver,
    stage::Stages,
    suggest::nearest,
    syntax::{self, DirectiveKind, Dockerfile, SourceFile, Span, Word},
};

/// The build argument that sets the time of the image (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// A compiled Dockerfile.
#[derive(Debug)]
#[non_exhaustive]
pub struct Compiled {
    /// What to build: one target for each platform.
    pub graph: Graph,
    /// What works but is probably not meant.
    pub warnings: Diagnostics,
    /// Names (or `stage-N`) of the stages that the target does not need, in order.
    pub unused: Vec<String>,
}

/// Compiles a Dockerfile into a build graph.
///
/// All that comes from outside (images, contexts, repositories, downloads) is pinned through
/// `resolver`; the compiler itself does no I/O. Stages that the target does not need are checked but
/// nothing of them is resolved.
///
/// Errors come with their place in the text. Each step reports all that it finds wrong before the
/// next is kept from running.
///
/// ```
/// use std::sync::Arc;
///
/// use rbc_compiler::{
///     CompileOptions, ImageRequest, ResolveError, ResolvedImage, Resolver, compile,
///     syntax::SourceFile,
/// };
/// use rbc_ir::{Digest, ImageConfig, Platform, Selection};
///
/// /// A world with one image and a context that always has the same content.
/// struct World;
///
/// impl Resolver for World {
///     fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
///         if request.reference != "docker.io/library/busybox:latest" {
///             return Err(ResolveError::new(format!("{}: not found", request.reference)));
///         }
///         Ok(ResolvedImage {
///             reference: request.reference.clone(),
///             manifest: Digest::of(b"the manifest"),
///             platform: request.platform.clone(),
///             config: ImageConfig::default(),
///         })
///     }
///     fn context_digest(&self, _: &str, _: &Selection) -> Result<Digest, ResolveError> {
///         Ok(Digest::of(b"app.c"))
///     }
/// }
///
/// let dockerfile = "FROM busybox AS builder\nCOPY app.c .\nRUN cc -o /app app.c\n\
///                   FROM scratch\nCOPY --from=builder /app /app\nCMD [\"/app\"]\n";
/// let source = Arc::new(SourceFile::new("Dockerfile", dockerfile));
/// let compiled = compile(&source, &CompileOptions::default(), &World).unwrap();
///
/// let target = &compiled.graph.targets[0];
/// assert_eq!(target.config.config.cmd.as_deref(), Some(&["/app".to_owned()][..]));
/// let copy = &compiled.graph.node_meta(&target.root.unwrap().node).name;
/// assert_eq!(copy, "[stage-1 1/1] COPY --from=builder /app /app");
/// ```
pub fn compile(
    source: &Arc<SourceFile>,
    options: &CompileOptions,
    resolver: &dyn Resolver,
) -> Result<Compiled, Diagnostics> {
    let mut lint = Linter::default();
    let translated = translate(source, options, resolver, Scope::Target, &mut lint)?;
    let failure = lint.failure();
    let mut warnings = Diagnostics::new();
    warnings.extend(lint.found);
    warnings.extend(translated.unconsumed);
    if let Some(failure) = failure {
        warnings.push(failure);
        return Err(warnings);
    }
    Ok(Compiled { graph: translated.graph, warnings, unused: translated.unused })
}

/// What [`translate`] makes of a Dockerfile.
pub(crate) struct Translated {
    graph: Graph,
    unused: Vec<String>,
    /// Tells of build arguments that nothing takes.
    unconsumed: Option<Diagnostic>,
}

/// Compiles a Dockerfile. What the checks find is in `lint` even if there are errors.
pub(crate) fn translate(
    source: &Arc<SourceFile>,
    options: &CompileOptions,
    resolver: &dyn Resolver,
    scope: Scope,
    lint: &mut Linter,
) -> Result<Translated, Diagnostics> {
    let options = &effective(options);
    let dockerfile = syntax::parse(Arc::clone(source))?;
    *lint = linter(options, &dockerfile)?;
    lint.empty_continuations(&dockerfile.warnings);
    let instructions: Vec<Arc<Instruction>> =
        instruction::parse(&dockerfile)?.into_iter().map(Arc::new).collect();
    lint.check_text(&instructions);

    let mut graph = GraphBuilder::new();
    graph.meta.files =
        vec![rbc_ir::SourceFile { name: source.name().to_owned(), text: source.text().to_owned() }];
    graph.meta.contexts.insert(String::new(), options.context.clone());

    let host = options.host_platform.clone().unwrap_or_else(Platform::host);
    let asked = !options.platforms.is_empty();
    let platforms = if asked { options.platforms.as_slice() } else { std::slice::from_ref(&host) };
    let mut pins = Pins::new(resolver);
    let mut targets = Vec::with_capacity(platforms.len());
    let mut unused = Vec::new();
    for (index, platform) in platforms.iter().enumerate() {
        let mut again = Linter::silent();
        let lint = if index == 0 { &mut *lint } else { &mut again };
        let target_name = target_name(options, &instructions);
        let predefined = platform_args::globals(&host, platform, target_name, &options.build_args);
        let globals = Globals::read(predefined.clone(), &instructions, &options.build_args)?;
        if let Ok(defaults) = Globals::read(predefined, &instructions, &IndexMap::new()) {
            lint.default_bases(&instructions, &defaults);
        }
        graph.meta.source_date_epoch = source_date_epoch(options, &globals)?;
        let mut stages = Stages::read(&instructions, &globals, &options.named_contexts, lint)?;
        lint.advise(&stages, &instructions, stages.target(options.target.as_deref())?);
        let job = Job {
            options,
            globals: &globals,
            platform,
            platform_is_asked: asked,
            escape: dockerfile.escape,
            scope,
        };
        let outcome = lower::lower(&job, &mut pins, &mut stages, &mut graph, lint)?;
        targets.push(outcome.target);
        unused = outcome.unused;
    }
    let graph = graph.finish(targets);
    graph.validate().map_err(|error| ill_formed(source, &graph, error))?;
    Ok(Translated { graph, unused, unconsumed: unconsumed(options, &instructions) })
}

/// The linter with the settings of the build argument or else the directive.
fn linter(options: &CompileOptions, dockerfile: &Dockerfile) -> Result<Linter, Diagnostic> {
    if let Some(given) = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        return Linter::new(Some(&Word::new(given, Span::default())), options);
    }
    let directive = dockerfile.directive(DirectiveKind::Check).map(|directive| &directive.value);
    Linter::new(directive, options).map_err(|error| match directive {
        Some(word) => error.at(&dockerfile.source, word.span),
        None => error,
    })
}

/// What the text or the options say but no graph may hold, such as a NUL in an argument, at the
/// instruction it comes from.
fn ill_formed(source: &Arc<SourceFile>, graph: &Graph, error: GraphError) -> Diagnostic {
    match error {
        GraphError::BadNode { node, reason } => {
            let wrong = Diagnostic::error("ill-formed", reason);
            match graph.node_meta(&node).span {
                Some(span) => wrong.at(source, Span::new(span.start as usize, span.end as usize)),
                None => wrong,
            }
        }
        other => Diagnostic::error("ill-formed", other.to_string()),
    }
}

/// The options with what docker makes of them: `SOURCE_DATE_EPOCH` of the environment is a build
/// argument too, and `BUILDKIT_SANDBOX_HOSTNAME` sets the host name of the steps.
fn effective(options: &CompileOptions) -> CompileOptions {
    let mut options = options.clone();
    if let Some(epoch) = options.source_date_epoch {
        options.build_args.entry(EPOCH.to_owned()).or_insert_with(|| epoch.to_string());
    }
    if let (true, Some(name)) =
        (options.hostname.is_empty(), options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME"))
    {
        options.hostname = name.clone();
    }
    options
}

/// What `TARGETSTAGE` is: the asked target, else the name of the last stage.
fn target_name<'a>(options: &'a CompileOptions, instructions: &'a [Arc<Instruction>]) -> &'a str {
    if let Some(name) = options.target.as_deref().filter(|name| !name.is_empty()) {
        return name;
    }
    let last = instructions.iter().rev().find_map(|instruction| match &instruction.command {
        Command::From(from) => Some(from),
        _ => None,
    });
    last.and_then(|from| from.name.as_ref()).map_or("", |name| name.text.as_str())
}

/// The time of the image, from a build argument or a global ARG; an empty one means nothing.
fn source_date_epoch(
    options: &CompileOptions,
    globals: &Globals,
) -> Result<Option<i64>, Diagnostic> {
    match options.build_args.get(EPOCH).or_else(|| globals.values.get(EPOCH)) {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| {
            Diagnostic::error("bad-epoch", format!("invalid SOURCE_DATE_EPOCH: {text:?}"))
                .help("give the seconds since 1970-01-01T00:00:00Z")
        }),
        _ => Ok(None),
    }
}

/// Build arguments that no ARG takes, as the old builder of Docker tells of them.
fn unconsumed(options: &CompileOptions, instructions: &[Arc<Instruction>]) -> Option<Diagnostic> {
    let declared: HashSet<&str> = instructions
        .iter()
        .filter_map(|instruction| match &instruction.command {
            Command::Arg(declarations) => Some(declarations),
            _ => None,
        })
        .flatten()
        .map(|declaration| declaration.name.text.as_str())
        .collect();
    let mut names: Vec<&str> = options
        .build_args
        .keys()
        .map(String::as_str)
        .filter(|name| !platform_args::is_predefined(name) && !declared.contains(name))
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        return None;
    }
    let message =
        format!("[Warning] One or more build-args [{}] were not consumed", names.join(" "));
    let mut known: Vec<&str> = declared.into_iter().collect();
    known.sort_unstable();
    let near = names.iter().take(10).filter_map(|name| {
        nearest(name, known.iter().copied()).map(|near| format!("{name}: did you mean {near}?"))
    });
    Some(near.fold(Diagnostic::warning("UnusedBuildArg", message), Diagnostic::help))
}
