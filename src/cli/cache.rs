//! The options of `rbc cache`.

use clap::{Args, Subcommand};
use rbc_runtime::travel::{CacheFrom, ExportPlace};

use super::ProgressKind;

pub const CACHE_EXAMPLES: &str = "\
Examples:
  rbc cache export -o cache.tar                       all that builds left, and all cache mounts
  rbc cache export -o cache/                          the same as an OCI layout folder
  rbc cache export -o docker-image://ghcr.io/me/app:cache
  rbc cache import cache.tar                          on another machine
  rbc cache export --mount cargo,npm -o mounts.tar    the folders of RUN --mount=type=cache,id=…
  rbc cache import mounts.tar

See also --cache-to and --cache-from of rbc build, which fetch only what a build needs.";

/// `rbc cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Write the results of steps and cache mounts to a tar, an OCI layout or a registry
    #[command(after_help = CACHE_EXAMPLES)]
    Export(CacheExportArgs),
    /// Bring in what `rbc cache export` or `rbc build --cache-to` wrote
    #[command(after_help = CACHE_EXAMPLES)]
    Import(CacheImportArgs),
}

/// `rbc cache export`.
#[derive(Debug, Args)]
pub struct CacheExportArgs {
    /// Where to: a tar, a folder (one that exists, or with / at the end), docker-image://REF, or
    /// type=oci|local|registry,…; `-` is standard output
    #[arg(short, long, value_name = "DEST", value_parser = ExportPlace::parse)]
    pub output: ExportPlace,
    /// Only these cache mounts, by the id in RUN --mount=type=cache,id=ID (else their target)
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub mount: Vec<String>,
    /// No cache mounts
    #[arg(long, conflicts_with = "mount")]
    pub no_mounts: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "BUILDKIT_PROGRESS", hide_env = true)]
    pub progress: ProgressKind,
    /// Show nothing
    #[arg(short, long)]
    pub quiet: bool,
}

/// `rbc cache import`.
#[derive(Debug, Args)]
pub struct CacheImportArgs {
    /// Where from: a tar or folder, docker-image://REF, or type=local|registry,…
    #[arg(value_name = "SOURCE", value_parser = CacheFrom::parse_argument)]
    pub source: CacheFrom,
    /// Only these cache mounts
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub mount: Vec<String>,
    /// No cache mounts
    #[arg(long, conflicts_with = "mount")]
    pub no_mounts: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "BUILDKIT_PROGRESS", hide_env = true)]
    pub progress: ProgressKind,
    /// Show nothing
    #[arg(short, long)]
    pub quiet: bool,
}
