//! Turns the mounts of an exec node into what the sandbox mounts.

use std::{fs, path::Path};

use rbc_ir::{CopyAction, Exec, FileAction, FileOp, Input, MountKind, Node, SelectPath, Selection};

use super::{
    BuildError,
    cache_mount::{CacheMount, CacheSpec},
    execute::Executor,
};
use crate::{
    fileop,
    layer::Usage,
    sandbox::{Access, HostMount, HostSource},
    store::{SpaceItem, Store, StoreError},
    tree::{LayerStack, SourceTree},
};

/// The mounts of one step, with what must be held while it runs.
pub(super) struct StepMounts {
    pub(super) mounts: Vec<HostMount>,
    /// Environment that comes with mounts and secrets, as `NAME=value`.
    pub(super) env: Vec<String>,
    caches: Vec<CacheMount>,
}

impl StepMounts {
    /// Looks everything up and takes the cache folders.
    pub(super) fn prepare(
        executor: &Executor<'_>,
        store: &Store,
        node: &Node,
        exec: &Exec,
    ) -> Result<Self, BuildError> {
        let options = executor.options;
        let mut caches: Vec<(String, CacheMount)> = Vec::new();
        let mut mounts: Vec<Option<HostMount>> = Vec::with_capacity(exec.mounts.len());
        mounts.resize_with(exec.mounts.len(), || None);
        // Locked caches are taken in the order of their ids, so that two steps that want the same
        // ones cannot each wait for the other.
        let mut order: Vec<usize> = (0..exec.mounts.len()).collect();
        order.sort_by_key(|&at| match &exec.mounts[at].kind {
            MountKind::Cache { id, .. } => Some(id.as_str()),
            _ => None,
        });
        for at in order {
            let mount = &exec.mounts[at];
            let source = match &mount.kind {
                MountKind::Bind { input, source } => {
                    let layers = executor.layers_of(store, &node.inputs[*input as usize])?;
                    HostSource::Layers {
                        lowers: executor.mount_dirs(&layers),
                        path: source.clone(),
                    }
                }
                MountKind::Cache { id, sharing, input, source, mode, uid, gid } => {
                    // A step that mounts one cache in several places has one folder for it, and
                    // must not wait for a lock that it holds itself.
                    let first = input.map(|at| &node.inputs[at as usize]);
                    let key = cache_key(id, first, source, [*mode, *uid, *gid]);
                    let held = caches.iter().find(|(held, _)| *held == key);
                    let path = if let Some((_, cache)) = held {
                        cache.path().to_owned()
                    } else {
                        let prepare = |path: &Path| {
                            let Some(input) = first else {
                                return set_mode_and_owner(path, *mode, *uid, *gid);
                            };
                            let layers = executor.layers_of(store, input)?;
                            fill(&LayerStack::new(executor.dirs(&layers)), source, path)
                        };
                        let spec =
                            CacheSpec { id, key: &key, sharing: *sharing, prepare: &prepare };
                        let cache = CacheMount::take(store, &spec, options.cancel)?;
                        let path = cache.path().to_owned();
                        caches.push((key, cache));
                        path
                    };
                    HostSource::Path(path)
                }
                MountKind::Tmpfs { size } => HostSource::Tmpfs { size: *size },
                MountKind::Secret { id, required, mode, uid, gid } => {
                    match options.secrets.get(id) {
                        Some(data) => HostSource::File {
                            data: data.clone(),
                            mode: *mode,
                            uid: *uid,
                            gid: *gid,
                        },
                        None if *required => return Err(BuildError::MissingSecret(id.clone())),
                        None => continue,
                    }
                }
                MountKind::Ssh { id, required, .. } => match options.ssh_agents.get(id) {
                    // The socket keeps the owner and mode that it has on the host.
                    Some(socket) => HostSource::Path(socket.clone()),
                    None if *required => return Err(BuildError::MissingSsh(id.clone())),
                    None => continue,
                },
            };
            mounts[at] = Some(HostMount {
                target: mount.target.clone(),
                source,
                access: if mount.read_only { Access::ReadOnly } else { Access::ReadWrite },
            });
        }
        // The first agent is the one that ssh asks. As in BuildKit it is named even if it was not
        // given and nothing is mounted.
        let agent = exec.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        let mut env: Vec<String> =
            agent.map(|mount| format!("SSH_AUTH_SOCK={}", mount.target)).into_iter().collect();
        for wanted in &exec.secret_env {
            match options.secrets.get(&wanted.id) {
                Some(data) => match std::str::from_utf8(data) {
                    Ok(value) => env.push(format!("{}={value}", wanted.name)),
                    Err(_) => return Err(BuildError::SecretNotText(wanted.id.clone())),
                },
                None if wanted.required => {
                    return Err(BuildError::MissingSecret(wanted.id.clone()));
                }
                None => {}
            }
        }
        Ok(Self {
            mounts: mounts.into_iter().flatten().collect(),
            env,
            caches: caches.into_iter().map(|(_, cache)| cache).collect(),
        })
    }
}

impl StepMounts {
    /// Notes what the cache folders take by now.
    pub(super) fn measure(&self, store: &Store) -> Result<(), BuildError> {
        for cache in &self.caches {
            let name = cache.path().file_name().unwrap_or_default().to_string_lossy();
            let own = Usage::of(cache.path())?.own();
            store.put_other_space(SpaceItem::CacheMount(&name), own)?;
        }
        Ok(())
    }
}

/// What tells cache folders apart: their name and how they begin. As in BuildKit, steps that give a
/// cache another owner or other first content have one of their own, for neither could work with the
/// other's.
fn cache_key(id: &str, first: Option<&Input>, source: &str, facts: [u32; 3]) -> String {
    match first {
        Some(input) => format!("{id}\0{}:{}\0{source}", input.node, input.output),
        None if facts == [0o755, 0, 0] => id.to_owned(),
        None => format!("{id}\0{facts:?}"),
    }
}

/// Makes the empty folder `path` a copy of the folder `source`.
fn fill(tree: &LayerStack, source: &str, path: &Path) -> Result<(), BuildError> {
    let empty = LayerStack::new(Vec::new());
    let copy = CopyAction { source: source.to_owned(), ..plain_copy() };
    let op = FileOp { actions: vec![FileAction::Copy(copy)] };
    let inputs = [Some(&empty as &dyn SourceTree), Some(tree)];
    // Steps write to a cache folder, so nothing in it may be shared with a layer.
    let options = fileop::FileOpOptions { sharing: fileop::Sharing::Copy, lineage: None };
    fileop::run(&op, &empty, &inputs, path, &options)?;
    // A copy into a folder that is there leaves that one's own facts alone.
    match tree.lookup(Path::new(source.trim_start_matches('/')))? {
        Some(folder) if folder.is_dir() => {
            set_mode_and_owner(path, folder.mode, folder.uid, folder.gid)
        }
        _ => Ok(()),
    }
}

/// A copy of the root of input 1 to the root, as it is.
fn plain_copy() -> CopyAction {
    CopyAction {
        input: 1,
        source: "/".to_owned(),
        dest: "/".to_owned(),
        owner: None,
        mode: None,
        wildcard: false,
        follow_symlinks: false,
        unpack: false,
        parents: false,
        exclude: Vec::new(),
        allow_missing: false,
    }
}

fn set_mode_and_owner(path: &Path, mode: u32, uid: u32, gid: u32) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt;
    crate::layer::owner::set(path, uid, gid)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StoreError::io("cannot change the mode of", path))?;
    Ok(())
}

/// Copies that bring what a context selection names to the same paths of an empty root.
pub(super) fn copies_of(selection: &Selection) -> Vec<FileAction> {
    if selection.paths.is_empty() {
        let exclude = selection.exclude.clone();
        return vec![FileAction::Copy(CopyAction { exclude, ..plain_copy() })];
    }
    let copy = |path: &SelectPath| {
        FileAction::Copy(CopyAction {
            source: path.path.clone(),
            wildcard: path.wildcard,
            parents: true,
            exclude: selection.exclude.clone(),
            ..plain_copy()
        })
    };
    selection.paths.iter().map(copy).collect()
}
