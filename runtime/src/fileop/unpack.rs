//! ADD of a local archive.

use crate::tree::{Kind, Selected, SourceTree};

use super::{FileOpError, target::Target};

/// Unpacks the file `one` of `source` below `dest` if it is an archive, and tells whether it was.
pub(super) fn run(
    _target: &mut Target<'_>,
    _source: &dyn SourceTree,
    one: &Selected,
    _dest: &str,
    _owner: Option<(u32, u32)>,
) -> Result<bool, FileOpError> {
    if one.entry.kind != Kind::File {
        return Ok(false);
    }
    Err(FileOpError::Archive(one.named.clone(), "archives are not read yet".into()))
}
