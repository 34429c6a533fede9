//! The instructions that change the image config and the variables, and WORKDIR, which does so and
//! makes a folder.

use std::sync::Arc;

use rbc_ir::{FileAction, FileOp, Mkdir, Op};

use super::{Current, Lowering, Root, bad_expansion, check_owner, step_name};
use crate::{
    diagnostic::Diagnostic,
    go_format,
    instruction::{
        ArgDeclaration, Command, CommandLine, Instruction, KeyValue, check_signal, parse_expose,
        parse_owner,
    },
    path,
    shellword::Expander,
    syntax::Word,
};

impl Lowering<'_, '_> {
    /// Carries out an instruction that adds no node.
    pub(super) fn setting(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Arc<Instruction>,
    ) -> Result<(), Diagnostic> {
        match &instruction.command {
            Command::Env(pairs) => self.env(current, instruction, pairs),
            Command::Label(pairs) => self.label(current, instruction, pairs),
            Command::Arg(declarations) => self.arg(current, instruction, declarations),
            Command::Cmd(line) => {
                self.cmd(current, instruction, line);
                Ok(())
            }
            Command::Entrypoint(line) => {
                self.entrypoint(current, instruction, line);
                Ok(())
            }
            Command::Healthcheck(check) => {
                if let Some(earlier) = current.healthcheck.replace(Arc::clone(instruction)) {
                    self.lint.repeated(&earlier, instruction);
                }
                current.commit(format!("HEALTHCHECK {}", go_format::healthcheck(check)), false);
                current.state.settings.healthcheck = Some(check.clone());
                Ok(())
            }
            Command::Expose(words) => self.expose(current, instruction, words),
            Command::Volume(words) => self.volume(current, instruction, words),
            Command::User(word) => {
                let user = self.expand(current, instruction, word)?;
                current.commit(format!("USER {user}"), false);
                current.state.settings.user = user;
                Ok(())
            }
            Command::StopSignal(word) => self.stop_signal(current, instruction, word),
            Command::Shell(words) => {
                let shell: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
                current.commit(format!("SHELL {}", go_format::plain_list(&shell)), false);
                current.state.settings.shell = Some(shell);
                Ok(())
            }
            Command::Maintainer(word) => {
                current.commit(format!("MAINTAINER {}", word.text), false);
                current.state.settings.author = word.text.clone();
                Ok(())
            }
            Command::Onbuild(trigger) => {
                current.state.settings.on_build.push(trigger.expression.clone());
                Ok(())
            }
            Command::Add(_)
            | Command::Copy(_)
            | Command::From(_)
            | Command::Run(_)
            | Command::Workdir(_) => Ok(()),
        }
    }

    /// All pairs of a line see the values from before the line.
    fn pairs(
        &mut self,
        current: &Current<'_>,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        pairs
            .iter()
            .map(|pair| {
                Ok((
                    self.expand(current, instruction, &pair.key)?,
                    self.expand(current, instruction, &pair.value)?,
                ))
            })
            .collect()
    }

    fn env(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<(), Diagnostic> {
        let values = self.pairs(current, instruction, pairs)?;
        self.lint.legacy_pairs(instruction, pairs);
        let mut created_by = "ENV".to_owned();
        for ((name, value), pair) in values.into_iter().zip(pairs) {
            self.lint.secret_name(instruction, "ENV", &name, pair.key.span);
            created_by.push_str(&format!(" {name}={value}"));
            current.state.set(name.clone(), value.clone());
            current.state.settings.env.insert(name, value);
        }
        current.commit(created_by, false);
        Ok(())
    }

    fn label(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Result<(), Diagnostic> {
        let mut created_by = "LABEL".to_owned();
        self.lint.legacy_pairs(instruction, pairs);
        for (name, value) in self.pairs(current, instruction, pairs)? {
            created_by.push_str(&format!(" {name}={value}"));
            current.state.settings.labels.insert(name, value);
        }
        current.commit(created_by, false);
        Ok(())
    }

    /// `--build-arg` beats the default, which beats a global ARG. A default is not even expanded
    /// if it does not count.
    fn arg(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        declarations: &[ArgDeclaration],
    ) -> Result<(), Diagnostic> {
        let mut created_by = "ARG".to_owned();
        for declaration in declarations {
            let name = &declaration.name.text;
            self.lint.secret_name(instruction, "ARG", name, declaration.name.span);
            let given = self.job.options.build_args.get(name);
            let value = match (given, &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(current, instruction, default)?),
                (None, None) => self.job.globals.values.get(name).cloned(),
            };
            created_by.push(' ');
            created_by.push_str(name);
            if let Some(value) = &value {
                created_by.push('=');
                created_by.push_str(value);
                if !matches!(
                    name.as_str(),
                    "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE"
                ) {
                    current.state.set(name.clone(), value.clone());
                }
            }
            current.state.build_args.insert(name.clone(), value);
        }
        current.commit(created_by, false);
        Ok(())
    }

    fn command_line(
        &mut self,
        current: &Current<'_>,
        instruction: &Instruction,
        line: &CommandLine,
    ) -> Vec<String> {
        if current.state.settings.shell.as_ref().is_none_or(Vec::is_empty) {
            self.lint.shell_form(instruction, line);
        }
        match line {
            CommandLine::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
            CommandLine::Shell(word) => current.state.settings.in_shell(&word.text),
        }
    }

    fn cmd(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Arc<Instruction>,
        line: &CommandLine,
    ) {
        if let Some(earlier) = current.cmd.replace(Arc::clone(instruction)) {
            self.lint.repeated(&earlier, instruction);
        }
        let args = self.command_line(current, instruction, line);
        current.commit(format!("CMD {}", go_format::quoted_list(&args)), false);
        current.state.settings.cmd = Some(args);
        current.state.settings.args_escaped = true;
    }

    /// An inherited CMD was meant for the inherited ENTRYPOINT and goes with it.
    fn entrypoint(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Arc<Instruction>,
        line: &CommandLine,
    ) {
        if let Some(earlier) = current.entrypoint.replace(Arc::clone(instruction)) {
            self.lint.repeated(&earlier, instruction);
        }
        let args = self.command_line(current, instruction, line);
        current.commit(format!("ENTRYPOINT {}", go_format::quoted_list(&args)), false);
        current.state.settings.entrypoint = Some(args);
        if current.cmd.is_none() {
            current.state.settings.cmd = None;
        }
    }

    fn expose(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        words: &[Word],
    ) -> Result<(), Diagnostic> {
        let expander = Expander::new(self.job.escape);
        let mut shown = Vec::new();
        for word in words {
            // Docker's check of undefined variables does not look at EXPOSE.
            let expansion = expander
                .expand(&word.text, &current.state.env)
                .map_err(|error| bad_expansion(instruction, word, &error))?;
            for port in &expansion.words {
                let ports = parse_expose(port).map_err(|error| {
                    Diagnostic::error("bad-port", error.to_string())
                        .at(&instruction.source, word.span)
                        .help("write PORT, PORT/udp or FIRST-LAST")
                })?;
                self.lint.exposed(instruction, word, port);
                shown.extend(ports);
            }
        }
        current.commit(format!("EXPOSE {}", go_format::plain_list(&shown)), false);
        current.state.settings.exposed_ports.extend(shown);
        Ok(())
    }

    fn volume(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        words: &[Word],
    ) -> Result<(), Diagnostic> {
        let mut volumes = Vec::with_capacity(words.len());
        for word in words {
            let volume = self.expand(current, instruction, word)?;
            if volume.is_empty() {
                let wrong = "VOLUME specified can not be an empty string";
                return Err(
                    Diagnostic::error("bad-volume", wrong).at(&instruction.source, word.span)
                );
            }
            volumes.push(volume);
        }
        current.commit(format!("VOLUME {}", go_format::plain_list(&volumes)), false);
        current.state.settings.volumes.extend(volumes);
        Ok(())
    }

    fn stop_signal(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        word: &Word,
    ) -> Result<(), Diagnostic> {
        let name = self.expand(current, instruction, word)?;
        check_signal(&name).map_err(|error| {
            Diagnostic::error("bad-signal", error.to_string())
                .at(&instruction.source, word.span)
                .help("STOPSIGNAL takes a number or a name such as SIGTERM")
        })?;
        current.commit(format!("STOPSIGNAL {name}"), false);
        current.state.settings.stop_signal = name;
        Ok(())
    }

    /// WORKDIR makes its folder, and a layer, even if the folder is there.
    pub(super) fn workdir(
        &mut self,
        current: &mut Current<'_>,
        instruction: &Instruction,
        word: &Word,
    ) -> Result<(), Diagnostic> {
        let written = self.expand(current, instruction, word)?;
        if !current.state.workdir_is_set && !written.starts_with('/') {
            self.lint.relative_workdir(instruction, word, &written);
        }
        current.state.workdir_is_set = true;
        let dir = path::workdir(&current.state.settings.working_dir, &written);
        current.state.settings.working_dir = dir.clone();
        let makes_layer = dir != "/";
        if makes_layer {
            let user = &current.state.settings.user;
            let owner = (!user.is_empty()).then(|| parse_owner(user));
            check_owner(owner.as_ref(), &current.state.root, instruction, word.span)?;
            let shown = step_name::shown(instruction, "", self.job.escape, &current.state.env);
            let name = current.counter.next(&shown, current.is_trigger);
            let mut meta = self.meta(current, instruction, name);
            meta.no_cache = false;
            let mkdir = Mkdir { path: path::clean(&dir), mode: 0o755, parents: true, owner };
            let base = self.node(&current.state.root.clone(), current.stage)?;
            let op = Op::File(FileOp { actions: vec![FileAction::Mkdir(mkdir)] });
            current.state.root = Root::Node(self.add(op, vec![base], None, meta)?);
        }
        current.commit(format!("WORKDIR {dir}"), makes_layer);
        Ok(())
    }
}
