//! The exact times of a layer's files, which its tar does not tell.
//!
//! A layer tar shows what the build made with the time of the image and all others in whole seconds.
//! A layer that comes back must have the times that it had: `make` compares them, and what is marked
//! as made by the build must be marked again. The blob is a zstd stream of records
//! `SECONDS NANOSECONDS PATH NUL`, in the order of the tar; the folder itself has the path `.`.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use super::format::RootFacts;
use crate::layer::{LayerError, MADE_NSEC, owner};

/// Longest record.
const MAX_RECORD: u64 = 8 << 10;
/// Compression of the records.
const LEVEL: i32 = 3;

/// Writes the times of all that is in `dir`.
pub(super) fn write(dir: &Path, out: impl Write) -> io::Result<()> {
    let mut out = zstd::Encoder::new(out, LEVEL)?;
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let host = below(dir, &path);
        let facts = fs::symlink_metadata(&host)?;
        if is_untold(&facts) {
            continue;
        }
        write!(out, "{} {} ", facts.mtime(), facts.mtime_nsec())?;
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        out.write_all(shown.as_os_str().as_bytes())?;
        out.write_all(b"\0")?;
        if facts.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&host)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            pending.extend(names.into_iter().map(|name| path.join(name)));
        }
    }
    out.finish()?.flush()
}

/// Whiteouts share an inode, whose time says nothing; sockets are in no layer.
fn is_untold(facts: &Metadata) -> bool {
    let kind = facts.file_type();
    kind.is_socket() || (kind.is_char_device() && facts.rdev() == 0)
}

fn below(dir: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { dir.to_owned() } else { dir.join(path) }
}

/// Gives the files in `dir`, which was just unpacked, the times that `input` tells. Nothing outside
/// of `dir` is reached, whatever the records say; files that are not there are passed over.
pub(super) fn apply(dir: &Path, input: impl Read) -> io::Result<()> {
    let root = open_dir(dir)?;
    let mut input = BufReader::new(zstd::Decoder::new(input)?);
    let mut record = Vec::new();
    let mut parent: Option<(Vec<u8>, OwnedFd)> = None;
    loop {
        record.clear();
        let length = (&mut input).take(MAX_RECORD).read_until(0, &mut record)?;
        if length == 0 {
            return Ok(());
        }
        let (seconds, nanos, path) = parse(&record).ok_or_else(|| bad("a record is malformed"))?;
        let times = times(seconds, nanos);
        if path == b"." {
            rustix::fs::utimensat(CWD, dir, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            continue;
        }
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(bad("a record is of no file"));
        }
        if parent.as_ref().is_none_or(|(known, _)| known != folder) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let opened =
                rustix::fs::openat2(&root, OsStr::from_bytes(folder), flags, Mode::empty(), within);
            match opened {
                Ok(opened) => parent = Some((folder.to_vec(), opened)),
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(e) => return Err(e.into()),
            }
        }
        let Some((_, folder)) = &parent else { continue };
        let name = OsStr::from_bytes(name);
        match rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(dir)?.into())
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn parse(record: &[u8]) -> Option<(i64, u32, &[u8])> {
    let record = record.strip_suffix(b"\0")?;
    let (seconds, rest) = split(record)?;
    let (nanos, path) = split(rest)?;
    let seconds = std::str::from_utf8(seconds).ok()?.parse().ok()?;
    let nanos: u32 = std::str::from_utf8(nanos).ok()?.parse().ok()?;
    (nanos < 1_000_000_000).then_some((seconds, nanos, path))
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|b| *b == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

fn times(seconds: i64, nanos: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

/// Where no times have travelled: marks what the tar shows with the time of the image as made by the
/// build.
pub(super) fn mark_made(dir: &Path, epoch: i64) -> Result<(), LayerError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LayerError::Io { path, source }
    };
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let facts = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if is_untold(&facts) {
            continue;
        }
        if facts.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed(&path))? {
                pending.push(entry.map_err(failed(&path))?.path());
            }
        }
        if path == dir || (facts.mtime(), facts.mtime_nsec()) == (epoch, 0) {
            let times = times(epoch, MADE_NSEC);
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed(&path)(e.into()))?;
        }
    }
    Ok(())
}

/// The facts of a folder.
pub(super) fn root_facts(dir: &Path) -> io::Result<RootFacts> {
    let facts = fs::symlink_metadata(dir)?;
    let (uid, gid) = owner::get(dir, facts.uid(), facts.gid())?;
    Ok(RootFacts { mode: facts.mode() & 0o7777, uid, gid })
}

/// Gives a folder the facts that it had, as far as this process can.
pub(super) fn set_root(dir: &Path, root: &RootFacts) -> Result<(), LayerError> {
    owner::set(dir, root.uid, root.gid)?;
    let mode = fs::Permissions::from_mode(root.mode & 0o7777);
    fs::set_permissions(dir, mode).map_err(|source| LayerError::Io { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(dir: &Path) -> Vec<(PathBuf, i64, i64)> {
        let mut all = Vec::new();
        let mut pending = vec![dir.to_owned()];
        while let Some(path) = pending.pop() {
            let facts = fs::symlink_metadata(&path).expect("facts");
            all.push((path.clone(), facts.mtime(), facts.mtime_nsec()));
            if facts.is_dir() {
                pending
                    .extend(fs::read_dir(&path).expect("read").map(|e| e.expect("entry").path()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn times_come_back() {
        let dir = tempfile::tempdir().expect("folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).expect("folders");
        fs::write(at("a/b/file"), "x").expect("file");
        fs::write(at("a/odd\nname"), "x").expect("file");
        std::os::unix::fs::symlink("/etc/passwd", at("a/link")).expect("link");
        for (n, name) in ["a/b/file", "a/odd\nname", "a/link", "a/b", "a", ""].iter().enumerate() {
            rustix::fs::utimensat(
                CWD,
                below(dir.path(), Path::new(name)),
                &times(1000 + n as i64, MADE_NSEC - n as u32),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .expect("times");
        }
        let before = told(dir.path());
        let mut blob = Vec::new();
        write(dir.path(), &mut blob).expect("written");
        for (path, _, _) in &before {
            rustix::fs::utimensat(CWD, path, &times(5, 5), AtFlags::SYMLINK_NOFOLLOW)
                .expect("times");
        }
        apply(dir.path(), blob.as_slice()).expect("applied");
        assert_eq!(told(dir.path()), before);
    }

    #[test]
    fn nothing_outside_is_reached() {
        let dir = tempfile::tempdir().expect("folder");
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir(&inside).expect("folder");
        fs::create_dir(&outside).expect("folder");
        fs::write(outside.join("file"), "x").expect("file");
        std::os::unix::fs::symlink("../out", inside.join("link")).expect("link");
        let before = told(&outside);
        for path in ["../out/file", "link/file", "/etc/passwd", "..", "link/..", "a/../../out/file"]
        {
            let records = format!("7 7 {path}\0");
            let blob = zstd::encode_all(records.as_bytes(), 1).expect("packed");
            let _ = apply(&inside, blob.as_slice());
            assert_eq!(told(&outside), before, "{path}");
        }
        for records in ["", "x", "1 2", "1 2 a", "1 9999999999 a\0", "a b c\0"] {
            let blob = zstd::encode_all(records.as_bytes(), 1).expect("packed");
            assert_eq!(apply(&inside, blob.as_slice()).is_ok(), records.is_empty(), "{records:?}");
        }
    }
}
