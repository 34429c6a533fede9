//! Moves the content of files: by link, by sharing blocks, or by copying.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, XattrFlags, copy_file_range, fchmod, fsetxattr, fstat,
        futimens, ioctl_ficlone, linkat, open,
    },
    io::Errno,
};

use super::{FileOpError, target::Facts, target::failed, target::timestamps};
use crate::{
    layer::owner,
    read_buffer,
    tree::{Entry, SourceTree, TreeError, Xattrs, read_xattrs_of},
};

/// Shorter files are read and written in one go, which is faster than asking the kernel to share or
/// move blocks.
const SMALL: u64 = read_buffer::LENGTH as u64;

/// Sets the owner of a path without following a symlink.
pub(super) fn set_owner(host: &Path, uid: u32, gid: u32) -> io::Result<()> {
    owner::set(host, uid, gid).map_err(io::Error::other)
}

/// Links the file `from` of a layer to `to`. Tells whether that worked; not all file systems can, an
/// inode has only so many names, and the layers may be on another file system.
pub(super) fn link_file(from: &Path, to: &Path) -> io::Result<bool> {
    match linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies a regular file of a tree to the new host path `to`, with its extended attributes.
pub(super) fn copy_file(
    tree: &dyn SourceTree,
    path: &Path,
    entry: &Entry,
    to: &Path,
    facts: &Facts,
) -> Result<(), FileOpError> {
    let mut source = tree.open(path, entry)?;
    let mut copy = create(to, facts.mode).map_err(|e| failed(path, e))?;
    copy_content(&mut source, &mut copy, entry.size).map_err(|e| failed(path, e))?;
    // A layer never changes, a context may while it is read.
    if tree.immutable_file(path, entry).is_none() {
        let now = fstat(&source).map_err(|e| failed(path, e))?;
        if !Entry::from_stat(&now).same_content(entry) {
            return Err(TreeError::Changed(TreeError::shown(path)).into());
        }
    }
    let xattrs = read_xattrs_of(&source).map_err(|e| failed(path, e))?;
    finish(&copy, to, facts, &xattrs).map_err(|e| failed(path, e))
}

/// Writes what `content` yields to the new host path `to`.
pub(super) fn write_file(
    content: &mut dyn Read,
    to: &Path,
    facts: &Facts,
    xattrs: &Xattrs,
) -> io::Result<()> {
    let mut file = create(to, facts.mode)?;
    read_buffer::with(|buffer| {
        loop {
            match content.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => file.write_all(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    finish(&file, to, facts, xattrs)
}

/// A new file; whatever is at the path already is an error. It gets the bits of `mode` that a
/// program may ask for and that the umask leaves; [`finish`] sees to the others.
pub(super) fn create(host: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(host, flags, Mode::from_raw_mode(mode & 0o777))?.into())
}

/// Sets all facts of a written file. The order matters: a change of owner drops setuid bits and
/// file capabilities, and everything but the last moves the mtime. Most files have owner and mode
/// from the start, which is cheaper to ask than to set.
fn finish(file: &File, host: &Path, facts: &Facts, xattrs: &Xattrs) -> io::Result<()> {
    let now = fstat(file)?;
    let is_owned = (now.st_uid, now.st_gid) == (facts.uid, facts.gid);
    if !is_owned {
        set_owner(host, facts.uid, facts.gid)?;
    }
    if !is_owned || now.st_mode & 0o7777 != facts.mode {
        fchmod(file, Mode::from_raw_mode(facts.mode))?;
    }
    for (name, value) in xattrs {
        match fsetxattr(file, name.as_os_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(futimens(file, &timestamps(facts.mtime))?)
}

fn copy_content(source: &mut File, copy: &mut File, size: u64) -> io::Result<()> {
    // One byte more than expected shows a file that grew.
    if size < SMALL {
        return read_buffer::with(|buffer| {
            let length = read_buffer::read_full(source, buffer)?;
            copy.write_all(&buffer[..length])
        });
    }
    if ioctl_ficlone(copy.as_fd(), source.as_fd()).is_ok() {
        return Ok(());
    }
    let mut moved = 0;
    while moved < size {
        match copy_file_range(&*source, None, &*copy, None, (size - moved).min(1 << 30) as usize) {
            Ok(0) => break,
            Ok(length) => moved += length as u64,
            Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::PERM
                | Errno::IO,
            ) if moved == 0 => {
                io::copy(source, copy)?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
