//! The operations of a build graph. Their meaning follows LLB (moby/buildkit, `solver/pb/ops.proto`),
//! so that lowering to LLB and back is mechanical.
//!
//! All that changes a result is a field here and so enters the node's digest. What only describes
//! or limits a run (names, source spans, `--no-cache`, proxies) is kept in [`crate::NodeMeta`].

use serde::{Deserialize, Serialize};

use crate::Digest;

/// What a node does with its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Brings in something from outside. No inputs.
    Source(Source),
    /// Runs a command on input 0 and keeps what it changed as one layer. The further inputs are
    /// those that its mounts name.
    Exec(Exec),
    /// Changes files of input 0 and keeps the changes as one layer. The further inputs are those
    /// that its copies name.
    File(FileOp),
    /// Puts the layers that each further input adds to nothing on top of input 0, in order.
    Merge,
    /// The layers by which input 1 (upper) goes beyond input 0 (lower), as one result.
    Diff,
}

/// Where a source node gets its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// An empty root.
    Scratch,
    /// The layers of an image.
    Image(ImageSource),
    /// Files of a build context or of a named local context.
    Context(ContextSource),
    /// A checked out git commit.
    Git(GitSource),
    /// One file fetched over HTTP(S).
    Http(HttpSource),
}

/// An image, pinned to the manifest of one platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// Normalised reference, for example `docker.io/library/alpine:latest`. Tells where to fetch
    /// the manifest if it is not in the store.
    pub reference: String,
    /// Digest of the image manifest (never of an index).
    pub manifest: Digest,
    /// Where the image is looked up.
    pub location: ImageLocation,
}

/// The kinds of places that hold images.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageLocation {
    /// The local store first, then the registry that the reference names.
    StoreOrRegistry,
    /// An OCI layout folder or tar, given to the build as the named context with this name.
    OciLayout(String),
}

/// What a use of a context selects, pinned by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextSource {
    /// Name of the context; empty for the main build context.
    pub name: String,
    /// Which paths this use selects.
    pub selection: Selection,
    /// Merkle digest of the selected entries: path, type, mode, link target, size, content and
    /// extended attributes; not mtime, owner or inode.
    pub digest: Digest,
}

/// A selection of paths below a root, with the meaning that COPY gives to its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The named paths. None at all selects the whole root.
    pub paths: Vec<SelectPath>,
    /// Docker patterns of what to leave out, as in `COPY --exclude`.
    pub exclude: Vec<String>,
    /// Whether a symlink that a path names is followed, as COPY does.
    pub follow_symlinks: bool,
    /// Whether the parents of a path belong to the result, as in `COPY --parents`.
    pub parents: bool,
}

/// One path of a [`Selection`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectPath {
    /// Slash-separated path below the root.
    pub path: String,
    /// Whether the path is a pattern of Go's `filepath.Match`.
    pub wildcard: bool,
}

/// A git commit (`ADD https://host/repo.git#ref:subdir`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// Where to clone from.
    pub url: String,
    /// Reference as written (branch, tag or commit); empty means the default branch.
    pub reference: String,
    /// The commit it was resolved to, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// Folder of the repository that becomes the root; empty means all.
    pub subdir: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are checked out as well.
    pub submodules: bool,
}

/// A file fetched over HTTP(S).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSource {
    /// Address.
    pub url: String,
    /// Digest of the body.
    pub checksum: Digest,
    /// Name of the file in the root of the result.
    pub filename: String,
    /// Permission bits of the file.
    pub mode: u32,
    /// Modification time in seconds since the epoch, from `Last-Modified`; 0 if unknown.
    pub mtime: i64,
}

/// Runs a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The command and its arguments; never empty.
    pub args: Vec<String>,
    /// Environment as `NAME=value`, in order, names unique.
    pub env: Vec<String>,
    /// Absolute working directory; made if missing.
    pub cwd: String,
    /// `USER[:GROUP]` by names or numbers; empty means root.
    pub user: String,
    /// Host name inside the step; empty means the default `buildkitsandbox`.
    pub hostname: String,
    /// What network the step sees.
    pub network: Network,
    /// Whether the step runs confined.
    pub security: Security,
    /// Everything mounted over the root.
    pub mounts: Vec<Mount>,
    /// Secrets that are handed over as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Lines added to `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Resource limits set with `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes; 0 means the default of 64 MiB.
    pub shm_size: u64,
}

impl Exec {
    /// A command as an argument vector, in `/`, as root of the image, confined, with the default
    /// network and an empty environment.
    pub fn new<I>(args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            network: Network::Default,
            security: Security::Sandbox,
            mounts: Vec::new(),
            secret_env: Vec::new(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size: 0,
        }
    }
}

/// The network of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Network {
    /// The builder's default; with rbc the host's network.
    #[default]
    Default,
    /// The host's network, asked for by name (`network.host` entitlement).
    Host,
    /// Loopback only.
    None,
}

/// The confinement of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Security {
    /// Docker's default capabilities, seccomp profile and masked paths.
    #[default]
    Sandbox,
    /// All capabilities, no seccomp (`security.insecure` entitlement).
    Insecure,
}

/// Something mounted while a command runs. It never becomes part of the layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path in the step.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether writing is denied.
    pub read_only: bool,
}

/// The kinds of mounts of `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MountKind {
    /// A path of another input. What is written to it is dropped.
    Bind {
        /// Index into the node's inputs.
        input: u32,
        /// Path below the input's root.
        source: String,
    },
    /// A folder that outlives the build.
    Cache {
        /// Identity; steps that name the same one see the same files.
        id: String,
        /// Whether steps may use it at the same time.
        sharing: CacheSharing,
        /// Index of the input with the first content; none means empty.
        input: Option<u32>,
        /// Path below that input's root.
        source: String,
        /// Permission bits of a new cache folder.
        mode: u32,
        /// Owner of a new cache folder.
        uid: u32,
        /// Group of a new cache folder.
        gid: u32,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Size limit in bytes; 0 means none.
        size: u64,
    },
    /// A secret as a file.
    Secret {
        /// Identity given with `--secret id=`.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// The socket of an ssh agent; also sets `SSH_AUTH_SOCK`.
    Ssh {
        /// Identity given with `--ssh`; `default` if unnamed.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How steps share a cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CacheSharing {
    /// Used at the same time by any number of steps.
    #[default]
    Shared,
    /// A step that finds it in use gets another one.
    Private,
    /// A step that finds it in use waits.
    Locked,
}

/// A secret in an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretEnv {
    /// Name of the variable.
    pub name: String,
    /// Identity given with `--secret id=`.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// An entry of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraHost {
    /// Host name.
    pub host: String,
    /// Address, as text; `host-gateway` is resolved when the step runs.
    pub ip: String,
}

/// A limit of `setrlimit(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// Name without the `RLIMIT_` prefix, in lower case, for example `nofile`.
    pub name: String,
    /// Soft limit; -1 means unlimited.
    pub soft: i64,
    /// Hard limit; -1 means unlimited.
    pub hard: i64,
}

/// Changes files of input 0, one action after the other, into one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOp {
    /// The actions, in order.
    pub actions: Vec<FileAction>,
}

/// One change of a [`FileOp`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FileAction {
    /// Copies from another input.
    Copy(CopyAction),
    /// Makes a folder.
    Mkdir(Mkdir),
    /// Writes a file.
    Mkfile(Mkfile),
    /// Removes a path.
    Remove(Remove),
    /// Makes a symlink.
    Symlink(Symlink),
}

/// Copies one source (possibly a pattern that matches several) with the meaning of COPY and ADD.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyAction {
    /// Index into the node's inputs: where the source is.
    pub input: u32,
    /// Path below the input's root. A pattern of Go's `filepath.Match` if `wildcard` is set.
    /// With `parents`, a `/./` marks the pivot behind which the parents are kept.
    pub source: String,
    /// Absolute destination. A trailing slash says that it is a folder.
    pub dest: String,
    /// Owner of all that is copied; `None` keeps the source's (0:0 for a context).
    pub owner: Option<Owner>,
    /// Permission bits of all that is copied; `None` keeps the source's.
    pub mode: Option<ModeChange>,
    /// Whether `source` is a pattern. A pattern that matches nothing copies nothing.
    pub wildcard: bool,
    /// Whether a symlink named by `source` is followed.
    pub follow_symlinks: bool,
    /// Whether a tar archive (by content, possibly compressed) is unpacked instead of copied.
    pub unpack: bool,
    /// Whether the folders above a match are made below the destination (`--parents`).
    pub parents: bool,
    /// Docker patterns of what to leave out (`--exclude`).
    pub exclude: Vec<String>,
    /// Whether a missing source is no error (only `ADD` of heredocs and the like set it).
    pub allow_missing: bool,
}

/// Makes a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// Absolute path.
    pub path: String,
    /// Permission bits of each folder that is made.
    pub mode: u32,
    /// Whether missing parents are made and an existing folder is no error.
    pub parents: bool,
    /// Owner of each folder that is made; `None` means 0:0.
    pub owner: Option<Owner>,
}

/// Writes a file, replacing one that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mkfile {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    #[serde(with = "crate::json::file_content")]
    pub data: Vec<u8>,
    /// Owner; `None` means 0:0.
    pub owner: Option<Owner>,
}

impl Mkfile {
    /// A file of root with mode 0644.
    pub fn new(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode: 0o644, data: data.into(), owner: None }
    }
}

impl From<Mkfile> for FileOp {
    fn from(file: Mkfile) -> Self {
        Self { actions: vec![FileAction::Mkfile(file)] }
    }
}

/// Removes a path and all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Absolute path, or a pattern if `wildcard` is set.
    pub path: String,
    /// Whether nothing to remove is no error.
    pub allow_missing: bool,
    /// Whether `path` is a pattern.
    pub wildcard: bool,
}

/// Makes a symlink.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symlink {
    /// Absolute path of the link.
    pub path: String,
    /// What it points to, as it is.
    pub target: String,
    /// Owner; `None` means 0:0.
    pub owner: Option<Owner>,
}

/// Owner and group of `--chown`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The user.
    pub user: UserRef,
    /// The group; `None` means the user's primary group from `/etc/passwd` if the user was given
    /// by name, else the same number as the user.
    pub group: Option<UserRef>,
}

/// A user or group, by number or by name. Names are looked up in input 0 of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserRef {
    /// A numeric id.
    Id(u32),
    /// A name of `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// The value of `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModeChange {
    /// Permission bits for all.
    Octal(u32),
    /// A symbolic change such as `u=rwX,go-w`, applied to each entry's own bits.
    Symbolic(String),
}
