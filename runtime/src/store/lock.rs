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
        let locked = try_byte(&file, offset(key), ByteLock::Alone)
            .map_err(StoreError::io("cannot lock", path))?;
        Ok(locked.then_some(Self { _file: file }))
    }
}

/// The byte that stands for a key. Offsets are signed, so 62 bits are used; two keys that share
/// one merely wait for each other.
pub(super) fn offset(key: &Digest) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.as_bytes()[..8]);
    i64::from_le_bytes(bytes) & (i64::MAX >> 1)
}

/// What becomes of the lock on a byte.
#[derive(Clone, Copy, Debug)]
pub(super) enum ByteLock {
    /// Others may hold it too, but not alone. The file must be open for reading.
    Shared,
    /// Nobody else holds it. The file must be open for writing.
    Alone,
}

/// Locks a byte of a file for its open file description; `false` if another one is in the way.
pub(super) fn try_byte(file: &File, offset: i64, kind: ByteLock) -> io::Result<bool> {
    match set_lock(file, offset, kind, libc::F_OFD_SETLK) {
        Ok(()) => Ok(true),
        Err(e) => match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied => Ok(false),
            _ => Err(e),
        },
    }
}

/// Locks a byte of a file for its open file description, waiting for others.
pub(super) fn wait_for_byte(file: &File, offset: i64, kind: ByteLock) -> io::Result<()> {
    loop {
        match set_lock(file, offset, kind, libc::F_OFD_SETLKW) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Gives back a byte that a file's open file description has locked.
pub(super) fn free_byte(file: &File, offset: i64) -> io::Result<()> {
    call(file, (offset, 1), libc::F_UNLCK, libc::F_OFD_SETLK).map(drop)
}

/// Gives back all bytes that a file's open file description has locked.
pub(super) fn free_all_bytes(file: &File) -> io::Result<()> {
    // A length of 0 means up to the end, wherever that will be.
    call(file, (0, 0), libc::F_UNLCK, libc::F_OFD_SETLK).map(drop)
}

/// Whether another open file description has a lock on a byte.
pub(super) fn is_locked(file: &File, offset: i64) -> io::Result<bool> {
    let answer = call(file, (offset, 1), libc::F_WRLCK, libc::F_OFD_GETLK)?;
    Ok(i32::from(answer.l_type) != libc::F_UNLCK)
}

fn set_lock(file: &File, offset: i64, kind: ByteLock, command: libc::c_int) -> io::Result<()> {
    let kind = match kind {
        ByteLock::Shared => libc::F_RDLCK,
        ByteLock::Alone => libc::F_WRLCK,
    };
    call(file, (offset, 1), kind, command).map(drop)
}

/// Calls `fcntl` for a range of bytes (begin and length).
fn call(
    file: &File,
    (start, length): (i64, i64),
    kind: libc::c_int,
    command: libc::c_int,
) -> io::Result<libc::flock> {
    // SAFETY: `flock` is plain data for which all zeroes is valid.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as _;
    request.l_whence = libc::SEEK_SET as _;
    request.l_start = start;
    request.l_len = length;
    // SAFETY: the descriptor is open and `request` outlives the call, which may write to it.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(request),
    }
}
