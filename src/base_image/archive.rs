//! The image as an OCI layout tar that `rbc load` takes. Nothing in it but the files themselves
//! comes from this machine or from now: the same programs give the same bytes.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use rbc_ir::{ContainerConfig, Digest, History, ImageConfig, Platform};
use rbc_runtime::layer::DEFAULT_EPOCH;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::tree::{Node, Tree};

/// [`DEFAULT_EPOCH`] as images say it.
const CREATED: &str = "1980-02-01T00:00:00Z";

/// Writes the image `name` with these files to `archive`.
pub fn write(tree: &Tree, path: &str, name: &str, archive: &Path) -> anyhow::Result<()> {
    let layer = layer(tree)?;
    let platform = Platform::host();
    let config = ImageConfig {
        config: ContainerConfig {
            env: vec![format!("PATH={path}")],
            cmd: Some(vec!["sh".to_owned()]),
            ..ContainerConfig::default()
        },
        history: vec![History { created_by: "rbc base-image".to_owned(), ..History::default() }],
        ..ImageConfig::default()
    };
    let config = config.to_json(&platform, CREATED, &[Digest::of(&layer).to_string()]);
    let manifest = document(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }));
    let mut image = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    image["annotations"] = json!({ "io.containerd.image.name": name });
    image["platform"] = json!({ "architecture": platform.architecture, "os": platform.os });
    if !platform.variant.is_empty() {
        image["platform"]["variant"] = platform.variant.into();
    }
    let index = document(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [image],
    }));

    let failed = || format!("cannot write {}", archive.display());
    let file = BufWriter::new(File::create(archive).with_context(failed)?);
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        (blob_name(&manifest), manifest),
        (blob_name(&config), config),
        (blob_name(&layer), layer),
    ];
    files.sort_unstable();
    let write_all = || -> io::Result<()> {
        let mut tar = Builder::new(file);
        for dir in ["blobs/", "blobs/sha256/"] {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), dir, io::empty())?;
        }
        for (name, bytes) in &files {
            append(&mut tar, name.as_ref(), bytes, 0o644)?;
        }
        tar.into_inner()?.flush()
    };
    write_all().with_context(failed)
}

/// The layer, which small images can afford to hold in memory.
fn layer(tree: &Tree) -> anyhow::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, node) in tree.nodes() {
        let failed = || format!("cannot pack {}", path.display());
        let inside = path.strip_prefix("/").unwrap_or(path);
        match node {
            Node::Dir(mode) => {
                let head = &mut header(EntryType::Directory, *mode, 0);
                tar.append_data(head, inside.join(""), io::empty()).with_context(failed)?;
            }
            Node::Link(target) => {
                let head = &mut header(EntryType::Symlink, 0o777, 0);
                tar.append_link(head, inside, target).with_context(failed)?;
            }
            Node::Copy(host, mode) => {
                let bytes =
                    fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
                append(&mut tar, inside, &bytes, *mode).with_context(failed)?;
            }
            Node::Text(text) => {
                append(&mut tar, inside, text.as_bytes(), 0o644).with_context(failed)?;
            }
        }
    }
    tar.into_inner().context("cannot finish the layer")
}

fn append(tar: &mut Builder<impl Write>, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, mode, bytes.len() as u64), path, bytes)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(DEFAULT_EPOCH.unsigned_abs());
    header.set_size(size);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    })
}

fn document(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}
