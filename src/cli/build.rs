//! The options of `build`, `compile` and `run`: those of `docker build`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rbc_compiler::Entitlement;
use rbc_ir::{ExtraHost, Platform, Ulimit};
use rbc_runtime::{
    export::OutputSpec,
    travel::{CacheFrom, CacheTo},
};

use super::ignored::IgnoredFlags;
use super::values::{
    self, Annotations, Attest, BuildContext, Call, CallMethod, NameValue, ProvenanceSpec,
    SecretSpec, SshSpec,
};

pub const BUILD_EXAMPLES: &str = "\
Examples:
  rbc build -t app .                          into the local image store
  rbc build -o out .                          files of the last stage into a folder
  rbc build -o type=oci,dest=app.tar .        an OCI layout tar
  rbc build -t ghcr.io/me/app:1 --push .      to a registry (see rbc login)
  rbc build -t app -o type=docker,dest=app.tar . && docker load -i app.tar
  rbc build --target test --build-arg V=1 -f docker/Dockerfile .
  rbc build --secret id=token,src=token.txt .
  rbc build --cache-from REF --cache-to type=registry,ref=REF,mode=max .";

/// What `-h` says at the end.
pub const BUILD_HINT: &str = "\
Examples:
  rbc build -t app .                          into the local image store
  rbc build -o out .                          files of the last stage into a folder
  rbc build -t ghcr.io/me/app:1 --push .      to a registry

These are the options used most; rbc build --help has all of them and more examples.";

/// What `-h` says at the end of commands with the same options.
pub const ALL_OPTIONS: &str =
    "These are the options used most; --help has all of them and examples.";

pub const COMPILE_EXAMPLES: &str = "\
Examples:
  rbc compile Dockerfile > graph.bin
  rbc compile --context app -o graph.bin app/Dockerfile";

pub const RUN_EXAMPLES: &str = "\
Examples:
  rbc run graph.bin -t app
  rbc run graph.bin --context app -o type=oci,dest=app.tar";

/// Groups of options.
const WHAT: &str = "What to build";
const OUT: &str = "What comes out";
const STEPS: &str = "How steps run";
const CACHE: &str = "Cache";
const SHOW: &str = "What is shown";

/// `rbc build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Folder with the files to build from, or an address
    ///
    /// The address is that of a git repository or tar; `-` reads a Dockerfile or a tar from standard
    /// input.
    #[arg(default_value = ".", hide_default_value = true)]
    pub context: String,
    /// Dockerfile; `-` is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE", help_heading = WHAT)]
    pub file: Option<String>,
    /// Only run the build checks: short for --call=check
    #[arg(long, help_heading = WHAT)]
    pub check: bool,
    /// What to do: build, or print and exit: check, outline or targets, with ,format=json
    #[arg(long, value_name = "METHOD", value_parser = values::call, conflicts_with = "check", help_heading = WHAT, hide_short_help = true)]
    pub call: Option<Call>,
    #[command(flatten)]
    pub compile: CompileFlags,
    #[command(flatten)]
    pub build: BuildFlags,
}

impl BuildArgs {
    /// What to do instead of building, if anything.
    pub fn call(&self) -> Option<Call> {
        let check = Call { method: CallMethod::Check, json: false };
        let call = if self.check { Some(check) } else { self.call };
        call.filter(|call| call.method != CallMethod::Build)
    }
}

/// `rbc compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The Dockerfile; `-` is standard input
    #[arg(default_value = "Dockerfile", hide_default_value = true)]
    pub file: String,
    /// Folder with the files to build from
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub context: String,
    /// File to write; standard output if missing
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Named contexts: NAME=DIR, oci-layout://PATH:TAG, docker-image://REFERENCE, target:STAGE, URL
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = values::build_context)]
    pub build_contexts: Vec<BuildContext>,
    #[command(flatten)]
    pub compile: CompileFlags,
    /// Name stages that are not built
    #[arg(short, long)]
    pub verbose: bool,
}

/// `rbc run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// File with the graph; `-` is standard input
    pub graph: PathBuf,
    /// Folder that the graph was compiled from
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub context: String,
    #[command(flatten)]
    pub build: BuildFlags,
}

/// What changes the graph.
#[derive(Debug, Args)]
pub struct CompileFlags {
    /// Value of an ARG; without a value that of the environment
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = WHAT)]
    pub build_arg: Vec<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE", help_heading = WHAT)]
    pub target: Option<String>,
    /// Platforms to build for, such as linux/arm64
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', help_heading = WHAT)]
    pub platform: Vec<Platform>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::name_value, help_heading = OUT, hide_short_help = true)]
    pub label: Vec<NameValue>,
    /// Run every step again
    #[arg(long, help_heading = CACHE)]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = CACHE, hide_short_help = true)]
    pub no_cache_filter: Vec<String>,
    /// Ask the registry even for images that are in the local store
    #[arg(long, help_heading = WHAT)]
    pub pull: bool,
    /// Network of RUN steps
    #[arg(long, value_enum, default_value_t, value_name = "MODE", help_heading = STEPS, hide_short_help = true)]
    pub network: NetworkMode,
    /// Line for /etc/hosts of RUN steps
    #[arg(long, value_name = "HOST:IP", value_parser = values::extra_host, help_heading = STEPS, hide_short_help = true)]
    pub add_host: Vec<ExtraHost>,
    /// Resource limit of RUN steps
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", value_parser = values::ulimit, help_heading = STEPS, hide_short_help = true)]
    pub ulimit: Vec<Ulimit>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "BYTES", value_parser = values::size, help_heading = STEPS, hide_short_help = true)]
    pub shm_size: Option<u64>,
    /// Parent cgroup of RUN steps
    #[arg(long, value_name = "CGROUP", help_heading = STEPS, hide_short_help = true)]
    pub cgroup_parent: Option<String>,
    /// Right to grant: network.host or security.insecure
    #[arg(long, value_name = "RIGHT", help_heading = STEPS, hide_short_help = true)]
    pub allow: Vec<Entitlement>,
}

/// What changes how a graph is run and what comes out.
#[derive(Debug, Args)]
pub struct BuildFlags {
    /// Name of the image in the local store, and in archives
    #[arg(short, long, value_name = "NAME[:TAG]", help_heading = OUT)]
    pub tag: Vec<String>,
    /// Where the result goes: a folder, `-` for a tar, or fields
    ///
    /// Fields are type=oci|docker|tar|local|image|registry|cacheonly,dest=PATH and those of buildx.
    #[arg(short, long, value_name = "DEST", value_parser = OutputSpec::parse, help_heading = OUT)]
    pub output: Vec<OutputSpec>,
    /// Put the image into the local store, even with another output
    #[arg(long, help_heading = OUT, hide_short_help = true)]
    pub load: bool,
    /// Send the image to the registries of its names, as type=registry does
    #[arg(long, help_heading = OUT)]
    pub push: bool,
    /// Secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=NAME
    #[arg(long, value_name = "SPEC", value_parser = values::secret, help_heading = STEPS)]
    pub secret: Vec<SecretSpec>,
    /// Agent for RUN --mount=type=ssh and for git: default, or ID=SOCKET or keys
    ///
    /// default or ID is the agent of $SSH_AUTH_SOCK; ID=SOCKET is another one; ID=KEY,KEY are files
    /// with keys.
    #[arg(long, value_name = "SPEC", value_parser = values::ssh, help_heading = STEPS)]
    pub ssh: Vec<SshSpec>,
    /// Named contexts: NAME=DIR, oci-layout://PATH:TAG, docker-image://REFERENCE, target:STAGE, URL
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = values::build_context, help_heading = WHAT, hide_short_help = true)]
    pub build_contexts: Vec<BuildContext>,
    /// Annotation of the image; PLACE is manifest, index, manifest-descriptor or index-descriptor,
    /// for one platform as in manifest[linux/arm64] [default: manifest]
    #[arg(long, value_name = "[PLACE:]NAME=VALUE", value_parser = values::annotations, help_heading = OUT, hide_short_help = true)]
    pub annotation: Vec<Annotations>,
    /// State in the image how it was built: true, false, or mode=min|max with builder-id=URI
    #[arg(
        long,
        value_name = "SPEC",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = values::provenance,
        help_heading = OUT, hide_short_help = true)]
    pub provenance: Option<ProvenanceSpec>,
    /// State in the image which packages it holds: true or false
    #[arg(
        long,
        value_name = "SPEC",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = values::sbom,
        help_heading = OUT, hide_short_help = true)]
    pub sbom: Option<bool>,
    /// The two options above in one: type=provenance,mode=max or type=sbom
    #[arg(long, value_name = "type=TYPE,…", value_parser = values::attest, help_heading = OUT, hide_short_help = true)]
    pub attest: Vec<Attest>,
    /// Commands and downloads that run at the same time [default: the number of processors, at least 8]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = STEPS, hide_short_help = true)]
    pub jobs: Option<u16>,
    /// The most that the state folder may take, such as 20GB; 0 for any size
    #[arg(long, value_name = "BYTES", value_parser = values::size, help_heading = CACHE, hide_short_help = true)]
    pub state_max_size: Option<u64>,
    /// File for the id of the image
    #[arg(long, value_name = "FILE", help_heading = OUT, hide_short_help = true)]
    pub iidfile: Option<PathBuf>,
    /// File for facts of the result, as JSON
    #[arg(long, value_name = "FILE", help_heading = OUT, hide_short_help = true)]
    pub metadata_file: Option<PathBuf>,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "BUILDKIT_PROGRESS", hide_env = true, help_heading = SHOW)]
    pub progress: ProgressKind,
    /// Show nothing but the id of the image
    #[arg(short, long, help_heading = SHOW)]
    pub quiet: bool,
    /// If a RUN step fails, open a shell (or CMD) where it ran
    #[arg(
        long,
        value_name = "CMD",
        num_args = 0..=1,
        default_missing_value = "",
        require_equals = true,
        help_heading = STEPS)]
    pub debug_shell: Option<String>,
    /// Name stages that are not built
    #[arg(short, long, help_heading = SHOW, hide_short_help = true)]
    pub verbose: bool,
    /// Take results from another cache: REF, or fields
    ///
    /// Fields are type=registry,ref=REF (a cache, or an image with one inline) or type=local,src=DIR.
    #[arg(long, value_name = "SPEC", value_parser = CacheFrom::parse, help_heading = CACHE)]
    pub cache_from: Vec<CacheFrom>,
    /// Put results into another cache: type=registry,ref=REF, or other fields
    ///
    /// Fields are type=registry,ref=REF, type=local,dest=DIR or type=inline, with mode=min (what the
    /// image consists of) or mode=max (all steps).
    #[arg(long, value_name = "SPEC", value_parser = CacheTo::parse, help_heading = CACHE)]
    pub cache_to: Vec<CacheTo>,
    #[command(flatten)]
    pub ignored: IgnoredFlags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NetworkMode {
    /// The host's network
    #[default]
    Default,
    /// The host's network
    Host,
    /// Loopback only
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// A live view on a terminal, else lines
    #[default]
    Auto,
    /// Lines
    Plain,
    /// A live view
    Tty,
    /// One JSON object a line
    Rawjson,
    /// Nothing
    Quiet,
}
