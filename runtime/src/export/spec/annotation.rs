//! Annotations of images: which document gets them, and for which platform.

use std::collections::BTreeMap;

use rbc_ir::Platform;

use super::OutputSpec;

/// One annotation, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated.
    pub place: AnnotationPlace,
    /// The platform whose image it is for; `None` for all.
    pub platform: Option<Platform>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What an annotation is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// The image manifest.
    Manifest,
    /// The manifest's entry in the index of the image, or of the layout.
    ManifestDescriptor,
    /// The index of several platforms.
    Index,
    /// That index's entry in the index of a layout.
    IndexDescriptor,
}

/// Why an annotation cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// There is no such place.
    #[error(
        "annotations can be put on manifest, manifest-descriptor, index or index-descriptor, not \
         on {0:?}"
    )]
    Place(String),
    /// The platform is none.
    #[error("{0}")]
    Platform(String),
    /// It has no name.
    #[error("the annotation has no name")]
    Name,
}

impl Annotation {
    /// Reads a field of `-o`: `annotation.NAME`, `annotation-PLACE.NAME` or
    /// `annotation-PLACE[PLATFORM].NAME`. `None` if it is another field.
    pub fn parse(key: &str, value: &str) -> Option<Result<Self, AnnotationError>> {
        let (head, name) = key.split_once('.')?;
        let lower = head.to_ascii_lowercase();
        let place = match lower.strip_prefix("annotation")? {
            "" => "manifest",
            rest if rest.starts_with('[') => {
                return Some(Self::at(&format!("manifest{rest}"), name, value));
            }
            rest => rest.strip_prefix('-')?,
        };
        Some(Self::at(place, name, value))
    }

    /// An annotation at a place that is given as `manifest`, `index-descriptor` or
    /// `manifest[linux/arm64]`.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn at(place: &str, name: &str, value: &str) -> Result<Self, AnnotationError> {
        let (kind, platform) = match place.split_once('[') {
            None => (place, None),
            Some((kind, rest)) => {
                let platform = rest
                    .strip_suffix(']')
                    .ok_or_else(|| AnnotationError::Place(place.to_owned()))?
                    .parse()
                    .map_err(|error: rbc_ir::PlatformParseError| {
                        AnnotationError::Platform(error.to_string())
                    })?;
                (kind, Some(platform))
            }
        };
        let place = match kind {
            "manifest" => AnnotationPlace::Manifest,
            "manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
            "index" => AnnotationPlace::Index,
            "index-descriptor" => AnnotationPlace::IndexDescriptor,
            other => return Err(AnnotationError::Place(other.to_owned())),
        };
        if name.is_empty() {
            return Err(AnnotationError::Name);
        }
        Ok(Self { place, platform, name: name.to_owned(), value: value.to_owned() })
    }
}

impl OutputSpec {
    /// The annotations of one place. For a platform those for all platforms, then its own.
    pub(crate) fn annotations_of(
        &self,
        place: AnnotationPlace,
        platform: Option<&Platform>,
    ) -> Option<BTreeMap<String, String>> {
        let at = self.annotations.iter().filter(|annotation| annotation.place == place);
        let (common, own): (Vec<_>, Vec<_>) = at.partition(|one| one.platform.is_none());
        let own = own.into_iter().filter(|one| one.platform.as_ref() == platform);
        let pairs: BTreeMap<String, String> = common
            .into_iter()
            .chain(own)
            .map(|one| (one.name.clone(), one.value.clone()))
            .collect();
        (!pairs.is_empty()).then_some(pairs)
    }

    /// Whether something is to be put on an index, which a single image does not have.
    pub(crate) fn annotates_index(&self) -> bool {
        self.annotations.iter().any(|annotation| {
            matches!(annotation.place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor)
        })
    }
}
