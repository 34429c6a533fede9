//! The `-o` option: `type=oci,dest=out.tar`, or a folder, or `-`.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    image::{Reference, ReferenceError},
    layer::Packing,
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
    /// Compression of the layers that the build made.
    pub compression: Packing,
    /// Whether base layers in another compression are packed again.
    pub base_layers: BaseLayers,
    /// Whose media types manifests are written with.
    pub media_types: MediaTypes,
    /// Whether an OCI layout is one tar or a folder.
    pub packaging: Packaging,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the index of several platforms.
    pub index_annotations: BTreeMap<String, String>,
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
            compression: Packing::default(),
            base_layers: BaseLayers::default(),
            media_types,
            packaging: Packaging::default(),
            annotations: BTreeMap::new(),
            index_annotations: BTreeMap::new(),
            push: Push::default(),
            insecure: false,
            platform_split: None,
        }
    }

    /// Reads the value of `-o`/`--output` as docker does: a lone path is a folder, `-` a tar on
    /// standard output, anything else fields in CSV form.
    pub fn parse(spec: &str) -> Result<Self, OutputSpecError> {
        let fields = split_csv(spec).ok_or_else(|| OutputSpecError::Quotes(spec.to_owned()))?;
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
            Some(value) => {
                return Err(OutputSpecError::Value {
                    spec: spec.to_owned(),
                    key: "type".to_owned(),
                    value: value.to_owned(),
                    want: "oci, docker, image, registry, tar or local",
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
        let by_digest =
            |value: &String| matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true");
        if out.push == Push::ByName && last("push-by-digest").is_some_and(by_digest) {
            out.push = Push::ByDigest;
        }
        if out.push != Push::No && kind != OutputKind::Image(Format::Store) {
            return Err(missing(spec, "only type=image and type=registry can be pushed"));
        }
        if out.packaging == Packaging::Folder && !matches!(out.dest, Dest::Path(_)) {
            return Err(missing(spec, "tar=false needs dest=DIR"));
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
                self.compression = match value {
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
            // rbc's layers are always written with reproducible times.
            "rewrite-timestamp" | "store" | "unpack" | "name-canonical" => {
                flag()?;
            }
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
            lower => {
                let annotation = |prefix: &str| {
                    lower.starts_with(prefix).then(|| key[prefix.len()..].to_owned())
                };
                if let Some(name) =
                    annotation("annotation.").or_else(|| annotation("annotation-manifest."))
                {
                    self.annotations.insert(name, value.to_owned());
                } else if let Some(name) = annotation("annotation-index.") {
                    self.index_annotations.insert(name, value.to_owned());
                } else {
                    return Err(OutputSpecError::Key {
                        spec: spec.to_owned(),
                        key: key.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn missing(spec: &str, what: &'static str) -> OutputSpecError {
    OutputSpecError::Missing { spec: spec.to_owned(), what }
}

/// One record of comma-separated values; a field in quotes may hold commas, and quotes doubled.
/// `None` if quotes do not match.
pub(crate) fn split_csv(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut tail = quoted;
            loop {
                let (part, after) = tail.split_once('"')?;
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        tail = more;
                    }
                    None => {
                        tail = after;
                        break;
                    }
                }
            }
            fields.push(field);
            match tail.strip_prefix(',') {
                Some(more) => rest = more,
                None if tail.is_empty() => return Some(fields),
                None => return None,
            }
        } else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return None;
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Some(fields),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: &str) -> String {
        match OutputSpec::parse(spec) {
            Ok(o) => {
                let names: Vec<String> = o.names.iter().map(Reference::familiar).collect();
                format!(
                    "{:?} {:?} {names:?} {:?} {:?}{}",
                    o.kind,
                    o.dest,
                    o.compression,
                    o.media_types,
                    if o.push == Push::No { String::new() } else { format!(" {:?}", o.push) }
                )
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn values_are_read() {
        let lines = [
            "out",
            "-",
            "",
            "type=local,dest=out",
            "type=local",
            "type=oci",
            "type=oci,dest=-",
            "type=docker",
            "type=docker,dest=a.tar",
            "type=tar,dest=x",
            "dest=x,type=oci",
            "type=image,\"name=a,b:1\",compression=zstd",
            "type=oci,dest=a,oci-mediatypes=false",
            "type=oci,compression=lz4",
            "type=oci,nokey",
            "type=oci,tar=false",
            "type=oci,tar=x",
            "type=what",
            "type=oci,what=1",
            "type=image,push=true",
            "type=registry",
            "type=registry,push=false",
            "type=image,push=true,push-by-digest=true",
            "type=oci,dest=x,push=true",
            "type=oci,\"dest=a",
            "type=image,name=A",
            "a,b",
        ]
        .map(|spec| format!("{spec:<40} -> {}", shown(spec)));
        insta::assert_snapshot!(lines.join("\n"), @r#"
        out                                      -> Local Path("out") [] Gzip Oci
        -                                        -> Tar Stdout [] Gzip Oci
                                                 -> output "": it is empty; give a folder or type=…
        type=local,dest=out                      -> Local Path("out") [] Gzip Oci
        type=local                               -> output "type=local": dest is missing
        type=oci                                 -> Image(Oci) Stdout [] Gzip Oci
        type=oci,dest=-                          -> Image(Oci) Stdout [] Gzip Oci
        type=docker                              -> Image(Store) Stdout [] Gzip Oci
        type=docker,dest=a.tar                   -> Image(Docker) Path("a.tar") [] Gzip Docker
        type=tar,dest=x                          -> Tar Path("x") [] Gzip Oci
        dest=x,type=oci                          -> Image(Oci) Path("x") [] Gzip Oci
        type=image,"name=a,b:1",compression=zstd -> Image(Store) Stdout ["a:latest", "b:1"] Zstd Oci
        type=oci,dest=a,oci-mediatypes=false     -> Image(Oci) Path("a") [] Gzip Docker
        type=oci,compression=lz4                 -> output "type=oci,compression=lz4": compression is "lz4", want gzip, zstd or uncompressed
        type=oci,nokey                           -> output "type=oci,nokey": want key=value, not "nokey"
        type=oci,tar=false                       -> output "type=oci,tar=false": tar=false needs dest=DIR
        type=oci,tar=x                           -> output "type=oci,tar=x": tar is "x", want true or false
        type=what                                -> output "type=what": type is "what", want oci, docker, image, registry, tar or local
        type=oci,what=1                          -> output "type=oci,what=1": unknown key "what"
        type=image,push=true                     -> Image(Store) Stdout [] Gzip Oci ByName
        type=registry                            -> Image(Store) Stdout [] Gzip Oci ByName
        type=registry,push=false                 -> Image(Store) Stdout [] Gzip Oci
        type=image,push=true,push-by-digest=true -> Image(Store) Stdout [] Gzip Oci ByDigest
        type=oci,dest=x,push=true                -> output "type=oci,dest=x,push=true": only type=image and type=registry can be pushed
        type=oci,"dest=a                         -> output "type=oci,\"dest=a": a quotation mark is missing
        type=image,name=A                        -> output "type=image,name=A": invalid reference format: "A": repository name (library/A) must be lowercase
        a,b                                      -> output "a,b": want key=value, not "a"
        "#);
    }

    #[test]
    fn annotations_keep_their_case() {
        let spec = OutputSpec::parse("type=oci,annotation.org.Example=A b,annotation-index.x=1")
            .expect("parse");
        assert_eq!(spec.annotations.get("org.Example").map(String::as_str), Some("A b"));
        assert_eq!(spec.index_annotations.get("x").map(String::as_str), Some("1"));
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_answered(spec in "\\PC{0,60}") {
            let _ = OutputSpec::parse(&spec);
        }
    }
}
