//! What the end-to-end tests share: a state folder of their own, images made on the spot, and a
//! look into what came out.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod image;
mod listener;
pub mod output;
pub mod proxy;
pub mod registry;
pub mod repository;
pub mod scripted;
pub mod server;
pub mod terminal;
pub mod token_server;
pub mod toolchain;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A work folder with a state folder in it; removed when dropped.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// What a run of rbc gave.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub stdout_bytes: Vec<u8>,
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A bench whose store holds `busybox:latest`.
    pub fn with_busybox() -> Self {
        let bench = Self::new();
        bench.load(&image::busybox(), "busybox:latest");
        bench
    }

    /// A path in the work folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The state folder.
    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file, making its parents.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
        fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// rbc with this state folder, in the work folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbc"));
        command.current_dir(self.dir.path()).env("RBC_ROOT", self.root());
        command
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("RBC_CONFIG")
            .env_remove("CONTAINERS_REGISTRIES_CONF")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs rbc with arguments split at white space.
    pub fn rbc(&self, arguments: &str) -> Run {
        self.rbc_args(arguments.split_whitespace())
    }

    pub fn rbc_args<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let output = self.command().args(arguments).output().expect("rbc starts");
        Run::from(output)
    }

    /// Puts an image into the store under a name.
    pub fn load(&self, image: &image::Image, name: &str) {
        let file = self.path("image-to-load.tar");
        image.write_oci(&file, name);
        self.rbc_args([OsStr::new("load"), OsStr::new("--input"), file.as_os_str()]).ok();
        fs::remove_file(file).expect("the archive is there");
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stdout_bytes: output.stdout,
        }
    }
}

impl Run {
    /// The run must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The run must have failed with a code, without a crash, and said something.
    #[track_caller]
    pub fn fails(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert!(self.stderr.contains(says), "wanted {says:?} in:\n{}", self.stderr);
        self
    }

    /// How many steps were reported as taken from the cache.
    pub fn cached(&self) -> usize {
        self.stderr.lines().filter(|line| line.ends_with(" CACHED")).count()
    }

    /// How many steps were reported as executed, exports not counted.
    pub fn done(&self) -> usize {
        let lines = || self.stderr.lines().filter(|line| line.starts_with('#'));
        let is_export =
            |number: &str| lines().any(|l| l.starts_with(&format!("{number} exporting ")));
        lines()
            .filter_map(|line| line.split_once(" DONE "))
            .filter(|(number, _)| !is_export(number))
            .count()
    }
}

/// Fails with the name of the Debian package that has a missing program.
#[track_caller]
pub fn need(program: &str, package: &str) {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    assert!(found, "this test needs {program}: install Debian's package {package}");
}
