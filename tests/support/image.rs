//! Base images made on the spot from files of this machine.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// An image of one layer under construction. The layer is kept in a file: some are large.
pub struct Image {
    layer: PathBuf,
    _dir: tempfile::TempDir,
    pub config: serde_json::Value,
}

/// Collects the files of an image.
pub struct Maker {
    tar: tar::Builder<File>,
    dir: tempfile::TempDir,
    env: Vec<String>,
    cmd: Vec<String>,
}

pub fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}

impl Maker {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = File::create_new(dir.path().join("layer.tar")).expect("a new file");
        let mut tar = tar::Builder::new(file);
        tar.follow_symlinks(false);
        Self { tar, dir, env: Vec::new(), cmd: Vec::new() }
    }

    fn entry(&mut self, path: &str, mode: u32, kind: tar::EntryType) -> tar::Header {
        assert!(path.starts_with('/'), "{path}");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        let mut header = self.entry(path, mode, tar::EntryType::Directory);
        self.tar.append_data(&mut header, format!("{}/", &path[1..]), std::io::empty()).unwrap();
        self
    }

    pub fn file(mut self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        let mut header = self.entry(path, mode, tar::EntryType::Regular);
        header.set_size(data.as_ref().len() as u64);
        self.tar.append_data(&mut header, &path[1..], data.as_ref()).unwrap();
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = self.entry(path, 0o777, tar::EntryType::Symlink);
        self.tar.append_link(&mut header, &path[1..], target).unwrap();
        self
    }

    /// A file, symlink or folder with all below it, from `host` of this machine to `path`.
    pub fn host(mut self, host: &str, path: &str) -> Self {
        let mut pending = vec![(PathBuf::from(host), path.to_owned())];
        while let Some((host, path)) = pending.pop() {
            let facts = fs::symlink_metadata(&host).unwrap_or_else(|e| {
                panic!("{}: {e}: is its Debian package installed?", host.display())
            });
            if facts.is_dir() {
                self = self.dir(&path, facts.mode() & 0o7777);
                for entry in fs::read_dir(&host).expect("a readable folder") {
                    let entry = entry.expect("a readable folder");
                    let name = entry.file_name().into_string().expect("a UTF-8 name");
                    pending.push((entry.path(), format!("{path}/{name}")));
                }
            } else if facts.is_symlink() {
                let target = fs::read_link(&host).expect("a link");
                self = self.link(&path, target.to_str().expect("a UTF-8 link"));
            } else {
                let mut header =
                    self.entry(&path, facts.permissions().mode() & 0o7777, tar::EntryType::Regular);
                header.set_size(facts.len());
                let file = File::open(&host).expect("a readable file");
                self.tar.append_data(&mut header, &path[1..], file).unwrap();
            }
        }
        self
    }

    /// The machine's static busybox with all of its applets, and the usual folders.
    pub fn busybox(self) -> Self {
        let list = Command::new("/bin/busybox").arg("--list").output();
        let list =
            list.expect("this test needs /bin/busybox: install Debian's package busybox-static");
        let mut maker = self
            .dir("/bin", 0o755)
            .dir("/etc", 0o755)
            .dir("/root", 0o700)
            .dir("/tmp", 0o1777)
            .host("/bin/busybox", "/bin/busybox")
            .file(
                "/etc/passwd",
                0o644,
                "root:x:0:0:root:/root:/bin/sh\nmail:x:8:8:mail:/var/mail:/bin/sh\n",
            )
            .file("/etc/group", 0o644, "root:x:0:\nmail:x:8:\n");
        for applet in String::from_utf8(list.stdout).expect("names").lines() {
            if applet != "busybox" {
                maker = maker.link(&format!("/bin/{applet}"), "busybox");
            }
        }
        maker.env("PATH=/bin:/usr/bin:/usr/local/bin").cmd(["sh"])
    }

    pub fn env(mut self, variable: &str) -> Self {
        self.env.push(variable.to_owned());
        self
    }

    pub fn cmd<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.cmd = words.map(str::to_owned).to_vec();
        self
    }

    pub fn finish(mut self) -> Image {
        self.tar.finish().expect("a finished archive");
        let Self { tar, dir, env, cmd } = self;
        drop(tar);
        let layer = dir.path().join("layer.tar");
        let mut hash = Sha256::new();
        let mut file = File::open(&layer).expect("the layer");
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut buffer).expect("a readable layer");
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
        }
        let diff_id: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Env": env, "Cmd": cmd },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
            "history": [{ "created_by": "made on the spot" }],
        });
        Image { layer, _dir: dir, config }
    }
}

impl Image {
    /// SHA-256 of the layer, in hexadecimal.
    fn layer_hex(&self) -> String {
        let id = self.config["rootfs"]["diff_ids"][0].as_str().expect("a digest");
        id.trim_start_matches("sha256:").to_owned()
    }

    /// Writes the image as an OCI layout tar.
    pub fn write_oci(&self, path: &Path, name: &str) {
        let config = serde_json::to_vec(&self.config).expect("JSON");
        let layer = self.layer_hex();
        let size = fs::metadata(&self.layer).expect("the layer").len();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", sha256(&config)),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer}"),
                "size": size,
            }],
        }))
        .expect("JSON");
        let full_name = if name.contains('.') || name.starts_with("localhost") {
            name.to_owned()
        } else if name.contains('/') {
            format!("docker.io/{name}")
        } else {
            format!("docker.io/library/{name}")
        };
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", sha256(&manifest)),
                "size": manifest.len(),
                "annotations": {
                    "io.containerd.image.name": full_name,
                    "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |n| n.1),
                },
            }],
        }))
        .expect("JSON");
        let mut tar = tar::Builder::new(File::create(path).expect("a new archive"));
        add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        add(&mut tar, "index.json", &index);
        add(&mut tar, &format!("blobs/sha256/{}", sha256(&config)), &config);
        add(&mut tar, &format!("blobs/sha256/{}", sha256(&manifest)), &manifest);
        let mut file = File::open(&self.layer).expect("the layer");
        file.rewind().expect("a seekable file");
        tar.append_file(format!("blobs/sha256/{layer}"), &mut file).expect("a readable layer");
        tar.into_inner().expect("a finished archive").flush().expect("a written archive");
    }
}

/// Adds a small file to a tar.
pub fn add(tar: &mut tar::Builder<impl Write>, name: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, name, data).expect("a writable archive");
}

/// A tar with one file.
pub fn tar_of(name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, name, data);
    tar.into_inner().expect("a tar")
}

/// A busybox image like the one on Docker Hub.
pub fn busybox() -> Image {
    Maker::new().busybox().finish()
}
