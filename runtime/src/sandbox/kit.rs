//! What every step's root gets beside its layers, put together beside the root: the kernel's file
//! systems, and memory for files. Most steps take the same, so that it can be there before the step is
//! known.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rbc_ir::{Exec, Network, Security};
use rustix::mount::MountAttrFlags;

use super::{
    devices,
    error::{Context, SetupError},
    mount::{attach, attach_at, file_system, make_dir, open_inside, open_place},
};

/// What a kit depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KitKind {
    confined: bool,
    /// Bytes of shared memory; 0 means the default.
    shm: u64,
    /// `/sys` shows the devices of the network namespace that it is made in.
    own_network: bool,
}

impl KitKind {
    /// That of a step which asks for nothing special.
    pub(super) const USUAL: Self = Self { confined: true, shm: 0, own_network: false };

    fn of(exec: &Exec) -> Self {
        Self {
            confined: exec.security == Security::Sandbox,
            shm: exec.shm_size,
            own_network: exec.network == Network::None,
        }
    }

    /// How `/sys` is mounted.
    fn attributes(self) -> MountAttrFlags {
        if self.confined { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() }
    }
}

/// Mounts that wait for a root, in the mount namespace of a runner.
pub(super) struct Kit {
    kind: KitKind,
    /// Holds `/proc`, `/dev` and `/sys`.
    root: OwnedFd,
    /// A folder in memory.
    pub files: PathBuf,
}

impl Kit {
    /// Makes the mounts on folders of `shared`.
    pub(super) fn make(shared: &Path, kind: KitKind) -> Result<Self, SetupError> {
        let dir = shared.join("kit");
        for name in devices::DIRECTORIES {
            make_dir(dir.join(name.trim_start_matches('/')))?;
        }
        let root = open_place(&dir).context(|| format!("open {}", dir.display()))?;
        devices::mount_proc(&root)?;
        devices::mount_dev(&root, kind.shm)?;
        devices::mount_sys(&root, kind.attributes())?;
        if kind.confined {
            devices::mask(&root)?;
        }
        let files = make_dir(shared.join("files"))?;
        let memory = file_system("tmpfs", &[("mode", "700")], MountAttrFlags::empty())
            .context(|| "make a file system in memory".to_owned())?;
        attach_at(memory, &files)?;
        Ok(Self { kind, root, files })
    }

    /// The kit for `exec`, in whose namespaces the process is: this one, or one that is made now.
    pub(super) fn fit(self, exec: &Exec, shared: &Path) -> Result<Self, SetupError> {
        let kind = KitKind::of(exec);
        if kind == self.kind { Ok(self) } else { Self::make(shared, kind) }
    }

    /// Moves the kernel's file systems to their places in `root`.
    pub(super) fn install(&self, root: &OwnedFd) -> Result<(), SetupError> {
        for name in devices::DIRECTORIES {
            open_inside(&self.root, name)
                .and_then(|made| attach(made, open_inside(root, name)?))
                .context(|| format!("mount {name}"))?;
        }
        // It shows the cgroup namespace, which is made for the step.
        devices::mount_cgroup(root, self.kind.attributes());
        Ok(())
    }
}
