//! Puts a step's root together in the step's own mount namespace and moves into it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{fchdir, pivot_root};

use super::error::{Context, SetupError};
use super::kit::Kit;
use super::mount::{
    Depth, Overlay, attach, attach_at, clone_tree, file_system, make_dir, open_inside, open_place,
    restrict,
};
use super::points::{self, PointKind};
use super::{Access, DEFAULT_HOSTNAME, HostMount, HostSource, Step, devices, network};

/// Where the parts are put together: below the step's `work`, and below `shared` what is never
/// written to.
struct Workshop<'a> {
    step: &'a Step,
}

/// Files in memory that become bind mounts.
struct MemoryFiles {
    dir: PathBuf,
    count: usize,
}

/// Builds the root of `step` and makes it the process's root directory.
pub(super) fn enter(step: &Step, kit: Kit) -> Result<(), SetupError> {
    let shop = Workshop { step };
    let root = shop.mount_layers()?;
    let kit = kit.fit(&step.exec, &step.shared)?;
    kit.install(&root)?;
    let mut files = MemoryFiles { dir: kit.files, count: 0 };
    for mount in sorted(&step.mounts) {
        shop.mount(&root, mount, &mut files)?;
    }
    shop.mount_network_files(&root, &mut files)?;
    fchdir(&root).context(|| "enter the root".to_owned())?;
    pivot_root(".", ".").context(|| "pivot_root".to_owned())?;
    unmount(".", UnmountFlags::DETACH).context(|| "leave the old root".to_owned())?;
    std::env::set_current_dir("/").context(|| "enter the root".to_owned())
}

/// Parents come before what is mounted inside them.
fn sorted(mounts: &[HostMount]) -> Vec<&HostMount> {
    let mut sorted: Vec<&HostMount> = mounts.iter().collect();
    sorted.sort_by(|a, b| a.target.split('/').cmp(b.target.split('/')));
    sorted
}

impl Workshop<'_> {
    /// A directory of this step.
    fn dir(&self, name: &str) -> Result<PathBuf, SetupError> {
        make_dir(self.step.work.join(name))
    }

    /// An empty directory that other steps have as well: a place to mount on, or an empty layer.
    fn shared_dir(&self, name: &str) -> Result<PathBuf, SetupError> {
        make_dir(self.step.shared.join(name))
    }

    /// Mounts the layers with the upper on top and returns the root.
    fn mount_layers(&self) -> Result<OwnedFd, SetupError> {
        let mut lowers = vec![self.shared_dir("empty")?];
        lowers.extend_from_slice(&self.step.lowers);
        let view = self.view(&lowers)?;
        repeat_root(&view, &self.step.upper)?;
        let (shared, work) = (&self.step.shared, &self.step.work);
        lowers.extend(points::provide(&view, &self.targets()?, shared, &work.join("points"))?);
        let root =
            Overlay { lowers: &lowers, upper: Some((&self.step.upper, &self.dir("kernel")?)) };
        let place = self.shared_dir("root")?;
        attach_at(root.make()?, &place)
    }

    /// The layers as they are, for looking up mount points.
    fn view(&self, lowers: &[PathBuf]) -> Result<OwnedFd, SetupError> {
        // A read-only overlay needs two layers.
        if let [only] = lowers {
            return open_place(only).context(|| format!("open {}", only.display()));
        }
        let upper = None;
        Overlay { lowers, upper }.make()
    }

    /// All mount points that the step needs.
    fn targets(&self) -> Result<Vec<(String, PointKind)>, SetupError> {
        let mut targets: Vec<_> =
            devices::DIRECTORIES.iter().map(|t| ((*t).to_owned(), PointKind::Directory)).collect();
        for file in ["/etc/hosts", "/etc/resolv.conf"] {
            if !self.is_target(file) {
                targets.push((file.to_owned(), PointKind::File));
            }
        }
        for mount in &self.step.mounts {
            targets.push((mount.target.clone(), kind_of(mount)?));
        }
        Ok(targets)
    }

    fn is_target(&self, path: &str) -> bool {
        self.step.mounts.iter().any(|m| m.target == path)
    }

    /// Shows the step how to find hosts, unless it brings its own files.
    fn mount_network_files(
        &self,
        root: &OwnedFd,
        files: &mut MemoryFiles,
    ) -> Result<(), SetupError> {
        let exec = &self.step.exec;
        let hosts = network::hosts(hostname(&exec.hostname), &exec.extra_hosts).into_bytes();
        let contents = [("/etc/hosts", hosts), ("/etc/resolv.conf", network::resolv_conf())];
        for (target, data) in contents {
            if self.is_target(target) {
                continue;
            }
            let file = files.add(&data, 0o644, None)?;
            self.attach_tree(root, target, PointKind::File, &file, Access::ReadOnly)?;
        }
        Ok(())
    }

    fn mount(
        &self,
        root: &OwnedFd,
        mount: &HostMount,
        files: &mut MemoryFiles,
    ) -> Result<(), SetupError> {
        let target = mount.target.as_str();
        let kind = kind_of(mount)?;
        match &mount.source {
            HostSource::Path(path) => {
                let source = open_place(path).context(|| format!("open {}", path.display()))?;
                self.attach_tree(root, target, kind, &source, mount.access)
            }
            HostSource::Layers { lowers, path } => {
                let tree = self.mount_aside(files, lowers, mount.access)?;
                let source = open_inside(&tree, path).map_err(|_| {
                    SetupError::Invalid(format!("mount {target}: {path:?}: not found"))
                })?;
                self.attach_tree(root, target, file_kind(&source)?, &source, mount.access)
            }
            HostSource::Tmpfs { size } => {
                let size = size.to_string();
                let options = [("mode", "1777"), ("size", size.as_str())];
                // Zero is the kernel's word for no limit; its default is half of the memory.
                let options = if size == "0" { &options[..1] } else { &options };
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | read_only(mount.access);
                let place = self.place(root, target, PointKind::Directory)?;
                file_system("tmpfs", options, attributes)
                    .and_then(|tmpfs| attach(tmpfs, place))
                    .context(|| format!("mount {target}"))
            }
            HostSource::File { data, mode, uid, gid } => {
                let file = files.add(data, *mode, Some((*uid, *gid)))?;
                self.attach_tree(root, target, kind, &file, mount.access)
            }
        }
    }

    /// Mounts layers beside the root, so that a part can be bound into it. Where the step may
    /// write, what it writes goes to a directory that nobody looks at again.
    fn mount_aside(
        &self,
        files: &mut MemoryFiles,
        lowers: &[PathBuf],
        access: Access,
    ) -> Result<OwnedFd, SetupError> {
        let index = files.next();
        let empty = self.shared_dir("empty")?;
        let place = self.shared_dir(&format!("mount-{index}"))?;
        let mut all = vec![empty];
        all.extend_from_slice(lowers);
        let overlay = match access {
            Access::ReadOnly if all.len() < 2 => open_place(&all[0])
                .and_then(|p| clone_tree(p, Depth::Flat))
                .context(|| format!("mount {}", all[0].display()))?,
            Access::ReadOnly => Overlay { lowers: &all, upper: None }.make()?,
            Access::ReadWrite => {
                let upper = self.dir(&format!("upper-{index}"))?;
                let kernel = self.dir(&format!("kernel-{index}"))?;
                if let Some(top) = lowers.last() {
                    let top = open_place(top).context(|| format!("open {}", top.display()))?;
                    repeat_root(top, &upper)?;
                }
                Overlay { lowers: &all, upper: Some((&upper, &kernel)) }.make()?
            }
        };
        attach_at(overlay, &place)
    }

    /// Binds what `source` has open to `target`.
    fn attach_tree(
        &self,
        root: &OwnedFd,
        target: &str,
        kind: PointKind,
        source: impl AsFd,
        access: Access,
    ) -> Result<(), SetupError> {
        let place = self.place(root, target, kind)?;
        clone_tree(source, Depth::Recursive)
            .and_then(|tree| {
                if access == Access::ReadOnly {
                    restrict(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                }
                attach(tree, place)
            })
            .context(|| format!("mount {target}"))
    }

    /// Opens a mount point. One that is missing lies inside another mount, for the rest was made
    /// beforehand; it is made there.
    fn place(&self, root: &OwnedFd, target: &str, kind: PointKind) -> Result<OwnedFd, SetupError> {
        match open_inside(root, target) {
            Err(Errno::NOENT) => make_inside(root, target, kind),
            opened => opened,
        }
        .context(|| format!("mount target {target}"))
    }
}

/// Makes the missing part of a path below `root` and opens it.
fn make_inside(root: &OwnedFd, target: &str, kind: PointKind) -> rustix::io::Result<OwnedFd> {
    let mut dir = open_inside(root, "/")?;
    let mut path = String::new();
    let names: Vec<&str> = target.split('/').filter(|n| !n.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        path = format!("{path}/{name}");
        dir = match open_inside(root, &path) {
            Err(Errno::NOENT) if index + 1 == names.len() && kind == PointKind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&dir, *name, flags, Mode::from_raw_mode(0o644))?;
                open_inside(root, &path)?
            }
            Err(Errno::NOENT) => {
                mkdirat(&dir, *name, Mode::from_raw_mode(0o755))?;
                open_inside(root, &path)?
            }
            opened => opened?,
        };
    }
    Ok(dir)
}

impl MemoryFiles {
    fn next(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    fn add(
        &mut self,
        data: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnedFd, SetupError> {
        let name = self.next().to_string();
        let path = self.dir.join(name);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(data)?;
            if let Some((uid, gid)) = owner {
                match fchown(&file, Some(uid), Some(gid)) {
                    // Without other users in the namespace, it stays the one user's.
                    Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                    done => done?,
                }
            }
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))
        };
        write().context(|| "write a file in memory".to_owned())?;
        open_place(&path).context(|| format!("open {}", path.display()))
    }
}

/// Makes the root of an upper look like what it covers, for the topmost layer decides that.
fn repeat_root(from: impl AsFd, upper: &Path) -> Result<(), SetupError> {
    let upper = open_place(upper).context(|| format!("open {}", upper.display()))?;
    points::copy_attributes(from, &upper)
}

fn read_only(access: Access) -> MountAttrFlags {
    match access {
        Access::ReadOnly => MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::ReadWrite => MountAttrFlags::empty(),
    }
}

/// The host name that a step shows.
pub(super) fn hostname(wanted: &str) -> &str {
    if wanted.is_empty() { DEFAULT_HOSTNAME } else { wanted }
}

/// What kind of mount point a mount needs.
fn kind_of(mount: &HostMount) -> Result<PointKind, SetupError> {
    match &mount.source {
        HostSource::Path(path) => {
            let place = open_place(path).context(|| format!("open {}", path.display()))?;
            file_kind(&place)
        }
        HostSource::File { .. } => Ok(PointKind::File),
        HostSource::Tmpfs { .. } => Ok(PointKind::Directory),
        HostSource::Layers { lowers, path } => {
            // The topmost layer that has the path tells; if none has it directly (a symlink on
            // the way), the mount itself reports what is wrong.
            let found = lowers.iter().rev().find_map(|lower| {
                let dir = open_place(lower).ok()?;
                open_inside(dir, path).ok()
            });
            found.map_or(Ok(PointKind::Directory), |place| file_kind(&place))
        }
    }
}

fn file_kind(place: &OwnedFd) -> Result<PointKind, SetupError> {
    let stat = statat(place, "", AtFlags::EMPTY_PATH).context(|| "stat a mount".to_owned())?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => PointKind::Directory,
        _ => PointKind::File,
    })
}
