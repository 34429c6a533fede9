//! The manifest with the statements about one image, as BuildKit writes it.

use base64::{Engine, engine::general_purpose::STANDARD};
use rbc_ir::Platform;
use serde_json::{Value, json};

use super::{Predicate, image_purl};
use crate::image::{Descriptor, PlatformJson, Reference, media_type};

/// The form of statements (in-toto attestation framework, v1).
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// Media type of a statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Annotation of a statement's blob with the type of its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// What a manifest of statements is as an artifact.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Media type of the config of an artifact that has none (OCI image-spec, "Guidance for an empty
/// descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation of a manifest's entry in the index with the digest of the image that it is about.
pub(crate) const ABOUT: &str = "vnd.docker.reference.digest";

/// Largest statement that is read, in bytes.
pub(crate) const MAX_STATEMENT: u64 = 64 << 20;

/// How a manifest of statements looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttestationForm {
    /// An OCI artifact whose subject is the image, so that tools find it through the registry's list
    /// of referrers too.
    #[default]
    Artifact,
    /// What passes for an image, for registries that know of no artifacts (`oci-artifact=false`).
    Image,
}

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
        about: &Descriptor,
        platform: &Platform,
        names: &[Reference],
        predicates: &[Predicate],
        form: AttestationForm,
    ) -> Option<Self> {
        if predicates.is_empty() {
            return None;
        }
        let digest = json!({ "sha256": about.digest.hex() });
        let mut subjects: Vec<Value> = names
            .iter()
            .map(|name| json!({ "name": image_purl(name, platform), "digest": digest }))
            .collect();
        if subjects.is_empty() {
            subjects.push(json!({ "name": "_", "digest": digest }));
        }
        let statements = predicates.iter().map(|predicate| statement(predicate, &subjects));
        let statements = statements.zip(predicates).map(|(statement, p)| (p.kind, statement));
        Some(Self::with(about, form, statements.collect()))
    }

    /// The same statements about the image under another manifest, which `now` describes: its layers
    /// have been packed otherwise. `manifest` is the manifest of statements, `read` gives their bytes.
    /// `None` if one of them is signed or of an unknown kind, and must stay as it is.
    pub(crate) fn moved(
        manifest: &[u8],
        read: &dyn Fn(&Descriptor) -> Option<Vec<u8>>,
        before: &str,
        now: &Descriptor,
    ) -> Option<Self> {
        let manifest: Value = serde_json::from_slice(manifest).ok()?;
        let layers = manifest["layers"].as_array()?;
        let mut statements = Vec::new();
        for layer in layers {
            let layer: Descriptor = serde_json::from_value(layer.clone()).ok()?;
            if layer.media_type != IN_TOTO {
                return None;
            }
            let mut statement: Value = serde_json::from_slice(&read(&layer)?).ok()?;
            for subject in statement["subject"].as_array_mut()? {
                let digest = subject.get_mut("digest")?.get_mut("sha256")?;
                if before.strip_prefix("sha256:") == digest.as_str() {
                    *digest = now.digest.hex().into();
                }
            }
            let kind = layer.annotation(PREDICATE_TYPE).map(str::to_owned);
            let kind = kind.or_else(|| Some(statement["predicateType"].as_str()?.to_owned()))?;
            statements.push((kind, statement));
        }
        let form = match manifest.get("artifactType") {
            Some(_) => AttestationForm::Artifact,
            None => AttestationForm::Image,
        };
        let statements = statements.iter().map(|(kind, s)| (kind.as_str(), s.clone())).collect();
        Some(Self::with(now, form, statements))
    }

    /// The manifest of statements that are there already, with their predicate types.
    fn with(about: &Descriptor, form: AttestationForm, statements: Vec<(&str, Value)>) -> Self {
        let mut documents = Vec::new();
        let mut layers = Vec::new();
        for (kind, statement) in statements {
            let bytes = statement.to_string().into_bytes();
            let layer = Descriptor::of(IN_TOTO, &bytes);
            layers.push(json!({
                "mediaType": layer.media_type,
                "digest": layer.digest,
                "size": layer.size,
                "annotations": { PREDICATE_TYPE: kind },
            }));
            documents.push(bytes);
        }
        let (config, manifest) = match form {
            AttestationForm::Artifact => {
                let config = b"{}".to_vec();
                let described = Descriptor::of(EMPTY, &config);
                let manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": media_type::MANIFEST,
                    "artifactType": ARTIFACT,
                    "config": {
                        "mediaType": described.media_type,
                        "digest": described.digest,
                        "size": described.size,
                        "data": STANDARD.encode(&config),
                    },
                    "layers": layers,
                    "subject": {
                        "mediaType": about.media_type,
                        "digest": about.digest,
                        "size": about.size,
                    },
                });
                (config, manifest)
            }
            AttestationForm::Image => {
                let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
                let config = json!({
                    "architecture": "unknown",
                    "os": "unknown",
                    "config": {},
                    "rootfs": { "type": "layers", "diff_ids": diff_ids },
                });
                let config = config.to_string().into_bytes();
                let manifest = json!({
                    "schemaVersion": 2,
                    "mediaType": media_type::MANIFEST,
                    "config": Descriptor::of(media_type::CONFIG, &config),
                    "layers": layers,
                });
                (config, manifest)
            }
        };
        let manifest = manifest.to_string().into_bytes();
        let annotations = [
            (ABOUT, about.digest.to_string()),
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
        Self { descriptor, documents }
    }
}

/// A statement that a predicate holds for subjects.
pub(crate) fn statement(predicate: &Predicate, subjects: &[Value]) -> Value {
    json!({
        "_type": STATEMENT,
        "predicateType": predicate.kind,
        "subject": subjects,
        "predicate": predicate.content,
    })
}
