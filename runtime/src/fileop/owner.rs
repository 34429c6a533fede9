//! Looks up the owners that `--chown` names.

use std::{io::Read, path::Path};

use rbc_ir::{Owner, UserRef};

use super::FileOpError;
use crate::tree::{Kind, LastLink, LayerStack, SourceTree, TreeError, resolve};

/// What is read of a user database at most.
const MAX_DATABASE: u64 = 16 << 20;

/// The numeric user and group of `owner`. As with BuildKit, names that the files of the base lack
/// change nothing: the user stays 0, the group that of the user.
pub(super) fn ids(base: &LayerStack, owner: &Owner) -> Result<(u32, u32), FileOpError> {
    let (uid, mut gid) = match &owner.user {
        UserRef::Id(id) => (*id, *id),
        UserRef::Name(name) => find(base, "etc/passwd", name)?
            .and_then(|fields| Some((fields.first()?.parse().ok()?, fields.get(1)?.parse().ok()?)))
            .unwrap_or((0, 0)),
    };
    match &owner.group {
        Some(UserRef::Id(id)) => gid = *id,
        Some(UserRef::Name(name)) => {
            let found = find(base, "etc/group", name)?;
            gid = found.and_then(|fields| fields.first()?.parse().ok()).unwrap_or(gid);
        }
        None => {}
    }
    Ok((uid, gid))
}

/// The fields from the third on of the line for `name` in a file like `/etc/passwd`.
fn find(base: &LayerStack, database: &str, name: &str) -> Result<Option<Vec<String>>, FileOpError> {
    if base.is_scratch() {
        return Err(FileOpError::NoUsers(name.to_owned()));
    }
    let path = match resolve(base, Path::new(database), LastLink::Follow) {
        Err(TreeError::NotADirectory(_)) => return Ok(None),
        path => path?,
    };
    let Some(entry) = base.lookup(&path)?.filter(|entry| entry.kind == Kind::File) else {
        return Ok(None);
    };
    let mut content = Vec::new();
    let file = base.open(&path, &entry)?;
    file.take(MAX_DATABASE).read_to_end(&mut content).map_err(|e| TreeError::io(&path, e))?;
    let content = String::from_utf8_lossy(&content);
    let line = content.lines().map(str::trim).find(|line| line.split(':').next() == Some(name));
    Ok(line.map(|line| line.split(':').skip(2).map(str::to_owned).collect()))
}
