//! The options of the commands that speak to registries.

use std::path::PathBuf;

use clap::Args;

pub const LOGIN_EXAMPLES: &str = "\
Examples:
  rbc login -u me ghcr.io
  pass show ghcr | rbc login -u me --password-stdin ghcr.io

Credentials are looked up in $REGISTRY_AUTH_FILE, Docker's config.json and Podman's auth.json, in this
order; `login` writes the first of them that the environment names, else ~/.docker/config.json.";

/// `rbc login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry, or one of its folders: HOST[:PORT][/FOLDER]
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
