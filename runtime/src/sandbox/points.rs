//! Mount points that the root lacks.
//!
//! They must exist while the step runs and never show up in its layer. So they are made in a
//! directory of their own that becomes the topmost lower layer of the step's overlay. Directories
//! that the root has already are repeated there with the owner, mode, times and extended
//! attributes they have, since the topmost layer decides what a merged directory looks like.
//!
//! Most steps of a build lack the same in the same directories, so what was made for one is shared
//! by all: nothing ever writes to a lower layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbc_ir::Digest;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmodat, chownat, fgetxattr, flistxattr, fsetxattr, mkdirat, openat, readlinkat,
    statat, utimensat,
};
use rustix::io::Errno;

use super::error::{Context, SetupError};

/// What a mount point has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PointKind {
    Directory,
    File,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Where a target leads in the root.
struct Resolved {
    /// Names of directories that exist, from the root down.
    present: Vec<String>,
    /// Names that do not.
    missing: Vec<String>,
}

/// What a root lacks.
struct Lacking {
    /// Paths to make and what each has to be; parents before what is in them.
    missing: Vec<(String, PointKind)>,
    /// The directories above them that exist, with what they look like; parents first.
    present: BTreeMap<String, Attributes>,
}

/// What a directory looks like. Its time of access is of no interest.
#[derive(Debug, Hash, PartialEq, Eq)]
struct Attributes {
    owner: (u32, u32),
    mode: RawMode,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Provides what `targets` need and `view` (the merged root, read-only) lacks: a directory in
/// `shared`, made by way of `work` on the same file system unless it is there. None if nothing is
/// needed.
pub(super) fn provide(
    view: impl AsFd,
    targets: &[(String, PointKind)],
    shared: &Path,
    work: &Path,
) -> Result<Option<PathBuf>, SetupError> {
    let Some(lacking) = Lacking::of(view, targets)? else {
        return Ok(None);
    };
    let place = shared.join(format!("points-{}", lacking.digest().hex()));
    if place.exists() {
        return Ok(Some(place));
    }
    lacking.make(work)?;
    match fs::rename(work, &place) {
        // Another step was quicker.
        Err(_) if place.exists() => {}
        made => made.context(|| format!("make {}", place.display()))?,
    }
    Ok(Some(place))
}

impl Lacking {
    /// What `view` lacks of `targets`, if anything.
    fn of(view: impl AsFd, targets: &[(String, PointKind)]) -> Result<Option<Self>, SetupError> {
        let view = view.as_fd();
        let mut lacking = Lacking { missing: Vec::new(), present: BTreeMap::new() };
        let mut look_at = |path: &str| -> Result<(), SetupError> {
            if !lacking.present.contains_key(path) {
                lacking.present.insert(path.to_owned(), Attributes::of(view, path)?);
            }
            Ok(())
        };
        for (target, kind) in targets {
            let place = resolve(view, target)?;
            if place.missing.is_empty() {
                continue;
            }
            let mut path = String::from(".");
            look_at(&path)?;
            for name in &place.present {
                path = format!("{path}/{name}");
                look_at(&path)?;
            }
            for (index, name) in place.missing.iter().enumerate() {
                path = format!("{path}/{name}");
                let is_last = index + 1 == place.missing.len();
                let kind = if is_last { *kind } else { PointKind::Directory };
                lacking.missing.push((path.clone(), kind));
            }
        }
        Ok((!lacking.missing.is_empty()).then_some(lacking))
    }

    /// Names what [`make`](Self::make) makes.
    fn digest(&self) -> Digest {
        // This form quotes names, so that no two lists have the same text.
        Digest::of(format!("{:?} {:?}", self.missing, self.present).as_bytes())
    }

    /// Makes it in the new directory `into`.
    fn make(&self, into: &Path) -> Result<(), SetupError> {
        let what = || format!("make {}", into.display());
        fs::create_dir(into).context(what)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(into, flags, Mode::empty()).context(what)?;
        for path in self.present.keys() {
            ensure_dir(&dir, path)?;
        }
        for (path, kind) in &self.missing {
            match kind {
                PointKind::Directory => ensure_dir(&dir, path)?,
                PointKind::File => ensure_file(&dir, path)?,
            }
        }
        // Deepest first, so that filling a directory does not touch the time it was given.
        for (path, attributes) in self.present.iter().rev() {
            attributes.give(&dir, path)?;
        }
        Ok(())
    }
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

/// Gives the directory `to` what `from` has.
pub(super) fn copy_attributes(from: impl AsFd, to: &OwnedFd) -> Result<(), SetupError> {
    Attributes::of(from.as_fd(), ".")?.give(to, ".")
}

impl Attributes {
    /// Those of the directory `path` of `root`.
    fn of(root: BorrowedFd<'_>, path: &str) -> Result<Self, SetupError> {
        let what = || format!("read the attributes of {path}");
        let stat: Stat = statat(root, path, AtFlags::SYMLINK_NOFOLLOW).context(what)?;
        Ok(Self {
            owner: (stat.st_uid, stat.st_gid),
            mode: (stat.st_mode & 0o7777) as RawMode,
            modified: (stat.st_mtime as _, stat.st_mtime_nsec as _),
            xattrs: xattrs(root, path).context(what)?,
        })
    }

    /// Gives them to the directory `path` of `root`.
    fn give(&self, root: &OwnedFd, path: &str) -> Result<(), SetupError> {
        let what = || format!("repeat the attributes of {path}");
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        match chownat(root, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            // An owner that the user namespace cannot express looks like nobody in the root, too.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(e) => return Err(e).context(what),
        }
        let mode = Mode::from_raw_mode(self.mode);
        chmodat(root, path, mode, AtFlags::empty()).context(what)?;
        if !self.xattrs.is_empty() {
            let to = openat(root, path, DIRECTORY, Mode::empty()).context(what)?;
            for (name, value) in &self.xattrs {
                match fsetxattr(&to, name.as_slice(), value, XattrFlags::empty()) {
                    // What may not be set (security modules, user namespaces) is not for the step
                    // to see.
                    Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
                    Err(e) => return Err(e).context(what),
                }
            }
        }
        let modified = Timespec { tv_sec: self.modified.0, tv_nsec: self.modified.1 as _ };
        let untouched = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: untouched, last_modification: modified };
        utimensat(root, path, &times, AtFlags::SYMLINK_NOFOLLOW).context(what)
    }
}

/// The extended attributes of a directory, without those of overlayfs itself.
fn xattrs(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let dir = openat(root, path, DIRECTORY, Mode::empty())?;
    let mut names = vec![0u8; 4096];
    let used = match flistxattr(&dir, &mut names) {
        Ok(used) => used,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in names[..used].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if !name.starts_with(b"user.overlay.") {
            let mut value = vec![0u8; 64 * 1024];
            let len = fgetxattr(&dir, name, &mut value)?;
            value.truncate(len);
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::sandbox::mount::open_place;

    fn point(target: &str, kind: PointKind) -> (String, PointKind) {
        (target.to_owned(), kind)
    }

    #[test]
    fn only_what_is_missing_is_made_with_the_parents_attributes() {
        let (root, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
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
        let made = |work| provide(&view, &targets, dir.path(), &dir.path().join(work)).unwrap();
        let into = made("first").expect("something is missing");
        assert!(!into.join("etc").exists());
        assert!(into.join("run/secrets/tok").is_file());
        assert!(into.join("new/dir").is_dir());
        let (was, is) = (
            fs::metadata(root.path().join("run")).unwrap(),
            fs::metadata(into.join("run")).unwrap(),
        );
        assert_eq!(is.mode(), was.mode());
        assert_eq!((is.mtime(), is.mtime_nsec()), (was.mtime(), was.mtime_nsec()));
        // What lacks the same shares it; a directory that looks different does not.
        assert_eq!(made("second").as_ref(), Some(&into));
        assert!(!dir.path().join("second").exists());
        fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o711)).unwrap();
        assert_ne!(made("third"), Some(into));
    }

    #[test]
    fn nothing_is_made_when_all_is_there() {
        let (root, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let view = open_place(root.path()).unwrap();
        let targets = [point("/", PointKind::Directory)];
        assert_eq!(provide(&view, &targets, dir.path(), &dir.path().join("work")).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn loops_and_files_in_the_way_are_errors() {
        let (root, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("loop", root.path().join("loop")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let view = open_place(root.path()).unwrap();
        let message = |target| {
            let targets = [point(target, PointKind::Directory)];
            provide(&view, &targets, dir.path(), &dir.path().join("work")).unwrap_err().to_string()
        };
        assert!(message("/loop/x").starts_with("mount target /loop/x: Too many levels"));
        assert!(message("/file/x").starts_with("mount target /file/x: Not a directory"));
    }
}
