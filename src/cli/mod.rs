//! The command line: what can be said, not what it does.

mod build;
mod cache;
mod history;
mod ignored;
mod registry;
mod state;
pub mod switches;
pub mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use build::NetworkMode;
pub use build::{BuildArgs, BuildFlags, CompileArgs, CompileFlags, ProgressKind, RunArgs};
pub use cache::{CacheCommand, CacheExportArgs, CacheImportArgs};
pub use history::{DiffArgs, ExplainArgs, HistoryArgs, LogsArgs, ReportArgs, ReportFormat};
pub use registry::{LoginArgs, LogoutArgs, PullArgs, PushArgs, PushCompression};
pub use state::{DuArgs, FsckArgs, PruneArgs, PruneFilter};
pub use values::{
    Attest, BuildContext, Call, CallMethod, ContextValue, SecretSource, SecretSpec, SshSpec,
};

/// Build container images from Dockerfiles: no daemon, no root, reproducible.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// State folder: cache, layers, images [default: $XDG_DATA_HOME/rbc]
    #[arg(long, global = true, env = "RBC_ROOT", value_name = "DIR", hide_env_values = true)]
    pub root: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    #[command(after_help = build::BUILD_HINT, after_long_help = build::BUILD_EXAMPLES)]
    Build(Box<BuildArgs>),
    /// Compile a Dockerfile to a graph, without running anything
    #[command(after_help = build::ALL_OPTIONS, after_long_help = build::COMPILE_EXAMPLES)]
    Compile(Box<CompileArgs>),
    /// Run a compiled graph
    #[command(after_help = build::ALL_OPTIONS, after_long_help = build::RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Print Dockerfiles in one layout, without changing what they build
    #[command(
        after_help = "Examples:\n  rbc fmt\n  rbc fmt --check $(git ls-files '*Dockerfile')\n  rbc fmt - < Dockerfile"
    )]
    Fmt(FmtArgs),
    /// Show a compiled graph
    #[command(
        after_help = "Examples:\n  rbc inspect graph.bin\n  rbc inspect --format svg graph.bin > graph.svg\n  rbc inspect --format dot graph.bin | dot -Tsvg > graph.svg"
    )]
    Inspect(InspectArgs),
    /// Say why the steps of a build were not in the cache
    #[command(after_help = history::EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Show how two compiled graphs differ
    #[command(after_help = "Example:\n  rbc diff old.bin new.bin")]
    Diff(DiffArgs),
    /// Write a page about a past build
    #[command(after_help = history::REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// List past builds
    #[command(after_help = "Examples:\n  rbc history -n 10\n  rbc history --format json")]
    History(HistoryArgs),
    /// Print what the steps of a past build printed
    #[command(after_help = history::LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// Load images from an OCI layout or a `docker save` archive
    #[command(
        after_help = "Examples:\n  rbc load --input alpine.tar\n  docker save alpine | rbc load"
    )]
    Load(LoadArgs),
    /// Save images to an archive
    #[command(
        after_help = "Examples:\n  rbc save -o app.tar app:1\n  rbc save app:1 | docker load"
    )]
    Save(SaveArgs),
    /// List the images of the local store
    #[command(after_help = "Example:\n  rbc images")]
    Images(ImagesArgs),
    /// Give an image another name
    #[command(after_help = "Example:\n  rbc tag app ghcr.io/me/app:1")]
    Tag(TagArgs),
    /// Remove images
    #[command(after_help = "Example:\n  rbc rmi app:old")]
    Rmi(RmiArgs),
    /// Send an image of the local store to a registry
    #[command(after_help = registry::PUSH_EXAMPLES)]
    Push(PushArgs),
    /// Bring an image of a registry into the local store
    #[command(after_help = registry::PULL_EXAMPLES)]
    Pull(PullArgs),
    /// Tell rbc who you are to a registry
    #[command(after_help = registry::LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Forget who you are to a registry
    #[command(after_help = "Example:\n  rbc logout ghcr.io")]
    Logout(LogoutArgs),
    /// Make a container of an image, to copy files out of it
    #[command(
        after_help = "Example:\n  rbc create --name extract app:build\n  rbc cp extract:/app ./app\n  rbc rm extract"
    )]
    Create(CreateArgs),
    /// Copy files out of a container
    #[command(
        after_help = "Examples:\n  rbc cp extract:/app ./app\n  rbc cp extract:/etc - | tar t"
    )]
    Cp(CpArgs),
    /// List containers
    #[command(after_help = "Example:\n  rbc ps")]
    Ps,
    /// Remove containers
    #[command(after_help = "Example:\n  rbc rm extract")]
    Rm(RmArgs),
    /// Make a small base image from programs of this machine
    #[command(
        after_help = "Examples:\n  rbc base-image\n  rbc base-image --tag tools:1 sh git make"
    )]
    BaseImage(BaseImageArgs),
    /// Take the cache, or cache mounts, to another state folder
    #[command(subcommand, after_help = cache::CACHE_EXAMPLES)]
    Cache(CacheCommand),
    /// Show what takes space in the state folder
    #[command(after_help = state::DU_EXAMPLES)]
    Du(DuArgs),
    /// Remove what can be made again, least recently used first
    #[command(after_help = state::PRUNE_EXAMPLES)]
    Prune(PruneArgs),
    /// Verify all that the state folder holds and drop what is bad
    #[command(after_help = state::FSCK_EXAMPLES)]
    Fsck(FsckArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  source <(rbc completions bash)\n  rbc completions zsh > ~/.zfunc/_rbc\n  rbc completions fish > ~/.config/fish/completions/rbc.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    #[command(after_help = "Example:\n  rbc man ~/.local/share/man/man1")]
    Man {
        /// Folder to write to
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct FmtArgs {
    /// Change nothing; print the names of files that are not formatted and exit with 1
    #[arg(long)]
    pub check: bool,
    /// Dockerfiles, rewritten in place; `-` formats standard input to standard output
    #[arg(default_value = "Dockerfile", hide_default_value = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// File with the graph; `-` is standard input
    pub graph: PathBuf,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    pub format: InspectFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum InspectFormat {
    /// Indented text
    #[default]
    Tree,
    /// JSON that says everything
    Json,
    /// Graphviz
    Dot,
    /// Mermaid flowchart
    Mermaid,
    /// A picture that browsers show
    Svg,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Archive or OCI layout folder; standard input if missing
    #[arg(short, long, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// Print only names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Names or ids of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// File to write; standard output if missing
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value_t)]
    pub format: SaveFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SaveFormat {
    /// For `docker load`; an OCI layout as well
    #[default]
    DockerArchive,
    /// An OCI layout
    Oci,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: ListFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns
    #[default]
    Table,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub struct TagArgs {
    /// Name or id of the image
    pub image: String,
    /// The further name
    pub name: String,
}

#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Do not fail if an image does not exist
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the container; made up if missing
    #[arg(long)]
    pub name: Option<String>,
    /// The image
    pub image: String,
    /// Command and arguments, accepted for the sake of `docker create` and not used
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CpArgs {
    /// CONTAINER:PATH
    pub source: String,
    /// A path of this machine, or `-` for a tar on standard output
    pub dest: PathBuf,
    /// Follow a symlink that the source names
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Keep the owners as they are in the image
    #[arg(short, long)]
    pub archive: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Do not fail if a container does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for the sake of `docker rm`: containers have no volumes
    #[arg(short, long, hide = true)]
    pub volumes: bool,
}

#[derive(Debug, Args)]
pub struct BaseImageArgs {
    /// Name of the image
    #[arg(short, long, default_value = "rbc/base:latest")]
    pub tag: String,
    /// Programs to take; a shell and the usual small tools if none are named
    pub programs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
