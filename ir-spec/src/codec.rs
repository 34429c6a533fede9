//! graph.bin: magic, version, payload length, payload, SHA-256 of all before it.
//!
//! The payload is bincode (little endian, variable-length integers) of a flat wire form in which
//! inputs are positions of earlier nodes; digests are computed anew when reading, so a graph.bin
//! cannot claim a digest that is not its own. `SPEC.md` states every byte. This is the only module
//! that knows bincode.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Digest, Graph, GraphError, Input, Meta, Node, NodeMeta, Op, Platform, SourceFile, Target,
};

/// Version of the IR: part of every node digest and of graph.bin's header.
pub const IR_VERSION: u32 = 1;

/// The first eight bytes of a graph.bin.
pub const MAGIC: [u8; 8] = *b"RBCGRAPH";

const HEADER: usize = MAGIC.len() + 4 + 8;
const TRAILER: usize = 32;

/// Why bytes are not a graph.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The magic is missing.
    #[error("not an rbc graph: it does not start with \"RBCGRAPH\"")]
    NotAGraph,
    /// Written by another version of the format.
    #[error("graph format version {0} is not supported; this rbc reads version {IR_VERSION}")]
    Version(u32),
    /// Fewer or more bytes than the header says.
    #[error("damaged graph: the header speaks of {want} bytes, there are {have}")]
    Length {
        /// Bytes by the header.
        want: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The checksum at the end does not fit.
    #[error("damaged graph: its checksum does not match its content")]
    Checksum,
    /// The payload does not decode.
    #[error("damaged graph: {0}")]
    Payload(String),
    /// The payload decodes, but the same graph would be written in other bytes.
    #[error("damaged graph: it is not in canonical form")]
    NotCanonical,
    /// The graph is not well formed.
    #[error("invalid graph: {0}")]
    Invalid(#[from] GraphError),
}

/// The form in which a graph is written. Inputs are `(position of an earlier node, output)`.
#[derive(Serialize, Deserialize)]
struct Wire {
    nodes: Vec<WireNode>,
    targets: Vec<Target>,
    node_meta: Vec<(u32, NodeMeta)>,
    files: Vec<SourceFile>,
    contexts: Vec<(String, crate::ContextMeta)>,
    source_date_epoch: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct WireNode {
    op: Op,
    inputs: Vec<(u32, u32)>,
    platform: Option<Platform>,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
}

/// The canonical encoding of a value, as it enters digests.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config())
        .expect("the types of the IR have lengths and no unsupported serde attributes")
}

/// Decodes with a limit on the memory claimed, chosen from the size of the input: bincode takes
/// its limit as a constant only.
fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    fn with_limit<T: DeserializeOwned, const LIMIT: usize>(
        bytes: &[u8],
    ) -> Result<(T, usize), bincode::error::DecodeError> {
        bincode::serde::decode_from_slice(bytes, bincode::config::standard().with_limit::<LIMIT>())
    }
    const MIB: usize = 1 << 20;
    // A claim is in bytes of memory; a one-byte enum tag on the wire claims more than it takes.
    let result = match bytes.len() / MIB {
        0 => with_limit::<T, { 16 * MIB }>(bytes),
        1..16 => with_limit::<T, { 256 * MIB }>(bytes),
        16..256 => with_limit::<T, { 4096 * MIB }>(bytes),
        _ => with_limit::<T, { 65536 * MIB }>(bytes),
    };
    let (value, used) = result.map_err(|e| CodecError::Payload(e.to_string()))?;
    if used != bytes.len() {
        return Err(CodecError::Payload(format!("{} bytes too many", bytes.len() - used)));
    }
    Ok(value)
}

impl Graph {
    /// Writes the graph as graph.bin.
    ///
    /// # Errors
    /// If the graph is not well formed ([`Graph::validate`]).
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.validate()?;
        let payload = encode_value(&self.to_wire());
        let mut out = Vec::with_capacity(HEADER + payload.len() + TRAILER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&IR_VERSION.to_le_bytes());
        out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        out.extend_from_slice(&payload);
        let sum = Digest::of(&out);
        out.extend_from_slice(sum.as_bytes());
        Ok(out)
    }

    /// Reads a graph.bin. Writing the result again gives the same bytes.
    ///
    /// # Errors
    /// For anything but an undamaged, canonical, well-formed graph of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(CodecError::NotAGraph)?;
        let cut =
            || CodecError::Length { want: (HEADER + TRAILER) as u64, have: bytes.len() as u64 };
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let version = u32::from_le_bytes(*version);
        if version != IR_VERSION {
            return Err(CodecError::Version(version));
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = u64::from_le_bytes(*length);
        if rest.len() as u64 != length.saturating_add(TRAILER as u64) {
            return Err(CodecError::Length {
                want: length.saturating_add((HEADER + TRAILER) as u64),
                have: bytes.len() as u64,
            });
        }
        let (payload, sum) = rest.split_at(rest.len() - TRAILER);
        if Digest::of(&bytes[..bytes.len() - TRAILER]).as_bytes() != sum {
            return Err(CodecError::Checksum);
        }
        let wire: Wire = decode_value(payload)?;
        // Over-long integers decode too; only the canonical bytes are accepted.
        if encode_value(&wire) != payload {
            return Err(CodecError::NotCanonical);
        }
        let graph = Self::from_wire(wire)?;
        graph.validate()?;
        Ok(graph)
    }

    fn to_wire(&self) -> Wire {
        let position = |digest: &Digest| {
            self.nodes.get_index_of(digest).expect("a validated graph has all inputs") as u32
        };
        Wire {
            nodes: self
                .nodes
                .values()
                .map(|node| WireNode {
                    op: node.op.clone(),
                    inputs: node.inputs.iter().map(|i| (position(&i.node), i.output)).collect(),
                    platform: node.platform.clone(),
                })
                .collect(),
            targets: self.targets.clone(),
            node_meta: self
                .nodes
                .keys()
                .enumerate()
                .filter_map(|(i, digest)| Some((i as u32, self.meta.nodes.get(digest)?.clone())))
                .collect(),
            files: self.meta.files.clone(),
            contexts: self.meta.contexts.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            source_date_epoch: self.meta.source_date_epoch,
        }
    }

    fn from_wire(wire: Wire) -> Result<Self, CodecError> {
        let mut nodes: IndexMap<Digest, Node> = IndexMap::with_capacity(wire.nodes.len());
        for (index, node) in wire.nodes.into_iter().enumerate() {
            let inputs = node
                .inputs
                .iter()
                .map(|&(earlier, output)| {
                    let (digest, _) = nodes.get_index(earlier as usize).ok_or_else(|| {
                        CodecError::Payload(format!(
                            "node {index} uses node {earlier}, which is not before it"
                        ))
                    })?;
                    Ok(Input { node: *digest, output })
                })
                .collect::<Result<_, CodecError>>()?;
            let node = Node { op: node.op, inputs, platform: node.platform };
            if nodes.insert(node.digest(), node).is_some() {
                return Err(CodecError::NotCanonical);
            }
        }
        let mut meta = Meta {
            files: wire.files,
            contexts: wire.contexts.into_iter().collect(),
            source_date_epoch: wire.source_date_epoch,
            ..Meta::default()
        };
        let mut last = None;
        for (index, node_meta) in wire.node_meta {
            let (digest, _) = nodes
                .get_index(index as usize)
                .filter(|_| last.is_none_or(|last| last < index))
                .ok_or(CodecError::NotCanonical)?;
            last = Some(index);
            meta.nodes.insert(*digest, node_meta);
        }
        Ok(Self { nodes, targets: wire.targets, meta })
    }
}
