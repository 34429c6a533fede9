//! A folder of the host as a build context: what its ignore patterns leave, owned by root.
//!
//! Folders are listed when they are first asked for and then remembered, so that all that a build
//! sees of its context is one state of it, and an unused corner costs nothing. Every look at the
//! disk starts at the opened root and refuses symlinks, as the user may change things meanwhile.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rayon::prelude::*;
use rbc_ir::pattern::{ParentMatch, PatternMatcher};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, fstat, open, openat2, readlinkat,
        statat,
    },
    io::Errno,
};

use super::{Entries, Entry, Kind, SourceTree, TreeError, Xattrs, entry::read_xattrs_of};

/// Of so many names in a folder on, several threads look at them.
const PARALLEL_FROM: usize = 512;
/// Bytes of names that the kernel is asked for at once.
const LIST_BUFFER: usize = 32 << 10;

/// A build context.
#[derive(Debug)]
pub struct ContextTree {
    root: OwnedFd,
    patterns: Vec<String>,
    ignore: PatternMatcher,
    listings: RwLock<HashMap<PathBuf, Arc<Listing>>>,
}

/// One folder, without what is ignored.
#[derive(Debug)]
struct Listing {
    entries: Entries,
    /// Which patterns match the folder or one above it.
    matched: ParentMatch,
    /// Those of the folder itself, if they could be read.
    xattrs: Option<Xattrs>,
}

impl ContextTree {
    /// Opens the folder `root`. `ignore` are the patterns of its ignore file, without comments.
    pub fn open(root: &Path, ignore: &[String]) -> Result<Self, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(root, flags, Mode::empty())
            .map_err(|e| TreeError::Io(root.to_owned(), e.into()))?;
        Ok(Self {
            root: fd,
            patterns: ignore.to_vec(),
            ignore: PatternMatcher::new(ignore)?,
            listings: RwLock::default(),
        })
    }

    /// The last pattern that hides `path`, if any does.
    pub fn hidden_by(&self, path: &Path) -> Option<&str> {
        let path = path.as_os_str().as_bytes();
        if !self.ignore.matches_or_parent_bytes(path) {
            return None;
        }
        let hides = |pattern: &&String| {
            PatternMatcher::new(&[pattern.as_str()])
                .is_ok_and(|one| one.matches_or_parent_bytes(path))
        };
        self.patterns.iter().rfind(hides).map(String::as_str)
    }

    /// Whether there is anything at `path`, hidden or not.
    pub fn is_there(&self, path: &Path) -> bool {
        statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn known(&self, path: &Path) -> Option<Arc<Listing>> {
        self.listings.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// The listing of `path`; `None` if it is no folder or ignored.
    fn listing(&self, path: &Path) -> Result<Option<Arc<Listing>>, TreeError> {
        if let Some(known) = self.known(path) {
            return Ok(Some(known));
        }
        let mut missing = vec![path];
        let mut parent = None;
        for above in path.ancestors().skip(1) {
            parent = self.known(above);
            if parent.is_some() {
                break;
            }
            missing.push(above);
        }
        for dir in missing.into_iter().rev() {
            let matched = match (&parent, dir.file_name()) {
                (Some(above), Some(name)) => {
                    if !find(&above.entries, name).is_some_and(Entry::is_dir) {
                        return Ok(None);
                    }
                    self.ignore.matches_below(dir.as_os_str().as_bytes(), &above.matched).1
                }
                _ => ParentMatch::default(),
            };
            let fresh = Arc::new(self.list(dir, matched)?);
            let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
            parent = Some(listings.entry(dir.to_owned()).or_insert(fresh).clone());
        }
        Ok(parent)
    }

    fn list(&self, path: &Path, matched: ParentMatch) -> Result<Listing, TreeError> {
        let fd = self
            .open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| TreeError::io(path, e))?;
        let mut names = names(&fd).map_err(|e| TreeError::io(path, e))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let look = |(name, kind): (OsString, FileType)| {
            if self.hides(path, &name, kind, &matched)? {
                return Ok(None);
            }
            match statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let entry = Entry { uid: 0, gid: 0, ..Entry::from_stat(&stat) };
                    Ok((entry.kind != Kind::Socket).then_some((name, entry)))
                }
                Err(Errno::NOENT) => Ok(None), // removed since the folder was read
                Err(error) => Err(TreeError::io(&path.join(name), error)),
            }
        };
        let mut entries = Vec::with_capacity(names.len());
        if names.len() >= PARALLEL_FROM && rayon::current_thread_index().is_some() {
            let seen: Vec<Result<_, _>> = names.into_par_iter().map(look).collect();
            for entry in seen {
                entries.extend(entry?);
            }
        } else {
            for name in names {
                entries.extend(look(name)?);
            }
        }
        Ok(Listing { entries: Arc::new(entries), matched, xattrs: read_xattrs_of(&fd).ok() })
    }

    /// Whether an entry of the folder `dir` is ignored. `matched` is what is known of `dir`.
    fn hides(
        &self,
        dir: &Path,
        name: &OsStr,
        kind: FileType,
        matched: &ParentMatch,
    ) -> Result<bool, TreeError> {
        if self.ignore.is_empty() {
            return Ok(false);
        }
        let path = dir.join(name);
        let (ignored, own) = self.ignore.matches_below(path.as_os_str().as_bytes(), matched);
        Ok(ignored && !(maybe_dir(kind) && self.excepts_below(&path, own)?))
    }

    /// Whether the ignored folder `dir` holds something that an exception brings back.
    fn excepts_below(&self, dir: &Path, matched: ParentMatch) -> Result<bool, TreeError> {
        let mut todo = vec![(dir.to_owned(), matched)];
        while let Some((dir, matched)) = todo.pop() {
            if !self.ignore.may_except_below(dir.as_os_str().as_bytes()) {
                continue;
            }
            let fd = match self.open_beneath(&dir, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => fd,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::ACCESS) => continue,
                Err(error) => return Err(TreeError::io(&dir, error)),
            };
            for (name, kind) in names(&fd).map_err(|e| TreeError::io(&dir, e))? {
                let below = dir.join(name);
                let (ignored, own) =
                    self.ignore.matches_below(below.as_os_str().as_bytes(), &matched);
                if !ignored {
                    return Ok(true);
                }
                if maybe_dir(kind) {
                    todo.push((below, own));
                }
            }
        }
        Ok(false)
    }
}

/// Whether a folder entry is a folder, or of unknown type, as on some file systems.
fn maybe_dir(kind: FileType) -> bool {
    matches!(kind, FileType::Directory | FileType::Unknown)
}

/// The names in an opened folder, in any order.
fn names(fd: &OwnedFd) -> Result<Vec<(OsString, FileType)>, Errno> {
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(LIST_BUFFER);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => break, // the folder itself was removed
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

fn find<'a>(entries: &'a [(OsString, Entry)], name: &OsStr) -> Option<&'a Entry> {
    let at = entries.binary_search_by(|(known, _)| known.as_os_str().cmp(name)).ok()?;
    Some(&entries[at].1)
}

impl SourceTree for ContextTree {
    fn lookup(&self, path: &Path) -> Result<Option<Entry>, TreeError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            let stat = fstat(&self.root).map_err(|e| TreeError::io(path, e))?;
            return Ok(Some(Entry { uid: 0, gid: 0, ..Entry::from_stat(&stat) }));
        };
        Ok(self.listing(parent)?.and_then(|listing| find(&listing.entries, name).cloned()))
    }

    fn read_dir(&self, path: &Path) -> Result<Entries, TreeError> {
        match self.listing(path)? {
            Some(listing) => Ok(Arc::clone(&listing.entries)),
            None => Err(TreeError::NotADirectory(TreeError::shown(path))),
        }
    }

    fn open(&self, path: &Path, entry: &Entry) -> Result<File, TreeError> {
        let changed = || TreeError::Changed(TreeError::shown(path));
        let fd = match self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(changed()),
            Err(error) => return Err(TreeError::io(path, error)),
        };
        let now = Entry::from_stat(&fstat(&fd).map_err(|e| TreeError::io(path, e))?);
        if now.same_content(entry) { Ok(fd.into()) } else { Err(changed()) }
    }

    fn read_link(&self, path: &Path, _entry: &Entry) -> Result<PathBuf, TreeError> {
        // An empty path reads the link that is opened itself.
        let link = self.open_beneath(path, OFlags::PATH).map_err(|e| TreeError::io(path, e))?;
        let target = readlinkat(&link, "", Vec::new()).map_err(|e| TreeError::io(path, e))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn xattrs(&self, path: &Path, entry: &Entry) -> Result<Xattrs, TreeError> {
        if !matches!(entry.kind, Kind::File | Kind::Dir) {
            return Ok(Vec::new());
        }
        if let Some(xattrs) = self.known(path).and_then(|listing| listing.xattrs.clone()) {
            return Ok(xattrs);
        }
        let fd = self
            .open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(|e| TreeError::io(path, e))?;
        read_xattrs_of(&fd).map_err(|e| TreeError::io(path, e))
    }

    fn immutable_file(&self, _path: &Path, _entry: &Entry) -> Option<PathBuf> {
        None
    }

    fn why_missing(&self, path: &Path) -> Option<String> {
        self.is_there(path)
            .then(|| self.hidden_by(path))?
            .map(|pattern| format!(" (the ignore file hides it by {pattern:?})"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use insta::assert_snapshot;

    use super::*;
    use crate::tree::fixture::{World, listing};

    #[test]
    fn ignored_paths_are_absent_and_exceptions_bring_back_their_folders() {
        let mut world = World::new();
        let tree = world.context(
            "a.key = k\na.txt 0640 5:6 = t\nnode/x/y = y\nkeep/sub/take = t\nkeep/sub/skip = s\nkeep/other/z = z\nlink -> a.key",
            &["*.key", "node", "keep", "!keep/sub/take"],
        );
        assert_snapshot!(listing(&tree), @r"
        a.txt 0640 = t
        keep/ 0755
        keep/sub/ 0755
        keep/sub/take 0644 = t
        link -> a.key
        ");
        assert_eq!(tree.hidden_by(Path::new("node/x/y")), Some("node"));
        assert_eq!(tree.hidden_by(Path::new("keep/sub/take")), None);
        assert!(tree.lookup(Path::new("node/x")).expect("lookup").is_none());
        assert!(tree.lookup(Path::new("keep/other")).expect("lookup").is_none());
        assert!(tree.lookup(Path::new("link/x")).expect("lookup").is_none());
    }

    #[test]
    fn sockets_are_left_out() {
        let mut world = World::new();
        let root = world.tree("f = f");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("socket");
        let tree = ContextTree::open(&root, &[]).expect("context");
        assert_eq!(listing(&tree), "f 0644 = f\n");
    }

    #[test]
    fn a_file_that_changed_since_it_was_listed_is_told() {
        let mut world = World::new();
        let root = world.tree("f = old\ndir/g = g");
        let tree = ContextTree::open(&root, &[]).expect("context");
        let entry = tree.lookup(Path::new("f")).expect("lookup").expect("f");
        let inner = tree.lookup(Path::new("dir/g")).expect("lookup").expect("g");
        fs::OpenOptions::new()
            .append(true)
            .open(root.join("f"))
            .expect("f")
            .write_all(b"er")
            .expect("write");
        let error = tree.open(Path::new("f"), &entry).expect_err("changed");
        assert_eq!(
            error.to_string(),
            "\"/f\" changed while it was being read; run the build again"
        );
        // A folder that was swapped for a link out of the context is not followed.
        fs::rename(root.join("dir"), root.join("moved")).expect("rename");
        std::os::unix::fs::symlink("moved", root.join("dir")).expect("link");
        assert!(matches!(tree.open(Path::new("dir/g"), &inner), Err(TreeError::Changed(_))));
    }
}
