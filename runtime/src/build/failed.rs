//! A command that failed, with all that it saw, kept so that the user can look around in it.

use rbc_ir::Exec;

use super::{BuildError, made::NewLayer, mounts::StepMounts};
use crate::{
    sandbox::{self, Exit, SandboxError},
    store::Store,
    tree::{LastLink, LayerStack, SourceTree, clean, resolve},
};

/// Shells that are looked for, the more comfortable ones first.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/bin/busybox"];

/// A command that failed and the root as it left it.
pub struct FailedCommand {
    pub(super) name: String,
    pub(super) run: sandbox::Step,
    /// Holds the root's uppermost folder.
    pub(super) layer: NewLayer,
    /// Holds cache mounts.
    pub(super) mounts: StepMounts,
}

impl FailedCommand {
    /// Name of the step.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command as it was.
    pub fn exec(&self) -> &Exec {
        &self.run.exec
    }

    /// A shell that the root has, as a command line.
    pub fn shell(&self) -> Option<Vec<String>> {
        let mut dirs = self.run.lowers.clone();
        dirs.push(self.layer.upper());
        let root = LayerStack::new(dirs);
        let there = |path: &&str| {
            let real = resolve(&root, &clean(path), LastLink::Follow).ok()?;
            root.lookup(&real).ok()?.filter(|entry| !entry.is_dir())
        };
        let shell = SHELLS.into_iter().find(|path| there(path).is_some())?;
        let mut words = vec![shell.to_owned()];
        if shell.ends_with("busybox") {
            words.push("sh".to_owned());
        }
        Some(words)
    }

    /// Runs another command on the user's terminal where this one ran: same root with what it has
    /// changed, environment, working directory, user, mounts and network. What it changes itself
    /// is dropped. `stopped` is asked now and then whether to give up.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn enter(
        &self,
        store: &Store,
        args: Vec<String>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Exit, BuildError> {
        // Overlayfs's work folder of the first run holds what no second run can use.
        let work = store.tmp_dir()?;
        let mut run = self.run.clone();
        run.work = work.path().to_owned();
        run.exec.args = args;
        // The step's own ended with it.
        run.cgroups.clear();
        if let Ok(terminal) = std::env::var("TERM") {
            run.extra_env.push(format!("TERM={terminal}"));
        }
        debug_assert_eq!(run.mounts.len(), self.mounts.mounts.len());
        match sandbox::run_on_terminal(&run, stopped) {
            Err(SandboxError::Cancelled) => Err(BuildError::Cancelled),
            exit => Ok(exit?),
        }
    }
}
