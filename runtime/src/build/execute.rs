//! Executes single nodes and keeps their results.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rbc_ir::{ContextSource, Digest, Exec, FileAction, FileOp, Graph, Input, Node, Op, Source};

use super::{
    BuildError, BuildOptions,
    failed::FailedCommand,
    images,
    likely::{self, Ending, OutOfMemory},
    log::StepLog,
    made::{NewLayer, Unplaced, publish_source},
    mounts::{self, StepMounts},
    notes,
    plan::{Fate, Plan},
    schedule::on_cpu_pool,
    values::{Value, Values},
};
use crate::{
    fileop,
    history::{Builds, Found, log_name},
    progress::{Event, StepId, Stream},
    sandbox,
    source::{git, http},
    store::{CachedResult, Candidates, InputContent, LayerId, LayerKind, Store, StoredResult},
    tree::{Entry, LayerStack, SourceTree},
};

/// How long a step waits before it asks again whether another process has finished the same step.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// How a step came to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was executed.
    Executed,
    /// Another process had made it in the meantime, or there was nothing to do.
    Found,
}

pub(super) struct Executor<'a> {
    pub(super) store: &'a Store,
    pub(super) graph: &'a Graph,
    pub(super) options: &'a BuildOptions<'a>,
    pub(super) values: Arc<Values>,
    /// Whether it was told that a step has begun, and not yet that it has ended.
    begun: Vec<AtomicBool>,
    /// Layers that are made and found no room yet.
    pub(super) unplaced: Vec<Mutex<Option<Unplaced>>>,
    /// Logs of the steps that were executed.
    logs: Vec<OnceLock<StepLog>>,
    /// Likely causes of failures.
    likely: Vec<OnceLock<String>>,
    /// What the kernel had counted when the build began.
    oom_kills: Option<u64>,
    /// The first command that failed, if anybody wants to see it.
    failed: Mutex<Option<FailedCommand>>,
    /// Has processes for the commands.
    keeper: sandbox::Keeper,
    /// What remains of layers that are done: a few empty folders of overlayfs each. They go when the
    /// build ends, since ext4 is slow to make files where it has just removed some (it leaves the
    /// inodes of the last seconds alone and looks at each of them).
    pub(super) remains: Mutex<Vec<NewLayer>>,
}

/// A node that is being executed.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'t> {
    pub(super) at: usize,
    pub(super) digest: &'t Digest,
    pub(super) node: &'t Node,
    pub(super) step: Option<StepId>,
    /// Holds what is looked up until the node's value is set.
    pub(super) store: &'t Store,
    pub(super) begin: Instant,
}

impl<'a> Executor<'a> {
    pub(super) fn new(
        store: &'a Store,
        graph: &'a Graph,
        options: &'a BuildOptions<'a>,
        plan: &Plan,
        values: Arc<Values>,
    ) -> Self {
        let logs = plan.fates.iter().map(|_| OnceLock::new()).collect();
        let likely = plan.fates.iter().map(|_| OnceLock::new()).collect();
        let commands = (plan.fates.iter().zip(graph.nodes.values()))
            .filter(|(fate, node)| **fate == Fate::Run && matches!(node.op, Op::Exec(_)))
            .count();
        let keeper = sandbox::Keeper::new();
        // If there is no such folder, the first command says why.
        if commands > 0
            && let Ok(shared) = store.steps_dir()
        {
            keeper.announce(commands, &shared);
        }
        Self {
            store,
            graph,
            options,
            values,
            begun: plan.fates.iter().map(|_| AtomicBool::new(false)).collect(),
            unplaced: plan.fates.iter().map(|_| Mutex::default()).collect(),
            logs,
            likely,
            oom_kills: if commands > 0 { likely::oom_kills() } else { None },
            failed: Mutex::default(),
            keeper,
            remains: Mutex::default(),
        }
    }

    /// Executes the node at a position, all of whose inputs are done.
    pub(super) fn run(&self, at: usize, step: Option<StepId>) -> Result<Outcome, BuildError> {
        let (digest, node) = self.graph.nodes.get_index(at).expect("positions are of this graph");
        if self.options.cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let (value, outcome) = match &node.op {
            Op::Source(Source::Scratch) => (Value::Scratch, Outcome::Found),
            Op::Source(Source::Context(context)) => {
                self.options.contexts.check(context)?;
                (Value::Context, Outcome::Found)
            }
            _ => {
                let apart = self.values.store_of_step()?;
                let store = apart.as_ref().unwrap_or(self.store);
                let attempt = Attempt { at, digest, node, step, store, begin: Instant::now() };
                let (result, outcome) = self.result(&attempt)?;
                self.values.set(at, Value::Result(result));
                return Ok(outcome);
            }
        };
        self.values.set(at, value);
        Ok(outcome)
    }

    /// Makes a node's result unless another process is making or has made the same one.
    fn result(&self, attempt: &Attempt<'_>) -> Result<(CachedResult, Outcome), BuildError> {
        let &Attempt { at, digest, node, step, store, begin } = attempt;
        let meta = self.graph.node_meta(digest);
        let inputs = self.input_ids(node);
        let _lock = self.lock(digest)?;
        let journal = self.options.journal;
        let found = |result, how, origin: Option<String>| {
            // One that has begun ends.
            if let Some(step) = step
                && !self.begun[at].load(Ordering::Relaxed)
            {
                let (name, origin) = (&meta.name, origin.as_deref());
                self.options.events.event(Event::StepCached { step, name, digest, origin });
            }
            journal.note(at, |note| {
                notes::found(note, node, &result, how);
                note.origin = origin;
            });
            Ok((result, Outcome::Found))
        };
        if !meta.no_cache
            && let Some(result) = store.result(digest)?
            && result.stored.inputs == inputs
        {
            return found(result, Found::Meanwhile, None);
        }
        let operation = node.op_digest();
        let contents = self.contents(store, node)?;
        let candidates = match node.op {
            Op::Source(_) => Candidates::default(),
            _ => store.results_of_operation(&operation)?,
        };
        // What it was made from may have been given up and made again since.
        let unplaced = self.unplaced(at).take().filter(|made| made.contents == contents);
        let is_made = unplaced.is_some();
        if !meta.no_cache
            && !is_made
            && let Some(same) = self.same_content(node, &contents, &candidates)?
        {
            let stored = StoredResult { inputs, contents, name: meta.name.clone(), ..same };
            return found(store.put_result(digest, stored)?, Found::Content, None);
        }
        if !meta.no_cache
            && !is_made
            && !matches!(node.op, Op::Source(_))
            && let Some((same, origin)) =
                self.same_content_elsewhere(store, node, &operation, &contents)?
        {
            let stored = StoredResult { inputs, contents, name: meta.name.clone(), ..same };
            let result = store.put_result(digest, stored)?;
            return found(result, Found::Content, Some(origin));
        }
        let (layers, elapsed) = match unplaced {
            Some(unplaced) => {
                let took = unplaced.took;
                (self.place(attempt, unplaced, &candidates)?, took)
            }
            None => {
                if let Some(step) = step
                    && !self.begun[at].swap(true, Ordering::Relaxed)
                {
                    let name = &meta.name;
                    self.options.events.event(Event::StepStarted { step, name, digest });
                }
                let start_ms = journal.elapsed_ms();
                journal.note(at, |note| note.start_ms = Some(start_ms));
                (self.execute(attempt, &contents, &candidates)?, begin.elapsed())
            }
        };
        let name = meta.name.clone();
        let stored = StoredResult { layers, inputs, operation, contents, name, elapsed };
        let result = store.put_result(digest, stored)?;
        journal.note(at, |note| notes::made(note, node, &result));
        Ok((result, Outcome::Executed))
    }

    /// The name of the node at a position.
    pub(super) fn name(&self, at: usize) -> &str {
        let digest = self.graph.nodes.get_index(at).map(|(digest, _)| digest);
        digest.map_or("", |digest| &self.graph.node_meta(digest).name)
    }

    /// Whether the node's step has begun. From now on it has ended.
    pub(super) fn end(&self, at: usize) -> bool {
        self.begun[at].swap(false, Ordering::Relaxed)
    }

    /// Waits for the lock on a key. Another process that holds it is making this very result.
    fn lock(&self, digest: &Digest) -> Result<crate::store::KeyLock, BuildError> {
        loop {
            if let Some(lock) = self.store.try_lock_key(digest)? {
                return Ok(lock);
            }
            if self.options.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    fn execute(
        &self,
        attempt: &Attempt<'_>,
        contents: &[InputContent],
        earlier: &Candidates,
    ) -> Result<Vec<LayerId>, BuildError> {
        let &Attempt { node, step, store, .. } = attempt;
        match &node.op {
            Op::Source(Source::Image(source)) => {
                let layers = images::fetch_layers(
                    store,
                    source,
                    &images::ImagePlaces {
                        layouts: &self.options.oci_layouts,
                        registry: self.options.registry,
                    },
                    &images::FetchProgress { events: self.options.events, step },
                )?;
                Ok(layers)
            }
            Op::Source(Source::Git(source)) => {
                let new = NewLayer::begin(self.store)?;
                let is_cancelled = || self.options.cancel.is_cancelled();
                let agent = self.options.ssh_agents.get("default").map(PathBuf::as_path);
                let means = git::Means { agent, is_cancelled: &is_cancelled };
                git::checkout(source, &new.upper(), new.work(), &means)?;
                Ok(vec![publish_source(store, &new, LayerKind::Git)?])
            }
            Op::Source(Source::Http(source)) => {
                let new = NewLayer::begin(self.store)?;
                http::Client::new().write_file(store, source, &new.upper())?;
                Ok(vec![publish_source(store, &new, LayerKind::Http)?])
            }
            Op::Source(Source::Scratch) => Ok(Vec::new()),
            Op::Source(Source::Context(source)) => self.context_layers(store, source),
            Op::Exec(exec) => {
                let root = self.layers_of(store, &node.inputs[0])?;
                let new = self.exec(attempt, exec, &root)?;
                self.finish(attempt, (new, fileop::Copied::default()), &root, contents, earlier)
            }
            Op::File(file) => {
                let root = self.layers_of(store, &node.inputs[0])?;
                let made = self.file(attempt, file, &root, earlier)?;
                self.finish(attempt, made, &root, contents, earlier)
            }
            Op::Merge => {
                let mut layers = self.layers_of(store, &node.inputs[0])?;
                for input in &node.inputs[1..] {
                    layers.extend(self.layers_of(store, input)?);
                }
                Ok(layers)
            }
            Op::Diff => {
                let lower = self.layers_of(store, &node.inputs[0])?;
                let upper = self.layers_of(store, &node.inputs[1])?;
                match upper.strip_prefix(lower.as_slice()) {
                    Some(added) => Ok(added.to_vec()),
                    None => Err(BuildError::Unsupported(
                        "diff of two results that do not share their lower layers".to_owned(),
                    )),
                }
            }
        }
    }

    fn exec(
        &self,
        attempt: &Attempt<'_>,
        exec: &Exec,
        root: &[LayerId],
    ) -> Result<NewLayer, BuildError> {
        let &Attempt { at, digest, node, step, store, .. } = attempt;
        let meta = self.graph.node_meta(digest);
        let new = NewLayer::begin(self.store)?;
        let mounts = StepMounts::prepare(self, store, node, exec)?;
        let log_name = log_name(step, at);
        let journal = self.options.journal;
        journal.note(at, |note| note.log = Some(log_name.clone()));
        let log_dir = Builds::of(self.store).log_dir(journal.id());
        let log = self.logs[at].get_or_init(|| StepLog::new(log_dir.join(log_name)));
        let cgroup = self.cgroup(&meta.cgroup_parent);
        let run = sandbox::Step {
            lowers: self.mount_dirs(root),
            upper: new.upper(),
            work: new.work().to_owned(),
            shared: self.store.steps_dir()?,
            exec: exec.clone(),
            mounts: mounts.mounts.clone(),
            extra_env: meta.proxy_env.iter().chain(&mounts.env).cloned().collect(),
            cgroups: cgroup.as_ref().map(|group| group.folders().to_vec()).unwrap_or_default(),
        };
        let mut output = |stream: sandbox::Stream, data: &[u8]| {
            let stream = match stream {
                sandbox::Stream::Stdout => Stream::Stdout,
                sandbox::Stream::Stderr => Stream::Stderr,
            };
            // A full disk must not lose what is shown as well; the step itself will notice.
            let _ = log.write(data);
            if let Some(step) = step {
                self.options.events.event(Event::StepOutput { step, stream, data });
            }
        };
        let result = sandbox::run(&run, &self.keeper, &mut output, self.options.cancel);
        if self.store.is_limited() {
            mounts.measure(self.store)?;
        }
        let ending = match &result {
            Ok(exit) if exit.success() => return Ok(new),
            Ok(exit) => Ending::Exit(*exit),
            Err(sandbox::SandboxError::Cancelled) => return Err(BuildError::Cancelled),
            Err(error) => Ending::NotRun(error),
        };
        let out_of_memory = match cgroup.map(|group| group.had_too_little_memory()) {
            Some(true) => OutOfMemory::InGroup,
            _ if likely::oom_kills() > self.oom_kills => OutOfMemory::Somewhere,
            _ => OutOfMemory::No,
        };
        if let Some(cause) = self.likely_cause(exec, (root, &new), log, &ending, out_of_memory) {
            let _ = self.likely[at].set(cause);
        }
        if self.options.on_failure.is_some() {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            let name = meta.name.clone();
            failed.get_or_insert_with(|| FailedCommand { name, run, layer: new, mounts });
        }
        Err(BuildError::Command { command: exec.args.join(" "), exit: result? })
    }

    /// A control group below `parent`, if one is named and can be made.
    fn cgroup(&self, parent: &str) -> Option<sandbox::Cgroup> {
        if parent.is_empty() {
            return None;
        }
        let told = |error| {
            let text = format!(
                "cannot make a cgroup below {parent:?}, so its limits do not hold: {error}"
            );
            self.options.events.event(Event::Warning(&text));
        };
        sandbox::Cgroup::below(parent).map_err(told).ok()
    }

    /// The first command that failed, for who wants to see it.
    pub(super) fn failed(&self) -> Option<FailedCommand> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The likely cause of a failure.
    pub(super) fn likely(&self, at: usize) -> Option<&str> {
        self.likely[at].get().map(String::as_str)
    }

    /// Says that the disk is full if that is what broke something that is no command.
    pub(super) fn look_for_full_disk(&self, at: usize, error: &BuildError) {
        let first: &(dyn std::error::Error + 'static) = error;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        let is_full = causes.any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
        });
        if is_full {
            let root = self.store.root().display();
            let _ = self.likely[at].set(format!(
                "the disk with the state folder {root} is full; `rbc prune` removes what can be \
                 made again, and --root or RBC_ROOT names a folder elsewhere"
            ));
        }
    }

    /// Looks for the cause of a failure in what the command left behind.
    fn likely_cause(
        &self,
        exec: &Exec,
        (root, new): (&[LayerId], &NewLayer),
        log: &StepLog,
        ending: &Ending<'_>,
        out_of_memory: OutOfMemory,
    ) -> Option<String> {
        let mut dirs = self.dirs(root);
        dirs.push(new.upper());
        let failure = likely::Failure {
            exec,
            root: &LayerStack::new(dirs),
            lines: &log.last_lines(100),
            free: likely::free_bytes(&new.upper()),
            out_of_memory,
        };
        failure.likely_cause(ending)
    }

    fn file(
        &self,
        attempt: &Attempt<'_>,
        file: &FileOp,
        root: &[LayerId],
        earlier: &[CachedResult],
    ) -> Result<(NewLayer, fileop::Copied), BuildError> {
        let &Attempt { node, store, .. } = attempt;
        let base = LayerStack::new(self.dirs(root));
        let mut stacks: Vec<Option<LayerStack>> = Vec::with_capacity(node.inputs.len());
        for (number, input) in node.inputs.iter().enumerate() {
            stacks.push(match self.value(input) {
                Some(Value::Context) => None,
                _ if number == 0 => None,
                _ => Some(LayerStack::new(self.dirs(&self.layers_of(store, input)?))),
            });
        }
        let mut inputs: Vec<Option<&dyn SourceTree>> = Vec::with_capacity(stacks.len());
        let mut contexts: Vec<&ContextSource> = Vec::new();
        for (input, stack) in node.inputs.iter().zip(&stacks) {
            inputs.push(match (stack, self.graph.node(input).map(|n| &n.op)) {
                (Some(stack), _) => Some(stack),
                (None, Some(Op::Source(Source::Context(source)))) => {
                    contexts.push(source);
                    Some(self.options.contexts.tree(&source.name)?)
                }
                (None, _) => Some(&base),
            });
        }
        let new = NewLayer::begin(self.store)?;
        let before = match earlier.first().and_then(|before| before.stored.layers.last()) {
            Some(layer) if is_only_copies(file) => {
                let copied = self.store.copied(layer)?.unwrap_or_default();
                Some((self.store.layer_dir(layer), copied))
            }
            _ => None,
        };
        let digest_of = |entry: &Entry| {
            let known =
                |source: &&ContextSource| self.options.contexts.digest_of(&source.name, entry);
            contexts.iter().find_map(known)
        };
        let lineage = fileop::Lineage::new(before, &digest_of);
        let options = fileop::FileOpOptions {
            lineage: is_only_copies(file).then_some(&lineage),
            ..fileop::FileOpOptions::default()
        };
        on_cpu_pool(|| fileop::run(file, &base, &inputs, &new.upper(), &options))?;
        for source in &contexts {
            self.options.contexts.check_again(source)?;
        }
        Ok((new, lineage.into_copied()))
    }

    /// The selected files of a context as a layer, for mounts and merges. Made once for a content.
    fn context_layers(
        &self,
        store: &Store,
        source: &ContextSource,
    ) -> Result<Vec<LayerId>, BuildError> {
        let tree = self.options.contexts.tree(&source.name)?;
        let new = NewLayer::begin(self.store)?;
        let empty = LayerStack::new(Vec::new());
        let op = FileOp { actions: mounts::copies_of(&source.selection) };
        on_cpu_pool(|| {
            let inputs = [Some(&empty as &dyn SourceTree), Some(tree)];
            fileop::run(&op, &empty, &inputs, &new.upper(), &fileop::FileOpOptions::default())
        })?;
        self.options.contexts.check_again(source)?;
        Ok(vec![publish_source(store, &new, LayerKind::Context)?])
    }

    /// The layers of a node that is done, lowest first. `store` holds those of a context that is not
    /// read in place.
    pub(super) fn layers_of(
        &self,
        store: &Store,
        input: &Input,
    ) -> Result<Vec<LayerId>, BuildError> {
        match self.value(input) {
            Some(Value::Result(result)) => Ok(result.stored.layers),
            Some(Value::Context) => {
                let (at, digest, node) =
                    self.graph.nodes.get_full(&input.node).expect("inputs are of this graph");
                let begin = Instant::now();
                let attempt = Attempt { at, digest, node, step: None, store, begin };
                let layers = self.result(&attempt)?.0.stored.layers;
                self.values.set_context(at, &layers);
                Ok(layers)
            }
            Some(Value::Scratch) | None => Ok(Vec::new()),
        }
    }

    /// The layers that the node at a position has added to those of its inputs, or all of them, if
    /// it is done.
    pub(super) fn result_layers(&self, at: usize) -> Vec<LayerId> {
        let Some(Value::Result(result)) = self.values.get(at) else { return Vec::new() };
        let layers = &result.stored.layers;
        let first = match self.graph.nodes[at].inputs.first().and_then(|input| self.value(input)) {
            Some(Value::Result(root)) if layers.starts_with(&root.stored.layers) => {
                root.stored.layers.len()
            }
            _ => 0,
        };
        layers[first..].to_vec()
    }

    /// Folders of the layers that a mount of `layers` is made of.
    pub(super) fn mount_dirs(&self, layers: &[LayerId]) -> Vec<PathBuf> {
        self.dirs(&topmost(layers))
    }

    /// Folders of layers.
    pub(super) fn dirs(&self, layers: &[LayerId]) -> Vec<PathBuf> {
        layers.iter().map(|id| self.store.layer_dir(id)).collect()
    }

    /// Whether the digest of an input's node already says all that the input consists of.
    pub(super) fn is_pinned(&self, input: &Input) -> bool {
        matches!(self.value(input), Some(Value::Context | Value::Scratch))
    }

    fn value(&self, input: &Input) -> Option<Value> {
        self.values.get(self.graph.nodes.get_index_of(&input.node)?)
    }

    /// The identities of the results that a node is made from.
    fn input_ids(&self, node: &Node) -> Vec<(Digest, Digest)> {
        node.inputs
            .iter()
            .filter_map(|input| match self.value(input)? {
                Value::Result(result) => Some((input.node, result.id)),
                Value::Scratch | Value::Context => None,
            })
            .collect()
    }

    /// Adds to a failure which step failed and what it printed last.
    pub(super) fn explain(&self, at: usize, error: BuildError) -> BuildError {
        let (digest, _) = self.graph.nodes.get_index(at).expect("positions are of this graph");
        let log = self.logs[at].get();
        BuildError::Step {
            node: *digest,
            name: self.graph.node_meta(digest).name.clone(),
            last_lines: log.map(|log| log.last_lines(20)).unwrap_or_default().into(),
            likely: self.likely(at).map(Into::into),
            log: log.map(|log| log.path()).filter(|path| path.exists()).map(Into::into),
            cause: Box::new(error),
        }
    }
}

/// Whether an operation does nothing but copy files as they are, so that what was copied last to a
/// path is what is there.
fn is_only_copies(file: &FileOp) -> bool {
    file.actions.iter().all(|action| match action {
        FileAction::Copy(copy) => !copy.unpack,
        FileAction::Mkdir(_) => true,
        FileAction::Mkfile(_) | FileAction::Remove(_) | FileAction::Symlink(_) => false,
    })
}

/// The layers with only the topmost of several equal ones: overlayfs refuses a folder that is
/// there twice, and what is in the lower one is covered anyway.
fn topmost(layers: &[LayerId]) -> Vec<LayerId> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<LayerId> =
        layers.iter().rev().filter(|id| seen.insert(*id)).cloned().collect();
    kept.reverse();
    kept
}
