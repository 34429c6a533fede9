//! Build contexts that are elsewhere: git repositories and files of the web.
//!
//! A context is fetched into a folder of its own and from there on read like one that the user
//! named, so that the graph pins its content. Which texts are addresses, and what a file makes of
//! a context, is as in BuildKit.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rbc_compiler::git_ref::{self, GitRef};
use rbc_ir::{CopyAction, FileAction, FileOp, GitSource, HttpSource};
use rbc_runtime::{
    archive, fileop, layer,
    source::{git, http, redact},
    store::{Store, TmpDir},
    tree::{ContextTree, LayerStack, SourceTree},
};

/// Name of a downloaded file in its context, whatever it is called at its address.
const FILE_NAME: &str = "context";

/// A build argument by which `.git` stays in a main context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR=";

/// Where a context is.
pub enum Remote {
    /// A git repository, or a folder of it.
    Git(GitRef),
    /// A file at an address.
    File(String),
}

/// What a fetched context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with a Dockerfile in it.
    Folder,
    /// Nothing but a Dockerfile, which is the only file in the folder.
    Dockerfile,
}

/// A context that was fetched; removed when dropped.
pub struct Fetched {
    pub dir: TmpDir,
    /// The folder with its files, below `dir`.
    pub folder: PathBuf,
    pub kind: Kind,
}

impl Fetched {
    /// The file that is the whole context.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }
}

/// Reads a context's address; `None` if the text can only be a path of this machine.
///
/// # Errors
/// If it is an address with a part that makes no sense.
pub fn address(text: &str) -> Result<Option<Remote>> {
    if let Some(git) = git_ref::parse_context(text) {
        return Ok(Some(Remote::Git(git.with_context(|| redact(text))?)));
    }
    let is_file = text.starts_with("http://") || text.starts_with("https://");
    Ok(is_file.then(|| Remote::File(text.to_owned())))
}

/// Fetches what is to be a main context: an archive is unpacked.
pub fn fetch(
    store: &Store,
    remote: &Remote,
    build_args: &[String],
    agent: Option<&Path>,
) -> Result<Fetched> {
    match remote {
        Remote::Git(git) => check_out(store, git, build_args, agent),
        Remote::File(url) => {
            let fetched = download(store, url)?;
            let place = fetched.file();
            let mut file =
                File::open(&place).with_context(|| format!("cannot read {}", place.display()))?;
            if !archive::is_archive(&mut file).with_context(|| redact(url))? {
                return Ok(fetched);
            }
            let folder = fetched.dir.path().join("unpacked");
            unpack(&place, &folder).with_context(|| redact(url))?;
            Ok(Fetched { folder, kind: Kind::Folder, ..fetched })
        }
    }
}

/// Downloads a file into a folder of its own. Its time is that of the server.
pub fn download(store: &Store, url: &str) -> Result<Fetched> {
    let client = http::Client::new();
    let found = client.resolve(store, url, None)?;
    let dir = store.tmp_dir()?;
    let folder = make_folder(&dir)?;
    let source = HttpSource {
        url: url.to_owned(),
        checksum: found.checksum,
        filename: FILE_NAME.to_owned(),
        mode: 0o600,
        mtime: found.mtime,
    };
    client.write_file(store, &source, &folder)?;
    Ok(Fetched { dir, folder, kind: Kind::Dockerfile })
}

fn check_out(
    store: &Store,
    address: &GitRef,
    build_args: &[String],
    agent: Option<&Path>,
) -> Result<Fetched> {
    let checksum = address.checksum.as_deref();
    let commit = git::resolve(&address.remote, &address.reference, checksum, agent)?;
    let asked = build_args.iter().rev().find_map(|argument| argument.strip_prefix(KEEP_GIT_DIR));
    let source = GitSource {
        url: address.remote.clone(),
        reference: address.reference.clone(),
        commit,
        subdir: address.subdir.clone(),
        keep_git_dir: address.keep_git_dir == Some(true) || asked.is_some_and(is_true),
        submodules: address.submodules.unwrap_or(true),
    };
    let dir = store.tmp_dir()?;
    let folder = make_folder(&dir)?;
    let work = dir.path().join("work");
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let started = layer::Started::of(&folder)?;
    git::checkout(&source, &folder, &work, &git::Means { agent, is_cancelled: &|| false })?;
    // The time of the checkout means nothing, and must not show in the image.
    layer::commit(&folder, &started)?;
    Ok(Fetched { dir, folder, kind: Kind::Folder })
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn make_folder(dir: &TmpDir) -> Result<PathBuf> {
    let folder = dir.path().join("context");
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Unpacks an archive into the new folder `to`, as ADD would.
pub fn unpack(archive: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot create {}", to.display()))?;
    let (Some(parent), Some(name)) = (archive.parent(), archive.file_name()) else {
        bail!("{} is no file", archive.display());
    };
    let op = FileOp {
        actions: vec![FileAction::Copy(CopyAction {
            input: 1,
            source: format!("/{}", name.to_string_lossy()),
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
    let source = ContextTree::open(parent, &[])?;
    let inputs = [Some(&empty as &dyn SourceTree), Some(&source)];
    fileop::run(&op, &empty, &inputs, to, &fileop::FileOpOptions::default())
        .context("cannot unpack the context")
}
