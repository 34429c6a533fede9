//! From a layer tar to its folder (OCI image-spec, layer.md, "Applying Changesets").
//!
//! Names in the tar are a stranger's. They are taken apart here and every folder on the way is
//! looked at without following links, so that nothing is written outside the layer's folder; a
//! symlink in the middle of a name is followed within that folder.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rbc_ir::Digest;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags},
    io::Errno,
};
use sha2::Digest as _;

use super::{CAPABILITY, LayerError, OPAQUE, owner};
use crate::archive::{self, ArchiveError, Entry, EntryKind};

/// How many symlinks a name may lead through, as in Linux.
const MAX_LINKS: usize = 40;

/// What [`apply_tar`] has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes.
    pub size: u64,
    /// Device nodes left out because the user namespace does not allow them.
    pub skipped_devices: usize,
}

/// Unpacks a layer tar, compressed or not, into the empty folder `dir`.
///
/// # Errors
/// For a damaged tar and for entries that no layer can have. What was unpacked so far stays, so
/// `dir` should be a temporary folder.
pub fn apply_tar(input: impl Read + Send, dir: &Path) -> Result<Applied, LayerError> {
    apply_tar_within(input, dir, u64::MAX)
}

/// The same for a tar that must not unpack to more than so many bytes: a few bytes of a stranger can
/// stand for a full disk.
pub fn apply_tar_within(
    input: impl Read + Send,
    dir: &Path,
    most: u64,
) -> Result<Applied, LayerError> {
    let plain = archive::decompress(input).map_err(ArchiveError::from)?;
    let mut plain = Hashed { input: plain, hash: sha2::Sha256::new(), size: 0, most };
    let mut unpacker = Unpacker {
        root: dir.to_owned(),
        folders: HashMap::new(),
        times: Vec::new(),
        skipped_devices: 0,
        buffer: vec![0; 256 << 10],
    };
    archive::read_plain(&mut plain, &mut |entry, data| {
        unpacker.entry(entry, data).map_err(ArchiveError::visitor)
    })?;
    unpacker.set_folder_times()?;
    Ok(Applied {
        diff_id: Digest::from_bytes(plain.hash.finalize().into()),
        size: plain.size,
        skipped_devices: unpacker.skipped_devices,
    })
}

/// Takes the digest of what is read through it.
struct Hashed<R> {
    input: R,
    hash: sha2::Sha256,
    size: u64,
    most: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.size += n as u64;
        if self.size > self.most {
            return Err(io::Error::other(format!(
                "it unpacks to more than the {} bytes that the state folder may take (max-size)",
                self.most
            )));
        }
        Ok(n)
    }
}

struct Unpacker {
    root: PathBuf,
    /// Where folders named in the tar are, for those that were looked at already.
    folders: HashMap<Vec<u8>, PathBuf>,
    /// Folders with the mtime they get when nothing more is put into them.
    times: Vec<(PathBuf, (i64, u32))>,
    skipped_devices: usize,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<(), LayerError> {
        let bad = |reason: &str| LayerError::BadEntry {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            reason: reason.to_owned(),
        };
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(bad("its name holds a NUL byte"));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in entry.path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    return Err(bad("its name leads out of the layer through \"..\""));
                }
                part => parts.push(part),
            }
        }
        let Some((name, parents)) = parts.split_last() else {
            // The root itself: nothing of it is kept.
            return Ok(());
        };
        let parent = self.folder(parents, &bad)?;
        if *name == b".wh..wh..opq" {
            return rustix::fs::lsetxattr(&parent, OPAQUE, b"y", XattrFlags::empty())
                .map_err(LayerError::os(&parent));
        }
        if name.starts_with(b".wh..wh.") {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if let Some(gone) = name.strip_prefix(b".wh.") {
            if gone.is_empty() || gone == b"." || gone == b".." {
                return Err(bad("it is a whiteout of no name"));
            }
            let path = parent.join(OsStr::from_bytes(gone));
            // A layer that both removes and has a name has it: order does not count.
            return match rustix::fs::mknodat(
                CWD,
                &path,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            ) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(e) => Err(LayerError::os(&path)(e)),
            };
        }
        let path = parent.join(OsStr::from_bytes(name));
        let there = match fs::symlink_metadata(&path) {
            Ok(facts) => Some(facts),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(LayerError::io(&path)(e)),
        };
        let keep =
            entry.kind == EntryKind::Folder && there.as_ref().is_some_and(fs::Metadata::is_dir);
        if let Some(there) = there.filter(|_| !keep) {
            if there.is_dir() {
                self.folders.clear();
                self.times.retain(|(folder, _)| !folder.starts_with(&path));
                crate::store::remove_tree(&path).map_err(LayerError::io(&path))?;
            } else {
                self.folders.clear();
                fs::remove_file(&path).map_err(LayerError::io(&path))?;
            }
        }
        self.make(entry, data, &path, keep, &bad)
    }

    fn make(
        &mut self,
        entry: &Entry,
        data: &mut dyn Read,
        path: &Path,
        keep: bool,
        bad: &dyn Fn(&str) -> LayerError,
    ) -> Result<(), LayerError> {
        match entry.kind {
            EntryKind::Folder => {
                if !keep {
                    fs::create_dir(path).map_err(LayerError::io(path))?;
                }
                self.times.push((path.to_owned(), entry.mtime));
            }
            EntryKind::File => return self.file(entry, data, path),
            EntryKind::Symlink => {
                rustix::fs::symlink(OsStr::from_bytes(&entry.link), path)
                    .map_err(LayerError::os(path))?;
            }
            EntryKind::Hardlink => {
                let mut parts: Vec<&[u8]> = Vec::new();
                for part in entry.link.split(|b| *b == b'/') {
                    match part {
                        b"" | b"." => {}
                        b".." => return Err(bad("it links out of the layer through \"..\"")),
                        part => parts.push(part),
                    }
                }
                let Some((name, parents)) = parts.split_last() else {
                    return Err(bad("it links to a folder"));
                };
                let target = self.folder(parents, bad)?.join(OsStr::from_bytes(name));
                return match rustix::fs::linkat(CWD, &target, CWD, path, AtFlags::empty()) {
                    Ok(()) => Ok(()),
                    Err(Errno::NOENT) => Err(bad(&format!(
                        "it is a hard link to {:?}, which is not in this layer",
                        String::from_utf8_lossy(&entry.link)
                    ))),
                    Err(e) => Err(LayerError::os(path)(e)),
                };
            }
            EntryKind::Fifo | EntryKind::CharDevice | EntryKind::BlockDevice => {
                let (kind, device) = match entry.kind {
                    EntryKind::Fifo => (FileType::Fifo, 0),
                    EntryKind::CharDevice => (FileType::CharacterDevice, self.device(entry)),
                    _ => (FileType::BlockDevice, self.device(entry)),
                };
                if kind == FileType::CharacterDevice && device == 0 {
                    return Err(bad("character device 0:0 stands for a removed file"));
                }
                match rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device) {
                    Ok(()) => {}
                    Err(Errno::PERM) if entry.kind != EntryKind::Fifo => {
                        self.skipped_devices += 1;
                        return Ok(());
                    }
                    Err(e) => return Err(LayerError::os(path)(e)),
                }
            }
        }
        owner::set(path, entry.uid, entry.gid)?;
        if entry.kind != EntryKind::Symlink {
            let mode = fs::Permissions::from_mode(entry.mode);
            fs::set_permissions(path, mode).map_err(LayerError::io(path))?;
        }
        if entry.kind != EntryKind::Folder {
            set_time(path, entry.mtime)?;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, data: &mut dyn Read, path: &Path) -> Result<(), LayerError> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(LayerError::io(path))?;
        loop {
            let n = match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(LayerError::Archive(ArchiveError::Io(e))),
            };
            file.write_all(&self.buffer[..n]).map_err(LayerError::io(path))?;
        }
        let made = file.metadata().map_err(LayerError::io(path))?;
        if (made.uid(), made.gid()) != (entry.uid, entry.gid) {
            owner::set(path, entry.uid, entry.gid)?;
        }
        // After chown, which takes setuid bits and capabilities away.
        let mode = fs::Permissions::from_mode(entry.mode);
        file.set_permissions(mode).map_err(LayerError::io(path))?;
        for (name, value) in &entry.xattrs {
            if name == CAPABILITY.as_bytes() {
                match rustix::fs::fsetxattr(&file, CAPABILITY, value, XattrFlags::empty()) {
                    // A user namespace may lack the right, and some file systems the attribute.
                    Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
                    Err(e) => return Err(LayerError::os(path)(e)),
                }
            }
        }
        rustix::fs::futimens(&file, &times(entry.mtime)).map_err(LayerError::os(path))
    }

    fn device(&self, entry: &Entry) -> u64 {
        rustix::fs::makedev(entry.device.0, entry.device.1)
    }

    /// The folder with these names below the root. Missing ones are made; a symlink is followed
    /// within the root.
    fn folder(
        &mut self,
        parts: &[&[u8]],
        bad: &dyn Fn(&str) -> LayerError,
    ) -> Result<PathBuf, LayerError> {
        let key = parts.join(&b'/');
        if let Some(known) = self.folders.get(&key) {
            return Ok(known.clone());
        }
        let mut left: VecDeque<OsString> =
            parts.iter().map(|part| OsStr::from_bytes(part).to_owned()).collect();
        let mut path = self.root.clone();
        let mut depth = 0_usize;
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                // From a link's target; the root's parent is the root.
                if depth > 0 {
                    path.pop();
                    depth -= 1;
                }
                continue;
            }
            let next = path.join(&part);
            match fs::symlink_metadata(&next) {
                Ok(facts) if facts.is_dir() => {}
                Ok(facts) if facts.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad("its name leads through too many symbolic links"));
                    }
                    let target = fs::read_link(&next).map_err(LayerError::io(&next))?;
                    if target.is_absolute() {
                        path.clone_from(&self.root);
                        depth = 0;
                    }
                    let parts = target.as_os_str().as_bytes().split(|b| *b == b'/');
                    let parts: Vec<&[u8]> = parts.filter(|p| !p.is_empty() && *p != b".").collect();
                    for part in parts.into_iter().rev() {
                        left.push_front(OsStr::from_bytes(part).to_owned());
                    }
                    continue;
                }
                Ok(_) => return Err(bad("its name leads through a file that is no folder")),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&next).map_err(LayerError::io(&next))?;
                    let mode = fs::Permissions::from_mode(0o755);
                    fs::set_permissions(&next, mode).map_err(LayerError::io(&next))?;
                    // The tar does not say when; a fixed time keeps unpacking deterministic.
                    self.times.push((next.clone(), (0, 0)));
                }
                Err(e) => return Err(LayerError::io(&next)(e)),
            }
            path = next;
            depth += 1;
        }
        self.folders.insert(key, path.clone());
        Ok(path)
    }

    fn set_folder_times(&self) -> Result<(), LayerError> {
        // In order, so that of two entries for one folder the later wins.
        self.times.iter().try_for_each(|(path, mtime)| set_time(path, *mtime))
    }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

fn set_time(path: &Path, mtime: (i64, u32)) -> Result<(), LayerError> {
    rustix::fs::utimensat(CWD, path, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(LayerError::os(path))
}
