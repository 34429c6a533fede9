//! What travels: a JSON document beside layers, in an OCI manifest.
//!
//! The document is the config of the manifest; its layers are the blobs that the document speaks of
//! by their position. An image carries the same document in its own config instead.

use std::time::Duration;

use rbc_ir::Digest;
use serde::{Deserialize, Serialize};

use crate::store::{InputContent, LayerId, StoredResult};

/// Media type of the document.
pub const CONFIG_TYPE: &str = "application/vnd.rbc.cache.config.v1+json";
/// Media type of the blob with the exact times of a layer's files.
pub const TIMES_TYPE: &str = "application/vnd.rbc.cache.times.v1+zstd";
/// Media type of a cache mount.
pub const MOUNT_TYPE: &str = "application/vnd.rbc.cache.mount.v1.tar+zstd";
/// The key of an image's config that holds the document (`type=inline`).
pub const IMAGE_KEY: &str = "vnd.rbc.cache.v1";

/// Version of the form.
pub(super) const VERSION: u32 = 1;
/// Longest document, in bytes.
pub(super) const MAX_DOCUMENT: u64 = 64 << 20;
/// Most layers, results and mounts of each kind.
const MAX_ENTRIES: usize = 200_000;
/// Longest name of a step that is kept, in bytes.
const MAX_NAME: usize = 16 << 10;

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) version: u32,
    /// Layers that results speak of.
    #[serde(default)]
    pub(super) layers: Vec<LayerEntry>,
    /// Results by their keys.
    #[serde(default)]
    pub(super) results: Vec<ResultEntry>,
    /// Cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<MountEntry>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerEntry {
    /// Its name in the store that it comes from.
    pub(super) id: String,
    /// Position of its blob in the manifest; without one it is only spoken of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blob: Option<usize>,
    /// Digest of its uncompressed tar; in an image, that of the image's config counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) diff_id: Option<Digest>,
    /// The `SOURCE_DATE_EPOCH` that the tar was made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<i64>,
    /// How the blob was compressed, so that it is not done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipe: Option<String>,
    /// Position of the blob with its times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<usize>,
    /// Facts of the layer's own folder, which no tar has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<RootFacts>,
}

/// What is known of the folder that all others are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootFacts {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultEntry {
    /// Digest of its node.
    pub(super) key: Digest,
    /// Digest of the operation alone.
    pub(super) operation: Digest,
    /// Positions of its layers in the document, lowest first.
    pub(super) layers: Vec<usize>,
    /// Nodes of the inputs with the identities of the results that were used.
    #[serde(default)]
    pub(super) inputs: Vec<(Digest, Digest)>,
    /// What each input consisted of.
    #[serde(default)]
    pub(super) contents: Vec<ContentEntry>,
    /// Name of the step.
    #[serde(default)]
    pub(super) name: String,
    /// How long it took to make.
    #[serde(default)]
    pub(super) millis: u64,
}

/// What an input consisted of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ContentEntry {
    Pinned(Digest),
    Layers(Vec<usize>),
}

/// A cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MountEntry {
    pub(super) id: String,
    /// What tells it from others of the same id, which begin with another owner or content.
    pub(super) key: Digest,
    /// Position of its tar in the manifest.
    pub(super) blob: usize,
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Position of the blob with its times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<usize>,
    /// Facts of its own folder.
    pub(super) root: RootFacts,
}

impl Document {
    /// Reads a document. What is wrong is said in a sentence.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let document: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        document.checked()
    }

    /// Refuses what another version wrote, and what is too long.
    pub(super) fn checked(self) -> Result<Self, String> {
        let version = self.version;
        if version != VERSION {
            return Err(format!("it is of version {version}, this rbc knows version {VERSION}"));
        }
        let sizes = [self.layers.len(), self.results.len(), self.mounts.len()];
        if sizes.into_iter().any(|size| size > MAX_ENTRIES) {
            return Err(format!("it has more than {MAX_ENTRIES} entries"));
        }
        Ok(self)
    }

    /// The names of all layers, by position.
    pub(super) fn layer_ids(&self) -> Result<Vec<LayerId>, String> {
        let id = |layer: &LayerEntry| layer.id.parse().map_err(|e| format!("{e}"));
        self.layers.iter().map(id).collect()
    }
}

impl ResultEntry {
    /// The result as the store keeps it; `None` if it speaks of layers that the document lacks.
    pub(super) fn stored(&self, ids: &[LayerId]) -> Option<StoredResult> {
        let named = |positions: &[usize]| -> Option<Vec<LayerId>> {
            positions.iter().map(|at| ids.get(*at).cloned()).collect()
        };
        let content = |content: &ContentEntry| match content {
            ContentEntry::Pinned(digest) => Some(InputContent::Pinned(*digest)),
            ContentEntry::Layers(layers) => named(layers).map(InputContent::Layers),
        };
        let mut name = self.name.clone();
        let end = (0..=MAX_NAME.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
        name.truncate(end.unwrap_or(0));
        Some(StoredResult {
            layers: named(&self.layers)?,
            inputs: self.inputs.clone(),
            operation: self.operation,
            contents: self.contents.iter().map(content).collect::<Option<_>>()?,
            name,
            elapsed: Duration::from_millis(self.millis.min(u64::from(u32::MAX))),
        })
    }

    /// The result of a key as it travels; `at` gives a layer's position.
    pub(super) fn of(
        key: &Digest,
        stored: &StoredResult,
        at: &mut dyn FnMut(&LayerId) -> usize,
    ) -> Self {
        let layers = stored.layers.iter().map(&mut *at).collect();
        let mut content = |content: &InputContent| match content {
            InputContent::Pinned(digest) => ContentEntry::Pinned(*digest),
            InputContent::Layers(layers) => {
                ContentEntry::Layers(layers.iter().map(&mut *at).collect())
            }
        };
        Self {
            key: *key,
            operation: stored.operation,
            layers,
            inputs: stored.inputs.clone(),
            contents: stored.contents.iter().map(&mut content).collect(),
            name: stored.name.clone(),
            millis: u64::try_from(stored.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_as_it_was() {
        let ids = [LayerId::unique(), LayerId::unique(), LayerId::unique()];
        let stored = StoredResult {
            layers: vec![ids[0].clone(), ids[2].clone()],
            inputs: vec![(Digest::of(b"node"), Digest::of(b"result"))],
            operation: Digest::of(b"op"),
            contents: vec![
                InputContent::Layers(vec![ids[0].clone()]),
                InputContent::Pinned(Digest::of(b"context")),
                InputContent::Layers(vec![ids[1].clone(), ids[2].clone()]),
            ],
            name: "[2/3] RUN make".to_owned(),
            elapsed: Duration::from_millis(1234),
        };
        let mut at = |id: &LayerId| ids.iter().position(|known| known == id).expect("known");
        let entry = ResultEntry::of(&Digest::of(b"key"), &stored, &mut at);
        let json = serde_json::to_vec(&entry).expect("json");
        let read: ResultEntry = serde_json::from_slice(&json).expect("read");
        assert_eq!(read.stored(&ids), Some(stored));
        assert_eq!(read.stored(&ids[..2]), None, "a layer that the document lacks");
    }

    #[test]
    fn documents_of_strangers_are_refused() {
        let answers = [
            "{}",
            r#"{"version":2}"#,
            r#"{"version":1,"layers":[{"id":7}]}"#,
            r#"{"version":1,"results":[{"key":"md5:1","operation":"","layers":[-1]}]}"#,
            r#"{"version":1}"#,
        ]
        .map(|json| match Document::parse(json.as_bytes()) {
            Ok(_) => "read".to_owned(),
            Err(reason) => reason,
        });
        insta::assert_snapshot!(answers.join("\n"), @r#"
        missing field `version` at line 1 column 2
        it is of version 2, this rbc knows version 1
        invalid type: integer `7`, expected a string at line 1 column 30
        "md5:1" is not a digest: want "sha256:" and 64 lower-case hexadecimal digits at line 1 column 38
        read
        "#);
        let document =
            Document::parse(br#"{"version":1,"layers":[{"id":"../x"}]}"#).expect("parsed");
        assert!(document.layer_ids().is_err(), "names that lead out of a folder are no names");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(json in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Document::parse(&json);
        }
    }
}
