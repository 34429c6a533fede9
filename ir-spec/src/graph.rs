//! The graph itself: nodes in topological order, the targets that end in images, and what is kept
//! beside them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher, IR_VERSION, ImageConfig, Op, Platform, codec};

/// One operation and what it works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// What it is done to.
    pub inputs: Vec<Input>,
    /// What it runs on; `None` where that has no meaning (scratch, contexts).
    pub platform: Option<Platform>,
}

/// A result of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Digest of the node that makes it.
    pub node: Digest,
    /// Which of its results; 0 is the root.
    pub output: u32,
}

impl From<Digest> for Input {
    fn from(node: Digest) -> Self {
        Self { node, output: 0 }
    }
}

impl Node {
    /// The node's digest, which is its cache key: SHA-256 over a domain tag, the IR version and
    /// the canonical encoding of the node with the digests of its inputs.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("rbc.ir.node");
        hasher.number(u64::from(IR_VERSION)).part(&codec::encode_value(self));
        hasher.finish()
    }

    /// Digest of the operation alone, without its inputs: the first half of a content key.
    pub fn op_digest(&self) -> Digest {
        let mut hasher = Hasher::new("rbc.ir.op");
        hasher
            .number(u64::from(IR_VERSION))
            .part(&codec::encode_value(&(&self.op, &self.platform)));
        hasher.finish()
    }
}

/// An image (or other result) that the graph is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name of the stage; empty for an unnamed one.
    pub name: String,
    /// The root file system; `None` is an image without any layer.
    pub root: Option<Input>,
    /// Platform of the image.
    pub platform: Platform,
    /// The image config, without `rootfs`.
    pub config: ImageConfig,
}

impl Target {
    /// An image without a name, layers or config.
    pub fn new(platform: Platform) -> Self {
        Self { name: String::new(), root: None, platform, config: ImageConfig::default() }
    }

    /// Digest of the target: its root, platform and config.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("rbc.ir.target");
        hasher.number(u64::from(IR_VERSION)).part(&codec::encode_value(self));
        hasher.finish()
    }
}

/// A build graph. Each node stands behind all of its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// The nodes by digest, in topological order.
    pub nodes: IndexMap<Digest, Node>,
    /// What the graph is for; at least one.
    pub targets: Vec<Target>,
    /// What is known of the graph but changes no result.
    pub meta: Meta,
}

/// What describes a graph without entering any digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Descriptions of nodes, by digest.
    pub nodes: IndexMap<Digest, NodeMeta>,
    /// The Dockerfiles that the graph was made from; spans point into them.
    pub files: Vec<SourceFile>,
    /// What is known of the contexts, by name; the main build context has the empty name.
    pub contexts: IndexMap<String, ContextMeta>,
    /// `SOURCE_DATE_EPOCH` in seconds, if the build was given one.
    pub source_date_epoch: Option<i64>,
}

/// A Dockerfile's name and text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Name as the user gave it.
    pub name: String,
    /// Its text, for messages that show a line.
    pub text: String,
}

/// What is known of a build context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextMeta {
    /// The patterns of its ignore file, in order.
    pub ignore: Vec<String>,
    /// Name of the ignore file they are from; empty if there is none.
    pub ignore_file: String,
}

/// A range of bytes in a Dockerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Index into [`Meta::files`].
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// One behind the last byte.
    pub end: u32,
}

/// What describes a node without entering its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeMeta {
    /// How progress and errors name the step, for example `[builder 2/4] RUN make`.
    pub name: String,
    /// Name or number of the stage.
    pub stage: String,
    /// The instruction it comes from.
    pub span: Option<Span>,
    /// Whether the cache is not asked for this node.
    pub no_cache: bool,
    /// Environment that does not count for the cache: the predefined proxy variables.
    pub proxy_env: Vec<String>,
    /// Parent cgroup (`--cgroup-parent`); empty means the default.
    pub cgroup_parent: String,
}

/// Why a graph is not well formed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// A node stands under a digest that is not its own.
    #[error("node {index} is stored as {stored} but its digest is {actual}")]
    WrongDigest {
        /// Position of the node.
        index: usize,
        /// Digest it is stored under.
        stored: Digest,
        /// Its own digest.
        actual: Digest,
    },
    /// A node or target names an input that does not stand before it.
    #[error("{user} uses {input}, which no earlier node makes")]
    UnknownInput {
        /// Who names it.
        user: String,
        /// What it names.
        input: Digest,
    },
    /// An operation has wrong inputs, or a field breaks the rules of the format.
    #[error("{node}: {reason}")]
    BadNode {
        /// The node.
        node: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A target has a property that no image can have.
    #[error("target {name:?}: {reason}")]
    BadTarget {
        /// Name of the target.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A description belongs to no node, or points outside of the Dockerfiles.
    #[error("description of {node}: {reason}")]
    BadMeta {
        /// The node that is described.
        node: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// A graph without targets.
    #[error("the graph has no target")]
    NoTarget,
}

impl Graph {
    /// The node that makes `input`.
    pub fn node(&self, input: &Input) -> Option<&Node> {
        self.nodes.get(&input.node)
    }

    /// Description of a node; the empty one if there is none.
    pub fn node_meta(&self, digest: &Digest) -> &NodeMeta {
        static EMPTY: NodeMeta = NodeMeta {
            name: String::new(),
            stage: String::new(),
            span: None,
            no_cache: false,
            proxy_env: Vec::new(),
            cgroup_parent: String::new(),
        };
        self.meta.nodes.get(digest).unwrap_or(&EMPTY)
    }
}
