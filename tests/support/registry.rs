//! Debian's docker-registry on loopback, open, with passwords, or with TLS.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::need;

/// The user of a registry with passwords.
pub const USER: &str = "user";
/// The password of [`USER`].
pub const PASSWORD: &str = "secret";
/// A line of htpasswd for them, bcrypt.
const HTPASSWD: &str = "user:$2b$04$967rjOi7HvBQQCehqq1ZoelvPYi53Mkxk2CPCB2otd5xIq8eaphhu\n";

/// A registry on a free port; ended when dropped.
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    dir: tempfile::TempDir,
}

/// What a registry is to be like.
#[derive(Default)]
pub struct RegistryOptions {
    /// Whether it wants [`USER`] and [`PASSWORD`].
    pub passwords: bool,
    /// Its certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The authority that clients' certificates must be from.
    pub client_authority: Option<PathBuf>,
    /// Further lines of its configuration.
    pub more: String,
}

impl Registry {
    pub fn start() -> Self {
        Self::with(&RegistryOptions::default())
    }

    pub fn with(options: &RegistryOptions) -> Self {
        need("docker-registry", "docker-registry");
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
            let host = free.unwrap().to_string();
            let config = write_config(dir.path(), &host, options);
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) {
                if std::net::TcpStream::connect(&host).is_ok() {
                    return Self { child, host, dir };
                }
                if child.try_wait().unwrap().is_some() {
                    // Somebody else took the port.
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// Where it keeps everything.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Puts an OCI archive's only image into the registry with skopeo.
    pub fn push(&self, archive: &Path, name: &str) {
        need("skopeo", "skopeo");
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"])
            .args(["--dest-creds", &format!("{USER}:{PASSWORD}")])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{}/{name}", self.host))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(dir: &Path, host: &str, options: &RegistryOptions) -> PathBuf {
    let mut text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
         \x20 delete:\n    enabled: true\n",
        dir.join("data").display()
    );
    text.push_str(&format!("http:\n  addr: {host}\n"));
    if let Some((certificate, key)) = &options.tls {
        let (certificate, key) = (certificate.display(), key.display());
        text.push_str(&format!("  tls:\n    certificate: {certificate}\n    key: {key}\n"));
        if let Some(authority) = &options.client_authority {
            text.push_str(&format!("    clientcas:\n      - {}\n", authority.display()));
        }
    }
    if options.passwords {
        let file = dir.join("htpasswd");
        fs::write(&file, HTPASSWD).unwrap();
        text.push_str(&format!(
            "auth:\n  htpasswd:\n    realm: here\n    path: {}\n",
            file.display()
        ));
    }
    text.push_str(&options.more);
    let path = dir.join("config.yml");
    fs::write(&path, text).unwrap();
    path
}
