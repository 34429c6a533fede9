//! The options of the commands that speak to registries.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rbc_ir::Platform;

use super::ProgressKind;

pub const LOGIN_EXAMPLES: &str = "\
Examples:
  rbc login -u me ghcr.io
  pass show ghcr | rbc login -u me --password-stdin ghcr.io

Credentials are looked up in $REGISTRY_AUTH_FILE, Docker's config.json and Podman's auth.json, in this
order; `login` writes the first of them that the environment names, else ~/.docker/config.json.";

/// `rbc login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry, or one of its folders: HOST, HOST:PORT or HOST/FOLDER
    #[arg(default_value = "docker.io", hide_default_value = true)]
    pub registry: String,
    /// User name; asked for if missing
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password; other users of this machine can see it, so use --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// File to keep the credentials in
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// `rbc logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry, or one of its folders
    #[arg(default_value = "docker.io", hide_default_value = true, conflicts_with = "all")]
    pub registry: String,
    /// Forget all registries
    #[arg(short, long)]
    pub all: bool,
    /// File that the credentials are in
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

pub const PUSH_EXAMPLES: &str = "\
Examples:
  rbc push ghcr.io/me/app:1
  rbc push app:1 ghcr.io/me/app:1 ghcr.io/me/app:latest
  rbc push --compression zstd app:1 localhost:5000/app:1

Layers that the registry has are not sent again.";

/// `rbc push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Name or id of the image
    pub image: String,
    /// Names that it gets in registries [default: its own]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Compression of layers that have none, as they have after a build for the local store
    #[arg(long, value_enum, default_value_t)]
    pub compression: PushCompression,
    /// Pack layers with another compression again
    #[arg(long)]
    pub force_compression: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "BUILDKIT_PROGRESS", hide_env = true)]
    pub progress: ProgressKind,
    /// Show nothing but the digest of what was pushed
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PushCompression {
    /// Understood everywhere
    #[default]
    Gzip,
    /// Smaller and quicker, for current tools
    Zstd,
    /// Leave layers without compression
    Uncompressed,
}

pub const PULL_EXAMPLES: &str = "\
Examples:
  rbc pull alpine:3.20
  rbc pull --platform linux/arm64 alpine:3.20

Mirrors, certificates and insecure registries are set in ~/.config/rbc/config.toml, or in the file that
$RBC_CONFIG names; containers' registries.conf and certs.d are read too.";

/// `rbc pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Name of the image
    pub image: String,
    /// The platform to choose from an index [default: this machine]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "BUILDKIT_PROGRESS", hide_env = true)]
    pub progress: ProgressKind,
    /// Show nothing but the digest of the image
    #[arg(short, long)]
    pub quiet: bool,
}
