//! Statements about files that are no image, for `type=local` and `type=tar`: one file each, whose
//! subjects are the files beside it, as BuildKit writes them.

use std::io::{self, Read};

use rbc_ir::Digest;
use serde_json::json;
use sha2::Digest as _;

use super::{ExportError, files::each};
use crate::{
    attest::{PROVENANCE, Predicate, statement},
    tree::{Kind, LayerStack, SourceTree},
};

/// Bytes that are hashed at once.
const BUFFER: usize = 128 << 10;

/// A file with a statement.
pub(super) struct StatementFile {
    /// Its name.
    pub(super) name: String,
    /// Its content.
    pub(super) json: Vec<u8>,
}

/// What is stated about all regular files of a tree; `prefix` goes before the names of the files.
pub(super) fn of_files(
    tree: &LayerStack,
    predicates: &[Predicate],
    prefix: &str,
) -> Result<Vec<StatementFile>, ExportError> {
    if predicates.is_empty() {
        return Ok(Vec::new());
    }
    let mut subjects = Vec::new();
    each(tree, &mut |path, entry| {
        if entry.kind == Kind::File {
            let file = tree.open(path, entry)?;
            let digest = digest(file).map_err(ExportError::write(path))?;
            let name = path.to_string_lossy();
            subjects.push(json!({ "name": name, "digest": { "sha256": digest.hex() } }));
        }
        Ok(())
    })?;
    let file = |predicate: &Predicate| {
        let name = if predicate.kind == PROVENANCE { "provenance.json" } else { "sbom.spdx.json" };
        let mut json = format!("{:#}", statement(predicate, &subjects)).into_bytes();
        json.push(b'\n');
        StatementFile { name: format!("{prefix}{name}"), json }
    };
    Ok(predicates.iter().map(file).collect())
}

fn digest(mut file: impl Read) -> io::Result<Digest> {
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hash.finalize().into())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
