//! The `-o` option: `type=oci,dest=out.tar`, or a folder, or `-`.

mod annotation;
pub(crate) mod csv;

use std::path::PathBuf;

pub use annotation::{Annotation, AnnotationError, AnnotationPlace};

use super::ExportError;
use crate::{
    attest::AttestationForm,
    image::{Reference, ReferenceError},
    layer::{Packing, Recipe},
};

/// One output, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// What is written.
    pub kind: OutputKind,
    /// Where to. [`Dest::Stdout`] where it does not matter.
    pub dest: Dest,
    /// Names of the image from `name=`; empty means those of `-t`.
    pub names: Vec<Reference>,
    /// How the layers that the build made are compressed.
    pub recipe: Recipe,
    /// Whether base layers in another compression are packed again.
    pub base_layers: BaseLayers,
    /// Whose media types manifests are written with.
    pub media_types: MediaTypes,
    /// Whether an OCI layout is one tar or a folder.
    pub packaging: Packaging,
    /// Annotations of the image.
    pub annotations: Vec<Annotation>,
    /// How statements about the image are attached.
    pub attestations: AttestationForm,
    /// What goes before the names of files with statements, in a folder or tar.
    pub attestation_prefix: String,
    /// Whether the image goes to the registries of its names.
    pub push: Push,
    /// Whether the registries that it goes to need not prove who they are.
    pub insecure: bool,
    /// Whether each platform's files get a folder of their own; `None` is yes for several.
    pub platform_split: Option<bool>,
}

/// The kinds of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// An image.
    Image(Format),
    /// All files as one tar.
    Tar,
    /// All files in a folder.
    Local,
    /// Nothing: the build only fills the cache (`cacheonly`).
    Nothing,
}

/// The forms of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout.
    Oci,
    /// An archive for `docker load`, which is an OCI layout too.
    Docker,
    /// The local image store.
    Store,
}

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// Standard output.
    Stdout,
    /// A file or folder.
    Path(PathBuf),
}

/// What happens to layers of base images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseLayers {
    /// They stay as they came.
    #[default]
    Keep,
    /// They are packed again if their compression differs (`force-compression`).
    Recompress,
}

/// Whether an image goes to registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Push {
    /// It stays here.
    #[default]
    No,
    /// Its names stand for it there.
    ByName,
    /// It can be had there by its digest only (`push-by-digest`).
    ByDigest,
}

/// The two families of media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// OCI image-spec.
    Oci,
    /// Docker schema 2.
    Docker,
}

/// One file or a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packaging {
    /// A tar archive.
    #[default]
    Tar,
    /// A folder.
    Folder,
}

/// Why an `-o` value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputSpecError {
    /// Quotes do not match.
    #[error("output {0:?}: a quotation mark is missing")]
    Quotes(String),
    /// A field is not `key=value`.
    #[error("output {spec:?}: want key=value, not {field:?}")]
    Field {
        /// The whole value.
        spec: String,
        /// The field.
        field: String,
    },
    /// There is no such key.
    #[error("output {spec:?}: unknown key {key:?}")]
    Key {
        /// The whole value.
        spec: String,
        /// The key.
        key: String,
    },
    /// A key has a value that it cannot have.
    #[error("output {spec:?}: {key} is {value:?}, want {want}")]
    Value {
        /// The whole value.
        spec: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it can be.
        want: &'static str,
    },
    /// Something is missing.
    #[error("output {spec:?}: {what}")]
    Missing {
        /// The whole value.
        spec: String,
        /// What is missing.
        what: &'static str,
    },
    /// An annotation is malformed.
    #[error("output {spec:?}: {source}")]
    Annotation {
        /// The whole value.
        spec: String,
        /// What is wrong with it.
        source: AnnotationError,
    },
    /// A name is malformed.
    #[error("output {spec:?}: {source}")]
    Name {
        /// The whole value.
        spec: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
}

impl OutputSpec {
    /// An output with everything at its default.
    pub fn new(kind: OutputKind, dest: Dest) -> Self {
        let media_types = match kind {
            OutputKind::Image(Format::Docker) => MediaTypes::Docker,
            _ => MediaTypes::Oci,
        };
        Self {
            kind,
            dest,
            names: Vec::new(),
            recipe: Recipe::default(),
            base_layers: BaseLayers::default(),
            media_types,
            packaging: Packaging::default(),
            annotations: Vec::new(),
            attestations: AttestationForm::default(),
            attestation_prefix: String::new(),
            push: Push::default(),
            insecure: false,
            platform_split: None,
        }
    }

    /// Whether the output can hold images for so many platforms, and statements about them. Good to
    /// know before a build; [`export`](super::export()) finds out as well.
    ///
    /// # Errors
    /// What it cannot hold.
    pub fn check_holds(&self, platforms: usize, has_statements: bool) -> Result<(), ExportError> {
        let OutputKind::Image(format) = self.kind else { return Ok(()) };
        let is_docker_archive = format == Format::Docker;
        match (has_statements, self.media_types) {
            _ if is_docker_archive && platforms > 1 => Err(ExportError::OnePlatformOnly),
            (true, _) if is_docker_archive => Err(ExportError::NoAttestations("type=docker")),
            (true, MediaTypes::Docker) => Err(ExportError::NoAttestations("oci-mediatypes=false")),
            _ if platforms == 1 && !has_statements && self.annotates_index() => {
                Err(ExportError::NoIndex)
            }
            _ => Ok(()),
        }
    }

    /// Reads the value of `-o`/`--output` as docker does: a lone path is a folder, `-` a tar on
    /// standard output, anything else fields in CSV form.
    pub fn parse(spec: &str) -> Result<Self, OutputSpecError> {
        let fields = csv::split(spec).ok_or_else(|| OutputSpecError::Quotes(spec.to_owned()))?;
        if fields.len() <= 1 && !spec.starts_with("type=") {
            return match spec {
                "" => Err(missing(spec, "it is empty; give a folder or type=…")),
                "-" => Ok(Self::new(OutputKind::Tar, Dest::Stdout)),
                path => Ok(Self::new(OutputKind::Local, Dest::Path(path.into()))),
            };
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(OutputSpecError::Field { spec: spec.to_owned(), field });
            };
            pairs.push((key.trim().to_owned(), value.to_owned()));
        }
        let last = |wanted: &str| {
            pairs.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, v)| v)
        };
        let dest = match last("dest").map(String::as_str) {
            None | Some("") => None,
            Some("-") => Some(Dest::Stdout),
            Some(path) => Some(Dest::Path(path.into())),
        };
        let kind = match last("type").map(String::as_str) {
            Some("oci") => OutputKind::Image(Format::Oci),
            // Without a file Docker loads the image into its engine; ours is the local store.
            Some("docker") if dest.is_none() => OutputKind::Image(Format::Store),
            Some("docker") => OutputKind::Image(Format::Docker),
            Some("image") => OutputKind::Image(Format::Store),
            Some("tar") => OutputKind::Tar,
            Some("local") => OutputKind::Local,
            Some("registry") => OutputKind::Image(Format::Store),
            Some("cacheonly") => OutputKind::Nothing,
            Some(value) => {
                return Err(OutputSpecError::Value {
                    spec: spec.to_owned(),
                    key: "type".to_owned(),
                    value: value.to_owned(),
                    want: "oci, docker, image, registry, tar, local or cacheonly",
                });
            }
            None => return Err(missing(spec, "type is missing")),
        };
        if kind == OutputKind::Local && dest.is_none() {
            return Err(missing(spec, "dest is missing"));
        }
        let mut out = Self::new(kind, dest.unwrap_or(Dest::Stdout));
        if last("type").is_some_and(|kind| kind == "registry") {
            out.push = Push::ByName;
        }
        for (key, value) in &pairs {
            out.set(spec, key, value)?;
        }
        out.set_level(spec, last("compression-level").map(String::as_str))?;
        let is_true =
            |value: &String| matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true");
        if out.push == Push::ByName && last("push-by-digest").is_some_and(is_true) {
            out.push = Push::ByDigest;
        }
        if out.push != Push::No && kind != OutputKind::Image(Format::Store) {
            return Err(missing(spec, "only type=image and type=registry can be pushed"));
        }
        if out.packaging == Packaging::Folder && !matches!(out.dest, Dest::Path(_)) {
            return Err(missing(spec, "tar=false needs dest=DIR"));
        }
        // Docker's media types know no artifacts.
        if out.media_types == MediaTypes::Docker {
            if last("oci-artifact").is_some_and(is_true) {
                return Err(missing(spec, "oci-artifact=true needs oci-mediatypes=true"));
            }
            out.attestations = AttestationForm::Image;
        }
        Ok(out)
    }

    fn set(&mut self, spec: &str, key: &str, value: &str) -> Result<(), OutputSpecError> {
        let wrong = |want| OutputSpecError::Value {
            spec: spec.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            want,
        };
        let flag = || match value.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(wrong("true or false")),
        };
        match key.to_ascii_lowercase().as_str() {
            "type" | "dest" => {}
            "name" => {
                // Several names are separated by commas within a quoted field.
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    let name = name.parse().map_err(|source| OutputSpecError::Name {
                        spec: spec.to_owned(),
                        source,
                    })?;
                    self.names.push(name);
                }
            }
            "compression" => {
                self.recipe.packing = match value {
                    "gzip" => Packing::Gzip,
                    "zstd" => Packing::Zstd,
                    "uncompressed" => Packing::None,
                    _ => return Err(wrong("gzip, zstd or uncompressed")),
                };
            }
            "force-compression" => {
                self.base_layers = if flag()? { BaseLayers::Recompress } else { BaseLayers::Keep };
            }
            "oci-mediatypes" => {
                self.media_types = if flag()? { MediaTypes::Oci } else { MediaTypes::Docker };
            }
            "tar" => {
                self.packaging = if flag()? { Packaging::Tar } else { Packaging::Folder };
            }
            "platform-split" => self.platform_split = Some(flag()?),
            "oci-artifact" => {
                self.attestations =
                    if flag()? { AttestationForm::Artifact } else { AttestationForm::Image };
            }
            "attestation-prefix" => {
                if value.contains('/') {
                    return Err(wrong("the beginning of a file name"));
                }
                self.attestation_prefix = value.to_owned();
            }
            // What these ask for is so in any case: layers have reproducible times, images are
            // stored, and are unpacked when they are needed; the store finds NAME@DIGEST under any
            // name; foreign layers stay what they are.
            "rewrite-timestamp"
            | "store"
            | "unpack"
            | "name-canonical"
            | "danging-name-empty-only"
            | "dangling-name-empty-only"
            | "prefer-nondist-layers"
            | "attestation-inline" => {
                flag()?;
            }
            "dangling-name-prefix" => {
                value
                    .parse::<Reference>()
                    .map_err(|source| OutputSpecError::Name { spec: spec.to_owned(), source })?;
            }
            // Read when the compression is known: see `parse`.
            "compression-level" => {}
            "push" => {
                self.push = match (flag()?, self.push) {
                    (true, Push::No) => Push::ByName,
                    (true, already) => already,
                    (false, _) => Push::No,
                };
            }
            // Says how, not whether: see the end of `parse`.
            "push-by-digest" => {
                flag()?;
            }
            "registry.insecure" => self.insecure = flag()?,
            _ => match Annotation::parse(key, value) {
                Some(annotation) => {
                    self.annotations.push(annotation.map_err(|source| {
                        OutputSpecError::Annotation { spec: spec.to_owned(), source }
                    })?);
                }
                None => {
                    return Err(OutputSpecError::Key {
                        spec: spec.to_owned(),
                        key: key.to_owned(),
                    });
                }
            },
        }
        Ok(())
    }

    fn set_level(&mut self, spec: &str, value: Option<&str>) -> Result<(), OutputSpecError> {
        let Some(value) = value else { return Ok(()) };
        let (most, want) = match self.recipe.packing {
            Packing::None => return Ok(()),
            Packing::Gzip => (9, "0 to 9 for gzip"),
            Packing::Zstd => (22, "0 to 22 for zstd"),
        };
        let level = value.parse().ok().filter(|level| *level <= most);
        let level = level.ok_or_else(|| OutputSpecError::Value {
            spec: spec.to_owned(),
            key: "compression-level".to_owned(),
            value: value.to_owned(),
            want,
        })?;
        self.recipe.level = Some(level);
        Ok(())
    }
}

fn missing(spec: &str, what: &'static str) -> OutputSpecError {
    OutputSpecError::Missing { spec: spec.to_owned(), what }
}

#[cfg(test)]
mod tests;
