//! Executes a graph: plan ▸ key ▸ lookup ▸ execute ▸ snapshot.
//!
//! [`build`] looks every node up in the cache (`plan`), runs what is missing, independent nodes at
//! the same time (`schedule`), and gives the layers of each target. Turning them into images and
//! archives is the job of [`crate::export`].

mod cache_mount;
mod contexts;
mod cutoff;
mod execute;
mod failed;
mod images;
mod likely;
mod log;
mod made;
mod mounts;
mod notes;
mod plan;
mod platform;
mod schedule;
mod steps;
#[cfg(test)]
mod testing;
mod values;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rbc_ir::{Digest, Graph, GraphError, Op, Platform, Source};

pub use contexts::{ContextError, Contexts};
pub use failed::FailedCommand;
pub use images::bring_base_images;

use crate::{
    explain,
    fileop::FileOpError,
    history::{self, Builds, Journal},
    image::{ImageError, ReferenceError},
    layer::LayerError,
    progress::{Event, EventSink, Silent, StepId},
    registry::{Client, RegistryError},
    sandbox::{Cancel, Exit, SandboxError},
    source::{git::GitError, http::HttpError},
    store::{LayerId, Store, StoreError},
    travel::{Fetching, Imports, Mode, TravelError},
    tree::TreeError,
};
pub(crate) use notes::step_records;
use plan::{Fate, Plan};
pub(crate) use plan::{is_transparent, parts_of_targets};

/// Everything a build needs beside the graph.
pub struct BuildOptions<'a> {
    /// The local contexts that the graph's context nodes are read from.
    pub contexts: &'a Contexts,
    /// Folders or archives of the named contexts given as OCI layouts, by name.
    pub oci_layouts: HashMap<String, PathBuf>,
    /// Secrets by id.
    pub secrets: HashMap<String, Vec<u8>>,
    /// Sockets of ssh agents by id.
    pub ssh_agents: HashMap<String, PathBuf>,
    /// How many commands and downloads may run at the same time.
    pub jobs: usize,
    /// Where events go.
    pub events: &'a dyn EventSink,
    /// Stops the build.
    pub cancel: &'a Cancel,
    /// Fetches base images.
    pub registry: &'a Client,
    /// Other caches, which are asked for what the store lacks.
    pub imports: Option<&'a Imports<'a>>,
    /// Which results are read once the build has ended. Where the state folder has a limit, the layers
    /// of others may go as soon as no step needs them any more.
    pub keep: Mode,
    /// Where what becomes of each step is noted.
    pub journal: &'a Journal,
    /// Is shown the first command that failed, once all others have ended.
    pub on_failure: Option<&'a (dyn Fn(&FailedCommand) + Sync)>,
    /// Is told of each layer that a target will contain, as soon as it is there, while there are
    /// steps left to run.
    pub on_layer: Option<&'a (dyn Fn(&LayerId) + Sync)>,
}

impl<'a> BuildOptions<'a> {
    /// Options of a build without secrets, agents and events, with a step for each processor.
    pub fn new(
        contexts: &'a Contexts,
        registry: &'a Client,
        journal: &'a Journal,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            contexts,
            oci_layouts: HashMap::new(),
            secrets: HashMap::new(),
            ssh_agents: HashMap::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            events: &Silent,
            cancel,
            registry,
            journal,
            imports: None,
            keep: Mode::Min,
            on_failure: None,
            on_layer: None,
        }
    }
}

/// What a build has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Built {
    /// The layers of each target of the graph, lowest first.
    pub targets: Vec<Vec<LayerId>>,
    /// How many steps were executed.
    pub executed: usize,
    /// How many steps were taken from the cache.
    pub cached: usize,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A step failed.
    #[error("{name}: {cause}")]
    Step {
        /// Digest of the step's node.
        node: Digest,
        /// Name of the step.
        name: String,
        /// Why it failed.
        cause: Box<BuildError>,
        /// The last lines that it printed.
        last_lines: Box<[String]>,
        /// The likely cause, in a sentence, where it is known.
        likely: Option<Box<str>>,
        /// The file with all that it printed, if it printed anything.
        log: Option<Box<Path>>,
    },
    /// A command ended with a code that is not 0.
    #[error("process {:?} did not complete successfully: {}", brief(.command), describe(.exit))]
    Command {
        /// The command as one line.
        command: String,
        /// How it ended.
        exit: Exit,
    },
    /// The user stopped the build, or another step failed.
    #[error("cancelled")]
    Cancelled,
    /// A secret that a step requires was not given.
    #[error("secret {0:?} is required but was not given: use --secret id={0},src=FILE")]
    MissingSecret(String),
    /// A secret that cannot be an environment variable.
    #[error("secret {0:?} is no text, so it cannot be an environment variable")]
    SecretNotText(String),
    /// An ssh agent that a step requires was not given.
    #[error("ssh agent {0:?} is required but was not given: use --ssh {0}")]
    MissingSsh(String),
    /// A command is for another machine.
    #[error(
        "{name}: this machine ({host}) cannot run programs for {platform}: install qemu-user-static \
         with binfmt_misc, or cross-compile in a stage with --platform=$BUILDPLATFORM"
    )]
    ForeignPlatform {
        /// Name of the step.
        name: String,
        /// What its command is for.
        platform: Box<Platform>,
        /// What this machine is.
        host: Box<Platform>,
    },
    /// An operation that this version cannot execute.
    #[error("{0}")]
    Unsupported(String),
    /// The command could not be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileOpError),
    /// A context or layer cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A context is not what the graph was made for.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A layer cannot be finished.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An image cannot be had.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// A reference in the graph cannot be read.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// An image cannot be pulled.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// A git repository cannot be had.
    #[error(transparent)]
    Git(GitError),
    /// A file of the web cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A result of another cache cannot be kept.
    #[error(transparent)]
    Travel(Box<TravelError>),
}

impl BuildError {
    /// Whether all that is wrong is that the limit of the state folder leaves no room.
    fn is_without_room(&self) -> bool {
        let image = |error: &ImageError| matches!(error, ImageError::Store(e) if e.is_full());
        match self {
            Self::Store(error) | Self::Http(HttpError::Store(error)) => error.is_full(),
            Self::Image(error) => image(error),
            Self::Registry(error) => {
                matches!(&**error, RegistryError::Image { source, .. } if image(source))
            }
            Self::Travel(error) => matches!(&**error, TravelError::Image(e) if image(e)),
            _ => false,
        }
    }
}

impl From<TravelError> for BuildError {
    fn from(error: TravelError) -> Self {
        match error {
            TravelError::Stopped => Self::Cancelled,
            TravelError::Store(error) => Self::Store(error),
            other => Self::Travel(Box::new(other)),
        }
    }
}

impl From<RegistryError> for BuildError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Stopped => Self::Cancelled,
            other => Self::Registry(Box::new(other)),
        }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<GitError> for BuildError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Cancelled => Self::Cancelled,
            other => Self::Git(other),
        }
    }
}

/// Executes what the targets of `graph` need and the cache does not have.
///
/// # Errors
/// The first failure: [`BuildError::Step`] with the step's name and last output, or what kept the
/// build from starting. Results of steps that succeeded stay in the cache.
pub fn build(
    store: &Store,
    graph: &Graph,
    options: &BuildOptions<'_>,
) -> Result<Built, BuildError> {
    // What is looked up for this build alone is let go of when it is not needed any more.
    let apart = store.is_limited().then(|| store.apart(None)).transpose()?;
    let plan = plan_with_imports(apart.as_ref().unwrap_or(store), graph, options)?;
    platform::check(graph, &plan)?;
    let numbers = step_numbers(graph);
    options.journal.planned(notes::planned(graph, &plan, &numbers, options.imports));
    // Nobody else sees the logs of this build yet then.
    let _ = options.journal.tell_running(store, graph);
    let shown = numbers.iter().filter(|n| n.is_some()).count();
    options.events.event(Event::Planned { steps: shown });
    tell_first_miss(store, graph, options);
    let cached = tell_cached(graph, &plan, &numbers, options);
    let used: Vec<Digest> = (graph.nodes.keys().zip(&plan.fates))
        .filter(|(_, fate)| matches!(fate, Fate::Cached(_)))
        .map(|(digest, _)| *digest)
        .collect();
    store.touch_results(&used)?;

    let in_target = plan::parts_of_targets(graph);
    let kept = match options.keep {
        Mode::Min => in_target.clone(),
        Mode::Max => vec![true; in_target.len()],
    };
    let values = values::Values::new(store, apart, graph, &plan, kept);
    let executor = execute::Executor::new(store, graph, options, &plan, values);
    let tell_layers = |at: usize| {
        if let (true, Some(tell)) = (in_target[at], options.on_layer) {
            executor.result_layers(at).iter().for_each(tell);
        }
    };
    let to_run: Vec<usize> =
        (0..plan.fates.len()).filter(|&at| plan.fates[at] == Fate::Run).collect();
    if !to_run.is_empty() {
        (0..in_target.len()).for_each(tell_layers);
    }
    let needs: Vec<Vec<usize>> = to_run
        .iter()
        .map(|&at| {
            let inputs = graph.nodes[at].inputs.iter();
            let mut before: Vec<usize> = inputs
                .filter_map(|i| to_run.binary_search(&graph.nodes.get_index_of(&i.node)?).ok())
                .collect();
            before.sort_unstable();
            before.dedup();
            before
        })
        .collect();
    let took: Vec<Option<u64>> = to_run
        .iter()
        .map(|&at| store.last_millis(&graph.nodes[at].op_digest()))
        .collect::<Result<_, _>>()?;
    let urgency = schedule::chain_lengths(&needs, &schedule::expected_lengths(&took));
    let waits: Vec<bool> = to_run.iter().map(|&at| waits(&graph.nodes[at].op)).collect();
    let steps = steps::Steps::new(&executor, &to_run, &numbers, &tell_layers);
    let ended = schedule::run_all(
        &schedule::Dependencies { needs: &needs, urgency: &urgency, waits: &waits },
        options.jobs,
        &steps,
    );
    executor.values.hand_over(store);
    if let (Err(_), Some(show)) = (&ended, options.on_failure)
        && let Some(failed) = executor.failed()
    {
        show(&failed);
    }
    ended?;
    let executed = steps.executed();
    let targets = graph
        .targets
        .iter()
        .map(|target| match &target.root {
            Some(root) => executor.layers_of(store, root),
            None => Ok(Vec::new()),
        })
        .collect::<Result<_, BuildError>>()?;
    options.contexts.save();
    Ok(Built { targets, executed, cached })
}

/// Whether an operation mostly waits for a command or a server.
fn waits(op: &Op) -> bool {
    match op {
        Op::Exec(_) | Op::Source(Source::Image(_) | Source::Git(_) | Source::Http(_)) => true,
        Op::Source(Source::Scratch | Source::Context(_)) => false,
        Op::File(_) | Op::Merge | Op::Diff => false,
    }
}

/// Plans the build and fetches the results of other caches that it takes. Where one cannot be had,
/// it is planned again without it.
fn plan_with_imports(
    store: &Store,
    graph: &Graph,
    options: &BuildOptions<'_>,
) -> Result<Plan, BuildError> {
    loop {
        let plan = Plan::new(graph, store, options.imports)?;
        let Some(imports) = options.imports else { return Ok(plan) };
        let layers: Vec<LayerId> =
            plan.taken().flat_map(|(_, offer)| &offer.result.stored.layers).cloned().collect();
        if !imports.bring(&fetching(store, options), &layers)? {
            continue;
        }
        for (at, offer) in plan.taken() {
            let (key, _) = graph.nodes.get_index(at).expect("positions are of this graph");
            store.put_result(key, offer.result.stored.clone())?;
        }
        return Ok(plan);
    }
}

/// What fetching a layer of another cache goes by.
fn fetching<'a>(store: &'a Store, options: &BuildOptions<'a>) -> Fetching<'a> {
    Fetching { store, events: options.events }
}

/// Numbers for the nodes that users see, from 1. Those without a name or a result of their own are
/// details of others.
fn step_numbers(graph: &Graph) -> Vec<Option<StepId>> {
    let mut last = 0;
    graph
        .nodes
        .iter()
        .map(|(digest, node)| {
            let hidden = graph.node_meta(digest).name.is_empty() || plan::is_transparent(&node.op);
            (!hidden).then(|| {
                last += 1;
                last
            })
        })
        .collect()
}

/// Tells which step is the first that is not in the cache, and why. What cannot be found out is
/// passed over: it is no reason not to build.
fn tell_first_miss(store: &Store, graph: &Graph, options: &BuildOptions<'_>) {
    let steps = options.journal.steps();
    if !steps.iter().any(|step| step.number.is_some() && step.missed()) {
        return;
    }
    let builds = Builds::of(store);
    let _ = history::write_listings(store, graph, options.contexts);
    let earlier = builds.earlier(options.journal.id(), options.journal.subject()).ok().flatten();
    let now = explain::Subject { graph, steps: &steps };
    let why = explain::explain(now, earlier.as_ref(), &|old, new| builds.listings_apart(old, new));
    let Some(first) = why.first() else { return };
    let causes: Vec<String> = first.causes.iter().map(ToString::to_string).collect();
    let cause = causes.join("; ");
    options.events.event(Event::FirstMiss { step: first.step, name: &first.name, cause: &cause });
    let line = format!("#{} {}: {cause}", first.step, first.name);
    options.journal.missed(line, why.compared_with);
}

/// Tells of every step that does not run, and counts them.
fn tell_cached(
    graph: &Graph,
    plan: &Plan,
    numbers: &[Option<StepId>],
    options: &BuildOptions<'_>,
) -> usize {
    let mut cached = 0;
    for (at, digest) in graph.nodes.keys().enumerate() {
        if let (Some(step), true) = (numbers[at], plan.fates[at] != Fate::Run) {
            cached += 1;
            let name = &graph.node_meta(digest).name;
            let origin = plan.origin(at, options.imports);
            options.events.event(Event::StepCached { step, name, digest, origin });
        }
    }
    cached
}

/// A command on one line of bearable length: the instruction is shown elsewhere.
fn brief(command: &str) -> String {
    const MAX: usize = 60;
    let mut words = command.split_whitespace();
    let mut brief = words.next().unwrap_or_default().to_owned();
    for word in words {
        brief.push(' ');
        brief.push_str(word);
    }
    if let Some((cut, _)) = brief.char_indices().nth(MAX) {
        brief.truncate(cut);
        brief.push('…');
    }
    brief
}

fn describe(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code: {code}"),
        Exit::Signal(signal) => match signal_name(*signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
    }
}

/// The usual name of a signal that ends programs.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}
