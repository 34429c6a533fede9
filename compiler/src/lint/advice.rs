//! rbc's own checks of stages as a whole: stages that nothing uses, caches that mix distributions,
//! and copies that make every change of a file install all packages anew.

use std::{collections::HashMap, sync::Arc};

use super::{Linter, Rule};
use crate::{
    instruction::{Command, CommandLine, From, Instruction, MountType, Run, Transfer, parse_mount},
    path,
    stage::{Base, Stage, StageId, Stages},
    syntax::Word,
};

/// Programs that download packages, with the subcommands that do; no subcommand means the bare
/// program.
const INSTALLERS: [(&str, &[&str]); 21] = [
    ("apt-get", &["install", "update"]),
    ("apt", &["install", "update"]),
    ("apk", &["add"]),
    ("dnf", &["install"]),
    ("microdnf", &["install"]),
    ("yum", &["install"]),
    ("zypper", &["install", "in"]),
    ("pacman", &["-S", "-Sy", "-Syu"]),
    ("npm", &["install", "ci", "i"]),
    ("yarn", &["install", ""]),
    ("pnpm", &["install", "i"]),
    ("bun", &["install"]),
    ("pip", &["install"]),
    ("pip3", &["install"]),
    ("poetry", &["install"]),
    ("pipenv", &["install"]),
    ("uv", &["sync"]),
    ("bundle", &["install"]),
    ("composer", &["install"]),
    ("go", &["mod"]),
    ("cargo", &["fetch"]),
];

impl Linter {
    /// Checks all stages. `target` is the one that was asked for.
    pub fn advise(&mut self, stages: &Stages, instructions: &[Arc<Instruction>], target: StageId) {
        let froms: Vec<&Arc<Instruction>> =
            instructions.iter().filter(|i| matches!(i.command, Command::From(_))).collect();
        self.unused_stages(stages, &froms, target);
        self.shared_caches(stages);
        for (_, stage) in stages.declared() {
            self.copies_before_installs(stage);
        }
    }

    /// Stages that no other one uses. The last one is what is built, and one that a comment
    /// describes is there to be asked for.
    fn unused_stages(&mut self, stages: &Stages, froms: &[&Arc<Instruction>], target: StageId) {
        if stages.has_contexts() {
            // A context `target:NAME` may use any of them.
            return;
        }
        let mut is_used = vec![false; stages.list.len()];
        for stage in &stages.list {
            if let Base::Stage(base) = stage.base {
                is_used[base] = true;
            }
            for (source, _) in stage.dependencies() {
                is_used[source] = true;
            }
        }
        for ((id, stage), from) in stages.declared().zip(froms) {
            let is_described = !stage.name.is_empty()
                && from.comments.iter().any(|comment| {
                    comment.text.split(' ').next().is_some_and(|first| first == stage.name)
                });
            if is_used[id] || is_described || id == target || id + 1 == froms.len() {
                continue;
            }
            let Command::From(From { base, name, .. }) = &from.command else { continue };
            let span = name.as_ref().unwrap_or(base).span;
            let help = if stage.name.is_empty() {
                "remove it, or name it with AS and use it".to_owned()
            } else {
                format!(
                    "remove it, or put a comment `# {} DESCRIPTION` above it if it is meant for \
                     --target",
                    stage.name
                )
            };
            let message = format!("No stage uses the stage {:?}", stage.label);
            self.report(Rule::StageNeverUsed, from, span, message, help);
        }
    }

    /// Cache mounts without an id: their target is their id, whatever the distribution.
    fn shared_caches(&mut self, stages: &Stages) {
        let bases = root_bases(stages);
        let mut users: HashMap<String, &str> = HashMap::new();
        for (id, stage) in stages.declared() {
            let Some(base) = bases[id] else { continue };
            for step in &stage.steps {
                let Command::Run(run) = &step.instruction.command else { continue };
                for mount in &run.mounts {
                    let Some(target) = cache_without_id(mount) else { continue };
                    let first = *users.entry(target.clone()).or_insert(base);
                    if first == base {
                        continue;
                    }
                    self.report(
                        Rule::CacheMountSharedByBases,
                        &step.instruction,
                        mount.span,
                        format!("The cache {target} is shared by {first} and {base}"),
                        "give it an id of its own: `id=…`",
                    );
                }
            }
        }
    }

    /// A copy of all of the context in front of a step that installs packages.
    fn copies_before_installs(&mut self, stage: &Stage) {
        let mut copy: Option<(&Instruction, &Word)> = None;
        for step in &stage.steps {
            match &step.instruction.command {
                Command::Copy(c) if c.from.is_none() => {
                    copy = copy.or(whole_context(&c.transfer).map(|w| (&*step.instruction, w)));
                }
                Command::Add(a) => {
                    copy = copy.or(whole_context(&a.transfer).map(|w| (&*step.instruction, w)));
                }
                Command::Run(run) => {
                    let (Some((by, word)), Some(command)) = (copy, installer(run)) else {
                        continue;
                    };
                    let line = step.instruction.source.line_column(step.instruction.span.start).0;
                    self.report(
                        Rule::ContextCopiedBeforeInstall,
                        by,
                        word.span,
                        format!(
                            "All of the context is copied before `{command}` (line {line}), which \
                             runs again whenever any file changes"
                        ),
                        "copy only what it reads first, and the rest behind it",
                    );
                    return;
                }
                _ => {}
            }
        }
    }
}

/// The image that each stage goes back to, as it is written.
fn root_bases(stages: &Stages) -> Vec<Option<&str>> {
    let mut roots: Vec<Option<&str>> = Vec::with_capacity(stages.list.len());
    for stage in &stages.list {
        roots.push(match &stage.base {
            Base::Image(_) => Some(&stage.base_text),
            // FROM finds only earlier stages.
            Base::Stage(base) => roots.get(*base).copied().flatten(),
            Base::Scratch | Base::Context(_) => None,
        });
    }
    roots
}

/// The target of a cache mount that has no id. What is wrong with a mount, or depends on variables,
/// is not this check's matter.
fn cache_without_id(mount: &Word) -> Option<String> {
    if mount.text.contains('$') {
        return None;
    }
    let mount = parse_mount(&mount.text, &mut |value| Ok(value.to_owned())).ok()?;
    let is_cache = mount.kind == MountType::Cache && mount.id.is_empty();
    (is_cache && mount.target.starts_with('/')).then(|| path::clean(&mount.target))
}

/// The word that copies all of the context, if no pattern leaves anything out.
fn whole_context(transfer: &Transfer) -> Option<&Word> {
    let is_all = |word: &&Word| matches!(path::clean(&word.text).as_str(), "." | "/");
    transfer.sources.iter().find(is_all).filter(|_| transfer.exclude.is_empty())
}

/// The command of a step that installs packages without keeping them in a mounted cache.
fn installer(run: &Run) -> Option<String> {
    if run.mounts.iter().any(|mount| mount.text.contains("type=cache")) {
        return None;
    }
    let mut found = None;
    match &run.command {
        CommandLine::Exec(words) => {
            let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            found = found.or_else(|| installs(&words));
        }
        CommandLine::Shell(text) => found = found.or_else(|| in_script(&text.text)),
    }
    found.or_else(|| run.heredocs.iter().find_map(|heredoc| in_script(&heredoc.content)))
}

fn in_script(script: &str) -> Option<String> {
    script.split(['\n', ';', '&', '|', '(', ')']).find_map(|command| {
        let words: Vec<&str> = command.split_whitespace().collect();
        installs(&words)
    })
}

/// Whether a command downloads packages. One that is given the source tree (`pip install .`) needs
/// what was copied.
fn installs(words: &[&str]) -> Option<String> {
    let is_setting = |word: &&str| word.contains('=') || matches!(*word, "sudo" | "exec" | "env");
    let start = words.iter().position(|word| !is_setting(word))?;
    let mut words = &words[start..];
    if let [python, "-m", rest @ ..] = words
        && python.starts_with("python")
    {
        words = rest;
    }
    let (program, arguments) = words.split_first()?;
    let program = path::base(program);
    let (_, subcommands) = INSTALLERS.iter().find(|(name, _)| *name == program)?;
    let subcommand = match program {
        "pacman" => arguments.first(),
        _ => arguments.iter().find(|argument| !argument.starts_with('-')),
    };
    let subcommand = subcommand.copied().unwrap_or_default();
    let needs_sources = arguments.iter().any(|a| a.starts_with('.') || a.starts_with('/'));
    (subcommands.contains(&subcommand) && !needs_sources)
        .then(|| format!("{program} {subcommand}").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::in_script;

    #[test]
    fn commands_that_install() {
        for (script, found) in [
            ("apt-get update && apt-get install -y gcc", Some("apt-get update")),
            ("set -e; DEBIAN_FRONTEND=x apt-get -y install gcc", Some("apt-get install")),
            ("npm ci --omit=dev", Some("npm ci")),
            ("yarn", Some("yarn")),
            ("yarn build", None),
            ("cd x && /usr/bin/pip install -r requirements.txt", Some("pip install")),
            ("python3 -m pip install flask", Some("pip install")),
            ("pip install .", None),
            ("pip install -e ./lib", None),
            ("echo apt-get install", None),
            ("make install", None),
            ("go build", None),
        ] {
            assert_eq!(in_script(script).as_deref(), found, "{script}");
        }
    }
}
