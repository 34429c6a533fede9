//! Git repositories made on the spot, and a server for them.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A repository with a work tree.
pub struct Repository {
    pub path: PathBuf,
}

impl Repository {
    /// A new one on the branch `main`.
    pub fn new(path: PathBuf) -> Self {
        super::need("git", "git");
        fs::create_dir_all(&path).unwrap();
        let repository = Self { path };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    /// Runs git in it and gives what it prints.
    pub fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.org"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments);
        let output = command.output().expect("git starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, name: &str, content: &str) -> &Self {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Commits all there is and gives the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        // For servers that know nothing of git.
        self.git(&["update-server-info"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A git server for the repositories below a folder; it ends when dropped.
pub struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    pub fn start(folder: &Path) -> Self {
        super::need("git", "git");
        let exec_path = Command::new("git").arg("--exec-path").output().expect("git starts");
        let program =
            PathBuf::from(String::from_utf8(exec_path.stdout).unwrap().trim()).join("git-daemon");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", folder.display()))
            .arg(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs git-daemon: install Debian's package git");
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Self { process, port }
    }

    pub fn url(&self, path: &str) -> String {
        format!("git://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
