//! graph.bin: magic, version, payload length, payload, SHA-256 of all before it.
//!
//! The payload is bincode (little endian, variable-length integers) of a flat form in which inputs
//! are positions of earlier nodes; digests are computed anew when reading, so a graph.bin cannot
//! claim a digest that is not its own. It is read value by value, and a value that would be written
//! in other bytes is refused at once. `SPEC.md` states every byte. This is the only module that
//! knows bincode.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Digest, Graph, GraphError, Input, Meta, Node, NodeMeta, Op, Platform};

/// Version of the IR: part of every node digest and of graph.bin's header.
pub const IR_VERSION: u32 = 1;

/// The first eight bytes of a graph.bin.
pub const MAGIC: [u8; 8] = *b"RBCGRAPH";

/// The longest payload of a graph.bin, in bytes. It bounds what reading a hostile one can cost.
pub const MAX_PAYLOAD: usize = 256 * MIB;

const MIB: usize = 1 << 20;
const HEADER: usize = MAGIC.len() + 4 + 8;
const TRAILER: usize = 32;

/// Why bytes are not a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// The payload is longer than any reader takes.
    #[error("the graph takes {0} bytes, more than the limit of {MAX_PAYLOAD}")]
    TooLarge(u64),
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

/// A node as it is written.
#[derive(Serialize)]
struct NodeOut<'a> {
    op: &'a Op,
    /// `(position of an earlier node, output)`.
    inputs: Vec<(u32, u32)>,
    platform: &'a Option<Platform>,
}

/// A node as it is read: the same fields, owned.
#[derive(Serialize, Deserialize)]
struct NodeIn {
    op: Op,
    inputs: Vec<(u32, u32)>,
    platform: Option<Platform>,
}

/// The canonical encoding of a value, as it enters digests.
pub(crate) fn encode_value<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    append_value(&mut out, value);
    out
}

fn append_value<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    bincode::serde::encode_into_std_write(value, out, bincode::config::standard())
        .expect("the types of the IR have lengths, and a vector takes all bytes");
}

/// The part of a payload that is not read yet.
struct Payload<'a> {
    rest: &'a [u8],
    again: Vec<u8>,
}

impl<'a> Payload<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, again: Vec::new() }
    }

    /// Reads the next value and checks that it stands there in canonical form: bincode also takes
    /// over-long integers and maps with a key twice.
    fn read<T: Serialize + DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        let (value, used) = decode_limited::<T>(self.rest)?;
        self.again.clear();
        append_value(&mut self.again, &value);
        if self.again != self.rest[..used] {
            return Err(CodecError::NotCanonical);
        }
        self.rest = &self.rest[used..];
        Ok(value)
    }

    /// Reads the length of a list.
    fn read_length(&mut self) -> Result<u64, CodecError> {
        self.read()
    }
}

/// Decodes one value from the start of `bytes`; also gives its length.
///
/// bincode counts the memory that a value claims and takes a limit for it, as a constant only. A
/// byte of input claims eight bytes at most (a small number of 64 bits), so with eight times the
/// input as the limit a forged length fails before memory is taken for it.
fn decode_limited<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    fn with_limit<T: DeserializeOwned, const LIMIT: usize>(
        bytes: &[u8],
    ) -> Result<(T, usize), bincode::error::DecodeError> {
        bincode::serde::decode_from_slice(bytes, bincode::config::standard().with_limit::<LIMIT>())
    }
    const MIDDLE: usize = MAX_PAYLOAD / 16;
    let result = match bytes.len() {
        0..=MIB => with_limit::<T, { 8 * MIB }>(bytes),
        length if length <= MIDDLE => with_limit::<T, { 8 * MIDDLE }>(bytes),
        _ => with_limit::<T, { 8 * MAX_PAYLOAD }>(bytes),
    };
    result.map_err(|error| CodecError::Payload(error.to_string()))
}

impl Graph {
    /// Writes the graph as graph.bin.
    ///
    /// # Errors
    /// If the graph is not well formed ([`Graph::validate`]) or too large.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.validate()?;
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&IR_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        self.append_payload(&mut out);
        let length = out.len() - HEADER;
        if length > MAX_PAYLOAD {
            return Err(CodecError::TooLarge(length as u64));
        }
        out[HEADER - 8..HEADER].copy_from_slice(&(length as u64).to_le_bytes());
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
        if length > MAX_PAYLOAD as u64 {
            return Err(CodecError::TooLarge(length));
        }
        if rest.len() as u64 != length + TRAILER as u64 {
            return Err(CodecError::Length {
                want: length + (HEADER + TRAILER) as u64,
                have: bytes.len() as u64,
            });
        }
        let (payload, sum) = rest.split_at(rest.len() - TRAILER);
        if Digest::of(&bytes[..bytes.len() - TRAILER]).as_bytes() != sum {
            return Err(CodecError::Checksum);
        }
        Self::read_payload(payload)
    }

    /// Appends the payload of a valid graph.
    fn append_payload(&self, out: &mut Vec<u8>) {
        let position = |digest: &Digest| {
            self.nodes.get_index_of(digest).expect("a validated graph has all inputs") as u32
        };
        append_value(out, &(self.nodes.len() as u64));
        for node in self.nodes.values() {
            let inputs = node.inputs.iter().map(|i| (position(&i.node), i.output)).collect();
            append_value(out, &NodeOut { op: &node.op, inputs, platform: &node.platform });
        }
        append_value(out, &self.targets);
        let described: Vec<(u32, &NodeMeta)> = self
            .nodes
            .keys()
            .enumerate()
            .filter_map(|(i, digest)| Some((i as u32, self.meta.nodes.get(digest)?)))
            .collect();
        append_value(out, &described);
        append_value(out, &self.meta.files);
        append_value(out, &self.meta.contexts);
        append_value(out, &self.meta.source_date_epoch);
    }

    fn read_payload(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut payload = Payload::new(bytes);
        let mut nodes: IndexMap<Digest, Node> = IndexMap::new();
        for index in 0..payload.read_length()? {
            let node: NodeIn = payload.read()?;
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
            node.validate()?;
            if nodes.insert(node.digest(), node).is_some() {
                return Err(CodecError::NotCanonical);
            }
        }
        let targets = payload.read()?;
        let mut meta = Meta::default();
        let mut next = 0;
        for _ in 0..payload.read_length()? {
            let (index, node_meta): (u32, NodeMeta) = payload.read()?;
            if index < next {
                return Err(CodecError::NotCanonical);
            }
            let (digest, _) = nodes.get_index(index as usize).ok_or_else(|| {
                CodecError::Payload(format!("it describes node {index} of {}", nodes.len()))
            })?;
            meta.nodes.insert(*digest, node_meta);
            next = index + 1;
        }
        meta.files = payload.read()?;
        meta.contexts = payload.read()?;
        meta.source_date_epoch = payload.read()?;
        if !payload.rest.is_empty() {
            let extra = payload.rest.len();
            return Err(CodecError::Payload(format!("{extra} bytes too many")));
        }
        let graph = Self { nodes, targets, meta };
        // The nodes are checked above, and their digests cannot be wrong.
        graph.validate_targets_and_meta()?;
        Ok(graph)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{everything, exec, graphs, target};

    /// A graph.bin with a right header and checksum around any payload.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&IR_VERSION.to_le_bytes());
        out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        out.extend_from_slice(payload);
        let sum = Digest::of(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    fn payload_of(graph: &Graph) -> Vec<u8> {
        let bytes = graph.encode().unwrap();
        bytes[HEADER..bytes.len() - TRAILER].to_vec()
    }

    fn error(payload: &[u8]) -> String {
        Graph::decode(&frame(payload)).unwrap_err().to_string()
    }

    #[test]
    fn every_operation_survives() {
        let graph = everything();
        let bytes = graph.encode().unwrap();
        let read = Graph::decode(&bytes).unwrap();
        assert_eq!(read, graph);
        assert!(read.nodes.keys().eq(graph.nodes.keys()));
        assert_eq!(read.encode().unwrap(), bytes);
    }

    #[test]
    fn damage_is_noticed_at_every_byte() {
        let bytes = everything().encode().unwrap();
        for at in 0..bytes.len() {
            assert!(Graph::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(Graph::decode(&damaged).is_err(), "changed at {at}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(Graph::decode(&longer), Err(CodecError::Length { .. })));
    }

    /// With a right checksum, what is changed must still be canonical and valid to be taken.
    #[test]
    fn forged_payloads_are_refused_or_canonical() {
        let payload = payload_of(&everything());
        for at in 0..payload.len() {
            assert!(Graph::decode(&frame(&payload[..at])).is_err(), "cut at {at}");
            for change in [1, 0x80, 0xff] {
                let mut forged = payload.clone();
                forged[at] ^= change;
                if let Ok(graph) = Graph::decode(&frame(&forged)) {
                    assert_eq!(payload_of(&graph), forged, "changed at {at}");
                }
            }
        }
    }

    #[test]
    fn headers_are_checked() {
        let bytes = everything().encode().unwrap();
        let with = |at: usize, patch: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + patch.len()].copy_from_slice(patch);
            Graph::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(with(0, b"X"), "not an rbc graph: it does not start with \"RBCGRAPH\"");
        assert_eq!(
            with(8, &[9]),
            "graph format version 9 is not supported; this rbc reads version 1"
        );
        assert_eq!(
            with(12, &[0xff; 8]),
            "the graph takes 18446744073709551615 bytes, more than the limit of 268435456"
        );
        assert_eq!(with(12, &[0; 8]), {
            format!("damaged graph: the header speaks of 52 bytes, there are {}", bytes.len())
        });
        assert_eq!(with(30, &[0xee]), "damaged graph: its checksum does not match its content");
    }

    #[test]
    fn over_long_integers_are_not_canonical() {
        let mut payload = payload_of(&everything());
        let count = payload[0];
        payload.splice(0..1, [0xfb, count, 0]);
        assert_eq!(error(&payload), "damaged graph: it is not in canonical form");
    }

    #[test]
    fn nodes_stand_behind_their_inputs_and_once() {
        let diff = |inputs: &[u8]| [&[4, inputs.len() as u8 / 2], inputs, &[0]].concat();
        let scratch = [0, 0, 0, 0];
        let nodes = |nodes: &[&[u8]]| [&[nodes.len() as u8], &nodes.concat()[..]].concat();
        assert_eq!(
            error(&nodes(&[&diff(&[0, 0, 0, 0])])),
            "damaged graph: node 0 uses node 0, which is not before it"
        );
        assert_eq!(
            error(&nodes(&[&scratch, &scratch])),
            "damaged graph: it is not in canonical form"
        );
        assert_eq!(error(&nodes(&[&scratch, &diff(&[0, 0])])), {
            let input =
                Node { op: Op::Source(crate::Source::Scratch), inputs: vec![], platform: None };
            let inputs = vec![Input::from(input.digest())];
            let node = Node { op: Op::Diff, inputs, platform: None };
            format!("invalid graph: {}: a diff has two inputs, this one has 1", node.digest())
        });
        assert_eq!(error(&[]), "damaged graph: UnexpectedEnd { additional: 1 }");
        let empty = [0; 6];
        assert_eq!(error(&empty), "invalid graph: the graph has no target");
        let longer = [&payload_of(&everything())[..], b"x"].concat();
        assert_eq!(error(&longer), "damaged graph: 1 bytes too many");
    }

    #[test]
    fn an_invalid_graph_is_not_written() {
        let mut graph = everything();
        graph.targets.clear();
        assert_eq!(
            graph.encode().unwrap_err().to_string(),
            "invalid graph: the graph has no target"
        );
    }

    #[test]
    fn long_graphs_are_read_in_one_pass() {
        let mut builder = crate::GraphBuilder::new();
        let scratch = Op::Source(crate::Source::Scratch);
        let mut last = builder.add(scratch, Vec::new(), None, NodeMeta::default()).unwrap();
        for number in 0..20_000 {
            let op = exec(&["echo", &number.to_string()]);
            last = builder.add(op, vec![last], None, NodeMeta::default()).unwrap();
        }
        let graph = builder.finish(vec![target(Some(last))]);
        assert_eq!(Graph::decode(&graph.encode().unwrap()).unwrap(), graph);
    }

    proptest! {
        #[test]
        fn any_graph_survives(graph in graphs()) {
            let bytes = graph.encode().unwrap();
            let read = Graph::decode(&bytes).unwrap();
            prop_assert_eq!(&read, &graph);
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }

        #[test]
        fn any_payload_gives_an_answer(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(graph) = Graph::decode(&frame(&payload)) {
                prop_assert_eq!(payload_of(&graph), payload);
            }
        }
    }
}
