//! What a build reads: the Dockerfile, the build context, its ignore file.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rbc_compiler::{ignore, syntax::SourceFile};
use rbc_ir::ContextMeta;
use rbc_runtime::{
    archive,
    store::{Store, TmpDir},
};

use crate::remote::{self, Fetched, Kind};

/// No Dockerfile is larger; more is a mistake.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// What a Dockerfile from standard input is called.
const STDIN: &str = "<standard input>";

/// A Dockerfile with its context.
pub struct Inputs {
    pub dockerfile: Arc<SourceFile>,
    /// The context's folder.
    pub context: PathBuf,
    /// What the context leaves out.
    pub ignore: Option<IgnoreFile>,
    /// Holds a context that was made for this build.
    _made: Option<TmpDir>,
}

/// A file that says what a context leaves out.
pub struct IgnoreFile {
    pub path: PathBuf,
    pub patterns: Vec<ignore::Pattern>,
}

impl IgnoreFile {
    /// Reads an ignore file; `None` if there is none.
    pub fn read(path: impl Into<PathBuf>) -> Result<Option<Self>> {
        let path = path.into();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => bail!("cannot read {}: {e}", path.display()),
        };
        let patterns =
            ignore::read(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(Self { path, patterns }))
    }

    /// The texts of its patterns.
    pub fn texts(&self) -> Vec<String> {
        self.patterns.iter().map(|pattern| pattern.text.clone()).collect()
    }

    /// What the graph says of it.
    pub fn meta(&self) -> ContextMeta {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ContextMeta { ignore: self.texts(), ignore_file: name }
    }

    /// The place of a pattern, for messages.
    pub fn place(&self, text: &str) -> Option<String> {
        let pattern = self.patterns.iter().rfind(|pattern| pattern.text == text)?;
        Some(format!("line {} of {}", pattern.line, self.path.display()))
    }
}

/// Where a build's inputs are, as given on the command line.
pub struct Place<'a> {
    /// A folder, an address, or `-` for standard input.
    pub context: &'a str,
    /// The Dockerfile, or `-`. In a context that is not a folder of this machine it is a path in
    /// the context.
    pub file: Option<&'a str>,
    /// The ssh agent for a context that is a git repository.
    pub agent: Option<&'a Path>,
    /// `NAME=VALUE` of `--build-arg`.
    pub build_args: &'a [String],
}

impl Inputs {
    /// Reads the Dockerfile and finds the context, fetching it if it is elsewhere.
    pub fn read(store: &Store, place: &Place<'_>) -> Result<Self> {
        let &Place { context, agent, file, build_args } = place;
        if context == "-" {
            return Self::from_stdin(store, file);
        }
        let folder = PathBuf::from(context);
        match (fs::metadata(&folder), remote::address(context)?) {
            (Ok(facts), _) if facts.is_dir() => {}
            (_, Some(address)) => {
                return Self::fetched(remote::fetch(store, &address, build_args, agent)?, file);
            }
            (Ok(_), None) => bail!("the build context {context:?} is not a folder"),
            (Err(e), None) => bail!("cannot read the build context {context:?}: {e}"),
        }
        if file == Some("-") {
            let dockerfile = SourceFile::new(STDIN, read_stdin()?);
            let ignore = IgnoreFile::read(folder.join(".dockerignore"))?;
            return Ok(Self::new(dockerfile, folder, ignore, None));
        }
        let path = match file {
            Some(file) => PathBuf::from(file),
            None => ["Dockerfile", "dockerfile"]
                .map(|name| folder.join(name))
                .into_iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| folder.join("Dockerfile")),
        };
        let dockerfile = SourceFile::new(path.to_string_lossy(), read_dockerfile(&path)?);
        let mut own = path.into_os_string();
        own.push(".dockerignore");
        let ignore = match IgnoreFile::read(own)? {
            Some(ignore) => Some(ignore),
            None => IgnoreFile::read(folder.join(".dockerignore"))?,
        };
        Ok(Self::new(dockerfile, folder, ignore, None))
    }

    fn new(
        dockerfile: SourceFile,
        context: PathBuf,
        ignore: Option<IgnoreFile>,
        made: Option<TmpDir>,
    ) -> Self {
        Self { dockerfile: Arc::new(dockerfile), context, ignore, _made: made }
    }

    /// A context that was not a folder of this machine. Nothing of it is ignored, as in BuildKit:
    /// an ignore file is for what is sent, and this has arrived.
    fn fetched(fetched: Fetched, file: Option<&str>) -> Result<Self> {
        let dockerfile = match (fetched.kind, file) {
            (Kind::Dockerfile, _) => {
                let bytes = read_dockerfile(&fetched.file())?;
                SourceFile::new("Dockerfile", bytes)
            }
            (Kind::Folder, Some("-")) => SourceFile::new(STDIN, read_stdin()?),
            (Kind::Folder, _) => dockerfile_within(&fetched.folder, file)?,
        };
        Ok(Self::new(dockerfile, fetched.folder, None, Some(fetched.dir)))
    }

    /// Standard input is an archive with the context, or else a Dockerfile without one.
    fn from_stdin(store: &Store, file: Option<&str>) -> Result<Self> {
        if io::stdin().is_terminal() {
            bail!(
                "the context \"-\" is standard input, which is a terminal: pipe a Dockerfile or a tar into it"
            );
        }
        let dir = store.tmp_dir()?;
        let place = dir.path().join("stdin");
        let mut kept = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&place)
            .with_context(|| format!("cannot write {}", place.display()))?;
        io::copy(&mut io::stdin().lock(), &mut kept).context("cannot read standard input")?;
        let folder = dir.path().join("context");
        if archive::is_archive(&mut kept).context("cannot read standard input")? {
            remote::unpack(&place, &folder).context("standard input")?;
            return Self::fetched(Fetched { dir, folder, kind: Kind::Folder }, file);
        }
        if let Some(file) = file {
            bail!("standard input is no archive, so there is no {file} in it");
        }
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        kept.rewind().context("cannot read standard input")?;
        let mut bytes = Vec::new();
        kept.take(MAX_DOCKERFILE).read_to_end(&mut bytes).context("cannot read standard input")?;
        Ok(Self::new(SourceFile::new(STDIN, bytes), folder, None, Some(dir)))
    }
}

/// Reads the Dockerfile of a context that came from elsewhere, whose links must not lead out of it.
fn dockerfile_within(context: &Path, file: Option<&str>) -> Result<SourceFile> {
    let name = match file {
        Some(file) => file,
        // As in a folder of this machine.
        None if context.join("Dockerfile").exists() => "Dockerfile",
        None if context.join("dockerfile").exists() => "dockerfile",
        None => "Dockerfile",
    };
    let missing = || format!("cannot read the Dockerfile {name} in the build context");
    let path = context.join(name.trim_start_matches('/')).canonicalize().with_context(missing)?;
    let root = context.canonicalize().with_context(missing)?;
    if !path.starts_with(&root) {
        bail!("the Dockerfile {name} is outside of the build context");
    }
    Ok(SourceFile::new(name, read_dockerfile(&path)?))
}

/// Reads a Dockerfile from a path as given, or standard input.
pub fn read_dockerfile(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)
        .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?;
    file.take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        bail!("{} is larger than {MAX_DOCKERFILE} bytes: is it a Dockerfile?", path.display());
    }
    Ok(bytes)
}

pub fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_DOCKERFILE)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    Ok(bytes)
}

/// Writes a file whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    // A pipe or device cannot be replaced by a rename.
    if fs::metadata(path).is_ok_and(|facts| !facts.is_file()) {
        return fs::write(path, bytes).with_context(what);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(what)?;
    staged.write_all(bytes).with_context(what)?;
    staged.persist(path).with_context(what)?;
    Ok(())
}
