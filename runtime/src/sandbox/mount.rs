//! Mounting through file descriptors (fsopen, fsmount, open_tree, move_mount, mount_setattr): a
//! mount point is looked up once, safely inside its root, and never by name again.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

use super::error::{Context, SetupError};

/// Attributes of mounts that hold no programs.
pub(super) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a file system of `kind` with `options`, not attached anywhere yet.
pub(super) fn file_system(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What mount tables show as the device; it can be given only once.
    if options.iter().all(|(key, _)| *key != "source") {
        fsconfig_set_string(&context, "source", kind)?;
    }
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a mount that is not attached yet at the place that `target` has open.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    move_mount(
        mount.as_fd(),
        "",
        target.as_fd(),
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// What of a tree a bind mount shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The one mount only.
    Flat,
    /// The mounts below as well.
    Recursive,
}

/// A copy of the mount at `source`, not attached yet: a bind mount in the making.
pub(super) fn clone_tree(source: impl AsFd, depth: Depth) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(source.as_fd(), "", flags)
}

/// Adds attributes to a mount and all below it.
pub(super) fn restrict(mount: impl AsFd, attributes: MountAttrFlags) -> rustix::io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, the structure outlives the call and its size is the
    // one passed.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(super) fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

/// Opens a path as a mere place in the tree.
pub(super) fn open_place(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a place below `root`; symlinks and `..` never lead out of it.
pub(super) fn open_inside(root: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            // A rename elsewhere on the machine raced with the walk.
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// Makes a directory unless it is there.
pub(super) fn make_dir(dir: PathBuf) -> Result<PathBuf, SetupError> {
    fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Attaches a mount at a path of this namespace and opens it there.
pub(super) fn attach_at(mount: OwnedFd, place: &Path) -> Result<OwnedFd, SetupError> {
    let what = || format!("mount at {}", place.display());
    let point = open_place(place).context(what)?;
    attach(mount, point).context(what)?;
    open_place(place).context(what)
}

/// A short name for an open place, for interfaces that take nothing else.
fn name_of(place: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

/// The layers that an overlay shows.
pub(super) struct Overlay<'a> {
    /// Directories in overlay format, lowest first. At least two unless there is an upper.
    pub lowers: &'a [PathBuf],
    /// Where changes go, with the kernel's scratch directory beside it on the same file system;
    /// without it, the overlay is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
}

impl Overlay<'_> {
    /// Makes the overlay, not attached anywhere yet.
    ///
    /// It is `volatile`: the kernel need not write the upper to disk when the step ends, since a
    /// build that is cut off throws it away anyway.
    pub(super) fn make(&self) -> Result<OwnedFd, SetupError> {
        // Names of open files keep below the limits of both interfaces, however long the paths
        // and however many the layers (255 bytes a value; 4 KiB of classic options).
        let mut open = Vec::with_capacity(self.lowers.len());
        for lower in self.lowers.iter().rev() {
            open.push(open_place(lower).context(|| format!("open layer {}", lower.display()))?);
        }
        let upper = match self.upper {
            Some((upper, work)) => Some((
                open_place(upper).context(|| format!("open {}", upper.display()))?,
                open_place(work).context(|| format!("open {}", work.display()))?,
            )),
            None => None,
        };
        let mounted = match self.configure(&open, upper.as_ref(), LowerSyntax::OnePerLayer) {
            Err(Errno::INVAL) => self.configure(&open, upper.as_ref(), LowerSyntax::Joined),
            mounted => mounted,
        };
        mounted.context(|| {
            let what = format!("mount an overlay of {} layers", self.lowers.len());
            match self.upper {
                Some((upper, _)) if is_on_overlay(upper) => format!(
                    "{what} (the state folder lies in a container's own file system, which cannot \
                     hold another overlay: put it on a volume)"
                ),
                _ => what,
            }
        })
    }

    fn configure(
        &self,
        lowers: &[OwnedFd],
        upper: Option<&(OwnedFd, OwnedFd)>,
        syntax: LowerSyntax,
    ) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        match syntax {
            LowerSyntax::OnePerLayer => {
                for lower in lowers {
                    fsconfig_set_string(&context, "lowerdir+", name_of(lower.as_fd()))?;
                }
            }
            LowerSyntax::Joined => {
                let names: Vec<String> = lowers.iter().map(|l| name_of(l.as_fd())).collect();
                return self.mount_classic(&names.join(":"), upper);
            }
        }
        if let Some((upper, work)) = upper {
            fsconfig_set_string(&context, "upperdir", name_of(upper.as_fd()))?;
            fsconfig_set_string(&context, "workdir", name_of(work.as_fd()))?;
            fsconfig_set_flag(&context, "volatile")?;
        }
        fsconfig_set_flag(&context, "userxattr")?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// The way of kernels before 6.5, which do not know `lowerdir+`: mount(2) on a spot of its
    /// own, from which a detached copy is taken.
    fn mount_classic(
        &self,
        lowers: &str,
        upper: Option<&(OwnedFd, OwnedFd)>,
    ) -> rustix::io::Result<OwnedFd> {
        let mut options = format!("userxattr,lowerdir={lowers}");
        if let Some((upper, work)) = upper {
            let (upper, work) = (name_of(upper.as_fd()), name_of(work.as_fd()));
            options.push_str(&format!(",volatile,upperdir={upper},workdir={work}"));
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        // The spot must not hide what the options name; the private namespace's /tmp may be
        // covered for the moment, and the lowers are open already.
        let spot: &CStr = c"/tmp";
        rustix::mount::mount("overlay", spot, "overlay", MountFlags::empty(), options.as_c_str())?;
        let place = rustix::fs::openat(CWD, spot, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let tree = clone_tree(&place, Depth::Flat)?;
        rustix::mount::unmount(spot, rustix::mount::UnmountFlags::DETACH)?;
        Ok(tree)
    }
}

/// Whether a folder is part of an overlay, which the kernel does not take as an upper.
fn is_on_overlay(folder: &Path) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs(folder).is_ok_and(|facts| facts.f_type == OVERLAYFS_SUPER_MAGIC)
}

/// How an overlay is told its lower layers.
#[derive(Clone, Copy)]
enum LowerSyntax {
    /// `lowerdir+`, once for each.
    OnePerLayer,
    /// `lowerdir=a:b:c`.
    Joined,
}
