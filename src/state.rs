//! Opens the state folder, inside the namespaces that steps need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rbc_runtime::{sandbox, store::Store, upkeep::Limit};

use crate::{commands::Failure, config::Config};

/// Enters private namespaces and opens the state folder. Must be called before any thread is
/// started. Layers belong to the users of the namespace, so everything that touches them needs it.
pub fn open(root: Option<&Path>) -> Result<Store> {
    let root = enter(root)?;
    Store::open(&root).with_context(|| cannot_open(&root))
}

/// As [`open`], but changes nothing. The folder must exist.
pub fn open_read_only(root: Option<&Path>) -> Result<Store> {
    let root = enter(root)?;
    Store::open_read_only(&root).with_context(|| cannot_open(&root))
}

/// As [`open`] for a command that only looks: it works where nothing can be written.
pub fn open_to_look(root: Option<&Path>) -> Result<Store> {
    let root = enter(root)?;
    match Store::open(&root) {
        Err(error) if error.is_unwritable() => {
            Store::open_read_only(&root).with_context(|| cannot_open(&root))
        }
        other => other.with_context(|| cannot_open(&root)),
    }
}

/// As [`open`] for a command that frees space: it works where the disk is full.
pub fn open_to_free(root: Option<&Path>) -> Result<Store> {
    let root = enter(root)?;
    Store::open_to_free(&root).with_context(|| cannot_open(&root))
}

/// As [`open_to_free`] for a command that repairs: it works where the index is damaged.
pub fn open_to_repair(root: Option<&Path>) -> Result<Store> {
    let root = enter(root)?;
    Store::open_to_repair(&root).with_context(|| cannot_open(&root))
}

fn cannot_open(root: &Path) -> String {
    format!("cannot open the state folder {}", root.display())
}

/// Enters private namespaces and gives the state folder's absolute path.
fn enter(root: Option<&Path>) -> Result<PathBuf> {
    let root = match root {
        Some(root) => std::path::absolute(root).context("cannot find the state folder")?,
        None => default_root()?,
    };
    sandbox::enter().context("cannot enter a namespace of its own")?;
    Ok(root)
}

/// The limit to what a state folder may take: `given` by the user, else by the config files.
pub fn limit(store: &Store, given: Option<u64>) -> Result<Option<Limit<'_>>, Failure> {
    let max = match given {
        Some(max) => Some(max),
        None => Config::load()?.state_max_size(),
    };
    Ok(max.filter(|max| *max > 0).map(|max| Limit::new(store, max)).transpose()?)
}

fn default_root() -> Result<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(data) = folder("XDG_DATA_HOME") {
        return Ok(data.join("rbc"));
    }
    match folder("HOME") {
        Some(home) => Ok(home.join(".local/share/rbc")),
        None => bail!("neither HOME nor XDG_DATA_HOME is set: name a state folder with --root"),
    }
}
