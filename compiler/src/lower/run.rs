//! RUN: the command line with its heredocs, and all that surrounds the process.

use rbc_ir::{Exec, Mount, MountKind, Network, Op, SecretEnv, Security};

use super::{Current, Lowering, Root, inputs::Inputs, step_name};
use crate::{
    diagnostic::Diagnostic,
    image_config::environment_of_commands,
    instruction::{CommandLine, Instruction, Run},
    options::Entitlement,
    path,
    shellword::{Escapes, Expander, NoVariables, Quotes, Unset},
    stage::Step,
};

/// Where BuildKit shows the script of a heredoc that starts with `#!`.
const SCRIPT_DIR: &str = "/dev/pipes";

/// A command line, ready to run.
struct Line {
    args: Vec<String>,
    /// A script that must be mounted: its name and content.
    script: Option<(String, String)>,
    /// What the step's name shows of a heredoc.
    suffix: String,
}

impl Lowering<'_, '_> {
    /// RUN.
    pub(super) fn run_command(
        &mut self,
        current: &mut Current<'_>,
        step: &Step,
        run: &Run,
    ) -> Result<(), Diagnostic> {
        let instruction = &step.instruction;
        let line = command_line(current, run, instruction.escape);
        let network = self.network(instruction, run)?;
        self.check_security(instruction, run)?;
        if let Some(device) = run.devices.first() {
            return Err(Diagnostic::error(
                "device",
                format!("cannot give the step device {:?}: rbc hands out no devices", device.name),
            )
            .at(&instruction.source, device.span)
            .help("remove --device"));
        }
        let base = self.node(&current.state.root.clone(), current.stage)?;
        let mut inputs = Inputs::new(base);
        let mut mounts = Vec::new();
        if let Some((name, content)) = line.script {
            let script = self.inline_file(current, &format!("/{name}"), 0o755, content)?;
            mounts.push(Mount {
                target: SCRIPT_DIR.to_owned(),
                kind: MountKind::Bind { input: inputs.push(script), source: "/".to_owned() },
                read_only: true,
            });
        }
        let secret_env = self.mounts(current, step, run, &mut inputs, &mut mounts)?;
        let shown = self.shown(current, instruction, &line.suffix, &secret_env);
        let name = current.counter.next(&shown, current.is_trigger);
        let mut meta = self.meta(current, instruction, name);
        meta.proxy_env = self.proxy_env.clone();
        meta.cgroup_parent = self.job.options.cgroup_parent.clone();
        let exec = Exec {
            args: line.args.clone(),
            env: environment_of_commands(&current.state.env),
            cwd: path::clean(current.cwd()),
            user: current.state.settings.user.clone(),
            hostname: self.job.options.hostname.clone(),
            network,
            security: run.security,
            mounts,
            secret_env,
            extra_hosts: self.job.options.add_hosts.clone(),
            ulimits: self.job.options.ulimits.clone(),
            shm_size: self.job.options.shm_size,
        };
        let platform = Some(current.state.platform.clone());
        current.state.root =
            Root::Node(self.add(Op::Exec(exec), inputs.finish(), platform, meta)?);
        let created_by = history_line(current, &line.args);
        current.commit(format!("RUN {created_by} # buildkit"), true);
        Ok(())
    }

    /// The instruction as its step shows it, with the values of secrets hidden.
    fn shown(
        &self,
        current: &Current<'_>,
        instruction: &Instruction,
        suffix: &str,
        secrets: &[SecretEnv],
    ) -> String {
        let env = &current.state.env;
        let show = |env| step_name::shown_run(instruction, suffix, self.job.escape, env);
        if secrets.is_empty() {
            return show(env);
        }
        let mut masked = env.clone();
        for secret in secrets {
            masked.insert(secret.name.clone(), "****".to_owned());
        }
        show(&masked)
    }

    fn network(&self, instruction: &Instruction, run: &Run) -> Result<Network, Diagnostic> {
        match run.network {
            Network::Default => Ok(self.job.options.network),
            Network::Host if self.job.options.network != Network::Host => {
                self.entitled(Entitlement::NetworkHost, instruction).map(|()| Network::Host)
            }
            asked => Ok(asked),
        }
    }

    fn check_security(&self, instruction: &Instruction, run: &Run) -> Result<(), Diagnostic> {
        match run.security {
            Security::Sandbox => Ok(()),
            Security::Insecure => self.entitled(Entitlement::SecurityInsecure, instruction),
        }
    }

    fn entitled(&self, right: Entitlement, instruction: &Instruction) -> Result<(), Diagnostic> {
        if self.job.options.entitlements.contains(&right) {
            return Ok(());
        }
        Err(Diagnostic::error("entitlement", format!("{} is not allowed", right.name()))
            .at(&instruction.source, instruction.span)
            .help(format!("pass --allow {} if you trust this Dockerfile", right.name())))
    }
}

/// A line that is nothing but one heredoc is a script: for the shell, or for the program that its
/// first line names. With more around, the shell gets the line and the heredocs as they are.
fn command_line(current: &Current<'_>, run: &Run, escape: char) -> Line {
    let settings = &current.state.settings;
    let plain = |args| Line { args, script: None, suffix: String::new() };
    let text = match &run.command {
        CommandLine::Exec(words) => {
            return plain(words.iter().map(|word| word.text.clone()).collect());
        }
        CommandLine::Shell(word) => &word.text,
    };
    let Some(first) = run.heredocs.first() else { return plain(settings.in_shell(text)) };
    if !is_only_a_heredoc(text, escape) {
        let mut whole = text.clone();
        for heredoc in &run.heredocs {
            whole.push('\n');
            whole.push_str(&heredoc.content);
            whole.push_str(&heredoc.name);
        }
        return plain(settings.in_shell(&whole));
    }
    let body = first.chomped();
    let suffix = format!(" ({})", step_name::summary(&first.content));
    if body.starts_with("#!") && current.state.platform.os != "windows" {
        let args = settings.in_shell(&format!("{SCRIPT_DIR}/{}", first.name));
        return Line { args, script: Some((first.name.clone(), body)), suffix };
    }
    Line { args: settings.in_shell(&body), script: None, suffix }
}

/// Whether a command line is `<<WORD` and nothing else.
fn is_only_a_heredoc(text: &str, escape: char) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = digits.strip_prefix("<<") else { return false };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    if rest.contains('<') {
        return false;
    }
    let expander =
        Expander { escape, quotes: Quotes::Keep, escapes: Escapes::Keep, unset: Unset::Keep };
    expander.expand(rest, &NoVariables).is_ok_and(|expansion| expansion.words.len() == 1)
}

/// The command as history shows it: `|2 A=1 B=2 /bin/sh -c make` where ARGs are declared.
fn history_line(current: &Current<'_>, args: &[String]) -> String {
    let declared = &current.state.build_args;
    let mut parts = Vec::with_capacity(declared.len() + args.len() + 1);
    if !declared.is_empty() {
        parts.push(format!("|{}", declared.len()));
    }
    for (name, value) in declared {
        let shown = current.state.env.get(name).or(value.as_ref()).map_or("", String::as_str);
        parts.push(format!("{name}={shown}"));
    }
    parts.extend(args.iter().cloned());
    parts.join(" ")
}
