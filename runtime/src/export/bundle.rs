//! The files of an image archive, sorted and written as a tar or a folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    panic,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rbc_ir::Digest;
use serde::Serialize;
use sha2::Digest as _;

use super::{Dest, ExportError, OutputSpec, Sink, dest::write_file, garbage, spec::Packaging};
use crate::{
    image::{
        ANNOTATION_CREATED, ANNOTATION_NAME, ANNOTATION_REF, Descriptor, Index, Reference,
        media_type,
    },
    store::{Store, StoreError},
};

/// Files of an OCI layout, and of a Docker archive if asked for.
#[derive(Default)]
pub(crate) struct Bundle {
    /// Small blobs that are at hand.
    documents: BTreeMap<Digest, Vec<u8>>,
    /// Blobs of the store, with their sizes.
    blobs: BTreeMap<Digest, u64>,
    /// Entries of `index.json`.
    roots: Vec<Descriptor>,
    /// Lines of `manifest.json`.
    saved: Vec<Saved>,
    /// Whether there is a `manifest.json`.
    is_docker: bool,
    /// Whether a folder loses the blobs of what is replaced in it.
    sweeps: bool,
}

/// The names of an image in an archive.
pub(crate) struct Naming {
    /// Its names; may be empty.
    pub(crate) names: Vec<Reference>,
    /// Its time, RFC 3339; empty if unknown.
    pub(crate) created: String,
}

/// One image of a `docker save` archive.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

enum Content<'a> {
    Bytes(&'a [u8]),
    Blob(Digest, u64),
}

impl Bundle {
    /// Adds a manifest, index or config.
    pub(crate) fn add_document(&mut self, bytes: Vec<u8>) {
        self.documents.insert(Digest::of(&bytes), bytes);
    }

    /// Adds a blob of the store.
    pub(crate) fn add_blob(&mut self, digest: Digest, size: u64) {
        self.blobs.insert(digest, size);
    }

    /// Lists an image in `index.json`, once for each name.
    pub(crate) fn add_root(&mut self, root: &Descriptor, naming: &Naming) {
        let annotated = |name: Option<&Reference>| {
            let mut annotations = root.annotations.clone().unwrap_or_default();
            let mut set = |key: &str, value: String| annotations.insert(key.to_owned(), value);
            if !naming.created.is_empty() {
                set(ANNOTATION_CREATED, naming.created.clone());
            }
            if let Some(name) = name {
                set(ANNOTATION_NAME, name.to_string());
                if let Some(tag) = name.tag() {
                    set(ANNOTATION_REF, tag.to_owned());
                }
            }
            Descriptor { annotations: Some(annotations), ..root.clone() }
        };
        if naming.names.is_empty() {
            self.roots.push(annotated(None));
        }
        self.roots.extend(naming.names.iter().map(|name| annotated(Some(name))));
    }

    /// Lists an image in `manifest.json`.
    pub(crate) fn add_saved(&mut self, config: &Digest, layers: &[Descriptor], naming: &Naming) {
        let tags: Vec<String> = naming.names.iter().map(Reference::familiar).collect();
        self.saved.push(Saved {
            config: blob_name(config),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        });
    }

    /// Makes it a Docker archive too.
    pub(crate) fn add_docker_manifest(&mut self) {
        self.is_docker = true;
    }

    /// Lets a folder lose the blobs that only what is replaced in it has needed.
    pub(crate) fn sweep_folder(&mut self) {
        self.sweeps = true;
    }

    /// Writes it where `output` says. `progress` is told bytes written and bytes in all.
    pub(crate) fn write(
        &self,
        store: &Store,
        output: &OutputSpec,
        progress: &dyn Fn(u64, u64) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        match (output.packaging, &output.dest) {
            (Packaging::Folder, Dest::Path(path)) => self.write_folder(store, path, progress),
            (Packaging::Folder, Dest::Stdout) => Err(ExportError::FolderToStdout),
            (Packaging::Tar, dest) => Sink::write(dest, |out| self.write_tar(store, out, progress)),
        }
    }

    /// Writes a tar: sorted entries, no owner, time 0.
    pub(crate) fn write_tar(
        &self,
        store: &Store,
        out: &mut dyn Write,
        progress: &dyn Fn(u64, u64) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let failed = |source| ExportError::write("the archive")(source);
        let index = index_json(self.entries(&[]));
        let saved = self.saved_json();
        let mut files = self.blob_files();
        let mut extra = |name: &str, bytes| files.insert(name.to_owned(), Content::Bytes(bytes));
        extra("index.json", &index);
        extra("oci-layout", OCI_LAYOUT);
        if let Some(saved) = &saved {
            extra("manifest.json", saved);
        }
        let total = files.values().map(Content::size).sum();
        for folder in ["blobs/", "blobs/sha256/"] {
            out.write_all(header(folder, tar::EntryType::Directory, 0, 0o755).as_bytes())
                .map_err(failed)?;
        }
        let mut done = 0;
        for (name, content) in &files {
            let size = content.size();
            out.write_all(header(name, tar::EntryType::Regular, size, 0o644).as_bytes())
                .map_err(failed)?;
            content.copy_to(store, out, &mut |bytes| {
                done += bytes;
                progress(done, total)
            })?;
            let padding = size.next_multiple_of(512) - size;
            out.write_all(&[0; 512][..padding as usize]).map_err(failed)?;
        }
        out.write_all(&[0; 1024]).map_err(failed)
    }

    /// Writes a layout folder. Images under other names that are in it already stay; `index.json`
    /// is replaced last.
    fn write_folder(
        &self,
        store: &Store,
        path: &Path,
        progress: &dyn Fn(u64, u64) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(ExportError::write(&blobs))?;
        // Others who write to the folder wait, so that no entry is lost. Not every disk has locks.
        let alone = fs::File::open(path).ok();
        let _ = alone.as_ref().map(fs::File::lock);
        let files = self.blob_files();
        let total = files.values().map(Content::size).sum();
        let mut done = 0;
        for (name, content) in &files {
            let place = path.join(name);
            if fs::metadata(&place).is_ok_and(|m| m.is_file() && m.len() == content.size()) {
                done += content.size();
                progress(done, total)?;
                continue;
            }
            write_file(&place, |out| {
                content.copy_to(store, out, &mut |bytes| {
                    done += bytes;
                    progress(done, total)
                })
            })?;
        }
        let index_path = path.join("index.json");
        let before = match fs::read(&index_path) {
            Ok(json) => {
                serde_json::from_slice::<Index>(&json)
                    .map_err(|e| ExportError::write(&index_path)(e.into()))?
                    .manifests
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(ExportError::write(&index_path)(e)),
        };
        let mut documents = vec![("oci-layout", OCI_LAYOUT.to_vec())];
        documents.extend(self.saved_json().map(|json| ("manifest.json", json)));
        let after = self.entries(&before);
        documents.push(("index.json", index_json(after.clone())));
        for (name, bytes) in documents {
            let place = path.join(name);
            write_file(&place, |out| out.write_all(&bytes).map_err(ExportError::write(&place)))?;
        }
        if self.sweeps {
            garbage::sweep(path, &before, &after);
        }
        Ok(())
    }

    fn blob_files(&self) -> BTreeMap<String, Content<'_>> {
        let documents = self
            .documents
            .iter()
            .map(|(digest, bytes)| (blob_name(digest), Content::Bytes(bytes.as_slice())));
        self.blobs
            .iter()
            .map(|(digest, size)| (blob_name(digest), Content::Blob(*digest, *size)))
            .chain(documents)
            .collect()
    }

    /// The entries of `index.json`: ours, and before them those of `before` that ours do not replace.
    fn entries(&self, before: &[Descriptor]) -> Vec<Descriptor> {
        // What is no image has a tag alone.
        let name = |root: &Descriptor| {
            let name = root.annotation(ANNOTATION_NAME).or_else(|| root.annotation(ANNOTATION_REF));
            name.map(str::to_owned)
        };
        let ours: BTreeSet<Option<String>> = self.roots.iter().map(name).collect();
        let kept = before.iter().filter(|other| !ours.contains(&name(other)));
        kept.chain(&self.roots).cloned().collect()
    }

    fn saved_json(&self) -> Option<Vec<u8>> {
        self.is_docker.then(|| to_json(&self.saved))
    }
}

fn index_json(manifests: Vec<Descriptor>) -> Vec<u8> {
    to_json(&Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests,
        annotations: None,
    })
}

/// The file `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// JSON of a document whose keys are all strings, which cannot fail.
pub(crate) fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("a document of strings and numbers serialises")
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(name: &str, kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let field = &mut header.as_old_mut().name;
    // Names are ours and at most 77 bytes long.
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

impl Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(_, size) => *size,
        }
    }

    /// Copies the content. A blob's digest is checked meanwhile, by another thread if it is large.
    fn copy_to(
        &self,
        store: &Store,
        out: &mut dyn Write,
        moved: &mut dyn FnMut(u64) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let failed = |source| ExportError::write("the archive")(source);
        let (digest, size) = match self {
            Self::Bytes(bytes) => {
                moved(bytes.len() as u64)?;
                return out.write_all(bytes).map_err(failed);
            }
            Self::Blob(digest, size) => (digest, *size),
        };
        let verdict = |hash: sha2::Sha256, read| match Digest::from_bytes(hash.finalize().into()) {
            got if got == *digest && read == size => Ok(()),
            got => Err(ExportError::Damaged { want: *digest, got }),
        };
        let mut copy = |also: &mut dyn FnMut(&[u8])| {
            each_piece(store, digest, size, &mut |piece| {
                also(piece);
                out.write_all(piece).map_err(failed)?;
                moved(piece.len() as u64)
            })
        };
        let failed_already = AtomicBool::new(false);
        let check = || -> Result<(), ExportError> {
            let mut hash = sha2::Sha256::new();
            let read = each_piece(store, digest, size, &mut |piece| {
                hash.update(piece);
                match failed_already.load(Ordering::Relaxed) {
                    true => Err(ExportError::Stopped),
                    false => Ok(()),
                }
            })?;
            verdict(hash, read)
        };
        thread::scope(|scope| {
            // There may be no more threads.
            let checked = (size >= LARGE)
                .then(|| thread::Builder::new().spawn_scoped(scope, check).ok())
                .flatten();
            let Some(checked) = checked else {
                let mut hash = sha2::Sha256::new();
                let read = copy(&mut |piece| hash.update(piece))?;
                return verdict(hash, read);
            };
            let copied = copy(&mut |_| {});
            failed_already.store(copied.is_err(), Ordering::Relaxed);
            let checked = checked.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            copied.and(checked)
        })
    }
}

/// Blobs from this size on are copied by one thread and checked by another.
const LARGE: u64 = 1 << 20;

/// Reads a blob, but no more than `size` bytes. Gives how many there were.
fn each_piece(
    store: &Store,
    digest: &Digest,
    size: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ExportError>,
) -> Result<u64, ExportError> {
    let path = store.blobs().path(digest);
    let mut input = store.blobs().open(digest)?.take(size);
    let mut buffer = vec![0; 256 << 10];
    let mut read = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(read),
            Ok(n) => {
                take(&buffer[..n])?;
                read += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StoreError::io("cannot read", &path)(e).into()),
        }
    }
}
