//! The kernel's file systems as a step sees them: `/proc`, `/dev` and `/sys`, with what runc hides
//! in them hidden (containerd's defaults, which BuildKit uses: `oci/spec.go`).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, chmodat, makedev, mkdirat, mknodat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::error::{Context, SetupError};
use super::mount::{
    Depth, INERT, attach, clone_tree, file_system, open_inside, open_place, restrict,
};

/// Mount points that every root needs.
pub(super) const DIRECTORIES: [&str; 3] = ["/proc", "/dev", "/sys"];

const DEFAULT_SHM: u64 = 64 * 1024 * 1024;

/// Name, major and minor number.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Where BuildKit's steps send traces. Some look whether it is there; nothing listens here, and what
/// connects is refused as by a collector that is down.
const TRACE_SOCKET: &str = "otel-grpc.sock";

const HIDDEN: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Mounts `/proc` of the present pid namespace. In a user namespace below a container the kernel
/// may refuse, since that would show what the container hides; then the outer one must do.
pub(super) fn mount_proc(root: &OwnedFd) -> Result<(), SetupError> {
    let proc = match file_system("proc", &[], INERT) {
        Err(Errno::PERM) => {
            open_place(Path::new("/proc")).and_then(|p| clone_tree(p, Depth::Recursive))
        }
        made => made,
    };
    proc.and_then(|proc| attach(proc, open_inside(root, "/proc")?))
        .context(|| "mount /proc".to_owned())
}

/// Mounts a small `/dev` with `shm` bytes of shared memory (0 means the default).
pub(super) fn mount_dev(root: &OwnedFd, shm: u64) -> Result<(), SetupError> {
    let what = || "mount /dev".to_owned();
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    file_system("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)
        .and_then(|dev| attach(dev, open_inside(root, "/dev")?))
        .context(what)?;
    let dev = open_inside(root, "/dev").context(what)?;
    for (name, major, minor) in NODES {
        make_node(&dev, name, major, minor).context(|| format!("make /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).context(|| format!("make /dev/{name}"))?;
    }
    let all = Mode::from_raw_mode(0o666);
    mknodat(&dev, TRACE_SOCKET, FileType::Socket, all, 0)
        .and_then(|()| chmodat(&dev, TRACE_SOCKET, all, AtFlags::empty()))
        .context(|| format!("make /dev/{TRACE_SOCKET}"))?;
    if Path::new("/proc/kcore").exists() {
        symlinkat("/proc/kcore", &dev, "core").context(|| "make /dev/core".to_owned())?;
    }
    let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")];
    let terminals = match file_system("devpts", &pts, no_exec) {
        // Group 5 (tty) may not be mapped.
        Err(Errno::INVAL) => file_system("devpts", &pts[..2], no_exec),
        made => made,
    };
    mount_in(&dev, "pts", terminals)?;
    let size = if shm == 0 { DEFAULT_SHM } else { shm }.to_string();
    let shm = [("source", "shm"), ("mode", "1777"), ("size", size.as_str())];
    mount_in(&dev, "shm", file_system("tmpfs", &shm, INERT))?;
    match file_system("mqueue", &[], INERT) {
        // Not every kernel has message queues.
        Err(Errno::NODEV) => Ok(()),
        made => mount_in(&dev, "mqueue", made),
    }
}

fn mount_in(
    dev: &OwnedFd,
    name: &str,
    made: rustix::io::Result<OwnedFd>,
) -> Result<(), SetupError> {
    let mounted = made.and_then(|mount| {
        mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
        attach(mount, open_inside(dev, name)?)
    });
    mounted.context(|| format!("mount /dev/{name}"))
}

/// Makes a device node, or binds the host's where nodes may not be made (user namespaces).
fn make_node(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor)) {
        Ok(()) => chmodat(dev, name, mode, AtFlags::empty()),
        Err(Errno::PERM) => {
            mknodat(dev, name, FileType::RegularFile, mode, 0)?;
            let host = open_place(&Path::new("/dev").join(name))?;
            attach(clone_tree(host, Depth::Flat)?, open_inside(dev, name)?)
        }
        Err(e) => Err(e),
    }
}

/// Mounts `/sys`. A user namespace that shares the host's network may only bind it.
pub(super) fn mount_sys(root: &OwnedFd, attributes: MountAttrFlags) -> Result<(), SetupError> {
    let sys = match file_system("sysfs", &[], INERT | attributes) {
        Err(Errno::PERM) => open_place(Path::new("/sys")).and_then(|host| {
            let tree = clone_tree(host, Depth::Recursive)?;
            restrict(&tree, attributes)?;
            Ok(tree)
        }),
        made => made,
    };
    sys.and_then(|sys| attach(sys, open_inside(root, "/sys")?)).context(|| "mount /sys".to_owned())
}

/// Shows the step's own part of the cgroup hierarchy. Best effort: only where the machine uses
/// the unified one and lets a namespace mount it.
pub(super) fn mount_cgroup(root: &OwnedFd, attributes: MountAttrFlags) {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let Ok(place) = open_inside(root, "/sys/fs/cgroup") else {
        return;
    };
    if let Ok(cgroup) = file_system("cgroup2", &[], INERT | attributes) {
        // Without it, /sys/fs/cgroup is an empty directory, which tools cope with.
        let _ = attach(cgroup, place);
    }
}

/// Covers what a confined step must not see and write-protects what it must not change.
pub(super) fn mask(root: &OwnedFd) -> Result<(), SetupError> {
    for path in READ_ONLY {
        let Some(place) = present(root, path)? else {
            continue;
        };
        clone_tree(&place, Depth::Recursive)
            .and_then(|tree| {
                restrict(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                attach(tree, &place)
            })
            .context(|| format!("write-protect {path}"))?;
    }
    let null = open_inside(root, "/dev/null").context(|| "open /dev/null".to_owned())?;
    for path in HIDDEN {
        let Some(place) = present(root, path)? else {
            continue;
        };
        let stat = statat(&place, "", AtFlags::EMPTY_PATH).context(|| format!("hide {path}"))?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            file_system("tmpfs", &[], INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
        } else {
            clone_tree(&null, Depth::Flat)
        };
        cover.and_then(|cover| attach(cover, &place)).context(|| format!("hide {path}"))?;
    }
    Ok(())
}

fn present(root: impl AsFd, path: &str) -> Result<Option<OwnedFd>, SetupError> {
    match open_inside(root, path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(e) => Err(e).context(|| format!("open {path}")),
    }
}
