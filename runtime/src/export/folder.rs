//! The merged files of a target in a folder (`type=local`).
//!
//! As with docker, the files belong to the user who runs the build, files that are there already
//! are replaced, and others are left. Nothing that lies in the folder is followed: a symlink in
//! the way of a folder is replaced by the folder.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use super::{
    ExportError,
    dest::write_file,
    files::{Times, each, linked},
    staged::{Staged, put_in_place, temporary_name},
    statements::StatementFile,
};
use crate::{
    registry::Stop,
    tree::{Entry, Kind, LayerStack, SourceTree},
};

/// Writes all files of `tree` into the folder `dest`, making it if it is missing.
pub(super) fn write(
    tree: &LayerStack,
    dest: &Path,
    times: &Times,
    stop: &Stop,
) -> Result<(), ExportError> {
    fs::create_dir_all(dest).map_err(ExportError::write(dest))?;
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    // Writing into a folder changes its time, and a read-only one takes no files: last of all.
    let mut folders: Vec<(PathBuf, u32, i64)> = Vec::new();
    each(tree, &mut |path, entry| {
        if stop.is_asked() {
            return Err(ExportError::Stopped);
        }
        let place = dest.join(path);
        let mtime = times.of(entry);
        if entry.is_dir() {
            make_folder(&place).map_err(ExportError::write(&place))?;
            set_xattrs(tree, path, entry, &place)?;
            folders.push((place, entry.mode, mtime));
            return Ok(());
        }
        let first = linked(&mut links, &place, entry);
        replace(tree, path, entry, first.as_deref(), &place, mtime)
    })?;
    for (place, mode, mtime) in folders.iter().rev() {
        fs::set_permissions(place, Permissions::from_mode(*mode))
            .and_then(|()| set_mtime(place, *mtime))
            .map_err(ExportError::write(place))?;
    }
    Ok(())
}

/// Writes what is stated about the files of a folder beside them.
pub(super) fn write_documents(
    documents: &[StatementFile],
    dest: &Path,
    times: &Times,
) -> Result<(), ExportError> {
    for document in documents {
        let place = dest.join(&document.name);
        write_file(&place, |out| {
            out.write_all(&document.json).map_err(ExportError::write(&place))
        })?;
        set_mtime(&place, times.of_made()).map_err(ExportError::write(&place))?;
    }
    Ok(())
}

/// Makes a folder that can be written to; whatever else has its name is removed.
fn make_folder(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => fs::set_permissions(
            place,
            Permissions::from_mode(0o700 | metadata.permissions().mode()),
        ),
        Ok(_) => {
            fs::remove_file(place)?;
            fs::create_dir(place)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir(place),
        Err(e) => Err(e),
    }
}

/// Makes a file and puts it in its place when it is complete.
fn replace_file(
    tree: &LayerStack,
    path: &Path,
    entry: &Entry,
    place: &Path,
    mtime: i64,
) -> Result<(), ExportError> {
    let write = || ExportError::write(place);
    let staged = Staged::new(place.parent().unwrap_or(place)).map_err(write())?;
    let mut to = staged.file();
    io::copy(&mut tree.open(path, entry)?, &mut to).map_err(write())?;
    set_xattrs(tree, path, entry, &staged.path())?;
    to.set_permissions(Permissions::from_mode(entry.mode)).map_err(write())?;
    rustix::fs::futimens(to, &times(mtime)).map_err(|e| write()(e.into()))?;
    staged.put(place).map_err(write())
}

/// Makes anything but a folder or a new file under a temporary name and puts it in its place.
fn replace(
    tree: &LayerStack,
    path: &Path,
    entry: &Entry,
    first: Option<&Path>,
    place: &Path,
    mtime: i64,
) -> Result<(), ExportError> {
    if first.is_none() && entry.kind == Kind::File {
        return replace_file(tree, path, entry, place, mtime);
    }
    let staged = temporary_name(place.parent().unwrap_or(place));
    let write = || ExportError::write(place);
    let made = (|| -> Result<bool, ExportError> {
        match (first, entry.kind) {
            (Some(first), _) => fs::hard_link(first, &staged).map_err(write())?,
            (None, Kind::Symlink) => {
                symlink(tree.read_link(path, entry)?, &staged).map_err(write())?;
            }
            (None, Kind::Fifo) => {
                return make_node(&staged, FileType::Fifo, entry).map_err(write());
            }
            (None, Kind::Char) => {
                return make_node(&staged, FileType::CharacterDevice, entry).map_err(write());
            }
            (None, Kind::Block) => {
                return make_node(&staged, FileType::BlockDevice, entry).map_err(write());
            }
            (None, Kind::File | Kind::Socket | Kind::Dir) => return Ok(false),
        }
        Ok(true)
    })();
    let placed = made.and_then(|made| {
        if !made {
            return Ok(());
        }
        if first.is_none() {
            set_mtime(&staged, mtime).map_err(write())?;
        }
        put_in_place(&staged, place).map_err(write())
    });
    if placed.is_err() || first.is_some() {
        // Renaming one link of a file onto another one of it leaves both.
        let _ = fs::remove_file(&staged);
    }
    placed
}

/// Makes a pipe or device node. `false` if this user may not make it, which is passed over.
fn make_node(place: &Path, kind: FileType, entry: &Entry) -> io::Result<bool> {
    let mode = Mode::from_raw_mode(entry.mode);
    match rustix::fs::mknodat(CWD, place, kind, mode, entry.device) {
        Err(Errno::PERM) => Ok(false),
        Err(e) => Err(e.into()),
        Ok(()) => {
            // mknod takes the umask off.
            fs::set_permissions(place, Permissions::from_mode(entry.mode))?;
            Ok(true)
        }
    }
}

/// Sets extended attributes of what `place` leads to as far as the file system and the user's rights
/// allow.
fn set_xattrs(
    tree: &LayerStack,
    path: &Path,
    entry: &Entry,
    place: &Path,
) -> Result<(), ExportError> {
    for (name, value) in tree.xattrs(path, entry)? {
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::setxattr(place, name.as_bytes(), &value, flags);
        match set {
            Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) => {}
            Err(e) => return Err(ExportError::write(place)(e.into())),
        }
    }
    Ok(())
}

fn set_mtime(place: &Path, mtime: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, place, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn files_are_replaced_and_others_left() {
        let dir = tempfile::tempdir().expect("folder");
        let (layer, dest) = (dir.path().join("layer"), dir.path().join("dest"));
        fs::create_dir_all(layer.join("bin")).expect("mkdir");
        fs::write(layer.join("bin/tool"), "new").expect("write");
        fs::set_permissions(layer.join("bin/tool"), Permissions::from_mode(0o4755)).expect("mode");
        fs::hard_link(layer.join("bin/tool"), layer.join("bin/same")).expect("link");
        fs::write(layer.join("was-folder"), "x").expect("write");
        fs::set_permissions(layer.join("bin"), Permissions::from_mode(0o555)).expect("mode");
        // In the way: a link to elsewhere instead of a folder, a folder instead of a file.
        let outside = dir.path().join("outside");
        fs::create_dir_all(&outside).expect("mkdir");
        fs::create_dir_all(dest.join("was-folder/deep")).expect("mkdir");
        symlink(&outside, dest.join("bin")).expect("symlink");
        fs::write(dest.join("kept"), "kept").expect("write");
        let tree = LayerStack::new(vec![layer]);
        for _ in 0..2 {
            write(&tree, &dest, &Times { epoch: Some(7) }, &Stop::default()).expect("written");
        }
        assert_eq!(fs::read_dir(&outside).expect("list").count(), 0);
        assert_eq!(fs::read_to_string(dest.join("bin/tool")).expect("read"), "new");
        assert_eq!(fs::read_to_string(dest.join("kept")).expect("read"), "kept");
        assert_eq!(fs::read_to_string(dest.join("was-folder")).expect("read"), "x");
        let tool = fs::metadata(dest.join("bin/tool")).expect("metadata");
        assert_eq!((tool.mode() & 0o7777, tool.mtime(), tool.nlink()), (0o4755, 7, 2));
        let bin = fs::metadata(dest.join("bin")).expect("metadata");
        assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o555, 7));
        assert_eq!(fs::read_dir(dest.join("bin")).expect("list").count(), 2);
    }
}
