//! What a build is asked for, beside the Dockerfile: the options of `docker build` that change
//! the graph or its description.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use rbc_ir::{ContextMeta, ExtraHost, Network, Platform, Ulimit};

/// The options of one compilation. The default is a build of the last stage for the machine's own
/// platform, without build arguments.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// `--build-arg`, in order.
    pub build_args: IndexMap<String, String>,
    /// `--target`: name of the stage to build; `None` means the last one.
    pub target: Option<String>,
    /// `--platform`, one graph target for each; empty means the host's platform, or whatever
    /// single platform the base image has.
    pub platforms: Vec<Platform>,
    /// Platform that the build runs on; `None` means that of this machine.
    pub host_platform: Option<Platform>,
    /// `--label`: joined to the image's labels last.
    pub labels: IndexMap<String, String>,
    /// Which steps do not ask the cache.
    pub no_cache: NoCache,
    /// `--network`: what steps without a `--network` of their own see.
    pub network: Network,
    /// `--add-host`.
    pub add_hosts: Vec<ExtraHost>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size` in bytes; 0 means the default.
    pub shm_size: u64,
    /// `--cgroup-parent`; empty means the default.
    pub cgroup_parent: String,
    /// Host name of the steps; empty means the default.
    pub hostname: String,
    /// Names given with `--build-context`; what each stands for is asked of the resolver.
    pub named_contexts: BTreeSet<String>,
    /// `SOURCE_DATE_EPOCH` of the environment, in seconds. The build argument of that name wins.
    pub source_date_epoch: Option<i64>,
    /// `--pull`: whether images are looked up in the registry even if they are in the store.
    pub pull: Pull,
    /// Entitlements given with `--allow`.
    pub entitlements: BTreeSet<Entitlement>,
    /// The ignore file of the main build context, for the graph's description.
    pub context: ContextMeta,
    /// The lines of the patterns of `context`'s ignore file, counted from 1, for messages.
    pub ignore_lines: Vec<usize>,
}

/// Which steps run even if their results are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None of them.
    #[default]
    Never,
    /// Those of every stage (`--no-cache`).
    All,
    /// Those of the stages with these names, in any case (`--no-cache-filter`).
    Stages(Vec<String>),
}

impl NoCache {
    /// Whether the steps of the stage `name` (empty for an unnamed one) must run.
    pub fn applies_to(&self, name: &str) -> bool {
        match self {
            Self::Never => false,
            Self::All => true,
            Self::Stages(names) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
        }
    }
}

/// When an image's tag is looked up in its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pull {
    /// If the local store does not have it.
    #[default]
    IfMissing,
    /// Always.
    Always,
}

/// A right that a Dockerfile may use only if the user grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `network.host`: `RUN --network=host`.
    NetworkHost,
    /// `security.insecure`: `RUN --security=insecure`.
    SecurityInsecure,
}

impl Entitlement {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

/// A text that is no [`Entitlement`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown entitlement {0:?}: known are network.host and security.insecure")]
pub struct UnknownEntitlement(String);

impl std::str::FromStr for Entitlement {
    type Err = UnknownEntitlement;

    fn from_str(text: &str) -> Result<Self, UnknownEntitlement> {
        match text {
            "network.host" => Ok(Self::NetworkHost),
            "security.insecure" => Ok(Self::SecurityInsecure),
            _ => Err(UnknownEntitlement(text.to_owned())),
        }
    }
}
