//! COPY and ADD: from the build context, other stages, images, named contexts, heredocs, the web
//! and git repositories.

use rbc_ir::{
    CopyAction, FileAction, FileOp, Input, Mkfile, ModeChange, NodeMeta, Op, Owner, SelectPath,
    Selection,
};

use super::{Current, Lowering, Root, SourceError, check_owner, inputs::Inputs, remote, step_name};
use crate::{
    diagnostic::Diagnostic,
    git_ref,
    instruction::{Add, Copy, Instruction, Transfer, parse_chmod, parse_owner},
    path,
    resolver::ResolveError,
    shellword::Expander,
    stage::Step,
    syntax::Word,
};

/// What only ADD can say.
#[derive(Default)]
pub(super) struct AddOptions {
    pub checksum: Option<(String, crate::syntax::Span)>,
    pub keep_git_dir: Option<bool>,
    pub unpack: Option<bool>,
}

/// A COPY or ADD with all variables expanded.
pub(super) struct Plan<'a> {
    pub instruction: &'a Instruction,
    pub transfer: &'a Transfer,
    /// ADD's options; `None` for COPY.
    pub add: Option<AddOptions>,
    pub parents: bool,
    pub sources: Vec<(String, &'a Word)>,
    pub dest: String,
    pub owner: Option<Owner>,
    pub mode: Option<ModeChange>,
    pub exclude: Vec<String>,
    /// Name of the step.
    pub name: String,
}

impl Plan<'_> {
    pub fn fail(&self, code: &'static str, message: impl Into<String>, word: &Word) -> Diagnostic {
        Diagnostic::error(code, message).at(&self.instruction.source, word.span)
    }

    pub fn unresolved(&self, error: ResolveError, word: &Word) -> Diagnostic {
        let wrong = self.fail("not-found", error.message, word);
        error.help.into_iter().fold(wrong, Diagnostic::help)
    }

    /// An action with what all sources have in common.
    pub fn action(&self, input: u32, source: String) -> CopyAction {
        CopyAction {
            input,
            source,
            dest: self.dest.clone(),
            owner: self.owner.clone(),
            mode: self.mode.clone(),
            wildcard: false,
            follow_symlinks: false,
            unpack: false,
            parents: false,
            exclude: self.exclude.clone(),
            allow_missing: false,
        }
    }
}

impl Lowering<'_, '_> {
    /// COPY.
    pub(super) fn copy(
        &mut self,
        current: &mut Current<'_>,
        step: &Step,
        copy: &Copy,
    ) -> Result<(), Diagnostic> {
        let root = match (step.sources.first().copied().flatten(), &copy.from) {
            (Some(source), Some(from)) => match self.source_root(current, source) {
                Ok(root) => root.clone(),
                Err(SourceError::NotBefore) => {
                    return Err(Diagnostic::error(
                        "stage-order",
                        format!(
                            "cannot copy from stage {:?}, it needs to be defined before current \
                             stage {:?}",
                            from.text, current.stage.label
                        ),
                    )
                    .at(&step.instruction.source, from.span)
                    .help("move the stage that is copied from up"));
                }
            },
            _ => Root::Local(String::new()),
        };
        self.transfer(current, &step.instruction, &copy.transfer, copy.parents, None, &root)
    }

    /// ADD.
    pub(super) fn add_files(
        &mut self,
        current: &mut Current<'_>,
        step: &Step,
        add: &Add,
    ) -> Result<(), Diagnostic> {
        let checksum = match &add.checksum {
            Some(word) => {
                let text = self.expand(current, &step.instruction, word)?;
                (!text.is_empty()).then_some((text, word.span))
            }
            None => None,
        };
        let options = AddOptions { checksum, keep_git_dir: add.keep_git_dir, unpack: add.unpack };
        let root = Root::Local(String::new());
        self.transfer(current, &step.instruction, &add.transfer, false, Some(options), &root)
    }

    fn transfer(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        transfer: &Transfer,
        parents: bool,
        add: Option<AddOptions>,
        root: &Root,
    ) -> Result<(), Diagnostic> {
        let (plan, created_by) = self.plan(current, instruction, transfer, parents, add)?;
        // A link with --chmod is a plain copy, as in BuildKit.
        let is_link = transfer.link && plan.mode.is_none();
        let base_root = if is_link { Root::Empty } else { current.state.root.clone() };
        if let Some(word) = &transfer.chown {
            check_owner(plan.owner.as_ref(), &base_root, instruction, word.span)?;
        }
        let base = self.node(&base_root, current.stage)?;
        let mut inputs = Inputs::new(base);
        let mut actions = Vec::new();
        self.remote_sources(&plan, current, &mut inputs, &mut actions)?;
        self.local_sources(&plan, root, current, &mut inputs, &mut actions)?;
        self.inline_sources(&plan, current, &mut inputs, &mut actions)?;
        // Remote sources were taken first; the order of the text is what counts.
        actions.sort_by_key(|(place, _)| *place);
        let actions = actions.into_iter().map(|(_, copy)| FileAction::Copy(copy)).collect();
        let meta = self.meta(current, instruction, plan.name.clone());
        let op = Op::File(FileOp { actions });
        let made = self.add(op, inputs.finish(), None, meta.clone())?;
        current.state.root = match (&current.state.root, is_link) {
            (Root::Empty, true) | (_, false) => Root::Node(made),
            (below, true) => {
                let below = self.node(&below.clone(), current.stage)?;
                let name = plan.name.replacen("] ", "] LINK ", 1);
                let meta = NodeMeta { name, ..meta };
                Root::Node(self.add(Op::Merge, vec![below, made], None, meta)?)
            }
        };
        current.commit(format!("{created_by} # buildkit"), true);
        Ok(())
    }

    /// Expands all words and checks what depends on none but them.
    fn plan<'a>(
        &mut self,
        current: &mut Current<'_>,
        instruction: &'a Instruction,
        transfer: &'a Transfer,
        parents: bool,
        add: Option<AddOptions>,
    ) -> Result<(Plan<'a>, String), Diagnostic> {
        let mut created_by = if add.is_some() { "ADD" } else { "COPY" }.to_owned();
        let flag = |lowering: &mut Self, word: &Option<Word>| match word {
            Some(word) => lowering
                .expand(current, instruction, word)
                .map(|text| (!text.is_empty()).then_some((text, word.span))),
            None => Ok(None),
        };
        let chown = flag(self, &transfer.chown)?;
        let chmod = flag(self, &transfer.chmod)?;
        let mut sources = Vec::with_capacity(transfer.sources.len());
        for word in &transfer.sources {
            sources.push((self.expand(current, instruction, word)?, word));
        }
        let dest = self.expand(current, instruction, &transfer.dest)?;
        let mode = match &chmod {
            Some((text, span)) => Some(parse_chmod(text).map_err(|error| {
                Diagnostic::error("bad-mode", error.to_string()).at(&instruction.source, *span)
            })?),
            None => None,
        };
        if parents {
            created_by.push_str(" --parents");
        }
        for (name, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some((text, _)) = value {
                created_by.push_str(&format!(" --{name}={text}"));
            }
        }
        for (source, _) in &sources {
            created_by.push_str(&format!(" {source}"));
        }
        for file in &transfer.inline {
            created_by.push_str(&format!(" <<{}", file.name.text));
        }
        created_by.push_str(&format!(" {dest}"));
        let shown = step_name::shown(instruction, "", self.job.escape, &current.state.env);
        let name = current.counter.next(&shown, current.is_trigger);
        let plan = Plan {
            instruction,
            transfer,
            add,
            parents,
            sources,
            dest: path::destination(current.cwd(), &dest),
            owner: chown.map(|(text, _)| parse_owner(&text)),
            mode,
            exclude: transfer.exclude.iter().map(|word| word.text.clone()).collect(),
            name,
        };
        remote::check_checksum(&plan)?;
        Ok((plan, created_by))
    }

    /// Paths of the context or stage. They share one input, whose digest covers just them.
    fn local_sources(
        &mut self,
        plan: &Plan<'_>,
        root: &Root,
        current: &Current<'_>,
        inputs: &mut Inputs,
        actions: &mut Vec<(usize, CopyAction)>,
    ) -> Result<(), Diagnostic> {
        let local: Vec<(usize, String, &Word)> = plan
            .sources
            .iter()
            .enumerate()
            .filter(|(_, (source, _))| {
                git_ref::parse(source).is_none() && !git_ref::is_http_file(source)
            })
            .map(|(place, (source, word))| (place, local_path(source, plan.parents), *word))
            .collect();
        if local.is_empty() {
            return Ok(());
        }
        let node = match root {
            Root::Local(name) => self.selected(plan, name, &local)?,
            other => self.node(other, current.stage)?,
        };
        if matches!(root, Root::Local(name) if name.is_empty()) {
            for (place, _, word) in &local {
                self.lint.ignored_source(plan.instruction, word, &plan.sources[*place].0);
            }
        }
        let input = inputs.push(node);
        let unpack = plan.add.as_ref().is_some_and(|add| add.unpack.unwrap_or(true));
        for (place, source, _) in local {
            let wildcard = path::has_wildcard(&source);
            let action = CopyAction {
                wildcard,
                follow_symlinks: true,
                unpack,
                parents: plan.parents,
                ..plan.action(input, source)
            };
            actions.push((place, action));
        }
        Ok(())
    }

    fn selected(
        &mut self,
        plan: &Plan<'_>,
        context: &str,
        local: &[(usize, String, &Word)],
    ) -> Result<Input, Diagnostic> {
        let selection = |paths: &[(usize, String, &Word)]| Selection {
            paths: paths
                .iter()
                .map(|(_, path, _)| SelectPath {
                    path: path.clone(),
                    wildcard: path::has_wildcard(path),
                })
                .collect(),
            exclude: plan.exclude.clone(),
            follow_symlinks: true,
            parents: plan.parents,
        };
        match self.context(context, selection(local)) {
            Ok(node) => Ok(node),
            Err(error) => {
                // Ask again for each one, to show which source is at fault.
                let at_fault = local.iter().find_map(|one| {
                    let alone = selection(std::slice::from_ref(one));
                    self.pins.context(context, &alone).err().map(|e| (e, one.2))
                });
                let (error, word) = match (at_fault, local.first()) {
                    (Some(found), _) => found,
                    (None, Some((_, _, word))) => (error, *word),
                    (None, None) => (error, &plan.transfer.dest),
                };
                Err(plan.unresolved(error, word))
            }
        }
    }

    /// Files whose content is in the Dockerfile.
    fn inline_sources(
        &mut self,
        plan: &Plan<'_>,
        current: &Current<'_>,
        inputs: &mut Inputs,
        actions: &mut Vec<(usize, CopyAction)>,
    ) -> Result<(), Diagnostic> {
        for (index, file) in plan.transfer.inline.iter().enumerate() {
            let data = if file.expand {
                let expander = Expander::for_heredoc();
                self.expand_with(current, plan.instruction, &file.content, &expander)?.text
            } else {
                file.content.text.clone()
            };
            let name = path::source(&file.name.text);
            let node = self.inline_file(current, &name, 0o644, data)?;
            let input = inputs.push(node);
            let place = plan.sources.len() + index;
            let source = name.trim_start_matches('/').to_owned();
            actions.push((place, plan.action(input, source)));
        }
        Ok(())
    }

    /// A node with one file.
    pub(super) fn inline_file(
        &mut self,
        current: &Current<'_>,
        path: &str,
        mode: u32,
        data: String,
    ) -> Result<Input, Diagnostic> {
        let base = self.node(&Root::Empty, current.stage)?;
        let file = Mkfile { path: path.to_owned(), mode, data: data.into_bytes(), owner: None };
        let meta = NodeMeta {
            name: "[internal] preparing inline document".to_owned(),
            stage: current.stage.label.clone(),
            ..NodeMeta::default()
        };
        let op = Op::File(FileOp { actions: vec![FileAction::Mkfile(file)] });
        self.add(op, vec![base], None, meta)
    }
}

/// A source below the root of its tree. For `--parents`, both sides of the pivot `/./` are cleaned
/// and the pivot stays.
fn local_path(source: &str, parents: bool) -> String {
    let below_root = |path: &str| path::source(path).trim_start_matches('/').to_owned();
    match source.split_once("/./") {
        Some((root, pattern)) if parents => {
            let (root, pattern) = (below_root(root), below_root(pattern));
            if root.is_empty() { pattern } else { format!("{root}/./{pattern}") }
        }
        _ => below_root(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stay_below_their_root() {
        for (source, parents, want) in [
            ("../secret", false, "secret"),
            ("/a//b/", false, "a/b"),
            (".", false, ""),
            ("src/./app", false, "src/app"),
            ("src/./app/../lib", true, "src/./lib"),
            ("./a/b", true, "a/b"),
            ("/./a", true, "a"),
        ] {
            assert_eq!(local_path(source, parents), want, "{source:?}");
        }
    }
}
