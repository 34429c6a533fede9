//! The JSON form of a graph, for people and for other tools.
//!
//! It says the same as graph.bin and reads back to the same bytes. Each node carries its digest and
//! its description; digests are checked when reading. `SPEC.md` states the form.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    ContextMeta, Digest, Graph, GraphError, IR_VERSION, Input, Meta, Node, NodeMeta, Op, Platform,
    SourceFile, Target,
};

/// Why a text is not the JSON form of a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or with fields missing, unknown or of a wrong type.
    #[error("not the JSON form of a graph: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written by another version of the format.
    #[error("graph format version {0} is not supported; this rbc reads version {IR_VERSION}")]
    Version(u32),
    /// Two nodes with one digest.
    #[error("node {0} is there twice")]
    DuplicateNode(Digest),
    /// The graph is not well formed.
    #[error("invalid graph: {0}")]
    Invalid(#[from] GraphError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    version: u32,
    nodes: Vec<Entry<'a>>,
    targets: Cow<'a, [Target]>,
    files: Cow<'a, [SourceFile]>,
    contexts: Cow<'a, IndexMap<String, ContextMeta>>,
    source_date_epoch: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    digest: Digest,
    op: Cow<'a, Op>,
    inputs: Cow<'a, [Input]>,
    platform: Option<Cow<'a, Platform>>,
    meta: Option<Cow<'a, NodeMeta>>,
}

impl Graph {
    /// The graph as indented JSON.
    pub fn to_json(&self) -> String {
        let document = Document {
            version: IR_VERSION,
            nodes: self
                .nodes
                .iter()
                .map(|(digest, node)| Entry {
                    digest: *digest,
                    op: Cow::Borrowed(&node.op),
                    inputs: Cow::Borrowed(&node.inputs),
                    platform: node.platform.as_ref().map(Cow::Borrowed),
                    meta: self.meta.nodes.get(digest).map(Cow::Borrowed),
                })
                .collect(),
            targets: Cow::Borrowed(&self.targets),
            files: Cow::Borrowed(&self.meta.files),
            contexts: Cow::Borrowed(&self.meta.contexts),
            source_date_epoch: self.meta.source_date_epoch,
        };
        serde_json::to_string_pretty(&document).expect("the types of the IR have text keys")
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// If a field is missing or unknown, a digest is not that of its node, or the graph is not
    /// well formed ([`Graph::validate`]).
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        /// What can be read of any version.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text)?;
        if version != IR_VERSION {
            return Err(JsonError::Version(version));
        }
        let document: Document = serde_json::from_str(text)?;
        let mut graph = Self {
            nodes: IndexMap::with_capacity(document.nodes.len()),
            targets: document.targets.into_owned(),
            meta: Meta {
                nodes: IndexMap::new(),
                files: document.files.into_owned(),
                contexts: document.contexts.into_owned(),
                source_date_epoch: document.source_date_epoch,
            },
        };
        for entry in document.nodes {
            let node = Node {
                op: entry.op.into_owned(),
                inputs: entry.inputs.into_owned(),
                platform: entry.platform.map(Cow::into_owned),
            };
            if graph.nodes.insert(entry.digest, node).is_some() {
                return Err(JsonError::DuplicateNode(entry.digest));
            }
            if let Some(meta) = entry.meta {
                graph.meta.nodes.insert(entry.digest, meta.into_owned());
            }
        }
        graph.validate()?;
        Ok(graph)
    }
}

/// The content of a file: in JSON a string if it is UTF-8, else `{"hex": "…"}`; elsewhere bytes.
pub(crate) mod file_content {
    use std::fmt::Write as _;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Hex {
        hex: String,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Readable {
        Text(String),
        Bytes(Hex),
    }

    pub(crate) fn serialize<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(data);
        }
        if let Ok(text) = std::str::from_utf8(data) {
            return serializer.serialize_str(text);
        }
        let mut hex = String::with_capacity(data.len() * 2);
        for byte in data {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Hex { hex }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return deserializer.deserialize_byte_buf(Bytes);
        }
        let Hex { hex } = match Readable::deserialize(deserializer)? {
            Readable::Text(text) => return Ok(text.into_bytes()),
            Readable::Bytes(hex) => hex,
        };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        });
        pairs
            .collect::<Option<_>>()
            .ok_or_else(|| de::Error::custom("file content is not pairs of hexadecimal digits"))
    }

    struct Bytes;

    impl de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{everything, graphs, mkfile, target};

    fn small() -> Graph {
        let mut builder = crate::GraphBuilder::new();
        let op = Op::Source(crate::Source::Scratch);
        let scratch = builder.add(op, Vec::new(), None, NodeMeta::default()).unwrap();
        let op = mkfile("/f", b"hi\n");
        let root = builder.add(op, vec![scratch], None, NodeMeta::default()).unwrap();
        let mut graph = builder.finish(vec![target(Some(root))]);
        graph.meta.nodes.clear();
        graph
    }

    #[test]
    fn it_can_be_read_by_people() {
        let json = small().to_json();
        let (nodes, _) = json.split_once("\"targets\"").unwrap();
        insta::assert_snapshot!(nodes, @r#"
        {
          "version": 1,
          "nodes": [
            {
              "digest": "sha256:12c06ef3e003b2fd67bdf1d79463f3a855d81a240fd272cc4fcc7fe5f6288574",
              "op": {
                "source": "scratch"
              },
              "inputs": [],
              "platform": null,
              "meta": null
            },
            {
              "digest": "sha256:e89b1b35efb5d04fbd6f249fa21c1b882c2fe432a08bd970201143d932072577",
              "op": {
                "file": {
                  "actions": [
                    {
                      "mkfile": {
                        "path": "/f",
                        "mode": 420,
                        "data": "hi\n",
                        "owner": null
                      }
                    }
                  ]
                }
              },
              "inputs": [
                {
                  "node": "sha256:12c06ef3e003b2fd67bdf1d79463f3a855d81a240fd272cc4fcc7fe5f6288574",
                  "output": 0
                }
              ],
              "platform": null,
              "meta": null
            }
          ],
        "#);
    }

    #[test]
    fn every_operation_survives() {
        let graph = everything();
        let read = Graph::from_json(&graph.to_json()).unwrap();
        assert_eq!(read.encode().unwrap(), graph.encode().unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let json = small().to_json();
        let error = |from: &str, to: &str| {
            assert!(json.contains(from));
            Graph::from_json(&json.replace(from, to)).unwrap_err().to_string()
        };
        let digests: Vec<String> = small().nodes.keys().map(Digest::to_string).collect();
        let changed = error("hi\\n", "ho\\n");
        let stored = format!("invalid graph: node 1 is stored as {} but its digest is", digests[1]);
        assert!(changed.starts_with(&stored), "{changed}");
        assert_eq!(
            error("\"version\": 1", "\"version\": 2"),
            "graph format version 2 is not supported; this rbc reads version 1"
        );
        assert!(
            error("\"mode\": 420", "\"mode\": 420, \"extra\": 1")
                .starts_with("not the JSON form of a graph: unknown field `extra`")
        );
        assert_eq!(error(&digests[1], &digests[0]), format!("node {} is there twice", digests[0]));
        assert!(error("sha256:", "md5:").contains("is not a digest"));
        assert!(error("\"hi\\n\"", "{\"hex\": \"0\"}").contains("hexadecimal"));
        assert!(Graph::from_json("").is_err());
        assert!(Graph::from_json(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_graph_survives(graph in graphs()) {
            let read = Graph::from_json(&graph.to_json()).unwrap();
            prop_assert_eq!(read.encode().unwrap(), graph.encode().unwrap());
        }
    }
}
