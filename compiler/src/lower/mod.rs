//! Stages to graph nodes and image configs, for one platform.
//!
//! Last step of the compiler. [`bases`] has settled where each needed stage begins; here their
//! instructions are carried out in order on a [`State`]: some add a node, the others change the
//! image config only. The reference is BuildKit's `dockerfile2llb`.

mod bases;
mod begin;
mod copy;
mod inputs;
mod mount;
mod remote;
mod run;
mod settings;
mod step_name;

use std::sync::Arc;

use indexmap::IndexMap;
use rbc_ir::{
    ContextSource, GraphBuilder, History, Input, NodeMeta, Op, Owner, Platform, Selection, Source,
    Target, UserRef,
};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS},
    globals::Globals,
    image_config::{DEFAULT_PATH, Settings},
    instruction::{Command, CommandLine, Instruction, Run},
    lint::Linter,
    options::CompileOptions,
    path,
    pins::Pins,
    platform_args,
    resolver::ResolveError,
    shellword::{ExpandError, Expander, Expansion},
    stage::{Stage, StageId, Stages, Step},
    syntax::{Span, Word},
};
use bases::Origin;
use step_name::Counter;

/// The text that BuildKit puts into history entries of layers that no instruction made.
const EXPORTER_COMMENT: &str = "buildkit.exporter.image.v0";
/// The text that BuildKit puts into every history entry.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// What a graph is made from and with, for one platform.
pub(crate) struct Job<'a> {
    pub options: &'a CompileOptions,
    pub globals: &'a Globals,
    /// Platform of the image.
    pub platform: &'a Platform,
    /// Whether the user asked for that platform by name.
    pub platform_is_asked: bool,
    /// Escape character of the Dockerfile.
    pub escape: char,
    /// Which stages are lowered.
    pub scope: Scope,
}

/// Which stages of a Dockerfile are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that the target needs.
    Target,
    /// All, unless the user names a target; so do build checks.
    Every,
}

/// What became of a target.
pub(crate) struct Outcome {
    /// The target, ready for the graph.
    pub target: Target,
    /// Labels of declared stages that the target does not need.
    pub unused: Vec<String>,
}

/// The files at some point of a stage.
#[derive(Clone, Debug)]
enum Root {
    /// None at all.
    Empty,
    /// Those of a node.
    Node(Input),
    /// Those of a local context, as a whole; each use pins what it selects.
    Local(String),
}

/// All that an instruction may depend on.
#[derive(Clone, Debug)]
struct State {
    root: Root,
    settings: Settings,
    /// ARG and ENV together in the order in which they were last set, as commands see them. (The
    /// image's own environment keeps the order in which they were first set.)
    env: IndexMap<String, String>,
    /// Names that ARG declared, with the values that history shows.
    build_args: IndexMap<String, Option<String>>,
    /// What steps run on.
    platform: Platform,
    /// What the base image says it is for.
    image_platform: Platform,
    /// Whether a WORKDIR of this Dockerfile has been met.
    workdir_is_set: bool,
}

impl State {
    /// Sets a variable of ARG or ENV, which makes it the last one.
    fn set(&mut self, name: String, value: String) {
        self.env.shift_remove(&name);
        self.env.insert(name, value);
    }
}

/// The result of a stage.
struct Built {
    state: State,
    /// The history that this stage adds to that of `base`.
    history: Vec<History>,
    base: Option<StageId>,
}

/// A stage in the making.
struct Current<'a> {
    stage: &'a Stage,
    id: StageId,
    state: State,
    history: Vec<History>,
    counter: Counter,
    no_cache: bool,
    /// The instruction that set it last, of those of which only the last counts.
    cmd: Option<Arc<Instruction>>,
    entrypoint: Option<Arc<Instruction>>,
    healthcheck: Option<Arc<Instruction>>,
    is_trigger: bool,
}

struct Lowering<'a, 'r> {
    job: &'a Job<'a>,
    pins: &'a mut Pins<'r>,
    graph: &'a mut GraphBuilder,
    lint: &'a mut Linter,
    built: Vec<Option<Built>>,
    origins: Vec<Option<Origin>>,
    /// What only `--from` names.
    aliases: Vec<bool>,
    proxy_env: Vec<String>,
    errors: Diagnostics,
    /// Stages that could not even begin. What depends on them is not reported again.
    broken: Vec<bool>,
}

/// Lowers the target that the options name into `graph`.
pub(crate) fn lower(
    job: &Job<'_>,
    pins: &mut Pins<'_>,
    stages: &mut Stages,
    graph: &mut GraphBuilder,
    lint: &mut Linter,
) -> Result<Outcome, Diagnostics> {
    let target = stages.target(job.options.target.as_deref())?;
    let wanted = match (job.scope, &job.options.target) {
        (Scope::Every, None) => stages.declared().map(|(id, _)| id).collect(),
        _ => vec![target],
    };
    let mut request = bases::Request { options: job.options, pins, platform: job.platform };
    let origins = bases::resolve(stages, wanted, &mut request)?;
    let unused = stages
        .declared()
        .filter(|(id, _)| origins[*id].is_none())
        .map(|(_, stage)| stage.label.clone())
        .collect();
    let mut lowering = Lowering {
        job,
        pins,
        graph,
        lint,
        built: stages.list.iter().map(|_| None).collect(),
        broken: vec![false; stages.list.len()],
        aliases: stages.list.iter().map(|stage| !stage.is_declared).collect(),
        origins,
        proxy_env: platform_args::proxy_environment(&job.options.build_args),
        errors: Diagnostics::new(),
    };
    lowering.run(stages);
    if lowering.errors.has_errors() {
        return Err(lowering.errors);
    }
    Ok(Outcome { target: lowering.finish(stages, target)?, unused })
}

impl Lowering<'_, '_> {
    /// Builds all stages that have an origin, and gathers what is wrong with them.
    fn run(&mut self, stages: &Stages) {
        // What only `--from` names is there from the start.
        for (id, stage) in stages.list.iter().enumerate().filter(|(_, s)| !s.is_declared) {
            if !matches!(self.origins[id], None | Some(Origin::Stage(_))) {
                let mut counter = Counter::none();
                let begun = self.begin(stage, id, &mut counter);
                let built =
                    begun.map(|(state, _, _)| Built { state, history: Vec::new(), base: None });
                self.keep(id, built);
            }
        }
        let is_single = stages.list.len() == 1;
        for (id, stage) in stages.declared() {
            match self.origins[id] {
                Some(Origin::Stage(base)) if self.broken[base] => self.broken[id] = true,
                Some(_) if self.errors.len() < MAX_ERRORS => {
                    let built = self.stage(stage, id, is_single);
                    self.keep(id, built);
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, id: StageId, built: Result<Built, Diagnostic>) {
        match built {
            Ok(built) => self.built[id] = Some(built),
            Err(error) => {
                self.broken[id] = true;
                self.errors.push(error);
            }
        }
    }

    fn stage(&mut self, stage: &Stage, id: StageId, single: bool) -> Result<Built, Diagnostic> {
        let has_base_step = matches!(
            self.origins[id],
            Some(Origin::Image { .. } | Origin::Local(_) | Origin::Git { .. })
        );
        let steps = stage.steps.iter().filter(|step| {
            matches!(
                step.instruction.command,
                Command::Run(_) | Command::Copy(_) | Command::Add(_) | Command::Workdir(_)
            )
        });
        let total = steps.count() + usize::from(has_base_step && !stage.is_replaced);
        let asked = self.job.options.platforms.len() > 1;
        let platform = stage.platform.as_ref().unwrap_or(self.job.platform);
        let label = if single { "" } else { stage.label.as_str() };
        let mut counter = Counter::new(label, total, asked.then_some(platform));
        let (mut state, history, base) = self.begin(stage, id, &mut counter)?;
        if !state.settings.env.contains_key("PATH") && state.platform.os != "windows" {
            state.settings.env.insert("PATH".to_owned(), DEFAULT_PATH.to_owned());
        }
        // The image's own variables count again, over what ARGs of the base stage left.
        let left = std::mem::take(&mut state.env);
        let left = left.into_iter().filter(|(name, _)| !state.settings.env.contains_key(name));
        state.env = left.collect();
        state
            .env
            .extend(state.settings.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        if !state.settings.working_dir.is_empty() {
            let dir = &state.settings.working_dir;
            state.settings.working_dir = path::workdir(dir, dir);
        }
        let mut current = Current {
            stage,
            id,
            state,
            history,
            counter,
            no_cache: self.job.options.no_cache.applies_to(&stage.name),
            cmd: None,
            entrypoint: None,
            healthcheck: None,
            is_trigger: false,
        };
        for step in &stage.steps {
            current.is_trigger = step.is_trigger;
            // A wrong instruction does not hide what is wrong with the next.
            if let Err(error) = self.step(&mut current, step) {
                self.errors.push(error);
                if self.errors.len() >= MAX_ERRORS {
                    break;
                }
            }
        }
        Ok(Built { state: current.state, history: current.history, base })
    }

    fn step(&mut self, current: &mut Current<'_>, step: &Step) -> Result<(), Diagnostic> {
        let instruction = &step.instruction;
        match &instruction.command {
            Command::Run(run) => {
                check_encoding(instruction, run)?;
                self.run_command(current, step, run)
            }
            Command::Copy(copy) => self.copy(current, step, copy),
            Command::Add(add) => self.add_files(current, step, add),
            Command::Workdir(word) => self.workdir(current, instruction, word),
            _ => self.setting(current, instruction),
        }
    }

    /// Expands a word with the variables of the stage, and looks for undefined ones.
    fn expand(
        &mut self,
        current: &Current<'_>,
        instruction: &Instruction,
        word: &Word,
    ) -> Result<String, Diagnostic> {
        let expander = Expander::new(self.job.escape);
        self.expand_with(current, instruction, word, &expander).map(|expansion| expansion.text)
    }

    fn expand_with(
        &mut self,
        current: &Current<'_>,
        instruction: &Instruction,
        word: &Word,
        expander: &Expander,
    ) -> Result<Expansion, Diagnostic> {
        let env = &current.state.env;
        let expansion = expander
            .expand(&word.text, env)
            .map_err(|error| bad_expansion(instruction, word, &error))?;
        for name in &expansion.unset {
            if !current.state.build_args.contains_key(name) {
                let known = env.keys().map(String::as_str);
                let declared = current.state.build_args.keys().map(String::as_str);
                self.lint.undefined_variable(instruction, word, name, known, declared);
            }
        }
        Ok(expansion)
    }

    /// Adds a node. That its inputs are there is this module's own affair, so a failure is a
    /// defect; it is reported all the same.
    fn add(
        &mut self,
        op: Op,
        inputs: Vec<Input>,
        platform: Option<Platform>,
        meta: NodeMeta,
    ) -> Result<Input, Diagnostic> {
        self.graph
            .add(op, inputs, platform, meta)
            .map_err(|error| Diagnostic::error("graph", error.to_string()))
    }

    /// The node of a root; the empty one if there is none.
    fn node(&mut self, root: &Root, stage: &Stage) -> Result<Input, Diagnostic> {
        match root {
            Root::Node(input) => Ok(*input),
            Root::Empty => {
                let meta =
                    NodeMeta { name: "[internal] scratch".to_owned(), ..NodeMeta::default() };
                self.add(Op::Source(Source::Scratch), Vec::new(), None, meta)
            }
            Root::Local(name) => self.whole_context(&name.clone(), stage),
        }
    }

    fn whole_context(&mut self, name: &str, stage: &Stage) -> Result<Input, Diagnostic> {
        self.context(name, Selection::default()).map_err(|error| {
            let wrong = Diagnostic::error("context", error.message).at(&stage.source, stage.span);
            error.help.into_iter().fold(wrong, Diagnostic::help)
        })
    }

    /// The node of what an instruction selects from a local context.
    fn context(&mut self, name: &str, selection: Selection) -> Result<Input, ResolveError> {
        let digest = self.pins.context(name, &selection)?;
        let shown = if name.is_empty() {
            "[internal] load build context".to_owned()
        } else {
            format!("[context {name}] load from client")
        };
        let source = Source::Context(ContextSource { name: name.to_owned(), selection, digest });
        let meta = NodeMeta { name: shown, ..NodeMeta::default() };
        self.graph
            .add(Op::Source(source), Vec::new(), None, meta)
            .map_err(|error| ResolveError::new(error.to_string()))
    }

    fn meta_of(&self, stage: &Stage, name: String) -> NodeMeta {
        NodeMeta {
            name,
            stage: stage.label.clone(),
            span: Some(ir_span(stage.span)),
            ..NodeMeta::default()
        }
    }

    /// The description of a node that an instruction makes.
    fn meta(&self, current: &Current<'_>, instruction: &Instruction, name: String) -> NodeMeta {
        NodeMeta {
            name,
            stage: current.stage.label.clone(),
            // A trigger has no place in the Dockerfile but that of the FROM that brings it.
            span: Some(ir_span(if current.is_trigger {
                current.stage.span
            } else {
                instruction.span
            })),
            no_cache: current.no_cache,
            ..NodeMeta::default()
        }
    }

    /// The stage whose files `--from` or `from=` means; it must have been built before.
    fn source_root(&self, current: &Current<'_>, source: StageId) -> Result<&Root, SourceError> {
        let mut id = source;
        // An undeclared name may be an alias of a stage.
        for _ in 0..self.origins.len() {
            match (&self.built[id], &self.origins[id]) {
                (Some(built), _) => return Ok(&built.state.root),
                (None, _) if self.broken[id] => return Ok(&Root::Empty),
                (None, Some(Origin::Stage(next))) if self.aliases[id] && *next != current.id => {
                    id = *next;
                }
                _ => break,
            }
        }
        Err(SourceError::NotBefore)
    }

    fn finish(&mut self, stages: &Stages, target: StageId) -> Result<Target, Diagnostic> {
        let mut chain = Vec::new();
        let mut first = target;
        let mut next = Some(target);
        while let Some((id, built)) = next.and_then(|id| Some((id, self.built[id].as_ref()?))) {
            chain.push(&built.history);
            first = id;
            next = built.base;
        }
        let mut history: Vec<History> =
            chain.into_iter().rev().flat_map(|part| part.iter().cloned()).collect();
        let stage = &stages.list[target];
        let Some(built) = self.built[target].take() else {
            return Err(Diagnostic::error("graph", format!("{:?} was not built", stage.label))
                .at(&stage.source, stage.span));
        };
        let mut state = built.state;
        let labels = self.job.options.labels.iter();
        state.settings.labels.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
        let platform = self.platform_of_image(&state.image_platform);
        let root = match &state.root {
            Root::Empty => None,
            Root::Node(input) => Some(*input),
            Root::Local(name) => Some(self.whole_context(name, stage)?),
        };
        // A folder or repository as the base is a layer that no instruction made. Its line comes
        // last and is named for the last layer, as in BuildKit.
        let made_of = match (&self.origins[first], &root) {
            (Some(Origin::Local(name)), _) if history.iter().all(|line| line.empty_layer) => {
                Some(format!("local source for {name}"))
            }
            (Some(Origin::Local(_) | Origin::Git { .. }), Some(root)) => {
                self.graph.meta.nodes.get(&root.node).map(|meta| meta.name.clone())
            }
            _ => None,
        };
        history.extend(made_of.map(|created_by| History {
            created_by,
            comment: EXPORTER_COMMENT.to_owned(),
            ..History::default()
        }));
        if platform.os == "windows" {
            state.settings.working_dir = state.settings.working_dir.replace('/', "\\");
        }
        Ok(Target {
            name: stage.name.clone(),
            root,
            platform,
            config: state.settings.finish(history),
        })
    }

    /// An asked platform wins over the base image's; a variant that it leaves out is kept.
    fn platform_of_image(&self, image: &Platform) -> Platform {
        let asked = self.job.platform;
        if !self.job.platform_is_asked && !image.architecture.is_empty() {
            return image.clone();
        }
        let same = asked.os == image.os && asked.architecture == image.architecture;
        if same && asked.variant.is_empty() { image.clone() } else { asked.clone() }
    }
}

/// Refuses a command whose bytes cannot be given on as they are written. Elsewhere such bytes are
/// read as U+FFFD.
fn check_encoding(instruction: &Instruction, run: &Run) -> Result<(), Diagnostic> {
    let source = &instruction.source;
    let CommandLine::Shell(line) = &run.command else { return Ok(()) };
    let mut texts = std::iter::once(&line.text).chain(run.heredocs.iter().map(|one| &one.content));
    if source.is_utf8() || !texts.any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
        return Ok(());
    }
    let at = source.slice(instruction.span).find(char::REPLACEMENT_CHARACTER).unwrap_or(0);
    let start = instruction.span.start + at;
    let span = Span::new(start, start + char::REPLACEMENT_CHARACTER.len_utf8());
    Err(Diagnostic::error("not-utf8", "the command has a byte that is not UTF-8")
        .at(source, span)
        .help("save the file as UTF-8, or have the command make the byte: printf '\\351'"))
}

/// What is wrong with a word whose variables cannot be expanded.
fn bad_expansion(instruction: &Instruction, word: &Word, error: &ExpandError) -> Diagnostic {
    Diagnostic::error("bad-expansion", error.to_string())
        .at(&instruction.source, word.part(error.range.clone()))
}

/// Why a source of `--from` cannot be used.
enum SourceError {
    /// The stage stands behind the one that wants it.
    NotBefore,
}

impl Current<'_> {
    /// Adds a line to the history.
    fn commit(&mut self, created_by: String, makes_layer: bool) {
        self.history.push(History {
            created_by,
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !makes_layer,
            ..History::default()
        });
    }

    /// The working directory; the root if none is set.
    fn cwd(&self) -> &str {
        match self.state.settings.working_dir.as_str() {
            "" => "/",
            dir => dir,
        }
    }
}

/// Names of users mean nothing where there is no file system to look them up in.
fn check_owner(
    owner: Option<&Owner>,
    root: &Root,
    instruction: &Instruction,
    span: Span,
) -> Result<(), Diagnostic> {
    let Some(owner) = owner else { return Ok(()) };
    let names = [Some(&owner.user), owner.group.as_ref()];
    let name = names.into_iter().flatten().find_map(|user| match user {
        UserRef::Name(name) => Some(name),
        UserRef::Id(_) => None,
    });
    match (name, root) {
        (Some(name), Root::Empty) => Err(Diagnostic::error(
            "unknown-user",
            format!(
                "invalid user index: {name:?} cannot be looked up, there is no /etc/passwd yet"
            ),
        )
        .at(&instruction.source, span)
        .help("use numbers, for example --chown=1000:1000")),
        _ => Ok(()),
    }
}

/// A place of the Dockerfile as the graph keeps it.
fn ir_span(span: Span) -> rbc_ir::Span {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    rbc_ir::Span { file: 0, start: offset(span.start), end: offset(span.end) }
}
