//! The tree that a file operation changes: the base with an upper directory over it.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, chmod,
        lsetxattr, mkdir, mknodat, open, readlink, statat, utimensat,
    },
    io::Errno,
};

use super::FileOpError;
use crate::tree::{
    Entries, Entry, Kind, LastLink, LayerStack, SourceTree, TreeError, Xattrs, mark_opaque,
    read_xattrs, resolve,
};

/// Marks an entry that is in the upper directory and not in a layer of the base.
const UPPER: usize = usize::MAX;

/// Owner, permission bits and mtime that a file is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime: (i64, u32),
}

/// What a folder that an operation makes on its own gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewDir {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Default for NewDir {
    fn default() -> Self {
        Self { uid: 0, gid: 0, mode: 0o755 }
    }
}

/// The base and what was changed so far.
pub(super) struct Target<'a> {
    base: &'a LayerStack,
    upper: PathBuf,
    /// The folders that are in the upper directory.
    dirs: HashMap<PathBuf, UpperDir>,
    /// The mtimes that folders get at the end, when nothing is put into them any more.
    dir_times: HashMap<PathBuf, (i64, u32)>,
}

#[derive(Clone, Copy)]
struct UpperDir {
    /// Whether the base shows through.
    merges: bool,
}

impl<'a> Target<'a> {
    pub fn new(base: &'a LayerStack, upper: &Path) -> Result<Self, FileOpError> {
        let mut target =
            Self { base, upper: upper.to_owned(), dirs: HashMap::new(), dir_times: HashMap::new() };
        let root = Path::new("");
        let entry = base.lookup(root)?.unwrap_or_else(Entry::empty_root);
        target.copy_dir_facts(root, &entry)?;
        if base.is_scratch() {
            target.dir_times.clear();
        }
        target.dirs.insert(PathBuf::new(), UpperDir { merges: true });
        Ok(target)
    }

    /// The tree before the operation.
    pub fn base(&self) -> &'a LayerStack {
        self.base
    }

    /// Where a path is in the upper directory.
    pub fn host(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.upper.clone() } else { self.upper.join(path) }
    }

    /// Follows all symlinks of a path, the last included.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, FileOpError> {
        resolve(self, path, LastLink::Follow).map_err(|error| match error {
            TreeError::NotADirectory(path) => FileOpError::NotADirectory(path),
            error => error.into(),
        })
    }

    fn stat_upper(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        let host = self.host(path);
        match statat(CWD, &host, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let entry = Entry::in_layer(&stat, &host, UPPER);
                Ok(Some(entry.map_err(|e| TreeError::io(path, e))?))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(TreeError::io(path, error)),
        }
    }

    /// Whether the base has something at `path` that the upper directory does not hide by a folder
    /// above it.
    fn base_shows(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        let merges =
            path.parent().and_then(|parent| self.dirs.get(parent)).is_none_or(|dir| dir.merges);
        if merges { self.base.lookup(path) } else { Ok(None) }
    }

    /// Brings the folder `path`, which must exist, into the upper directory.
    pub fn copy_up(&mut self, path: &Path) -> Result<(), FileOpError> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|dir| !self.dirs.contains_key(*dir))
            .map(Path::to_owned)
            .collect();
        for dir in missing.into_iter().rev() {
            let entry = self.base.lookup(&dir)?.filter(Entry::is_dir);
            let entry = entry.ok_or_else(|| FileOpError::NotADirectory(TreeError::shown(&dir)))?;
            mkdir(self.host(&dir), Mode::RWXU).map_err(|e| failed(&dir, e))?;
            self.copy_dir_facts(&dir, &entry)?;
            self.dirs.insert(dir, UpperDir { merges: true });
        }
        Ok(())
    }

    /// Gives a folder of the upper directory all facts that it has in the base.
    fn copy_dir_facts(&mut self, path: &Path, entry: &Entry) -> Result<(), FileOpError> {
        let facts = Facts { uid: entry.uid, gid: entry.gid, mode: entry.mode, mtime: entry.mtime };
        let xattrs = self.base.xattrs(path, entry)?;
        self.set_dir_facts(path, &facts, &xattrs)
    }

    /// Sets owner, mode and attributes of a folder in the upper directory at once and its mtime at
    /// the end.
    pub fn set_dir_facts(
        &mut self,
        path: &Path,
        facts: &Facts,
        xattrs: &Xattrs,
    ) -> Result<(), FileOpError> {
        self.set_owner(path, facts.uid, facts.gid)?;
        self.set_mode(path, facts.mode)?;
        self.set_xattrs(path, xattrs)?;
        self.set_dir_time(path, facts.mtime);
        Ok(())
    }

    /// Notes the mtime that a folder gets at the end.
    pub fn set_dir_time(&mut self, path: &Path, mtime: (i64, u32)) {
        self.dir_times.insert(path.to_owned(), mtime);
    }

    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<(), FileOpError> {
        super::data::set_owner(&self.host(path), uid, gid).map_err(|e| failed(path, e))
    }

    /// Sets permission bits; not for symlinks.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<(), FileOpError> {
        chmod(self.host(path), Mode::from_raw_mode(mode)).map_err(|e| failed(path, e))
    }

    pub fn set_xattrs(&self, path: &Path, xattrs: &Xattrs) -> Result<(), FileOpError> {
        for (name, value) in xattrs {
            match lsetxattr(self.host(path), name.as_os_str(), value, XattrFlags::empty()) {
                // As BuildKit does: what the file system cannot keep is left out.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
                Err(error) => return Err(failed(path, error)),
            }
        }
        Ok(())
    }

    /// Sets the mtime of anything but a folder.
    pub fn set_time(&self, path: &Path, mtime: (i64, u32)) -> Result<(), FileOpError> {
        set_mtime(&self.host(path), mtime).map_err(|e| failed(path, e))
    }

    /// Makes a folder where nothing is; its parent must exist.
    pub fn make_dir(&mut self, path: &Path, new: NewDir) -> Result<(), FileOpError> {
        let hidden = self.base_shows(path)?.is_some_and(|entry| entry.is_dir());
        let host = self.make_room(path)?;
        mkdir(&host, Mode::RWXU).map_err(|e| failed(path, e))?;
        if hidden {
            mark_opaque(&host).map_err(|e| failed(path, e))?;
        }
        self.dirs.insert(path.to_owned(), UpperDir { merges: false });
        self.set_owner(path, new.uid, new.gid)?;
        self.set_mode(path, new.mode)
    }

    /// Makes a folder and those above it that are missing, all alike. `path` must be resolved.
    pub fn make_dirs(&mut self, path: &Path, new: NewDir) -> Result<(), FileOpError> {
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            match self.lookup(dir)? {
                Some(entry) if entry.is_dir() => break,
                Some(_) => return Err(FileOpError::NotADirectory(TreeError::shown(dir))),
                None => missing.push(dir),
            }
        }
        missing.into_iter().rev().try_for_each(|dir| self.make_dir(dir, new))
    }

    /// Prepares the upper directory for something new at `path`, where no folder may be, and returns
    /// where to put it. The parent must exist.
    pub fn make_room(&mut self, path: &Path) -> Result<PathBuf, FileOpError> {
        if let Some(parent) = path.parent() {
            self.copy_up(parent)?;
        }
        let host = self.host(path);
        match fs::remove_file(&host) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
            _ => Ok(host),
        }
    }

    /// Removes whatever is at `path` with all below it.
    pub fn remove(&mut self, path: &Path) -> Result<(), FileOpError> {
        if let Some(entry) = self.stat_upper(path)? {
            let host = self.host(path);
            let removed =
                if entry.is_dir() { fs::remove_dir_all(host) } else { fs::remove_file(host) };
            removed.map_err(|e| failed(path, e))?;
            self.dirs.retain(|dir, _| !dir.starts_with(path));
            self.dir_times.retain(|dir, _| !dir.starts_with(path));
        }
        if self.base_shows(path)?.is_some() {
            let host = self.make_room(path)?;
            mknodat(CWD, &host, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(|e| failed(path, e))?;
        }
        Ok(())
    }

    /// Brings a file of the base into the upper directory, so that it can be linked or changed.
    pub fn copy_up_file(&mut self, path: &Path, entry: &Entry) -> Result<(), FileOpError> {
        if entry.layer == UPPER {
            return Ok(());
        }
        let facts = Facts { uid: entry.uid, gid: entry.gid, mode: entry.mode, mtime: entry.mtime };
        let base = self.base;
        let host = self.make_room(path)?;
        super::data::copy_file(base, path, entry, &host, &facts)
    }

    /// Gives the folders their mtimes.
    pub fn finish(self) -> Result<(), FileOpError> {
        for (path, mtime) in &self.dir_times {
            set_mtime(&self.host(path), *mtime).map_err(|e| failed(path, e))?;
        }
        Ok(())
    }
}

/// Sets the mtime of a path without following a symlink and leaves the atime.
pub(super) fn set_mtime(host: &Path, (seconds, nanos): (i64, u32)) -> Result<(), Errno> {
    utimensat(CWD, host, &timestamps((seconds, nanos)), AtFlags::SYMLINK_NOFOLLOW)
}

/// An mtime for `utimensat(2)`; the atime stays.
pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

/// An error about a path of the result.
pub(super) fn failed(path: &Path, error: impl Into<io::Error>) -> FileOpError {
    FileOpError::Io(TreeError::shown(path), error.into())
}

impl SourceTree for Target<'_> {
    fn lookup(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        // The first part of the path that is no folder of the upper directory decides.
        let mut part = path;
        let merges = loop {
            let Some(parent) = part.parent() else { break true };
            if let Some(dir) = self.dirs.get(parent) {
                break dir.merges;
            }
            part = parent;
        };
        match self.stat_upper(part)? {
            Some(entry) => Ok((part == path && !entry.is_whiteout()).then_some(entry)),
            None if merges => self.base.lookup(path),
            None => Ok(None),
        }
    }

    fn read_dir(&self, path: &Path) -> Result<Entries, TreeError> {
        let Some(dir) = self.dirs.get(path) else {
            return match self.lookup(path)? {
                Some(entry) if entry.is_dir() => self.base.read_dir(path),
                _ => Err(TreeError::NotADirectory(TreeError::shown(path))),
            };
        };
        let below = match self.base.lookup(path)? {
            Some(entry) if dir.merges && entry.is_dir() => self.base.read_dir(path)?,
            _ => Entries::default(),
        };
        let mut names: BTreeMap<OsString, Entry> =
            Arc::unwrap_or_clone(below).into_iter().collect();
        for entry in fs::read_dir(self.host(path)).map_err(|e| TreeError::io(path, e))? {
            let name = entry.map_err(|e| TreeError::io(path, e))?.file_name();
            match self.stat_upper(&path.join(&name))? {
                Some(entry) if !entry.is_whiteout() => names.insert(name, entry),
                _ => names.remove(&name),
            };
        }
        Ok(Arc::new(names.into_iter().collect()))
    }

    fn open(&self, path: &Path, entry: &Entry) -> Result<File, TreeError> {
        if entry.layer != UPPER {
            return self.base.open(path, entry);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(self.host(path), flags, Mode::empty());
        Ok(file.map_err(|e| TreeError::io(path, e))?.into())
    }

    fn read_link(&self, path: &Path, entry: &Entry) -> Result<PathBuf, TreeError> {
        if entry.layer != UPPER {
            return self.base.read_link(path, entry);
        }
        let target = readlink(self.host(path), Vec::new()).map_err(|e| TreeError::io(path, e))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn xattrs(&self, path: &Path, entry: &Entry) -> Result<Xattrs, TreeError> {
        if entry.layer != UPPER {
            return self.base.xattrs(path, entry);
        }
        read_xattrs(&self.host(path)).map_err(|e| TreeError::io(path, e))
    }

    fn immutable_file(&self, path: &Path, entry: &Entry) -> Option<PathBuf> {
        (entry.layer != UPPER && entry.kind == Kind::File)
            .then(|| self.base.immutable_file(path, entry))
            .flatten()
    }
}
