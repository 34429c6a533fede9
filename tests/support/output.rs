//! Reads what rbc wrote: OCI layout tars.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use super::image::sha256;

/// An image read from an OCI layout tar, every digest of which was checked.
pub struct Oci {
    pub manifest: serde_json::Value,
    pub config: serde_json::Value,
    /// For each layer its entries: path to kind, mode, owner and content.
    pub layers: Vec<BTreeMap<String, Entry>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: tar::EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: Option<String>,
    pub data: Vec<u8>,
}

impl Oci {
    pub fn read(path: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(File::open(path).expect("the archive"));
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("a tar entry");
            let name = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("a whole entry");
            files.insert(name, data);
        }
        let blob = |digest: &str| -> &Vec<u8> {
            let data = files
                .get(&format!("blobs/{}", digest.replace(':', "/")))
                .unwrap_or_else(|| panic!("no blob {digest}"));
            assert_eq!(format!("sha256:{}", sha256(data)), digest);
            data
        };
        let json =
            |data: &[u8]| -> serde_json::Value { serde_json::from_slice(data).expect("JSON") };
        let digest_of = |descriptor: &serde_json::Value| {
            descriptor["digest"].as_str().expect("a digest").to_owned()
        };
        let index = json(&files["index.json"]);
        let mut manifest = json(blob(&digest_of(&index["manifests"][0])));
        while manifest.get("manifests").is_some() {
            manifest = json(blob(&digest_of(&manifest["manifests"][0])));
        }
        let config = json(blob(&digest_of(&manifest["config"])));
        let layers = manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .zip(config["rootfs"]["diff_ids"].as_array().expect("diff IDs"))
            .map(|(layer, diff_id)| {
                let mut data = blob(&digest_of(layer)).clone();
                if data.starts_with(&[0x1f, 0x8b]) {
                    data = gunzip(&data);
                }
                assert_eq!(
                    format!("sha256:{}", sha256(&data)),
                    diff_id.as_str().expect("a digest")
                );
                entries(&data)
            })
            .collect();
        Self { manifest, config, layers }
    }

    /// The files of all layers, whiteouts applied.
    pub fn files(&self) -> BTreeMap<String, Entry> {
        let mut files: BTreeMap<String, Entry> = BTreeMap::new();
        for layer in &self.layers {
            for path in layer.keys() {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                if name == ".wh..wh..opq" {
                    files.retain(|p, _| !p.starts_with(&format!("{parent}/")));
                } else if let Some(gone) = name.strip_prefix(".wh.") {
                    let gone = format!("{parent}/{gone}");
                    files.retain(|p, _| *p != gone && !p.starts_with(&format!("{gone}/")));
                }
            }
            for (path, entry) in layer {
                if !path.rsplit('/').next().unwrap_or("").starts_with(".wh.") {
                    files.insert(path.clone(), entry.clone());
                }
            }
        }
        files
    }

    /// The content of a file as text.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let files = self.files();
        let entry = files
            .get(path)
            .unwrap_or_else(|| panic!("no {path} in {:?}", files.keys().collect::<Vec<_>>()));
        String::from_utf8(entry.data.clone()).expect("UTF-8")
    }
}

fn entries(layer: &[u8]) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        let path = entry.path().expect("a path").to_str().expect("UTF-8").to_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("a whole entry");
        let header = entry.header();
        let link =
            entry.link_name().expect("a link").map(|l| l.to_str().expect("UTF-8").to_owned());
        found.insert(
            format!("/{}", path.trim_end_matches('/')),
            Entry {
                kind: header.entry_type(),
                mode: header.mode().expect("a mode"),
                uid: header.uid().expect("an owner"),
                gid: header.gid().expect("a group"),
                mtime: header.mtime().expect("a time"),
                link,
                data,
            },
        );
    }
    found
}

/// Unpacks through the machine's own gzip, which thereby vouches for the format.
fn gunzip(data: &[u8]) -> Vec<u8> {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip");
    let mut stdin = child.stdin.take().expect("a pipe");
    let data = data.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let output = child.wait_with_output().expect("gzip ends");
    writer.join().expect("the writer ends").expect("gzip reads all");
    assert!(output.status.success());
    output.stdout
}
