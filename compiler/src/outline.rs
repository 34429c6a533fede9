//! What a Dockerfile offers, without building it: its stages ([`targets`]), and the arguments,
//! secrets, agents and caches of one of them ([`outline`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use indexmap::IndexMap;
use rbc_ir::Platform;

use crate::{
    diagnostic::Diagnostics,
    globals::Globals,
    instruction::{self, Command, Instruction, MountType, parse_mount},
    lint::Linter,
    options::CompileOptions,
    path, platform_args,
    shellword::Expander,
    stage::{Base, StageId, Stages},
    syntax::{self, SourceFile, Span, Word},
};

/// A stage that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its name; empty if it has none.
    pub name: String,
    /// Whether it is built if no target is named: the last one.
    pub is_default: bool,
    /// What the comment `# NAME DESCRIPTION` above it says.
    pub description: String,
    /// The base as written.
    pub base: String,
    /// `--platform` as written; empty if there is none.
    pub platform: String,
    /// Its FROM.
    pub span: Span,
}

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The stage's name; empty if it has none.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Build arguments.
    pub args: Vec<ArgInfo>,
    /// Secrets.
    pub secrets: Vec<SourceInfo>,
    /// SSH agents.
    pub ssh: Vec<SourceInfo>,
    /// Caches.
    pub caches: Vec<SourceInfo>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgInfo {
    /// Its name.
    pub name: String,
    /// What the comment `# NAME DESCRIPTION` above it says.
    pub description: String,
    /// What it is set to, or its default.
    pub value: Option<String>,
    /// Its ARG.
    pub span: Span,
}

/// Something that RUN mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its id.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The RUN that mounts it first.
    pub span: Span,
}

/// The stages of a Dockerfile, in order.
pub fn targets(source: &Arc<SourceFile>) -> Result<Vec<TargetInfo>, Diagnostics> {
    let instructions = read(source)?;
    let mut found: Vec<TargetInfo> = instructions
        .iter()
        .filter_map(|instruction| {
            let Command::From(from) = &instruction.command else { return None };
            let name = from.name.as_ref().map_or("", |name| &name.text).to_owned();
            Some(TargetInfo {
                is_default: false,
                description: description(instruction, &name),
                base: from.base.text.clone(),
                platform: from.platform.as_ref().map_or(String::new(), |word| word.text.clone()),
                span: instruction.span,
                name,
            })
        })
        .collect();
    if let Some(last) = found.last_mut() {
        last.is_default = true;
    }
    Ok(found)
}

/// What the target of `options` takes, together with the stages that it needs. Nothing outside is
/// looked at, so variables of base images count as unset.
pub fn outline(source: &Arc<SourceFile>, options: &CompileOptions) -> Result<Outline, Diagnostics> {
    let instructions = read(source)?;
    let host = options.host_platform.clone().unwrap_or_else(Platform::host);
    let platform = options.platforms.first().unwrap_or(&host);
    let target = options.target.as_deref();
    let predefined =
        platform_args::globals(&host, platform, target.unwrap_or_default(), &options.build_args);
    let globals = Globals::read(predefined, &instructions, &options.build_args)?;
    let contexts = &options.named_contexts;
    let stages = Stages::read(&instructions, &globals, contexts, &mut Linter::silent())?;
    let target = stages.target(target)?;
    let froms: Vec<&Arc<Instruction>> =
        instructions.iter().filter(|i| matches!(i.command, Command::From(_))).collect();
    let mut reader = Reader {
        options,
        globals: &globals,
        global_args: global_args(&instructions, &globals),
        args: HashMap::new(),
        outline: Outline::default(),
        seen: HashSet::new(),
        states: vec![None; stages.list.len()],
    };
    let needed = needed(&stages, target);
    for (id, from) in froms.iter().enumerate().filter(|(id, _)| needed.contains(id)) {
        reader.stage(&stages, id, from);
    }
    let mut outline = reader.finish();
    outline.name = stages.list[target].name.clone();
    if let Some(from) = froms.get(target) {
        outline.description = description(from, &outline.name);
    }
    Ok(outline)
}

fn read(source: &Arc<SourceFile>) -> Result<Vec<Arc<Instruction>>, Diagnostics> {
    let file = syntax::parse(Arc::clone(source))?;
    Ok(instruction::parse(&file)?.into_iter().map(Arc::new).collect())
}

/// What the comments right above an instruction say about a name.
fn description(instruction: &Instruction, name: &str) -> String {
    let mut comments = instruction.comments.iter();
    let found = comments.find_map(|comment| comment.text.strip_prefix(name)?.strip_prefix(' '));
    if name.is_empty() { String::new() } else { found.unwrap_or_default().to_owned() }
}

/// The stages that a target needs, itself among them.
fn needed(stages: &Stages, target: StageId) -> BTreeSet<StageId> {
    let mut needed = BTreeSet::new();
    let mut stack = vec![target];
    while let Some(id) = stack.pop() {
        if needed.insert(id) {
            let stage = &stages.list[id];
            stack.extend(match stage.base {
                Base::Stage(base) => Some(base),
                _ => None,
            });
            stack.extend(stage.dependencies().map(|(source, _)| source));
        }
    }
    needed
}

/// The ARGs before the first FROM.
fn global_args(instructions: &[Arc<Instruction>], globals: &Globals) -> HashMap<String, ArgInfo> {
    let mut found = HashMap::new();
    for instruction in instructions {
        match &instruction.command {
            Command::Arg(declarations) => {
                for declaration in declarations {
                    let name = declaration.name.text.clone();
                    let info = ArgInfo {
                        description: description(instruction, &name),
                        value: globals.values.get(&name).cloned(),
                        span: instruction.span,
                        name: name.clone(),
                    };
                    found.insert(name, info);
                }
            }
            Command::From(_) => break,
            _ => {}
        }
    }
    found
}

struct Reader<'a> {
    options: &'a CompileOptions,
    globals: &'a Globals,
    global_args: HashMap<String, ArgInfo>,
    args: HashMap<String, ArgInfo>,
    outline: Outline,
    /// Kinds and ids of the mounts that are in the outline.
    seen: HashSet<(&'static str, String)>,
    /// Variables at the end of each stage.
    states: Vec<Option<IndexMap<String, String>>>,
}

impl Reader<'_> {
    fn stage(&mut self, stages: &Stages, id: StageId, from: &Instruction) {
        if let Command::From(written) = &from.command {
            for word in [Some(&written.base), written.platform.as_ref()].into_iter().flatten() {
                let expander = Expander::new(from.escape);
                if let Ok(expansion) = expander.expand(&word.text, &self.globals.values) {
                    expansion.used.iter().for_each(|name| self.use_global(name));
                }
            }
        }
        let stage = &stages.list[id];
        let mut variables = match stage.base {
            Base::Stage(base) => self.states[base].clone().unwrap_or_default(),
            _ => IndexMap::new(),
        };
        for step in &stage.steps {
            self.instruction(&step.instruction, &mut variables);
        }
        self.states[id] = Some(variables);
    }

    fn instruction(&mut self, by: &Instruction, variables: &mut IndexMap<String, String>) {
        // What cannot be expanded is shown as it is written.
        let expand = |word: &Word, variables: &IndexMap<String, String>| {
            let expanded = Expander::new(by.escape).expand(&word.text, variables);
            expanded.map_or_else(|_| word.text.clone(), |expansion| expansion.text)
        };
        match &by.command {
            Command::Env(pairs) => {
                let values: Vec<(String, String)> = pairs
                    .iter()
                    .map(|pair| (expand(&pair.key, variables), expand(&pair.value, variables)))
                    .collect();
                variables.extend(values);
            }
            Command::Arg(declarations) => {
                for declaration in declarations {
                    let name = &declaration.name.text;
                    let given = self.options.build_args.get(name).cloned();
                    let default = declaration.default.as_ref();
                    let value = given.or_else(|| default.map(|word| expand(word, variables)));
                    if value.is_none() && self.globals.values.contains_key(name) {
                        self.use_global(name);
                    } else {
                        self.args.entry(name.clone()).or_insert_with(|| ArgInfo {
                            name: name.clone(),
                            description: description(by, name),
                            value: value.clone(),
                            span: by.span,
                        });
                    }
                    let value = value.or_else(|| self.globals.values.get(name).cloned());
                    variables.extend(value.map(|value| (name.clone(), value)));
                }
            }
            Command::Run(run) => {
                for mount in &run.mounts {
                    self.mount(by, mount, variables);
                }
            }
            _ => {}
        }
    }

    fn mount(&mut self, by: &Instruction, word: &Word, variables: &IndexMap<String, String>) {
        let expander = Expander::new(by.escape);
        let mut expand = |value: &str| expander.expand(value, variables).map(|one| one.text);
        let Ok(options) = parse_mount(&word.text, &mut expand) else { return };
        let first =
            |names: &[&String]| names.iter().find(|name| !name.is_empty()).map(|n| (*n).clone());
        let (list, id) = match options.kind {
            MountType::Secret => (
                &mut self.outline.secrets,
                first(&[&options.source, &options.id])
                    .unwrap_or_else(|| path::base(&options.target).to_owned()),
            ),
            MountType::Ssh => (
                &mut self.outline.ssh,
                first(&[&options.id]).unwrap_or_else(|| "default".to_owned()),
            ),
            MountType::Cache => (
                &mut self.outline.caches,
                first(&[&options.id]).unwrap_or_else(|| options.target.clone()),
            ),
            MountType::Bind | MountType::Tmpfs => return,
        };
        if self.seen.insert((options.kind.name(), id.clone())) {
            list.push(SourceInfo { id, required: options.required, span: by.span });
        }
    }

    fn use_global(&mut self, name: &str) {
        if let Some(info) = self.global_args.get(name) {
            self.args.entry(name.to_owned()).or_insert_with(|| info.clone());
        }
    }

    fn finish(self) -> Outline {
        let mut outline = self.outline;
        outline.args = self.args.into_values().collect();
        outline.args.sort_by(|a, b| (a.span, &a.name).cmp(&(b.span, &b.name)));
        outline
    }
}
