//! Blobs of a layout folder that nothing leads to any more.
//!
//! Only what an entry of `index.json` led to that has just been replaced is looked at, so that whatever
//! else lies in the folder stays. If it cannot be told what the other entries need, all stays.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use rbc_ir::Digest;
use serde::Deserialize;

use crate::image::Descriptor;

/// Largest manifest that is read, in bytes. Caches have many blobs.
const MAX_DOCUMENT: u64 = 64 << 20;

/// What a manifest or an index names.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Removes the blobs that entries of `before` lead to and those of `after` do not.
pub(super) fn sweep(folder: &Path, before: &[Descriptor], after: &[Descriptor]) {
    let is_kept = |root: &&Descriptor| after.iter().any(|kept| kept.digest == root.digest);
    let replaced: Vec<&Descriptor> = before.iter().filter(|root| !is_kept(root)).collect();
    if replaced.is_empty() {
        return;
    }
    let (Ok(needed), Ok(old)) = (reach(folder, after), reach(folder, replaced)) else { return };
    for digest in old.difference(&needed) {
        // What stays only takes space.
        let _ = fs::remove_file(place(folder, digest));
    }
}

fn place(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs/sha256").join(digest.hex())
}

/// All blobs that roots lead to, themselves included.
fn reach<'a>(
    folder: &Path,
    roots: impl IntoIterator<Item = &'a Descriptor>,
) -> io::Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::new();
    let mut pending: VecDeque<Digest> = roots.into_iter().map(|root| root.digest).collect();
    while let Some(digest) = pending.pop_front() {
        if !found.insert(digest) {
            continue;
        }
        let mut json = Vec::new();
        File::open(place(folder, &digest))?.take(MAX_DOCUMENT).read_to_end(&mut json)?;
        let document: Document = serde_json::from_slice(&json)?;
        pending.extend(document.manifests.iter().map(|manifest| manifest.digest));
        found.extend(document.config.iter().chain(&document.layers).map(|blob| blob.digest));
    }
    Ok(found)
}
