//! Mount points that the root lacks.
//!
//! They must exist while the step runs and never show up in its layer. So they are made in a
//! directory of their own that becomes the topmost lower layer of the step's overlay. Directories
//! that the root has already are repeated there with the owner, mode, times and extended
//! attributes they have, since the topmost layer decides what a merged directory looks like.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, chmodat,
    chownat, mkdirat, openat, readlinkat, statat, utimensat,
};
use rustix::io::Errno;

use super::error::{Context, SetupError};

/// What a mount point has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PointKind {
    Directory,
    File,
}

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Where a target leads in the root.
struct Resolved {
    /// Names of directories that exist, from the root down.
    present: Vec<String>,
    /// Names that do not.
    missing: Vec<String>,
}

/// Makes what `targets` need and `view` (the merged root, read-only) lacks in the empty directory
/// `into`. Returns whether anything was needed.
pub(super) fn make(
    view: impl AsFd,
    into: &Path,
    targets: &[(String, PointKind)],
) -> Result<bool, SetupError> {
    let view = view.as_fd();
    let mut into_dir: Option<OwnedFd> = None;
    let mut repeated = BTreeSet::new();
    for (target, kind) in targets {
        let place = resolve(view, target)?;
        if place.missing.is_empty() {
            continue;
        }
        if into_dir.is_none() {
            into_dir = Some(
                rustix::fs::open(into, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .context(|| format!("open {}", into.display()))?,
            );
        }
        let Some(dir) = &into_dir else { continue };
        let mut path = String::from(".");
        repeated.insert(path.clone());
        for name in &place.present {
            path = format!("{path}/{name}");
            ensure_dir(dir, &path)?;
            repeated.insert(path.clone());
        }
        for (index, name) in place.missing.iter().enumerate() {
            path = format!("{path}/{name}");
            if index + 1 == place.missing.len() && *kind == PointKind::File {
                ensure_file(dir, &path)?;
            } else {
                ensure_dir(dir, &path)?;
            }
        }
    }
    let Some(dir) = &into_dir else {
        return Ok(false);
    };
    // Deepest first, so that filling a directory does not touch the time it was given.
    for path in repeated.iter().rev() {
        copy_attributes(view, dir, path)?;
    }
    Ok(true)
}

/// Follows `target` through `view` as the kernel would with `view` as its root.
fn resolve(view: impl AsFd, target: &str) -> Result<Resolved, SetupError> {
    let view = view.as_fd();
    let mut todo: Vec<String> = components(target).rev().collect();
    let mut present: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            present.pop();
            continue;
        }
        let path = format!("./{}/{name}", present.join("/"));
        match statat(view, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                todo.push(name);
                todo.reverse();
                if todo.iter().any(|n| n == "..") {
                    return Err(SetupError::Invalid(format!(
                        "mount target {target}: {path} does not exist"
                    )));
                }
                return Ok(Resolved { present, missing: todo });
            }
            Err(e) => return Err(e).context(|| format!("mount target {target}")),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP).context(|| format!("mount target {target}"));
                    }
                    let link = readlinkat(view, path.as_str(), Vec::new())
                        .context(|| format!("mount target {target}"))?;
                    let link = link.into_string().map_err(|_| {
                        SetupError::Invalid(format!(
                            "mount target {target}: {path} links to a name that is not UTF-8"
                        ))
                    })?;
                    if link.starts_with('/') {
                        present.clear();
                    }
                    todo.extend(components(&link).rev());
                }
                FileType::Directory => present.push(name),
                _ if todo.is_empty() => present.push(name),
                _ => return Err(Errno::NOTDIR).context(|| format!("mount target {target}")),
            },
        }
    }
    Ok(Resolved { present, missing: Vec::new() })
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|c| !c.is_empty() && *c != ".").map(str::to_owned)
}

fn ensure_dir(root: &OwnedFd, path: &str) -> Result<(), SetupError> {
    match mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).context(|| format!("make mount point {path}")),
    }
}

fn ensure_file(root: &OwnedFd, path: &str) -> Result<(), SetupError> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(root, path, flags, Mode::from_raw_mode(0o644))
        .map(drop)
        .context(|| format!("make mount point {path}"))
}

/// Gives the directory `path` of `to` what it has in `from`.
pub(super) fn copy_attributes(from: impl AsFd, to: &OwnedFd, path: &str) -> Result<(), SetupError> {
    let from = from.as_fd();
    let what = || format!("repeat the attributes of {path}");
    let stat: Stat = statat(from, path, AtFlags::SYMLINK_NOFOLLOW).context(what)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match chownat(to, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An owner that the user namespace cannot express looks like nobody in the root, too.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(e) => return Err(e).context(what),
    }
    let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) as RawMode);
    chmodat(to, path, mode, AtFlags::empty()).context(what)?;
    copy_xattrs(from, to, path).context(what)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    };
    utimensat(to, path, &times, AtFlags::SYMLINK_NOFOLLOW).context(what)
}

fn copy_xattrs(from: impl AsFd, to: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = openat(from, path, flags, Mode::empty())?;
    let mut names = vec![0u8; 4096];
    let used = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(used) => used,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e),
    };
    if used == 0 {
        return Ok(());
    }
    let to = openat(to, path, flags, Mode::empty())?;
    let mut value = vec![0u8; 64 * 1024];
    for name in names[..used].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"user.overlay.") {
            continue;
        }
        let len = rustix::fs::fgetxattr(&from, name, &mut value)?;
        match rustix::fs::fsetxattr(&to, name, &value[..len], rustix::fs::XattrFlags::empty()) {
            // What may not be set (security modules, user namespaces) is not for the step to see.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::sandbox::mount::open_place;

    fn point(target: &str, kind: PointKind) -> (String, PointKind) {
        (target.to_owned(), kind)
    }

    #[test]
    fn only_what_is_missing_is_made_with_the_parents_attributes() {
        let (root, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/hosts"), "x").unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o1770)).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("/run", root.path().join("var/run")).unwrap();
        let view = open_place(root.path()).unwrap();
        let targets = [
            point("/etc/hosts", PointKind::File),
            point("/var/run/secrets/tok", PointKind::File),
            point("/run/../new/dir", PointKind::Directory),
        ];
        assert!(make(&view, into.path(), &targets).unwrap());
        assert!(!into.path().join("etc").exists());
        assert!(into.path().join("run/secrets/tok").is_file());
        assert!(into.path().join("new/dir").is_dir());
        let (was, is) = (
            fs::metadata(root.path().join("run")).unwrap(),
            fs::metadata(into.path().join("run")).unwrap(),
        );
        assert_eq!(is.mode(), was.mode());
        assert_eq!((is.mtime(), is.mtime_nsec()), (was.mtime(), was.mtime_nsec()));
    }

    #[test]
    fn nothing_is_made_when_all_is_there() {
        let (root, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let view = open_place(root.path()).unwrap();
        let targets = [point("/", PointKind::Directory)];
        assert!(!make(&view, into.path(), &targets).unwrap());
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0);
    }

    #[test]
    fn loops_and_files_in_the_way_are_errors() {
        let (root, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("loop", root.path().join("loop")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let view = open_place(root.path()).unwrap();
        let message = |target| {
            let targets = [point(target, PointKind::Directory)];
            make(&view, into.path(), &targets).unwrap_err().to_string()
        };
        assert!(message("/loop/x").starts_with("mount target /loop/x: Too many levels"));
        assert!(message("/file/x").starts_with("mount target /file/x: Not a directory"));
    }
}
