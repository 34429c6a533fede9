//! `RUN --mount`: what each kind of mount becomes in the graph.

use rbc_ir::{Input, Mount, MountKind, SecretEnv, SelectPath, Selection};

use super::{Current, Lowering, Root, SourceError, inputs::Inputs};
use crate::{
    diagnostic::Diagnostic,
    instruction::{Instruction, MountOptions, MountType, Run, parse_mount},
    path,
    shellword::Expander,
    stage::{StageId, Step},
    syntax::Word,
};

impl Lowering<'_, '_> {
    /// Lowers all mounts of a RUN, in order; gives the secrets that become variables.
    pub(super) fn mounts(
        &mut self,
        current: &Current<'_>,
        step: &Step,
        run: &Run,
        inputs: &mut Inputs,
        mounts: &mut Vec<Mount>,
    ) -> Result<Vec<SecretEnv>, Diagnostic> {
        let mut secret_env = Vec::new();
        let mut sockets = 0;
        for (place, word) in run.mounts.iter().enumerate() {
            let options = self.mount_options(current, &step.instruction, word)?;
            let source = step.sources.get(place).copied().flatten();
            let at = At { instruction: &step.instruction, word };
            match options.kind {
                MountType::Bind => {
                    mounts.push(self.bind(current, &at, &options, source, inputs)?);
                }
                MountType::Cache => {
                    mounts.push(self.cache(current, &at, &options, source, inputs)?);
                }
                MountType::Tmpfs => mounts.push(Mount {
                    target: target(current, &at, &options.target)?,
                    kind: MountKind::Tmpfs { size: options.size },
                    read_only: options.read_only,
                }),
                MountType::Secret => secret(current, &at, &options, mounts, &mut secret_env)?,
                MountType::Ssh => {
                    mounts.push(ssh(current, &at, &options, sockets)?);
                    sockets += 1;
                }
            }
        }
        Ok(secret_env)
    }

    fn mount_options(
        &mut self,
        current: &Current<'_>,
        instruction: &Instruction,
        word: &Word,
    ) -> Result<MountOptions, Diagnostic> {
        let expander = Expander::new(self.job.escape);
        let mut unset = Vec::new();
        let options = parse_mount(&word.text, &mut |value| {
            let expansion = expander.expand(value, &current.state.env)?;
            unset.extend(expansion.unset);
            Ok(expansion.text)
        })
        .map_err(|error| {
            Diagnostic::error("bad-mount", error.to_string())
                .at(&instruction.source, error.place(word))
        })?;
        for name in unset {
            if !current.state.build_args.contains_key(&name) {
                let known = current.state.env.keys().map(String::as_str);
                let declared = current.state.build_args.keys().map(String::as_str);
                self.lint.undefined_variable(instruction, word, &name, known, declared);
            }
        }
        Ok(options)
    }

    fn bind(
        &mut self,
        current: &Current<'_>,
        at: &At<'_>,
        options: &MountOptions,
        source: Option<StageId>,
        inputs: &mut Inputs,
    ) -> Result<Mount, Diagnostic> {
        let path = path::source(&options.source);
        let root = match source {
            Some(source) => self.mounted_root(current, at, options, source)?,
            None => Root::Local(String::new()),
        };
        let node = self.mounted_node(current, at, &root, &path)?;
        Ok(Mount {
            target: target(current, at, &options.target)?,
            kind: MountKind::Bind { input: inputs.push(node), source: path },
            read_only: options.read_only,
        })
    }

    fn cache(
        &mut self,
        current: &Current<'_>,
        at: &At<'_>,
        options: &MountOptions,
        source: Option<StageId>,
        inputs: &mut Inputs,
    ) -> Result<Mount, Diagnostic> {
        let path = path::source(&options.source);
        // As in BuildKit: with a source, mode and owner are the source's; without one, a mode or an
        // owner asks for a new, empty folder, and `from` does not count.
        let whole = path == "/";
        let changed = options.mode.is_some() || options.uid.is_some() || options.gid.is_some();
        let input = match source {
            Some(_) if whole && changed => None,
            Some(source) => {
                let root = self.mounted_root(current, at, options, source)?;
                match root {
                    Root::Empty => None,
                    root => {
                        let node = self.mounted_node(current, at, &root, &path)?;
                        Some(inputs.push(node))
                    }
                }
            }
            None => None,
        };
        let id =
            if options.id.is_empty() { path::clean(&options.target) } else { options.id.clone() };
        // As in BuildKit, a build may keep its caches apart from those of others.
        let id = match self.job.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
            _ => id,
        };
        Ok(Mount {
            target: target(current, at, &options.target)?,
            kind: MountKind::Cache {
                id,
                sharing: options.sharing.unwrap_or_default(),
                input,
                source: path,
                mode: options.mode.unwrap_or(0o755) & 0o777,
                uid: options.uid.unwrap_or(0),
                gid: options.gid.unwrap_or(0),
            },
            read_only: options.read_only,
        })
    }

    fn mounted_root(
        &self,
        current: &Current<'_>,
        at: &At<'_>,
        options: &MountOptions,
        source: StageId,
    ) -> Result<Root, Diagnostic> {
        self.source_root(current, source).cloned().map_err(|SourceError::NotBefore| {
            at.fail(
                "stage-order",
                format!(
                    "cannot mount from stage {:?} to {:?}, stage needs to be defined before \
                     current command",
                    options.from, options.target
                ),
            )
        })
    }

    /// The node of what a mount shows. Of a context, only what lies below the mounted path counts.
    fn mounted_node(
        &mut self,
        current: &Current<'_>,
        at: &At<'_>,
        root: &Root,
        path: &str,
    ) -> Result<Input, Diagnostic> {
        let Root::Local(name) = root else { return self.node(root, current.stage) };
        let below = path.trim_start_matches('/');
        let selection = if below.is_empty() {
            Selection::default()
        } else {
            let path = SelectPath { path: below.to_owned(), wildcard: false };
            Selection { paths: vec![path], follow_symlinks: true, ..Selection::default() }
        };
        self.context(name, selection).map_err(|error| {
            let wrong = at.fail("not-found", error.message);
            error.help.into_iter().fold(wrong, Diagnostic::help)
        })
    }
}

/// The place of a mount, for messages.
struct At<'a> {
    instruction: &'a Instruction,
    word: &'a Word,
}

impl At<'_> {
    fn fail(&self, code: &'static str, message: String) -> Diagnostic {
        Diagnostic::error(code, message).at(&self.instruction.source, self.word.span)
    }
}

/// Where a mount goes, seen from the working directory.
fn target(current: &Current<'_>, at: &At<'_>, text: &str) -> Result<String, Diagnostic> {
    let path = path::join(current.cwd(), ".");
    let target = if text.starts_with('/') { path::clean(text) } else { path::join(&path, text) };
    if target == "/" {
        return Err(at
            .fail("bad-mount", format!("invalid mount target {target:?}"))
            .help("give the mount a target=/path"));
    }
    Ok(target)
}

fn secret(
    current: &Current<'_>,
    at: &At<'_>,
    options: &MountOptions,
    mounts: &mut Vec<Mount>,
    secret_env: &mut Vec<SecretEnv>,
) -> Result<(), Diagnostic> {
    let named = [&options.source, &options.id].into_iter().find(|name| !name.is_empty());
    let id = match named {
        Some(name) => name.clone(),
        None => path::base(&options.target).to_owned(),
    };
    if options.env.is_none() || !options.target.is_empty() {
        let text = if options.target.is_empty() {
            format!("/run/secrets/{}", path::base(&id))
        } else {
            options.target.clone()
        };
        mounts.push(Mount {
            target: target(current, at, &text)?,
            kind: MountKind::Secret {
                id: id.clone(),
                required: options.required,
                mode: options.mode.unwrap_or(0o400),
                uid: options.uid.unwrap_or(0),
                gid: options.gid.unwrap_or(0),
            },
            read_only: true,
        });
    }
    if let Some(name) = &options.env {
        let name = if name.is_empty() { id.clone() } else { name.clone() };
        secret_env.push(SecretEnv { name, id, required: options.required });
    }
    Ok(())
}

fn ssh(
    current: &Current<'_>,
    at: &At<'_>,
    options: &MountOptions,
    index: usize,
) -> Result<Mount, Diagnostic> {
    if !options.source.is_empty() {
        return Err(at.fail("bad-mount", "ssh does not support source".to_owned()));
    }
    let text = if options.target.is_empty() {
        format!("/run/buildkit/ssh_agent.{index}")
    } else {
        options.target.clone()
    };
    let id = if options.id.is_empty() { "default".to_owned() } else { options.id.clone() };
    Ok(Mount {
        target: target(current, at, &text)?,
        kind: MountKind::Ssh {
            id,
            required: options.required,
            mode: options.mode.unwrap_or(0o600),
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
        },
        read_only: true,
    })
}
