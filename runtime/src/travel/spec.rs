//! The options `--cache-to` and `--cache-from`, in buildx's syntax.

use std::path::PathBuf;

use super::Mode;
use crate::{
    export::split_csv,
    image::{Reference, ReferenceError},
    layer::Packing,
};
use rbc_ir::Digest;

/// Where a cache is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// The place.
    pub place: ToPlace,
    /// Which results.
    pub mode: Mode,
    /// Compression of layers that have none yet; `None` takes what there is.
    pub compression: Option<Packing>,
    /// Whether a failure is only told.
    pub ignore_error: bool,
    /// Whether the registry need not prove who it is.
    pub insecure: bool,
}

/// The places that a cache can be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPlace {
    /// An OCI layout folder.
    Local {
        /// The folder.
        dest: PathBuf,
        /// Its name there.
        tag: String,
    },
    /// A registry.
    Registry(Reference),
    /// The config of the image itself.
    Inline,
}

/// Where a cache is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFrom {
    /// The place.
    pub place: FromPlace,
    /// Whether the registry need not prove who it is.
    pub insecure: bool,
}

/// The places that a cache can be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromPlace {
    /// An OCI layout: a folder or a tar.
    Local {
        /// The folder or tar.
        src: PathBuf,
        /// Its name there.
        tag: Option<String>,
        /// Digest of its manifest.
        digest: Option<Digest>,
    },
    /// A cache or an image in a registry.
    Registry(Reference),
}

/// Why a value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{spec:?}: {reason}")]
pub struct CacheSpecError {
    /// The value.
    spec: String,
    /// What is wrong, and what would be right.
    reason: String,
}

impl From<(&str, String)> for CacheSpecError {
    fn from((spec, reason): (&str, String)) -> Self {
        Self { spec: spec.to_owned(), reason }
    }
}

/// Keys and values of one option.
struct Fields {
    pairs: Vec<(String, String)>,
}

impl Fields {
    /// Splits the value; a lone word is a reference.
    fn parse(spec: &str) -> Result<Self, String> {
        let fields = split_csv(spec).ok_or("a quotation mark is missing")?;
        let pairs = match fields.as_slice() {
            [only] if only.is_empty() => return Err("it is empty; give type=…".to_owned()),
            [only] if !only.contains('=') => {
                vec![("type".to_owned(), "registry".to_owned()), ("ref".to_owned(), only.clone())]
            }
            fields => fields
                .iter()
                .map(|field| {
                    let pair = field.split_once('=');
                    let (key, value) =
                        pair.ok_or_else(|| format!("want key=value, not {field:?}"))?;
                    Ok((key.trim().to_ascii_lowercase(), value.to_owned()))
                })
                .collect::<Result<_, String>>()?,
        };
        Ok(Self { pairs })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "f" | "false") => Ok(false),
            Some("1" | "t" | "true") => Ok(true),
            Some(other) => Err(format!("{key} is {other:?}, want true or false")),
        }
    }

    fn check_keys(&self, known: &[&str]) -> Result<(), String> {
        match self.pairs.iter().find(|(key, _)| key != "type" && !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                Err(format!("unknown key {key:?}: type={} has {}", self.kind(), known.join(", ")))
            }
        }
    }

    fn kind(&self) -> &str {
        self.get("type").unwrap_or_default()
    }

    fn reference(&self) -> Result<Reference, String> {
        let name = self.get("ref").ok_or("ref is missing: give ref=NAME")?;
        name.parse().map_err(|error: ReferenceError| error.to_string())
    }

    fn digest(&self) -> Result<Option<Digest>, String> {
        self.get("digest").map(|text| text.parse().map_err(|e| format!("digest: {e}"))).transpose()
    }
}

/// Why a type cannot be used.
fn unknown(kind: &str, known: &str) -> String {
    match kind {
        "" => format!("type is missing: want {known}"),
        "gha" | "s3" | "azblob" => format!(
            "type={kind} needs a service of its vendor, which rbc does not speak to: want {known} \
             (on GitHub, type=registry with ghcr.io, or type=local with actions/cache)"
        ),
        other => format!("there is no type={other}: want {known}"),
    }
}

/// Keys of `--cache-to` that say how manifests and layers are written. rbc writes OCI image
/// manifests in any case.
const FORM: [&str; 8] = [
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
    "registry.insecure",
];

impl CacheTo {
    /// Reads the value of `--cache-to`.
    ///
    /// # Errors
    /// For what cannot be done, with what would be right.
    pub fn parse(spec: &str) -> Result<Self, CacheSpecError> {
        Self::read(spec).map_err(|reason| (spec, reason).into())
    }

    fn read(spec: &str) -> Result<Self, String> {
        let fields = Fields::parse(spec)?;
        let keys = |own: &[&'static str]| [own, &FORM].concat();
        let place = match fields.kind() {
            "local" => {
                fields.check_keys(&keys(&["dest", "tag"]))?;
                let dest = fields.get("dest").ok_or("dest is missing: give dest=DIR")?;
                let tag = fields.get("tag").unwrap_or("latest").to_owned();
                ToPlace::Local { dest: dest.into(), tag }
            }
            "registry" => {
                fields.check_keys(&keys(&["ref"]))?;
                let reference = fields.reference()?;
                if reference.digest().is_some() {
                    return Err(
                        "ref has a digest, which nothing can be written to: give a tag".to_owned()
                    );
                }
                ToPlace::Registry(reference)
            }
            "inline" => {
                fields.check_keys(&keys(&[]))?;
                ToPlace::Inline
            }
            other => return Err(unknown(other, "local, registry or inline")),
        };
        let mode = match fields.get("mode") {
            None | Some("min") => Mode::Min,
            Some("max") if place == ToPlace::Inline => {
                return Err("an image holds its own layers only, so type=inline has mode=min: \
                            use type=registry for mode=max"
                    .to_owned());
            }
            Some("max") => Mode::Max,
            Some(other) => return Err(format!("mode is {other:?}, want min or max")),
        };
        let compression = match fields.get("compression") {
            None => None,
            Some("gzip") => Some(Packing::Gzip),
            Some("zstd") => Some(Packing::Zstd),
            Some("uncompressed") => Some(Packing::None),
            Some(other) => {
                return Err(format!("compression is {other:?}, want gzip, zstd or uncompressed"));
            }
        };
        if let Some(level) = fields.get("compression-level")
            && level.parse::<u8>().is_err()
        {
            return Err(format!("compression-level is {level:?}, want a number"));
        }
        for key in ["force-compression", "oci-mediatypes", "image-manifest"] {
            fields.flag(key)?;
        }
        Ok(Self {
            place,
            mode,
            compression,
            ignore_error: fields.flag("ignore-error")?,
            insecure: fields.flag("registry.insecure")?,
        })
    }

    /// The place as people name it.
    pub fn shown(&self) -> String {
        match &self.place {
            ToPlace::Local { dest, .. } => format!("cache to {}", dest.display()),
            ToPlace::Registry(reference) => format!("cache to {}", reference.familiar()),
            ToPlace::Inline => "cache in the image".to_owned(),
        }
    }
}

impl CacheFrom {
    /// Reads the value of `--cache-from`; a lone word is the reference of a registry.
    ///
    /// # Errors
    /// For what cannot be done, with what would be right.
    pub fn parse(spec: &str) -> Result<Self, CacheSpecError> {
        Self::read(spec).map_err(|reason| (spec, reason).into())
    }

    fn read(spec: &str) -> Result<Self, String> {
        let fields = Fields::parse(spec)?;
        let place = match fields.kind() {
            "local" => {
                fields.check_keys(&["src", "tag", "digest"])?;
                let src = fields.get("src").ok_or("src is missing: give src=DIR")?.into();
                let tag = fields.get("tag").map(str::to_owned);
                FromPlace::Local { src, tag, digest: fields.digest()? }
            }
            "registry" => {
                fields.check_keys(&["ref", "digest", "registry.insecure"])?;
                let reference = fields.reference()?;
                FromPlace::Registry(match fields.digest()? {
                    Some(digest) => reference.with_digest(digest),
                    None => reference,
                })
            }
            "inline" => {
                return Err("an image is read with type=registry,ref=IMAGE".to_owned());
            }
            other => return Err(unknown(other, "local or registry")),
        };
        Ok(Self { place, insecure: fields.flag("registry.insecure")? })
    }

    /// The place as people name it.
    pub fn shown(&self) -> String {
        match &self.place {
            FromPlace::Local { src, .. } => src.display().to_string(),
            FromPlace::Registry(reference) => reference.familiar(),
        }
    }
}

/// The prefix of a reference where a path would do as well.
const REGISTRY_PREFIX: &str = "docker-image://";

impl CacheFrom {
    /// Reads the argument of `rbc cache import`: `docker-image://REF`, a path, or what `--cache-from`
    /// takes.
    ///
    /// # Errors
    /// As [`CacheFrom::parse`].
    pub fn parse_argument(text: &str) -> Result<Self, CacheSpecError> {
        let place = if let Some(name) = text.strip_prefix(REGISTRY_PREFIX) {
            let reference = name.parse().map_err(|e: ReferenceError| (text, e.to_string()))?;
            FromPlace::Registry(reference)
        } else if text.starts_with("type=") {
            return Self::parse(text);
        } else {
            FromPlace::Local { src: text.into(), tag: None, digest: None }
        };
        Ok(Self { place, insecure: false })
    }
}

/// Where `rbc cache export` writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportPlace {
    /// A tar of an OCI layout; `None` is standard output.
    Tar(Option<PathBuf>),
    /// An OCI layout folder.
    Folder(PathBuf),
    /// A registry.
    Registry(Reference),
}

impl ExportPlace {
    /// Reads a value of `-o`: `docker-image://REF`, `type=local,dest=DIR`, `type=oci,dest=FILE`,
    /// `type=registry,ref=REF`, a folder that exists or ends in a slash, or a file.
    ///
    /// # Errors
    /// For what cannot be done, with what would be right.
    pub fn parse(text: &str) -> Result<Self, CacheSpecError> {
        Self::read(text).map_err(|reason| (text, reason).into())
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(REGISTRY_PREFIX) {
            return name.parse().map(Self::Registry).map_err(|e: ReferenceError| e.to_string());
        }
        if !text.starts_with("type=") {
            return Ok(match text {
                "" => return Err("it is empty; give a file, a folder or type=…".to_owned()),
                "-" => Self::Tar(None),
                path if path.ends_with('/') || std::path::Path::new(path).is_dir() => {
                    Self::Folder(path.into())
                }
                path => Self::Tar(Some(path.into())),
            });
        }
        let fields = Fields::parse(text)?;
        let dest = || fields.get("dest").map(PathBuf::from);
        match fields.kind() {
            "local" => {
                fields.check_keys(&["dest"])?;
                dest().map(Self::Folder).ok_or_else(|| "dest is missing".to_owned())
            }
            "oci" | "tar" => {
                fields.check_keys(&["dest", "tar"])?;
                let is_tar = fields.get("tar").is_none() || fields.flag("tar")?;
                match dest().filter(|dest| dest.as_os_str() != "-") {
                    Some(dest) if !is_tar => Ok(Self::Folder(dest)),
                    None if !is_tar => Err("tar=false needs dest=DIR".to_owned()),
                    dest => Ok(Self::Tar(dest)),
                }
            }
            "registry" => {
                fields.check_keys(&["ref"])?;
                fields.reference().map(Self::Registry)
            }
            other => Err(unknown(other, "oci, local or registry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let to = |spec: &str| match CacheTo::parse(spec) {
            Ok(to) => {
                format!("{:?} {:?} {:?} {}", to.place, to.mode, to.compression, to.ignore_error)
            }
            Err(error) => error.to_string(),
        };
        let from = |spec: &str| match CacheFrom::parse(spec) {
            Ok(from) => format!("{:?} {}", from.place, from.shown()),
            Err(error) => error.to_string(),
        };
        let lines = [
            to("type=local,dest=out"),
            to("type=local,dest=out,mode=max,tag=main,compression=zstd,oci-mediatypes=true"),
            to(
                "type=registry,ref=localhost:5000/app:cache,mode=max,image-manifest=true,ignore-error=true",
            ),
            to("type=inline"),
            to("localhost:5000/app:cache"),
            to("type=inline,mode=max"),
            to("type=local"),
            to("type=registry,ref=A"),
            to("type=local,dest=x,src=y"),
            to("type=local,dest=x,mode=mid"),
            to("type=gha"),
            to("type=s3,bucket=x"),
            to("type=what"),
            to("dest=x"),
            to(""),
            from("localhost:5000/app:cache"),
            from("type=local,src=in,tag=main"),
            from("type=registry,ref=app"),
            from("type=local,src=in,digest=md5:1"),
            from("type=azblob"),
            from("type=inline"),
            from("type=registry,\"ref=app"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        Local { dest: "out", tag: "latest" } Min None false
        Local { dest: "out", tag: "main" } Max Some(Zstd) false
        Registry(Reference { domain: "localhost:5000", path: "app", tag: Some("cache"), digest: None }) Max None true
        Inline Min None false
        Registry(Reference { domain: "localhost:5000", path: "app", tag: Some("cache"), digest: None }) Min None false
        "type=inline,mode=max": an image holds its own layers only, so type=inline has mode=min: use type=registry for mode=max
        "type=local": dest is missing: give dest=DIR
        "type=registry,ref=A": invalid reference format: "A": repository name (library/A) must be lowercase
        "type=local,dest=x,src=y": unknown key "src": type=local has dest, tag, mode, compression, compression-level, force-compression, oci-mediatypes, image-manifest, ignore-error, registry.insecure
        "type=local,dest=x,mode=mid": mode is "mid", want min or max
        "type=gha": type=gha needs a service of its vendor, which rbc does not speak to: want local, registry or inline (on GitHub, type=registry with ghcr.io, or type=local with actions/cache)
        "type=s3,bucket=x": type=s3 needs a service of its vendor, which rbc does not speak to: want local, registry or inline (on GitHub, type=registry with ghcr.io, or type=local with actions/cache)
        "type=what": there is no type=what: want local, registry or inline
        "dest=x": type is missing: want local, registry or inline
        "": it is empty; give type=…
        Registry(Reference { domain: "localhost:5000", path: "app", tag: Some("cache"), digest: None }) localhost:5000/app:cache
        Local { src: "in", tag: Some("main"), digest: None } in
        Registry(Reference { domain: "docker.io", path: "library/app", tag: Some("latest"), digest: None }) app:latest
        "type=local,src=in,digest=md5:1": digest: "md5:1" is not a digest: want "sha256:" and 64 lower-case hexadecimal digits
        "type=azblob": type=azblob needs a service of its vendor, which rbc does not speak to: want local or registry (on GitHub, type=registry with ghcr.io, or type=local with actions/cache)
        "type=inline": an image is read with type=registry,ref=IMAGE
        "type=registry,\"ref=app": a quotation mark is missing
        "#);
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_answered(spec in "\\PC{0,60}") {
            let _ = CacheTo::parse(&spec);
            let _ = CacheFrom::parse(&spec);
            let _ = ExportPlace::parse(&spec);
        }
    }
}
