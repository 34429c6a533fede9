//! Owners of files in layers, also where the user namespace knows a single user.
//!
//! Without root and without a range of subordinate ids, a process can give files to nobody but
//! itself. The owner that a file should have is then recorded in an extended attribute, which
//! layer tars and copies honour.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{AtFlags, CWD, XattrFlags},
    io::Errno,
};

use super::LayerError;

/// Holds `UID:GID` of a file whose owner could not be set.
pub(crate) const RECORD: &str = "user.rbc.owner";

/// Whether owners are recorded when they cannot be set.
static SINGLE_USER: AtomicBool = AtomicBool::new(false);

/// Says that this process runs in a user namespace with a single user.
pub(crate) fn assume_single_user() {
    SINGLE_USER.store(true, Ordering::Relaxed);
}

/// Gives a file (never what a symlink points to) to a user and group.
///
/// # Errors
/// If the system refuses and owners are not recorded.
pub fn set(path: &Path, uid: u32, gid: u32) -> Result<(), LayerError> {
    let (user, group) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    match rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::INVAL) if SINGLE_USER.load(Ordering::Relaxed) => {
            let value = format!("{uid}:{gid}");
            match rustix::fs::lsetxattr(path, RECORD, value.as_bytes(), XattrFlags::empty()) {
                // The user namespace of attributes is for files and folders only.
                Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
                Err(e) => Err(LayerError::os(path)(e)),
            }
        }
        Err(e) => Err(LayerError::os(path)(e)),
    }
}

/// The owner and group that a file should have; `(uid, gid)` are those that it has on disk.
pub fn get(path: &Path, uid: u32, gid: u32) -> io::Result<(u32, u32)> {
    if !SINGLE_USER.load(Ordering::Relaxed) {
        return Ok((uid, gid));
    }
    let mut value = [0; 32];
    match rustix::fs::lgetxattr(path, RECORD, &mut value[..]) {
        Ok(length) => Ok(parse(&value[..length]).unwrap_or((uid, gid))),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok((uid, gid)),
        Err(e) => Err(e.into()),
    }
}

fn parse(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}
