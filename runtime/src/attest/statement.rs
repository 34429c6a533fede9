//! The manifest with the statements about one image, as BuildKit writes it.

use std::collections::BTreeMap;

use rbc_ir::{Digest, Platform};
use serde_json::json;

use super::{Predicate, image_purl};
use crate::image::{Descriptor, Manifest, PlatformJson, Reference, media_type};

/// The form of statements that tools for BuildKit's attestations read.
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
/// Media type of a statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Annotation of a statement's blob with the type of its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// A manifest of statements with all its parts.
pub(crate) struct Attestation {
    /// Its entry in the index.
    pub(crate) descriptor: Descriptor,
    /// The manifest, its config and the statements.
    pub(crate) documents: Vec<Vec<u8>>,
}

impl Attestation {
    /// Statements about the image with the manifest `about`. `None` if there is nothing to say.
    pub(crate) fn of(
        about: &Digest,
        platform: &Platform,
        names: &[Reference],
        predicates: &[Predicate],
    ) -> Option<Self> {
        if predicates.is_empty() {
            return None;
        }
        let digest = json!({ "sha256": about.hex() });
        let mut subjects: Vec<_> = names
            .iter()
            .map(|name| json!({ "name": image_purl(name, platform), "digest": digest }))
            .collect();
        if subjects.is_empty() {
            subjects.push(json!({ "name": "_", "digest": digest }));
        }
        let mut documents = Vec::new();
        let mut layers = Vec::new();
        for predicate in predicates {
            let statement = json!({
                "_type": STATEMENT,
                "predicateType": predicate.kind,
                "subject": subjects,
                "predicate": predicate.content,
            });
            let bytes = statement.to_string().into_bytes();
            let kind = (PREDICATE_TYPE.to_owned(), predicate.kind.to_owned());
            layers.push(Descriptor {
                annotations: Some(BTreeMap::from([kind])),
                ..Descriptor::of(IN_TOTO, &bytes)
            });
            documents.push(bytes);
        }
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config = json!({
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config: Descriptor::of(media_type::CONFIG, &config),
            layers,
            annotations: None,
        };
        let manifest = crate::export::to_json(&manifest);
        let annotations = [
            ("vnd.docker.reference.digest", about.to_string()),
            ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ];
        let descriptor = Descriptor {
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            platform: Some(PlatformJson {
                architecture: "unknown".to_owned(),
                os: "unknown".to_owned(),
                ..PlatformJson::default()
            }),
            ..Descriptor::of(media_type::MANIFEST, &manifest)
        };
        documents.extend([config, manifest]);
        Some(Self { descriptor, documents })
    }
}
