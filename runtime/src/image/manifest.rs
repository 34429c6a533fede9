//! Image indexes, image manifests and their descriptors (OCI image-spec; Docker's schema 2 has the
//! same shape under other media types).
//!
//! What is read comes from outside: every document is limited in size, checked against the digest
//! that named it over the raw bytes, and refused if it could be read in two ways.

use std::collections::BTreeMap;

use rbc_ir::{Digest, Platform};
use serde::{Deserialize, Serialize};

use super::ImageError;

/// Largest manifest or index that is read, in bytes (the limit that registries keep).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image config that is read, in bytes.
pub const MAX_CONFIG: u64 = 8 << 20;

/// Media types that rbc reads and writes.
pub mod media_type {
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Every kind of manifest that rbc understands.
    pub const MANIFESTS: [&str; 4] = [INDEX, DOCKER_INDEX, MANIFEST, DOCKER_MANIFEST];
    /// Beginnings of the types of layers that only their owner may give away.
    const FOREIGN: [&str; 2] = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];

    /// Whether a layer must be had from where its owner publishes it, and from nobody else.
    pub fn is_foreign(kind: &str) -> bool {
        FOREIGN.iter().any(|foreign| kind.starts_with(foreign))
    }
}

/// Annotation with the full name of an image in a layout (containerd's).
pub const ANNOTATION_NAME: &str = "io.containerd.image.name";
/// Annotation with the tag of an image in a layout (OCI image-layout).
pub const ANNOTATION_REF: &str = "org.opencontainers.image.ref.name";
/// Annotation with an image's time, RFC 3339.
pub const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";
/// Marks a manifest that speaks about another one (attestations).
const ANNOTATION_ABOUT: &str = "vnd.docker.reference.type";

/// Points at a blob (OCI image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the blob's bytes.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "no_pairs")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformJson>,
}

/// The platform of a descriptor as written in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformJson {
    /// Architecture in Go's spelling.
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's spelling.
    #[serde(default)]
    pub os: String,
    /// Operating system version.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Lists images for several platforms (OCI image-spec, image-index.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    pub manifests: Vec<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "no_pairs")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One image for one platform (OCI image-spec, manifest.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "no_pairs")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What a manifest's digest can stand for.
#[derive(Clone, Debug)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

fn no_pairs(pairs: &Option<BTreeMap<String, String>>) -> bool {
    pairs.as_ref().is_none_or(BTreeMap::is_empty)
}

/// The fields that tell what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index. `declared` is the media type that the descriptor or the
    /// registry gave, empty if none; the document's own wins. `digest` is for the error only.
    pub fn parse(bytes: &[u8], declared: &str, digest: &Digest) -> Result<Self, ImageError> {
        let bad = |reason: String| ImageError::BadManifest { digest: *digest, reason };
        let json = |error: serde_json::Error| bad(error.to_string());
        let shape: Shape = serde_json::from_slice(bytes).map_err(json)?;
        let own = shape.media_type.as_deref().filter(|own| !own.is_empty());
        let kind = own.unwrap_or(declared);
        if shape.schema_version == 1
            || kind.starts_with("application/vnd.docker.distribution.manifest.v1")
        {
            return Err(bad(
                "it is of Docker's schema 1, which rbc does not read; push the image again with a \
                 current tool"
                    .to_owned(),
            ));
        }
        let (index, manifest) =
            (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some());
        if index && manifest {
            return Err(bad("it is an index and an image manifest at once".to_owned()));
        }
        match kind {
            media_type::INDEX | media_type::DOCKER_INDEX if manifest => {
                Err(bad("it says that it is an index, but it is an image manifest".to_owned()))
            }
            media_type::MANIFEST | media_type::DOCKER_MANIFEST if index => {
                Err(bad("it says that it is an image manifest, but it is an index".to_owned()))
            }
            _ if index => serde_json::from_slice(bytes).map(Self::Index).map_err(json),
            _ if manifest => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
                Ok(Self::Manifest(manifest))
            }
            _ => Err(bad(format!("it is neither an index nor an image manifest ({kind})"))),
        }
    }
}

impl Manifest {
    /// Checks that the manifest describes a container image: its config and layers have types
    /// that hold one.
    pub fn check_is_image(&self, digest: &Digest) -> Result<(), ImageError> {
        let bad = |reason: String| ImageError::BadManifest { digest: *digest, reason };
        let config = self.config.media_type.as_str();
        if !matches!(config, "" | media_type::CONFIG | media_type::DOCKER_CONFIG) {
            return Err(bad(format!("it holds no container image but {config}")));
        }
        for layer in &self.layers {
            let kind = layer.media_type.as_str();
            let known = kind.is_empty()
                || kind.starts_with(media_type::LAYER)
                || kind.starts_with(media_type::DOCKER_LAYER)
                || media_type::is_foreign(kind);
            if !known {
                return Err(bad(format!("layer {} is of type {kind}", layer.digest)));
            }
        }
        Ok(())
    }
}

impl Descriptor {
    /// A descriptor of `bytes` without annotations and platform.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: None,
            platform: None,
        }
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether this is not an image but a statement about one, as BuildKit attaches to images.
    pub fn is_attestation(&self) -> bool {
        self.annotation(ANNOTATION_ABOUT).is_some()
            || self.platform.as_ref().is_some_and(|platform| {
                platform.os == "unknown" && platform.architecture == "unknown"
            })
    }

    /// Checks `bytes` against the digest and the size that this descriptor gives.
    pub fn check(&self, bytes: &[u8]) -> Result<(), ImageError> {
        if bytes.len() as u64 != self.size {
            return Err(ImageError::WrongSize {
                digest: self.digest,
                want: self.size,
                got: bytes.len() as u64,
            });
        }
        let got = Digest::of(bytes);
        if got != self.digest {
            return Err(ImageError::WrongDigest { want: self.digest, got });
        }
        Ok(())
    }
}

impl From<&Platform> for PlatformJson {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: None,
            variant: (!platform.variant.is_empty()).then(|| platform.variant.clone()),
        }
    }
}

impl From<&PlatformJson> for Platform {
    fn from(json: &PlatformJson) -> Self {
        Platform::new(&json.os, &json.architecture, json.variant.as_deref().unwrap_or_default())
    }
}

/// The `rootfs` of an image config.
#[derive(Deserialize)]
struct Rooted {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    created: Option<String>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// What the runtime alone needs of an image config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFacts {
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// When the image was made, RFC 3339; empty if not said.
    pub created: String,
}

impl ConfigFacts {
    /// Reads them from the config's JSON; `digest` is for the error only.
    pub fn parse(json: &[u8], digest: &Digest) -> Result<Self, ImageError> {
        let rooted: Rooted = serde_json::from_slice(json).map_err(|error| {
            ImageError::BadConfig { digest: *digest, reason: error.to_string() }
        })?;
        Ok(Self {
            diff_ids: rooted.rootfs.diff_ids.unwrap_or_default(),
            created: rooted.created.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, declared: &str) -> String {
        match Document::parse(json.as_bytes(), declared, &Digest::of(b"x")) {
            Ok(Document::Index(index)) => format!("index of {}", index.manifests.len()),
            Ok(Document::Manifest(manifest)) => format!("manifest of {}", manifest.layers.len()),
            Err(error) => error.to_string().split_once(": ").expect("a reason").1.to_owned(),
        }
    }

    #[test]
    fn documents_are_told_apart() {
        let config = format!(
            r#""config":{{"mediaType":"{}","digest":"{}","size":2}}"#,
            media_type::CONFIG,
            Digest::of(b"{}")
        );
        let lines = [
            parse(r#"{"schemaVersion":2,"manifests":[]}"#, ""),
            parse(&format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#), media_type::MANIFEST),
            parse(&format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#), media_type::INDEX),
            parse(&format!(r#"{{"schemaVersion":2,"manifests":[],{config},"layers":[]}}"#), ""),
            parse(r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#, ""),
            parse(r#"{"schemaVersion":2}"#, "text/html"),
            parse(r#"{"schemaVersion":2,"config":{"digest":"md5:1","size":1},"layers":[]}"#, ""),
            parse(r#"{"schemaVersion":2,"config":{},"layers":[{"size":-1}]}"#, ""),
            parse("<html>", "text/html"),
            parse("", ""),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        index of 0
        manifest of 0
        it says that it is an index, but it is an image manifest
        it is an index and an image manifest at once
        it is of Docker's schema 1, which rbc does not read; push the image again with a current tool
        it is neither an index nor an image manifest (text/html)
        "md5:1" is not a digest: want "sha256:" and 64 lower-case hexadecimal digits at line 1 column 45
        missing field `digest` at line 1 column 30
        expected value at line 1 column 1
        EOF while parsing a value at line 1 column 0
        "#);
    }

    #[test]
    fn attestations_are_recognised() {
        let mut descriptor = Descriptor::of(media_type::MANIFEST, b"x");
        assert!(!descriptor.is_attestation());
        descriptor.platform = Some(PlatformJson {
            architecture: "unknown".to_owned(),
            os: "unknown".to_owned(),
            ..PlatformJson::default()
        });
        assert!(descriptor.is_attestation());
    }

    #[test]
    fn bytes_are_checked() {
        let descriptor = Descriptor::of(media_type::MANIFEST, b"abc");
        assert!(descriptor.check(b"abc").is_ok());
        assert!(matches!(descriptor.check(b"abd"), Err(ImageError::WrongDigest { .. })));
        assert!(matches!(descriptor.check(b"abcd"), Err(ImageError::WrongSize { .. })));
    }
}
