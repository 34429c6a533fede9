//! ADD of a local archive.
//!
//! As in BuildKit, which leaves this to Docker's archive code in a chroot: the destination is the
//! root for all that the archive names, entries replace what is of another kind, folders that the
//! archive does not list are made for root.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
};

use super::{
    FileOpError, data,
    target::{Facts, NewDir, Target, failed},
};
use crate::{
    archive::{self, ArchiveError, EntryKind},
    tree::{
        Entries, Entry, Kind, LastLink, Selected, SourceTree, TreeError, Xattrs, clean, is_kept,
        resolve,
    },
};

/// Unpacks the file `one` of `source` below `dest` if it is an archive, and tells whether it was.
/// `owner` is that of `--chown`.
pub(super) fn run(
    target: &mut Target<'_>,
    source: &dyn SourceTree,
    one: &Selected,
    dest: &str,
    owner: Option<(u32, u32)>,
) -> Result<bool, FileOpError> {
    if one.entry.kind != Kind::File {
        return Ok(false);
    }
    let mut file = source.open(&one.path, &one.entry)?;
    if !archive::is_archive(&mut file).map_err(|e| TreeError::io(&one.path, e))? {
        return Ok(false);
    }

    let root = target.resolve(&clean(dest))?;
    let (uid, gid) = owner.unwrap_or((0, 0));
    target.make_dirs(&root, NewDir { uid, gid, ..NewDir::default() })?;
    let mut unpacker = Unpacker { target, root, owner };
    archive::read(file, &mut |entry, content| {
        unpacker.entry(entry, content).map_err(ArchiveError::visitor)
    })
    .map_err(|error| FileOpError::Archive(TreeError::shown(&one.named), Box::new(error)))?;
    Ok(true)
}

struct Unpacker<'a, 'b> {
    target: &'a mut Target<'b>,
    /// The folder that is the root for the archive.
    root: PathBuf,
    owner: Option<(u32, u32)>,
}

/// The destination as a tree of its own, so that links cannot lead out of it.
struct Below<'a>(&'a Target<'a>, &'a Path);

impl Unpacker<'_, '_> {
    fn entry(&mut self, entry: &archive::Entry, content: &mut dyn Read) -> Result<(), FileOpError> {
        let name = clean(OsStr::from_bytes(&entry.path));
        // The root stays as it is, whatever the archive says of it.
        let (Some(parent), Some(last)) = (name.parent(), name.file_name()) else { return Ok(()) };
        let path = self.parent(parent)?.join(last);
        let existing = self.target.lookup(&path)?;
        let stays = entry.kind == EntryKind::Folder && existing.as_ref().is_some_and(Entry::is_dir);
        if existing.is_some() && !stays {
            self.target.remove(&path)?;
        }
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let facts = Facts { uid, gid, mode: entry.mode & 0o7777, mtime: entry.mtime };
        let xattrs = kept(&entry.xattrs);
        match entry.kind {
            EntryKind::Folder => {
                if stays {
                    self.target.copy_up(&path)?;
                } else {
                    self.target.make_dir(&path, NewDir::default())?;
                }
                self.target.set_dir_facts(&path, &facts, &xattrs)
            }
            EntryKind::File => {
                let host = self.target.make_room(&path)?;
                data::write_file(content, &host, &facts, &xattrs).map_err(|e| failed(&path, e))
            }
            EntryKind::Symlink => {
                let host = self.target.make_room(&path)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&entry.link), host)
                    .map_err(|e| failed(&path, e))?;
                self.target.set_owner(&path, facts.uid, facts.gid)?;
                self.target.set_time(&path, facts.mtime)
            }
            EntryKind::Hardlink => self.hard_link(entry, &path, &facts, &xattrs),
            EntryKind::Fifo => self.special(&path, FileType::Fifo, 0, &facts, &xattrs),
            EntryKind::CharDevice => {
                self.special(&path, FileType::CharacterDevice, device(entry), &facts, &xattrs)
            }
            EntryKind::BlockDevice => {
                self.special(&path, FileType::BlockDevice, device(entry), &facts, &xattrs)
            }
        }
    }

    /// Where the folder `parent` of an entry is; makes it if nothing is there.
    fn parent(&mut self, parent: &Path) -> Result<PathBuf, FileOpError> {
        let below = Below(self.target, &self.root);
        let resolved = resolve(&below, parent, LastLink::Follow)?;
        match below.lookup(&resolved)? {
            Some(entry) if entry.is_dir() => {}
            Some(_) => return Err(FileOpError::NotADirectory(TreeError::shown(&resolved))),
            None => {
                // A link that leads nowhere is there all the same: nothing is made in its place.
                let itself = resolve(&below, parent, LastLink::Keep)?;
                if below.lookup(&itself)?.is_some() {
                    return Err(FileOpError::Missing(TreeError::shown(&itself)));
                }
                self.target.make_dirs(&self.root.join(&resolved), NewDir::default())?;
            }
        }
        Ok(if resolved.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(resolved)
        })
    }

    fn hard_link(
        &mut self,
        entry: &archive::Entry,
        path: &Path,
        facts: &Facts,
        xattrs: &Xattrs,
    ) -> Result<(), FileOpError> {
        let named = clean(OsStr::from_bytes(&entry.link));
        let first =
            self.root.join(resolve(&Below(self.target, &self.root), &named, LastLink::Keep)?);
        let Some(existing) = self.target.lookup(&first)?.filter(|entry| !entry.is_dir()) else {
            return Err(FileOpError::Missing(TreeError::shown(&named)));
        };
        if existing.kind == Kind::File {
            self.target.copy_up_file(&first, &existing)?;
        }
        let host = self.target.make_room(path)?;
        std::fs::hard_link(self.target.host(&first), host).map_err(|e| failed(path, e))?;
        self.target.set_owner(path, facts.uid, facts.gid)?;
        if existing.kind != Kind::Symlink {
            self.target.set_mode(path, facts.mode)?;
            self.target.set_xattrs(path, xattrs)?;
        }
        self.target.set_time(path, facts.mtime)
    }

    fn special(
        &mut self,
        path: &Path,
        kind: FileType,
        device: u64,
        facts: &Facts,
        xattrs: &Xattrs,
    ) -> Result<(), FileOpError> {
        if kind == FileType::CharacterDevice && device == 0 {
            return Err(failed(path, Errno::PERM)); // as overlayfs answers: it would hide what is below
        }
        let host = self.target.make_room(path)?;
        match mknodat(CWD, &host, kind, Mode::RUSR | Mode::WUSR, device) {
            Ok(()) => {}
            // Without root there are no devices; Docker passes over them as well.
            Err(Errno::PERM) if kind != FileType::Fifo => return Ok(()),
            Err(error) => return Err(failed(path, error)),
        }
        self.target.set_owner(path, facts.uid, facts.gid)?;
        self.target.set_mode(path, facts.mode)?;
        self.target.set_xattrs(path, xattrs)?;
        self.target.set_time(path, facts.mtime)
    }
}

fn device(entry: &archive::Entry) -> u64 {
    rustix::fs::makedev(entry.device.0, entry.device.1)
}

fn kept(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Xattrs {
    let kept = xattrs.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone())).collect()
}

impl Below<'_> {
    fn at(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.1.to_owned() } else { self.1.join(path) }
    }
}

impl SourceTree for Below<'_> {
    fn lookup(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        self.0.lookup(&self.at(path))
    }

    fn read_dir(&self, path: &Path) -> Result<Entries, TreeError> {
        self.0.read_dir(&self.at(path))
    }

    fn open(&self, path: &Path, entry: &Entry) -> Result<std::fs::File, TreeError> {
        self.0.open(&self.at(path), entry)
    }

    fn read_link(&self, path: &Path, entry: &Entry) -> Result<PathBuf, TreeError> {
        self.0.read_link(&self.at(path), entry)
    }

    fn xattrs(&self, path: &Path, entry: &Entry) -> Result<Xattrs, TreeError> {
        self.0.xattrs(&self.at(path), entry)
    }

    fn immutable_file(&self, path: &Path, entry: &Entry) -> Option<PathBuf> {
        self.0.immutable_file(&self.at(path), entry)
    }
}
