//! Files that have no name until they are complete, so that a killed process leaves nothing behind.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

/// A new file for a folder.
pub(super) struct Staged {
    file: File,
    folder: PathBuf,
    /// Its name for now, on file systems that know no files without one.
    name: Option<PathBuf>,
}

impl Staged {
    /// Makes a file that will be put into `folder`, readable and writable for all less the umask.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(0o666);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let nameless = rustix::fs::openat(CWD, folder, flags | OFlags::TMPFILE, mode);
        let (file, name) = match nameless {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = temporary_name(folder);
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                (rustix::fs::openat(CWD, &name, flags, mode)?, Some(name))
            }
            Err(e) => return Err(e.into()),
        };
        Ok(Self { file: file.into(), folder: folder.to_owned(), name })
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// A path by which the open file is reached. It ends in a symlink.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd()))
    }

    /// Gives the file its name, in place of whatever has it.
    pub(super) fn put(mut self, place: &Path) -> io::Result<()> {
        if self.name.is_none() {
            match self.link(place) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
            // Only a rename replaces, and only what has a name can be renamed.
            let name = temporary_name(&self.folder);
            self.link(&name)?;
            self.name = Some(name);
        }
        if let Some(name) = &self.name {
            put_in_place(name, place)?;
        }
        self.name = None;
        Ok(())
    }

    fn link(&self, name: &Path) -> Result<(), Errno> {
        rustix::fs::linkat(CWD, self.path(), CWD, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = fs::remove_file(name);
        }
    }
}

/// A name in a folder that nothing has.
pub(super) fn temporary_name(folder: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".rbc-{}-{number}", std::process::id()))
}

/// Renames, removing a folder that is in the way.
pub(super) fn put_in_place(staged: &Path, place: &Path) -> io::Result<()> {
    match fs::rename(staged, place) {
        Err(e)
            if matches!(e.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists) =>
        {
            crate::store::remove_tree(place)?;
            fs::rename(staged, place)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_shows_when_it_is_complete_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().expect("folder");
        let place = dir.path().join("file");
        for text in ["one", "two"] {
            let staged = Staged::new(dir.path()).expect("staged");
            staged.file().write_all(text.as_bytes()).expect("written");
            staged.put(&place).expect("put");
            assert_eq!(fs::read_to_string(&place).expect("read"), text);
            assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        }
        let unfinished = Staged::new(dir.path()).expect("staged");
        unfinished.file().write_all(b"three").expect("written");
        drop(unfinished);
        assert_eq!(fs::read_to_string(&place).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
