//! What a build reads: the Dockerfile, the build context, its ignore file.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rbc_compiler::{ignore, syntax::SourceFile};
use rbc_ir::{ContextMeta, CopyAction, FileAction, FileOp};
use rbc_runtime::{
    archive, fileop,
    store::{Store, TmpDir},
    tree::{ContextTree, LayerStack, SourceTree},
};

/// No Dockerfile is larger; more is a mistake.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// A Dockerfile with its context.
pub struct Inputs {
    pub dockerfile: Arc<SourceFile>,
    /// The context's folder.
    pub context: PathBuf,
    /// What the ignore file hides.
    pub meta: ContextMeta,
    /// Holds a context that came from standard input.
    _unpacked: Option<TmpDir>,
}

impl Inputs {
    /// Reads the Dockerfile `file` for the folder `context`; `-` is standard input for either.
    pub fn read(store: &Store, context: &str, file: Option<&str>) -> Result<Self> {
        if context == "-" {
            return Self::from_stdin(store, file);
        }
        let remote = ["http://", "https://", "git://", "git@", "ssh://", "github.com/"];
        if remote.iter().any(|prefix| context.starts_with(prefix)) && !Path::new(context).exists() {
            bail!("{context}: remote contexts are not supported yet; clone it and name the folder");
        }
        let folder = PathBuf::from(context);
        match fs::metadata(&folder) {
            Ok(facts) if facts.is_dir() => {}
            Ok(_) => bail!("the build context {context:?} is not a folder"),
            Err(e) => bail!("cannot read the build context {context:?}: {e}"),
        }
        if file == Some("-") {
            let dockerfile = SourceFile::new("<standard input>", read_stdin()?);
            let meta = read_ignore(&folder.join(".dockerignore"))?.unwrap_or_default();
            return Ok(Self {
                dockerfile: Arc::new(dockerfile),
                context: folder,
                meta,
                _unpacked: None,
            });
        }
        let path = match file {
            Some(file) => PathBuf::from(file),
            None => ["Dockerfile", "dockerfile"]
                .map(|name| folder.join(name))
                .into_iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| folder.join("Dockerfile")),
        };
        Self::at(folder, &path, None)
    }

    fn at(context: PathBuf, path: &Path, unpacked: Option<TmpDir>) -> Result<Self> {
        let dockerfile = SourceFile::new(path.to_string_lossy(), read_dockerfile(path)?);
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        let meta = match read_ignore(Path::new(&own))? {
            Some(meta) => meta,
            None => read_ignore(&context.join(".dockerignore"))?.unwrap_or_default(),
        };
        Ok(Self { dockerfile: Arc::new(dockerfile), context, meta, _unpacked: unpacked })
    }

    /// Standard input is an archive with the context, or else a Dockerfile without one.
    fn from_stdin(store: &Store, file: Option<&str>) -> Result<Self> {
        if io::stdin().is_terminal() {
            bail!(
                "the context \"-\" is standard input, which is a terminal: pipe a Dockerfile or a tar into it"
            );
        }
        let unpacked = store.tmp_dir()?;
        let place = unpacked.path().join("stdin");
        let mut kept = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&place)
            .with_context(|| format!("cannot write {}", place.display()))?;
        io::copy(&mut io::stdin().lock(), &mut kept).context("cannot read standard input")?;
        let context = unpacked.path().join("context");
        fs::create_dir(&context).with_context(|| format!("cannot create {}", context.display()))?;
        if archive::is_archive(&mut kept).context("cannot read standard input")? {
            unpack(unpacked.path(), &context)?;
            let path = context.join(file.unwrap_or("Dockerfile"));
            return Self::at(context, &path, Some(unpacked));
        }
        if let Some(file) = file {
            bail!("standard input is no archive, so there is no {file} in it");
        }
        kept.rewind().context("cannot read standard input")?;
        let mut bytes = Vec::new();
        kept.take(MAX_DOCKERFILE).read_to_end(&mut bytes).context("cannot read standard input")?;
        Ok(Self {
            dockerfile: Arc::new(SourceFile::new("<standard input>", bytes)),
            context,
            meta: ContextMeta::default(),
            _unpacked: Some(unpacked),
        })
    }
}

/// Unpacks the archive `stdin` in `folder` into `context`, as ADD would.
fn unpack(folder: &Path, context: &Path) -> Result<()> {
    let op = FileOp {
        actions: vec![FileAction::Copy(CopyAction {
            input: 1,
            source: "/stdin".to_owned(),
            dest: "/".to_owned(),
            owner: None,
            mode: None,
            wildcard: false,
            follow_symlinks: false,
            unpack: true,
            parents: false,
            exclude: Vec::new(),
            allow_missing: false,
        })],
    };
    let empty = LayerStack::new(Vec::new());
    let source = ContextTree::open(folder, &["context".to_owned()])?;
    let inputs = [Some(&empty as &dyn SourceTree), Some(&source)];
    fileop::run(&op, &empty, &inputs, context, &fileop::FileOpOptions::default())
        .context("cannot unpack the context from standard input")
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

/// Reads an ignore file; `None` if there is none.
pub fn read_ignore(path: &Path) -> Result<Option<ContextMeta>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => bail!("cannot read {}: {e}", path.display()),
    };
    let ignore = ignore::read(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(ContextMeta { ignore, ignore_file: name }))
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
