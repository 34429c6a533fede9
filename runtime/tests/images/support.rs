//! Sample images, other people's tools, and a registry on loopback.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rbc_ir::{Digest, ImageConfig, Platform};
use rbc_runtime::{
    image::{Descriptor, Index, Manifest, PlatformJson, media_type},
    store::Store,
};
use tempfile::TempDir;

/// A temporary folder with a state folder in it.
pub struct Place {
    dir: TempDir,
    pub store: Store,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(&dir.path().join("state")).expect("state folder");
        Self { dir, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Goes on as another process, which holds nothing.
    pub fn reopen(&mut self) {
        self.store = Store::open(&self.dir.path().join("state")).expect("state folder");
    }
}

/// Runs a tool to its end and gives what it printed; fails the test if it fails.
pub fn run(tool: &str, package: &str, args: &[&str]) -> String {
    let output = Command::new(tool).args(args).output().unwrap_or_else(|error| {
        panic!("{tool} cannot be run ({error}): apt-get install {package}")
    });
    assert!(
        output.status.success(),
        "{tool} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn skopeo(args: &[&str]) -> String {
    run("skopeo", "skopeo", &[&["--insecure-policy"], args].concat())
}

/// A tar with the given files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
        }
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, *content).expect("append");
    }
    builder.into_inner().expect("finish")
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("compress");
    encoder.finish().expect("compress")
}

/// An OCI layout folder in the making.
pub struct LayoutDir {
    pub path: PathBuf,
    roots: Vec<Descriptor>,
}

impl LayoutDir {
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).expect("mkdir");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        Self { path, roots: Vec::new() }
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    pub fn blob(&self, media_type: &str, data: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, data);
        fs::write(self.blob_path(&descriptor.digest), data).expect("write");
        descriptor
    }

    /// An image of gzip layers.
    pub fn image(&self, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
        let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
        self.image_with(platform, layers, &diff_ids)
    }

    /// An image whose config has the given diff IDs.
    pub fn image_with(
        &self,
        platform: &str,
        layers: &[Vec<u8>],
        diff_ids: &[String],
    ) -> Descriptor {
        let platform: Platform = platform.parse().expect("platform");
        let mut config = ImageConfig::default();
        config.config.env.push("A=b".to_owned());
        let config = config.to_json(&platform, "2001-02-03T04:05:06Z", diff_ids);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: self.blob(media_type::CONFIG, &config),
            layers: layers.iter().map(|l| self.blob(media_type::LAYER_GZIP, &gzip(l))).collect(),
            annotations: None,
        };
        let bytes = serde_json::to_vec(&manifest).expect("manifest");
        Descriptor {
            platform: Some(PlatformJson::from(&platform)),
            ..self.blob(media_type::MANIFEST, &bytes)
        }
    }

    pub fn index(&self, manifests: Vec<Descriptor>) -> Descriptor {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: None,
        };
        self.blob(media_type::INDEX, &serde_json::to_vec(&index).expect("index"))
    }

    /// Lists an image, with a name if one is given, and writes `index.json`.
    pub fn list(&mut self, mut root: Descriptor, name: Option<&str>) {
        root.annotations = name.map(|name| {
            [("io.containerd.image.name".to_owned(), name.to_owned())].into_iter().collect()
        });
        self.roots.push(root);
        let index = Index {
            schema_version: 2,
            media_type: None,
            manifests: self.roots.clone(),
            annotations: None,
        };
        let json = serde_json::to_vec(&index).expect("index");
        fs::write(self.path.join("index.json"), json).expect("write");
    }

    /// A small named image for the host, in a folder of its own.
    pub fn sample(path: PathBuf, name: &str) -> Self {
        let mut layout = Self::new(path);
        let layers = [
            tar_of(&[("etc/", b""), ("etc/motd", b"hello\n"), ("gone", b"x")]),
            tar_of(&[("etc/.wh.none", b""), (".wh.gone", b""), ("new", b"new\n")]),
        ];
        let image = layout.image(&Platform::host().to_string(), &layers);
        layout.list(image, Some(name));
        layout
    }

    /// Packs the folder as a tar.
    pub fn pack(&self, to: &Path) {
        let mut builder = tar::Builder::new(fs::File::create(to).expect("create"));
        builder.append_dir_all(".", &self.path).expect("append");
        builder.into_inner().expect("finish");
    }
}

/// Debian's registry on a free port of 127.0.0.1; ends with the value.
pub struct Registry {
    child: Child,
    pub host: String,
    _dir: TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// A registry that speaks HTTPS, and its certificate, which is its own authority.
    pub fn start_tls(certificate: &Path) -> Self {
        let (certificate, key) =
            (certificate.display().to_string(), certificate.with_extension("key"));
        let key = key.display().to_string();
        let args = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test \
                    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let mut args: Vec<&str> = args.split_whitespace().collect();
        args.extend(["-keyout", &key, "-out", &certificate]);
        run("openssl", "openssl", &args);
        Self::start_with(&format!("  tls:\n    certificate: {certificate}\n    key: {key}\n"))
    }

    fn start_with(http: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            let host = free.expect("a free port").to_string();
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: \
                 {}\nhttp:\n  addr: {host}\n{http}",
                dir.path().join("data").display()
            );
            fs::write(&config, text).expect("write");
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| {
                    panic!(
                        "docker-registry cannot be run ({error}): apt-get install docker-registry"
                    )
                });
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) {
                if std::net::TcpStream::connect(&host).is_ok() {
                    return Self { child, host, _dir: dir };
                }
                if child.try_wait().expect("wait").is_some() {
                    // Somebody else took the port.
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// Puts a layout's only image into the registry.
    pub fn push(&self, layout: &Path, name: &str) {
        let from = format!("oci:{}", layout.display());
        let to = format!("docker://{}/{name}", self.host);
        skopeo(&["copy", "--all", "--dest-tls-verify=false", &from, &to]);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
