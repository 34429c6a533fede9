//! Executes single nodes and keeps their results.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use rbc_ir::{ContextSource, Digest, Exec, FileAction, FileOp, Graph, Input, Node, Op, Source};

use super::{
    BuildError, BuildOptions,
    failed::FailedCommand,
    images,
    likely::{self, Ending, OutOfMemory},
    log::StepLog,
    mounts::{self, StepMounts},
    notes,
    plan::{Fate, Plan},
    schedule::on_cpu_pool,
    values::{Value, Values},
};
use crate::{
    fileop,
    history::{Builds, Found, log_name},
    layer,
    progress::{Event, StepId, Stream},
    sandbox,
    source::{git, http},
    store::{
        CachedResult, Candidates, LayerId, LayerKind, Store, StoreError, StoredResult, TmpDir,
    },
    tree::{Entry, LayerStack, SourceTree},
};

/// How long a step waits before it asks again whether another process has finished the same step.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// What went into layers of fewer files is not noted: copying them again is as quick.
const MIN_NOTED: usize = 32;

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
    /// Layers that are made and found no room yet.
    unplaced: Vec<Mutex<Option<Unplaced>>>,
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
    remains: Mutex<Vec<NewLayer>>,
}

/// A node that is being executed.
#[derive(Clone, Copy)]
struct Turn<'t> {
    at: usize,
    digest: &'t Digest,
    node: &'t Node,
    step: Option<StepId>,
    /// Holds what is looked up until the node's value is set.
    store: &'t Store,
    begin: Instant,
}

/// A finished layer that is not published yet.
struct Unplaced {
    new: NewLayer,
    size: layer::Size,
    copied: fileop::Copied,
    /// How long it took to make.
    took: Duration,
}

/// A layer being made: its folder and the time of the file system when it was begun.
pub(super) struct NewLayer {
    work: TmpDir,
    started: layer::Started,
}

impl NewLayer {
    pub(super) fn begin(store: &Store) -> Result<Self, BuildError> {
        let work = store.tmp_dir()?;
        let path = work.path().join("upper");
        fs::create_dir(&path).map_err(StoreError::io("cannot create", &path))?;
        // It is the root that the step sees, whatever the user's umask is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(StoreError::io("cannot change the mode of", &path))?;
        let started = layer::Started::of(&path)?;
        Ok(Self { work, started })
    }

    /// The folder that becomes the layer.
    pub(super) fn upper(&self) -> PathBuf {
        self.work.path().join("upper")
    }

    /// The folder that goes when the layer is done; holds `upper`.
    fn work(&self) -> &Path {
        self.work.path()
    }

    /// Finishes the folder.
    fn commit(&self) -> Result<layer::Size, BuildError> {
        Ok(on_cpu_pool(|| layer::commit(&self.upper(), &self.started))?)
    }
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
                let turn = Turn { at, digest, node, step, store, begin: Instant::now() };
                let (result, outcome) = self.result(&turn)?;
                self.values.set(at, Value::Result(result));
                return Ok(outcome);
            }
        };
        self.values.set(at, value);
        Ok(outcome)
    }

    /// Makes a node's result unless another process is making or has made the same one.
    fn result(&self, turn: &Turn<'_>) -> Result<(CachedResult, Outcome), BuildError> {
        let &Turn { at, digest, node, step, store, begin } = turn;
        let meta = self.graph.node_meta(digest);
        let inputs = self.input_ids(node);
        let _lock = self.lock(digest)?;
        let journal = self.options.journal;
        let found = |result, how, origin: Option<String>| {
            if let Some(step) = step {
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
        let unplaced = self.unplaced(at).take();
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
                (self.place(turn, unplaced, &candidates)?, took)
            }
            None => {
                if let Some(step) = step {
                    let name = &meta.name;
                    self.options.events.event(Event::StepStarted { step, name, digest });
                }
                let start_ms = journal.elapsed_ms();
                journal.note(at, |note| note.start_ms = Some(start_ms));
                (self.execute(turn, &candidates)?, begin.elapsed())
            }
        };
        let name = meta.name.clone();
        let stored = StoredResult { layers, inputs, operation, contents, name, elapsed };
        let result = store.put_result(digest, stored)?;
        journal.note(at, |note| notes::made(note, node, &result));
        Ok((result, Outcome::Executed))
    }

    /// The layer of a node that is made and found no room.
    fn unplaced(&self, at: usize) -> MutexGuard<'_, Option<Unplaced>> {
        self.unplaced[at].lock().unwrap_or_else(PoisonError::into_inner)
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
        turn: &Turn<'_>,
        earlier: &[CachedResult],
    ) -> Result<Vec<LayerId>, BuildError> {
        let &Turn { node, step, store, .. } = turn;
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
                let new = self.exec(turn, exec, &root)?;
                self.finish(turn, new, fileop::Copied::default(), &root, earlier)
            }
            Op::File(file) => {
                let root = self.layers_of(store, &node.inputs[0])?;
                let (new, copied) = self.file(turn, file, &root, earlier)?;
                self.finish(turn, new, copied, &root, earlier)
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

    /// Finishes what an operation has made of `root` and publishes it, unless the operation made the
    /// same before. Gives the layers of the result.
    fn finish(
        &self,
        turn: &Turn<'_>,
        new: NewLayer,
        copied: fileop::Copied,
        root: &[LayerId],
        earlier: &[CachedResult],
    ) -> Result<Vec<LayerId>, BuildError> {
        let size = new.commit()?;
        self.options.journal.note(turn.at, |note| note.size = Some(size));
        match self.same_layer(&turn.node.op, root, &new.upper(), earlier)? {
            Some(known) => {
                self.note_copied(&known, &copied, earlier)?;
                Ok([root, &[known]].concat())
            }
            None => {
                let took = turn.begin.elapsed();
                self.place(turn, Unplaced { new, size, copied, took }, earlier)
            }
        }
    }

    /// Publishes a finished layer and gives the layers of the result. Where there is no room, the layer
    /// is put aside for the next attempt.
    fn place(
        &self,
        turn: &Turn<'_>,
        made: Unplaced,
        earlier: &[CachedResult],
    ) -> Result<Vec<LayerId>, BuildError> {
        let mut layers = self.layers_of(turn.store, &turn.node.inputs[0])?;
        match publish_committed(turn.store, &made.new, LayerKind::Step, &made.size) {
            Ok(layer) => {
                self.note_copied(&layer, &made.copied, earlier)?;
                self.remains.lock().unwrap_or_else(PoisonError::into_inner).push(made.new);
                layers.push(layer);
                Ok(layers)
            }
            Err(error) => {
                *self.unplaced(turn.at) = Some(made);
                Err(error.into())
            }
        }
    }

    /// Notes what went into a layer, for the next copy.
    fn note_copied(
        &self,
        layer: &LayerId,
        copied: &fileop::Copied,
        earlier: &[CachedResult],
    ) -> Result<(), BuildError> {
        if copied.len() >= MIN_NOTED {
            let before = earlier.first().and_then(|before| before.stored.layers.last());
            self.store.put_copied(layer, copied, before)?;
        }
        Ok(())
    }

    fn exec(&self, turn: &Turn<'_>, exec: &Exec, root: &[LayerId]) -> Result<NewLayer, BuildError> {
        let &Turn { at, digest, node, step, store, .. } = turn;
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
        turn: &Turn<'_>,
        file: &FileOp,
        root: &[LayerId],
        earlier: &[CachedResult],
    ) -> Result<(NewLayer, fileop::Copied), BuildError> {
        let &Turn { node, store, .. } = turn;
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
                let turn = Turn { at, digest, node, step: None, store, begin };
                let layers = self.result(&turn)?.0.stored.layers;
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

/// Finishes and publishes a layer from outside.
fn publish_source(store: &Store, new: &NewLayer, kind: LayerKind) -> Result<LayerId, BuildError> {
    let size = new.commit()?;
    Ok(publish_committed(store, new, kind, &size)?)
}

/// Publishes a layer that is finished, if there is room for it.
fn publish_committed(
    store: &Store,
    new: &NewLayer,
    kind: LayerKind,
    size: &layer::Size,
) -> Result<LayerId, StoreError> {
    let id = LayerId::unique();
    store.publish_measured(&new.upper(), &id, kind, size.own)?;
    Ok(id)
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
