//! What is known of one file: its kind and the facts of its inode.

use std::{
    ffi::{CStr, OsStr, OsString},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{FileType, Stat, fgetxattr, flistxattr, lgetxattr, llistxattr},
    io::Errno,
};

use crate::layer::owner;

/// The kernel's limit for a list of names and for a value (`XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 1 << 16;

/// Extended attributes as name and value, sorted by name.
pub type Xattrs = Vec<(OsString, Vec<u8>)>;

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A socket.
    Socket,
}

/// One entry of a tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its kind.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file in bytes; of a symlink, of its target.
    pub size: u64,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: (i64, u32),
    /// Time of the last change of the inode on the host: seconds, nanoseconds.
    pub ctime: (i64, u32),
    /// Device and inode on the host.
    pub inode: (u64, u64),
    /// Names of the inode on the host.
    pub links: u64,
    /// Device number of a character or block device.
    pub device: u64,
    /// Position of the layer that holds it, highest first; 0 in a context.
    pub(crate) layer: usize,
}

impl Entry {
    /// Reads the answer of `stat(2)`.
    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Socket => Kind::Socket,
            FileType::RegularFile | FileType::Unknown => Kind::File,
        };
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            inode: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
            device: stat.st_rdev as u64,
            layer: 0,
        }
    }

    /// Reads the answer of `stat(2)` for the file `host` of a layer, with the owner that it should
    /// have.
    pub(crate) fn in_layer(stat: &Stat, host: &Path, layer: usize) -> io::Result<Self> {
        let entry = Self::from_stat(stat);
        let (uid, gid) = match entry.kind {
            Kind::File | Kind::Dir => owner::get(host, entry.uid, entry.gid)?,
            _ => (entry.uid, entry.gid),
        };
        Ok(Self { uid, gid, layer, ..entry })
    }

    /// The root of a tree that has no files at all.
    pub(crate) fn empty_root() -> Self {
        Self {
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            inode: (0, 0),
            links: 1,
            device: 0,
            layer: 0,
        }
    }

    /// Whether it is a folder.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Whether it is overlayfs's mark for a removed name: a character device 0:0.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == Kind::Char && self.device == 0
    }

    /// Whether both describe the same unchanged content.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.inode == other.inode
            && self.size == other.size
            && self.mtime == other.mtime
    }
}

/// Whether an attribute belongs to the way layers are stored and is no part of their content.
fn is_build_private(name: &[u8]) -> bool {
    name.starts_with(b"user.overlay.") || name.starts_with(b"user.rbc.")
}

/// Whether a copy keeps an attribute: file capabilities and the user's own. Labels and access
/// lists belong to the machine that they were set on.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") && !is_build_private(name)
}

/// The attributes of the file at the host path `path` that a copy keeps. Does not follow a symlink.
pub(crate) fn read_xattrs(path: &Path) -> io::Result<Xattrs> {
    kept_xattrs(|names| llistxattr(path, names), |name, value| lgetxattr(path, name, value))
}

/// The attributes of an opened file that a copy keeps.
pub(crate) fn read_xattrs_of(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    kept_xattrs(|names| flistxattr(fd, names), |name, value| fgetxattr(fd, name, value))
}

fn kept_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut names = [0; 256];
    // Nearly all files have none, which one call tells.
    let mut more = Vec::new();
    let names = match list(&mut names) {
        Ok(length) => &names[..length],
        Err(Errno::RANGE) => {
            more.resize(MAX_XATTR, 0);
            let length = list(&mut more)?;
            &more[..length]
        }
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if !is_kept(name.to_bytes()) {
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        match get(name, &mut value) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        found.push((OsStr::from_bytes(name.to_bytes()).to_owned(), value));
    }
    found.sort();
    Ok(found)
}
