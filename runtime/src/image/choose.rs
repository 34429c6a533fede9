//! From an index to the one manifest for a platform, as containerd chooses it.

use std::collections::HashSet;

use rbc_ir::{Digest, ImageConfig, Platform};

use super::{ConfigFacts, Descriptor, Document, ImageError, MAX_CONFIG, MAX_MANIFEST, Manifest};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;
/// How many indexes and unlabelled manifests are looked at for one name.
const MAX_DOCUMENTS: usize = 256;

/// A place that manifests and configs are read from: the store, a layout, a registry.
pub trait Documents {
    /// The bytes of a small blob, checked against `descriptor`. Larger than `limit` bytes is an
    /// error, an absent one [`ImageError::MissingBlob`].
    fn document(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError>;
}

/// One image for one platform, found and read.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Points at the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The image config, byte for byte.
    pub config_json: Vec<u8>,
    /// The image config.
    pub config: ImageConfig,
    /// What the image is for, by its config.
    pub platform: Platform,
    /// Digests of the uncompressed layers and the time of the image.
    pub facts: ConfigFacts,
}

impl Resolved {
    /// Reads the config of a manifest.
    pub fn read(
        source: &dyn Documents,
        descriptor: Descriptor,
        manifest: Manifest,
    ) -> Result<Self, ImageError> {
        manifest.check_is_image(&descriptor.digest)?;
        let config_json = source.document(&manifest.config, MAX_CONFIG)?;
        let digest = manifest.config.digest;
        let (config, platform) = ImageConfig::from_json(&config_json)
            .map_err(|error| ImageError::BadConfig { digest, reason: error.to_string() })?;
        let facts = ConfigFacts::parse(&config_json, &digest)?;
        if facts.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::LayerCount {
                manifest: descriptor.digest,
                layers: manifest.layers.len(),
                diff_ids: facts.diff_ids.len(),
            });
        }
        Ok(Self { descriptor, manifest, config_json, config, platform, facts })
    }
}

/// Reads `root` and chooses from it what fits `wanted` best. A manifest that is not in an index is
/// taken whatever its platform, as Docker does. `name` is for the error only.
pub fn resolve(
    source: &dyn Documents,
    root: &Descriptor,
    wanted: &Platform,
    name: &str,
) -> Result<Resolved, ImageError> {
    let order = compatible(wanted);
    let rank = |platform: &Platform| order.iter().position(|other| other == platform);
    let mut best: Option<(usize, Resolution)> = None;
    let mut offered: Vec<String> = Vec::new();
    let mut seen: HashSet<Digest> = HashSet::new();
    // A list of what is still to look at stands in for recursion; it is kept in index order.
    let mut pending = vec![(root.clone(), 0)];
    while let Some((descriptor, depth)) = pending.pop() {
        if depth > 0 && descriptor.is_attestation() {
            continue;
        }
        let is_index = super::is_index_type(&descriptor.media_type);
        if depth > 0 && !is_index && descriptor.platform.is_some() {
            let platform =
                descriptor.platform.as_ref().map(Platform::from).unwrap_or_else(Platform::host);
            match rank(&platform) {
                Some(rank) if best.as_ref().is_none_or(|(other, _)| rank < *other) => {
                    best = Some((rank, Resolution::Unread(descriptor)));
                }
                _ => offered.push(platform.to_string()),
            }
            continue;
        }
        if !seen.insert(descriptor.digest) {
            continue;
        }
        if seen.len() > MAX_DOCUMENTS || depth > MAX_DEPTH {
            return Err(ImageError::TooNested { name: name.to_owned() });
        }
        let bytes = source.document(&descriptor, MAX_MANIFEST)?;
        match Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)? {
            Document::Index(index) => {
                pending.extend(index.manifests.into_iter().rev().map(|child| (child, depth + 1)));
            }
            Document::Manifest(manifest) if depth == 0 => {
                return Resolved::read(source, descriptor, manifest);
            }
            Document::Manifest(manifest) => {
                let read = Resolved::read(source, descriptor, manifest)?;
                match rank(&read.platform) {
                    Some(rank) if best.as_ref().is_none_or(|(other, _)| rank < *other) => {
                        best = Some((rank, Resolution::Read(Box::new(read))));
                    }
                    _ => offered.push(read.platform.to_string()),
                }
            }
        }
    }
    match best {
        Some((_, Resolution::Read(read))) => Ok(*read),
        Some((_, Resolution::Unread(descriptor))) => {
            let bytes = source.document(&descriptor, MAX_MANIFEST)?;
            match Document::parse(&bytes, &descriptor.media_type, &descriptor.digest)? {
                Document::Manifest(manifest) => Resolved::read(source, descriptor, manifest),
                Document::Index(_) => Err(ImageError::BadManifest {
                    digest: descriptor.digest,
                    reason: "an index lists it as an image, but it is an index".to_owned(),
                }),
            }
        }
        None => {
            offered.dedup();
            Err(ImageError::NoPlatform {
                name: name.to_owned(),
                wanted: wanted.clone(),
                offered: if offered.is_empty() {
                    "no image at all".to_owned()
                } else {
                    offered.join(", ")
                },
            })
        }
    }
}

enum Resolution {
    Unread(Descriptor),
    Read(Box<Resolved>),
}

/// What can run on `wanted`, best first (containerd's `platforms.Only`).
fn compatible(wanted: &Platform) -> Vec<Platform> {
    let Platform { os, architecture, variant } = wanted;
    let with = |architecture: &str, variant: &str| Platform::new(os, architecture, variant);
    let number = |text: &str| text.strip_prefix('v').and_then(|n| n.parse::<u8>().ok());
    let mut out = vec![wanted.clone()];
    match architecture.as_str() {
        "amd64" => {
            for lower in (1..number(variant).unwrap_or(1)).rev() {
                out.push(with("amd64", &format!("v{lower}")));
            }
            out.push(with("386", ""));
        }
        "arm" => {
            for lower in (5..number(variant).unwrap_or(7)).rev() {
                out.push(with("arm", &format!("v{lower}")));
            }
        }
        "arm64" => {
            for lower in (8..number(variant).unwrap_or(8)).rev() {
                out.push(with("arm64", &format!("v{lower}")));
            }
            for lower in (5..=8).rev() {
                out.push(with("arm", &format!("v{lower}")));
            }
        }
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::image::{Index, PlatformJson, media_type};

    /// A few documents in memory.
    #[derive(Default)]
    struct Memory(HashMap<Digest, Vec<u8>>);

    impl Memory {
        fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
            let descriptor = Descriptor::of(media_type, &bytes);
            self.0.insert(descriptor.digest, bytes);
            descriptor
        }

        fn image(&mut self, platform: &str) -> Descriptor {
            let platform: Platform = platform.parse().expect("platform");
            let config = ImageConfig::default().to_json(&platform, "1970-01-01T00:00:00Z", &[]);
            let config = self.put(media_type::CONFIG, config);
            let manifest = Manifest {
                schema_version: 2,
                media_type: None,
                config,
                layers: Vec::new(),
                annotations: None,
            };
            let bytes = serde_json::to_vec(&manifest).expect("manifest");
            self.put(media_type::MANIFEST, bytes)
        }

        fn index(&mut self, manifests: Vec<Descriptor>) -> Descriptor {
            let index = Index { schema_version: 2, media_type: None, manifests, annotations: None };
            let bytes = serde_json::to_vec(&index).expect("index");
            self.put(media_type::INDEX, bytes)
        }

        fn labelled(&mut self, platform: &str) -> Descriptor {
            let parsed: Platform = platform.parse().expect("platform");
            let platform = Some(PlatformJson::from(&parsed));
            Descriptor { platform, ..self.image(&parsed.to_string()) }
        }

        fn choose(&self, root: &Descriptor, wanted: &str) -> String {
            match resolve(self, root, &wanted.parse().expect("platform"), "name") {
                Ok(found) => found.platform.to_string(),
                Err(error) => error.to_string(),
            }
        }
    }

    impl Documents for Memory {
        fn document(&self, descriptor: &Descriptor, _: u64) -> Result<Vec<u8>, ImageError> {
            let digest = descriptor.digest;
            self.0.get(&digest).cloned().ok_or(ImageError::MissingBlob { digest })
        }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let mut memory = Memory::default();
        let all = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        let manifests = all.map(|platform| memory.labelled(platform)).to_vec();
        let some = vec![manifests[0].clone(), manifests[1].clone(), manifests[2].clone()];
        let root = memory.index(manifests);
        let small = memory.index(some);
        let lines = [
            memory.choose(&root, "linux/arm/v7"),
            memory.choose(&root, "linux/arm64"),
            memory.choose(&root, "linux/amd64/v3"),
            memory.choose(&root, "linux/s390x"),
            memory.choose(&small, "linux/arm64"),
            memory.choose(&small, "linux/arm/v7"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        linux/arm/v7
        linux/arm64
        linux/amd64
        name: no image for linux/s390x; there is linux/amd64, linux/arm/v5, linux/arm/v6, linux/arm/v7, linux/arm64
        linux/arm/v6
        linux/arm/v6
        ");
    }

    #[test]
    fn nested_unlabelled_and_attested_images_are_found() {
        let mut memory = Memory::default();
        let plain = memory.image("linux/amd64");
        let mut attestation = memory.image("linux/amd64");
        attestation.platform = Some(PlatformJson {
            os: "unknown".to_owned(),
            architecture: "unknown".to_owned(),
            ..PlatformJson::default()
        });
        let inner = memory.index(vec![attestation.clone(), plain]);
        let outer = memory.index(vec![inner]);
        assert_eq!(memory.choose(&outer, "linux/amd64"), "linux/amd64");
        let none = memory.index(vec![attestation]);
        assert_eq!(
            memory.choose(&none, "linux/amd64"),
            "name: no image for linux/amd64; there is no image at all"
        );
    }

    #[test]
    fn one_manifest_needs_no_match() {
        let mut memory = Memory::default();
        let root = memory.image("linux/s390x");
        assert_eq!(memory.choose(&root, "linux/amd64"), "linux/s390x");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut memory = Memory::default();
        let mut root = memory.labelled("linux/amd64");
        for _ in 0..8 {
            root = memory.index(vec![root]);
        }
        assert_eq!(memory.choose(&root, "linux/amd64"), "name: its indexes are nested too deeply");
    }
}
