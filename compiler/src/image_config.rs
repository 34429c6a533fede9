//! The image config while a stage is lowered: sets and maps instead of lists, so that each
//! instruction changes it in constant time.

use indexmap::{IndexMap, IndexSet};
use rbc_ir::{ContainerConfig, Healthcheck, History, ImageConfig};

/// `PATH` where the base image sets none, as in BuildKit and Docker.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image config without history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub author: String,
    pub os_version: String,
    pub user: String,
    pub exposed_ports: IndexSet<String>,
    pub env: IndexMap<String, String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub volumes: IndexSet<String>,
    pub working_dir: String,
    pub labels: IndexMap<String, String>,
    pub stop_signal: String,
    pub healthcheck: Option<Healthcheck>,
    pub on_build: Vec<String>,
    pub shell: Option<Vec<String>>,
    pub args_escaped: bool,
}

impl Settings {
    /// The config of an image from nothing.
    pub fn empty() -> Self {
        Self {
            working_dir: "/".to_owned(),
            env: IndexMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]),
            ..Self::default()
        }
    }

    /// The config of an image that is built on `base`. Its triggers do not carry over.
    pub fn inherit(base: &ImageConfig) -> Self {
        let config = &base.config;
        let mut env = IndexMap::with_capacity(config.env.len());
        for entry in &config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.insert(name.to_owned(), value.to_owned());
        }
        Self {
            author: base.author.clone(),
            os_version: base.os_version.clone(),
            user: config.user.clone(),
            exposed_ports: config.exposed_ports.iter().cloned().collect(),
            env,
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            volumes: config.volumes.iter().cloned().collect(),
            working_dir: config.working_dir.clone(),
            labels: config.labels.clone(),
            stop_signal: config.stop_signal.clone(),
            healthcheck: config.healthcheck.clone(),
            on_build: Vec::new(),
            shell: config.shell.clone(),
            args_escaped: config.args_escaped,
        }
    }

    /// The command line that runs `command` in the shell.
    pub fn in_shell(&self, command: &str) -> Vec<String> {
        let mut args = match &self.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        args.push(command.to_owned());
        args
    }

    /// The finished config.
    pub fn finish(self, history: Vec<History>) -> ImageConfig {
        ImageConfig {
            author: self.author,
            os_version: self.os_version,
            config: ContainerConfig {
                user: self.user,
                exposed_ports: self.exposed_ports.into_iter().collect(),
                env: environment(&self.env),
                entrypoint: self.entrypoint,
                cmd: self.cmd,
                volumes: self.volumes.into_iter().collect(),
                working_dir: self.working_dir,
                labels: self.labels,
                stop_signal: self.stop_signal,
                healthcheck: self.healthcheck,
                on_build: self.on_build,
                shell: self.shell,
                args_escaped: self.args_escaped,
            },
            history,
        }
    }
}

/// Variables of a command as `NAME=value`. `ENV $UNSET=value` sets one without a name, which an image
/// can have and a process cannot.
pub(crate) fn environment_of_commands(variables: &IndexMap<String, String>) -> Vec<String> {
    let named = variables.iter().filter(|(name, _)| !name.is_empty());
    named.map(|(name, value)| format!("{name}={value}")).collect()
}

/// Variables as `NAME=value`.
pub(crate) fn environment(variables: &IndexMap<String, String>) -> Vec<String> {
    variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}
