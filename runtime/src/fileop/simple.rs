//! Mkdir, Mkfile, Remove and Symlink.

use std::path::Path;

use rbc_ir::{Mkdir, Mkfile, Owner, Remove, Symlink};

use super::{
    FileOpError, owner,
    target::{NewDir, Target, failed},
};
use crate::tree::{LastLink, SourceTree, TreeError, clean, expand};

pub(super) fn mkdir(target: &mut Target<'_>, action: &Mkdir) -> Result<(), FileOpError> {
    let (uid, gid) = ids(target, action.owner.as_ref())?;
    let new = NewDir { uid, gid, mode: action.mode & 0o777 };
    let path = target.resolve(&clean(&action.path))?;
    if action.parents {
        return target.make_dirs(&path, new);
    }
    need_parent(target, &path)?;
    match target.lookup(&path)? {
        Some(entry) if entry.is_dir() => Ok(()),
        Some(_) => Err(FileOpError::NotADirectory(TreeError::shown(&path))),
        None => target.make_dir(&path, new),
    }
}

pub(super) fn mkfile(target: &mut Target<'_>, action: &Mkfile) -> Result<(), FileOpError> {
    let (uid, gid) = ids(target, action.owner.as_ref())?;
    let path = target.resolve(&clean(&action.path))?;
    need_parent(target, &path)?;
    if target.lookup(&path)?.is_some_and(|entry| entry.is_dir()) {
        return Err(FileOpError::OntoDirectory(TreeError::shown(&path)));
    }
    let host = target.make_room(&path)?;
    let mut file = super::data::create(&host, action.mode).map_err(|e| failed(&path, e))?;
    std::io::Write::write_all(&mut file, &action.data).map_err(|e| failed(&path, e))?;
    target.set_owner(&path, uid, gid)?;
    target.set_mode(&path, action.mode & 0o777)
}

pub(super) fn remove(target: &mut Target<'_>, action: &Remove) -> Result<(), FileOpError> {
    let path = clean(&action.path);
    let found = if action.wildcard { expand(target, &path, LastLink::Keep)? } else { None };
    for path in found.unwrap_or_else(|| vec![path]) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(&path, std::io::Error::other("the root cannot be removed")));
        };
        let path = target.resolve(parent)?.join(name);
        if target.lookup(&path)?.is_some() {
            target.remove(&path)?;
        } else if !action.allow_missing {
            return Err(FileOpError::Missing(TreeError::shown(&path)));
        }
    }
    Ok(())
}

pub(super) fn symlink(target: &mut Target<'_>, action: &Symlink) -> Result<(), FileOpError> {
    let (uid, gid) = ids(target, action.owner.as_ref())?;
    let path = clean(&action.path);
    let parent = target.resolve(path.parent().unwrap_or(Path::new("")))?;
    let path = parent.join(path.file_name().unwrap_or_default());
    need_parent(target, &path)?;
    if target.lookup(&path)?.is_some() {
        return Err(failed(&path, std::io::Error::from(std::io::ErrorKind::AlreadyExists)));
    }
    let host = target.make_room(&path)?;
    std::os::unix::fs::symlink(&action.target, host).map_err(|e| failed(&path, e))?;
    target.set_owner(&path, uid, gid)
}

fn ids(target: &Target<'_>, owner: Option<&Owner>) -> Result<(u32, u32), FileOpError> {
    owner.map_or(Ok((0, 0)), |owner| owner::ids(target.base(), owner))
}

fn need_parent(target: &Target<'_>, path: &Path) -> Result<(), FileOpError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match target.lookup(parent)? {
        Some(entry) if entry.is_dir() => Ok(()),
        Some(_) => Err(FileOpError::NotADirectory(TreeError::shown(parent))),
        None => Err(FileOpError::Missing(TreeError::shown(parent))),
    }
}
