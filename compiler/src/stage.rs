//! Stages: which there are, what each is built on and copies from, and which of them a target
//! needs.
//!
//! Third step of the compiler, between [`crate::instruction`] and [`crate::lower`]. Here all names
//! are settled (stage, number, image, named context); nothing is looked up outside yet. The rules
//! are those of BuildKit's `dockerfile2llb`: FROM finds only earlier stages, by the exact
//! lower-case name; `--from` finds the last stage of a name in any case, or a number.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rbc_ir::Platform;

use crate::{
    diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS},
    globals::{Globals, expand},
    instruction::{Command, From, Instruction, mount_from},
    lint::Linter,
    reference,
    shellword::{Expander, NoVariables},
    suggest::nearest,
    syntax::{SourceFile, Span, Word},
};

/// Number of a stage within [`Stages`].
pub(crate) type StageId = usize;

/// An instruction of a stage, and where it gets files from.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The instruction.
    pub instruction: Arc<Instruction>,
    /// For COPY the stage of `--from`; for RUN that of each mount, in order.
    pub sources: Vec<Option<StageId>>,
    /// Whether it comes from an ONBUILD of the base.
    pub is_trigger: bool,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// The result of an earlier stage.
    Stage(StageId),
    /// An image, by its normalised reference.
    Image(String),
    /// A named context, by its name.
    Context(String),
}

/// A stage, or an image or context that `--from` names directly.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Name in lower case; empty if it has none.
    pub name: String,
    /// How messages and progress name it.
    pub label: String,
    /// What it begins with.
    pub base: Base,
    /// The base as written, variables expanded.
    pub base_text: String,
    /// `--platform`.
    pub platform: Option<Platform>,
    /// Its instructions, triggers of the base first once they are known.
    pub steps: Vec<Step>,
    /// Whether it stands in the Dockerfile, not only behind a `--from`.
    pub is_declared: bool,
    /// Whether a named context takes its place.
    pub is_replaced: bool,
    /// Where it is declared or, if it is not, first named.
    pub source: Arc<SourceFile>,
    /// The FROM, or the word behind `--from`.
    pub span: Span,
}

impl Stage {
    /// The stages whose files it uses beside its base, with the step that does.
    pub fn dependencies(&self) -> impl Iterator<Item = (StageId, &Step)> {
        self.steps
            .iter()
            .flat_map(|step| step.sources.iter().flatten().map(move |source| (*source, step)))
    }
}

/// All stages of a Dockerfile, in order, then those that only `--from` names.
#[derive(Debug)]
pub(crate) struct Stages {
    /// The stages.
    pub list: Vec<Stage>,
    by_name: HashMap<String, StageId>,
    undeclared: HashMap<String, StageId>,
    /// Named contexts as they were given, by their short name.
    contexts: HashMap<String, String>,
    escape: char,
}

impl Stages {
    /// Sorts instructions into stages and settles all names.
    pub fn read(
        instructions: &[Arc<Instruction>],
        globals: &Globals,
        contexts: &BTreeSet<String>,
        lint: &mut Linter,
    ) -> Result<Self, Diagnostics> {
        let mut errors = Diagnostics::new();
        let mut stages = Self {
            list: Vec::new(),
            by_name: HashMap::new(),
            undeclared: HashMap::new(),
            contexts: contexts
                .iter()
                .map(|name| {
                    let short = reference::context_name(name).unwrap_or_else(|| name.clone());
                    (short, name.clone())
                })
                .collect(),
            escape: instructions.first().map_or('\\', |first| first.escape),
        };
        let mut bodies: Vec<Vec<&Arc<Instruction>>> = Vec::new();
        for instruction in instructions {
            if let Command::From(from) = &instruction.command {
                if let Err(error) = stages.declare(instruction, from, globals, lint) {
                    errors.push(error);
                    stages.declare_broken(instruction, from);
                }
                if errors.len() >= MAX_ERRORS {
                    return Err(errors);
                }
                bodies.push(Vec::new());
            } else if let Some(body) = bodies.last_mut() {
                body.push(instruction);
            }
        }
        if stages.list.is_empty() {
            return Err(Diagnostic::error(
                "no-stage",
                "the Dockerfile contains no stages to build",
            )
            .help("add a FROM instruction")
            .into());
        }
        // Only now are all names known that --from may mean.
        for (id, body) in bodies.into_iter().enumerate() {
            for instruction in body {
                match stages.step(instruction, false) {
                    // A named context takes the place of the stage; its instructions only have to
                    // make sense.
                    Ok(_) if stages.list[id].is_replaced => {}
                    Ok(step) => stages.list[id].steps.push(step),
                    Err(error) => errors.push(error),
                }
                if errors.len() >= MAX_ERRORS {
                    return Err(errors);
                }
            }
        }
        if let (false, Err(error)) = (errors.has_errors(), stages.check_cycles()) {
            errors.push(error);
        }
        errors.or_ok(stages)
    }

    /// Keeps the place of a stage whose FROM is wrong, so that the others can be read.
    fn declare_broken(&mut self, instruction: &Instruction, from: &From) {
        let id = self.list.len();
        let name = from.name.as_ref().map_or("", |name| name.text.as_str()).to_owned();
        if !name.is_empty() {
            self.by_name.insert(name.clone(), id);
        }
        self.list.push(Stage {
            label: if name.is_empty() { format!("stage-{id}") } else { name.clone() },
            name,
            base: Base::Scratch,
            base_text: from.base.text.clone(),
            platform: None,
            steps: Vec::new(),
            is_declared: true,
            is_replaced: false,
            source: Arc::clone(&instruction.source),
            span: instruction.span,
        });
    }

    fn declare(
        &mut self,
        instruction: &Arc<Instruction>,
        from: &From,
        globals: &Globals,
        lint: &mut Linter,
    ) -> Result<(), Diagnostic> {
        let id = self.list.len();
        let base = expand(instruction, &from.base, &globals.values)?;
        lint.undeclared_in_from(instruction, &from.base, &base.unset, globals);
        if base.text.is_empty() {
            return Err(blank_base(instruction, from, &base.unset, globals));
        }
        let platform = match &from.platform {
            Some(word) => Some(platform_of(instruction, word, globals, lint)?),
            None => None,
        };
        let name = from.name.as_ref().map_or("", |name| name.text.as_str()).to_owned();
        if let Some(word) = &from.name {
            check_name(instruction, word)?;
        }
        let context = if name.is_empty() { None } else { self.context(&name) };
        let is_replaced = context.is_some();
        let base_of_stage = match context {
            Some(context) => Base::Context(context),
            None => self
                .base(&base.text, instruction, from.base.span)
                .map_err(|wrong| explain_unset(wrong, &base.unset, globals))?,
        };
        self.list.push(Stage {
            label: if name.is_empty() { format!("stage-{id}") } else { name.clone() },
            name: name.clone(),
            base: base_of_stage,
            base_text: base.text,
            platform,
            steps: Vec::new(),
            is_declared: true,
            is_replaced,
            source: Arc::clone(&instruction.source),
            span: instruction.span,
        });
        if !name.is_empty() {
            self.by_name.insert(name, id);
        }
        Ok(())
    }

    /// What the base or source `text` means, as far as no look-up is needed.
    fn base(&self, text: &str, by: &Instruction, span: Span) -> Result<Base, Diagnostic> {
        if let Some(stage) = self.by_name.get(text) {
            return Ok(Base::Stage(*stage));
        }
        if text == "scratch" {
            return Ok(Base::Scratch);
        }
        if let Some(context) = self.context(text) {
            return Ok(Base::Context(context));
        }
        reference::normalise(text).map(Base::Image).map_err(|error| {
            let wrong = Diagnostic::error(
                "bad-reference",
                format!("failed to parse stage name {text:?}: {error}"),
            )
            .at(&by.source, span);
            match self.by_name.get_key_value(&text.to_lowercase()) {
                Some((name, _)) => {
                    wrong.help(format!("stage names are lower case: did you mean {name:?}?"))
                }
                None => wrong,
            }
        })
    }

    fn context(&self, name: &str) -> Option<String> {
        if self.contexts.is_empty()
            || name.eq_ignore_ascii_case("scratch")
            || name.eq_ignore_ascii_case("context")
        {
            return None;
        }
        let short = reference::context_name(name);
        self.contexts.get(short.as_deref().unwrap_or(name)).cloned()
    }

    /// Settles what an instruction uses, adding images and contexts that only it names.
    pub fn step(
        &mut self,
        instruction: &Arc<Instruction>,
        is_trigger: bool,
    ) -> Result<Step, Diagnostic> {
        let sources = match &instruction.command {
            Command::Copy(copy) => match &copy.from {
                Some(from) => vec![Some(self.copy_source(instruction, from)?)],
                None => Vec::new(),
            },
            Command::Run(run) => {
                let mut sources = Vec::with_capacity(run.mounts.len());
                for mount in &run.mounts {
                    let from = mount_from(&mount.text).map_err(|error| {
                        Diagnostic::error("bad-mount", error.to_string())
                            .at(&instruction.source, mount.span)
                    })?;
                    sources.push(match from {
                        Some(from) => Some(self.find_or_add(&from, instruction, mount.span)?),
                        None => None,
                    });
                }
                sources
            }
            _ => Vec::new(),
        };
        Ok(Step { instruction: Arc::clone(instruction), sources, is_trigger })
    }

    fn copy_source(
        &mut self,
        instruction: &Arc<Instruction>,
        from: &Word,
    ) -> Result<StageId, Diagnostic> {
        let fail = |code, message: String| {
            Diagnostic::error(code, message).at(&instruction.source, from.span)
        };
        let expanded = Expander::new(self.escape)
            .expand(&from.text, &NoVariables)
            .map_err(|error| fail("bad-expansion", error.to_string()))?;
        if expanded.text != from.text {
            return Err(fail(
                "from-variable",
                "variable expansion is not supported for --from, define a new stage with FROM \
                 using ARG from global scope as a workaround"
                    .to_owned(),
            ));
        }
        let Ok(number) = from.text.parse::<i64>() else {
            return self.find_or_add(&from.text, instruction, from.span);
        };
        usize::try_from(number)
            .ok()
            .filter(|id| self.list.get(*id).is_some_and(|stage| stage.is_declared))
            .ok_or_else(|| {
                let count = self.list.iter().filter(|stage| stage.is_declared).count();
                fail("unknown-stage", format!("invalid stage index {number}"))
                    .note(format!("this Dockerfile has the stages 0 to {}", count - 1))
            })
    }

    fn find_or_add(
        &mut self,
        name: &str,
        instruction: &Arc<Instruction>,
        span: Span,
    ) -> Result<StageId, Diagnostic> {
        let known = self.by_name.get(&name.to_lowercase()).or_else(|| self.undeclared.get(name));
        if let Some(id) = known {
            return Ok(*id);
        }
        let id = self.list.len();
        let base = self.base(name, instruction, span)?;
        self.list.push(Stage {
            name: String::new(),
            label: name.to_owned(),
            base,
            base_text: name.to_owned(),
            platform: None,
            steps: Vec::new(),
            is_declared: false,
            is_replaced: false,
            source: Arc::clone(&instruction.source),
            span,
        });
        self.undeclared.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The stage that `--target` names; the last one if it names none.
    pub fn target(&self, name: Option<&str>) -> Result<StageId, Diagnostic> {
        let declared = self.list.iter().filter(|stage| stage.is_declared).count();
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(declared - 1) };
        if let Some(id) = self.by_name.get(&name.to_lowercase()) {
            return Ok(*id);
        }
        let names =
            || self.declared().map(|(_, stage)| stage.name.as_str()).filter(|n| !n.is_empty());
        let unknown = Diagnostic::error(
            "unknown-target",
            format!("target stage {name:?} could not be found"),
        );
        let known: Vec<&str> = names().take(20).collect();
        let unknown = match (known.is_empty(), names().count() > known.len()) {
            (true, _) => unknown.note("no stage of this Dockerfile has a name (FROM … AS name)"),
            (false, more) => unknown.note(format!(
                "stages with a name: {}{}",
                known.join(", "),
                if more { ", …" } else { "" }
            )),
        };
        Err(match nearest(name, names()) {
            Some(near) => unknown.help(format!("did you mean {near:?}?")),
            None => unknown,
        })
    }

    /// Whether the build has named contexts.
    pub fn has_contexts(&self) -> bool {
        !self.contexts.is_empty()
    }

    /// The stages of the Dockerfile itself.
    pub fn declared(&self) -> impl Iterator<Item = (StageId, &Stage)> {
        self.list.iter().enumerate().filter(|(_, stage)| stage.is_declared)
    }

    /// Names for "did you mean", those of stages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Looks a stage up by its name, in any case.
    pub fn find(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }
}

/// A stage may be replaced by a build context of its name, which has to be a name of an image.
fn check_name(instruction: &Instruction, name: &Word) -> Result<(), Diagnostic> {
    if matches!(name.text.as_str(), "scratch" | "context") {
        return Ok(());
    }
    reference::normalise(&name.text).map(drop).map_err(|_| {
        Diagnostic::error("bad-stage-name", format!("invalid context name {}", name.text))
            .at(&instruction.source, name.span)
            .help("end it with a letter or digit, with no two dots or three underscores in a row")
    })
}

fn blank_base(
    instruction: &Instruction,
    from: &From,
    unset: &[String],
    globals: &Globals,
) -> Diagnostic {
    let blank = Diagnostic::error(
        "blank-base",
        format!("base name ({}) should not be blank", from.base.text),
    )
    .at(&instruction.source, from.base.span);
    if unset.is_empty() {
        return blank.help("give the ARG a default, or a value with --build-arg");
    }
    explain_unset(blank, unset, globals)
}

/// Says which variable without a value made a base wrong.
fn explain_unset(wrong: Diagnostic, unset: &[String], globals: &Globals) -> Diagnostic {
    let Some(name) = unset.first() else { return wrong };
    let blank = wrong.note(format!("{name} has no value here"));
    match nearest(name, globals.values.keys().chain(&globals.declared).map(String::as_str)) {
        Some(near) => blank.help(format!("did you mean ${near}?")),
        None => blank.help(format!(
            "put `ARG {name}=…` before the first FROM, or pass --build-arg {name}=…"
        )),
    }
}

fn platform_of(
    instruction: &Instruction,
    word: &Word,
    globals: &Globals,
    lint: &mut Linter,
) -> Result<Platform, Diagnostic> {
    let expanded = expand(instruction, word, &globals.values)?;
    lint.undeclared_in_from(instruction, word, &expanded.unset, globals);
    let fail = |message: String| {
        let wrong = Diagnostic::error("bad-platform", message).at(&instruction.source, word.span);
        let names = || globals.values.keys().map(String::as_str);
        match expanded.unset.iter().find_map(|name| nearest(name, names())) {
            Some(near) => wrong.help(format!("did you mean ${near}?")),
            None => wrong,
        }
    };
    if expanded.text.is_empty() {
        return Err(fail(format!("empty platform value from expression {}", word.text)));
    }
    let platform: Platform = expanded
        .text
        .parse()
        .map_err(|error| fail(format!("failed to parse platform {}: {error}", word.text)))?;
    lint.platform_of_from(instruction, word, &expanded, &platform, globals);
    Ok(platform)
}
