//! Locks between processes.
//!
//! Keys are locked as single bytes of one file by open-file-description locks: there may be any
//! number of keys, the kernel drops a dead process's locks, and no lock files pile up.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use rbc_ir::Digest;

use super::{Result, StoreError};

/// Opens a lock file, making it if it is missing.
pub(super) fn open_lock_file(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("cannot open", path))
}

/// The lock on one cache key; given back when dropped.
pub struct KeyLock {
    /// Closing the description gives the lock back.
    _file: File,
}

impl KeyLock {
    pub(super) fn try_take(path: &Path, key: &Digest) -> Result<Option<Self>> {
        let file = open_lock_file(path)?;
        match try_lock_byte(&file, offset(key)) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(StoreError::io("cannot lock", path)(e)),
        }
    }
}

/// The byte that stands for a key. Offsets are signed, so 62 bits are used; two keys that share
/// one merely wait for each other.
fn offset(key: &Digest) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.as_bytes()[..8]);
    i64::from_le_bytes(bytes) & (i64::MAX >> 1)
}

fn try_lock_byte(file: &File, offset: i64) -> io::Result<()> {
    // SAFETY: `flock` is plain data for which all zeroes is valid.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::F_WRLCK as _;
    request.l_whence = libc::SEEK_SET as _;
    request.l_start = offset;
    request.l_len = 1;
    // SAFETY: the descriptor is open and `request` outlives the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
