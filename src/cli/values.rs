//! Values of options: text to types, with messages that say what would be right.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rbc_ir::{ExtraHost, Ulimit};
use rbc_runtime::{
    attest::{Detail, ProvenanceOptions},
    export::Annotation,
};

use crate::remote::{self, Remote};

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameValue {
    pub name: String,
    pub value: String,
}

pub fn name_value(text: &str) -> Result<NameValue, String> {
    // Docker takes a name alone for an empty value.
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("want NAME=VALUE".to_owned());
    }
    Ok(NameValue { name: name.to_owned(), value: value.to_owned() })
}

/// `--annotation`: one annotation, in one or more places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations(pub Vec<Annotation>);

/// Reads `[PLACE[PLATFORM],…:]NAME=VALUE`.
pub fn annotations(text: &str) -> Result<Annotations, String> {
    let (key, value) = text.split_once('=').ok_or("want [PLACE:]NAME=VALUE")?;
    // A name may hold a colon behind its dots.
    let is_place = |head: &str| !head.contains('.');
    let (places, name) = match key.split_once(':') {
        Some((places, name)) if is_place(places) => (places, name),
        _ => ("manifest", key),
    };
    let at = |place| Annotation::at(place, name, value).map_err(|error| error.to_string());
    places.split(',').map(at).collect::<Result<_, _>>().map(Annotations)
}

/// A value of `--call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: CallMethod,
    /// `format=json`.
    pub json: bool,
}

/// What `--call` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMethod {
    Build,
    Check,
    Outline,
    Targets,
}

pub fn call(text: &str) -> Result<Call, String> {
    let mut fields = text.split(',');
    let mut call = Call {
        method: match fields.next().unwrap_or_default() {
            "build" | "" => CallMethod::Build,
            "check" | "lint" => CallMethod::Check,
            "outline" => CallMethod::Outline,
            "targets" => CallMethod::Targets,
            other => {
                return Err(format!("no method {other:?}: want build, check, outline or targets"));
            }
        },
        json: false,
    };
    for field in fields {
        match field.split_once('=') {
            Some(("format", "json")) => call.json = true,
            Some(("format", "text" | "")) => call.json = false,
            _ => {
                return Err(format!(
                    "want format=json or format=text behind the method, not {field:?}"
                ));
            }
        }
    }
    Ok(call)
}

/// A number of bytes with an optional unit, in powers of 1024 as in docker.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "want bytes, or a number with b, k, m, g or t, such as 64m or 1.5g".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let unit_at = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(unit_at);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_shl(shift).filter(|n| n >> shift == whole).ok_or_else(wrong);
    }
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let bytes = number.parse::<f64>().ok().filter(|_| plain).ok_or_else(wrong)?;
    let bytes = bytes * (1u64 << shift) as f64;
    // Beyond this, not every number of bytes can be told apart.
    if bytes < (1u64 << 53) as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A time span as Go writes it, numbers with units as in `1h30m` or `1.5h`, and days.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time span: want for example 24h, 1h30m or 7d");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let millis: f64 = match unit {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 86_400e3,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * millis / 1e3).map_err(|_| wrong())?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

/// A date, or a date and a time as RFC 3339 has them, in seconds since the epoch.
pub fn moment(text: &str) -> Option<i64> {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    OffsetDateTime::parse(&whole, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// `HOST:IP` or `HOST=IP`.
pub fn extra_host(text: &str) -> Result<ExtraHost, String> {
    let wrong = || "want HOST:IP, for example db:10.0.0.1".to_owned();
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || (bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err()) {
        return Err(wrong());
    }
    Ok(ExtraHost { host: host.to_owned(), ip: bare.to_owned() })
}

/// `TYPE=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let wrong = || "want TYPE=SOFT[:HARD], for example nofile=1024:2048".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !NAMES.contains(&name) {
        return Err(format!("unknown limit {name:?}: known are {}", NAMES.join(", ")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(wrong);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err("the soft limit must not be above the hard limit".to_owned());
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// `--secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSpec {
    pub id: String,
    pub source: SecretSource,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    Env(String),
    /// The environment variable named like the secret if there is one, else the file.
    EnvOrFile(String),
}

pub fn secret(text: &str) -> Result<SecretSpec, String> {
    let (mut id, mut src, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or("want id=ID,src=FILE or id=ID,env=NAME")?;
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => src = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(format!("unknown type {value:?}: want file or env")),
            _ => return Err(format!("unknown field {key:?}: want id, src, env or type")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).or_else(|| src.clone()).ok_or("id is missing")?;
    let source = match (src, env, kind.as_deref()) {
        (_, Some(env), _) => SecretSource::Env(env),
        (Some(src), None, Some("env")) => SecretSource::Env(src),
        (Some(src), None, _) => SecretSource::File(src.into()),
        (None, None, Some("env")) => SecretSource::Env(id.clone()),
        (None, None, Some(_)) => SecretSource::File(id.clone().into()),
        (None, None, None) => SecretSource::EnvOrFile(id.clone()),
    };
    Ok(SecretSpec { id, source })
}

/// `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSpec {
    pub id: String,
    /// An agent's socket or key files; `$SSH_AUTH_SOCK` if there are none.
    pub paths: Vec<PathBuf>,
}

pub fn ssh(text: &str) -> Result<SshSpec, String> {
    let (id, paths) = match text.split_once('=') {
        Some((_, paths)) if paths.split(',').any(str::is_empty) => {
            return Err("want default or ID=SOCKET or ID=KEY[,KEY…]".to_owned());
        }
        Some((id, paths)) => (id, paths.split(',').map(PathBuf::from).collect()),
        None => (text, Vec::new()),
    };
    let id = if id.is_empty() { "default" } else { id };
    Ok(SshSpec { id: id.to_owned(), paths })
}

/// `--provenance`: the options of the statement; `None` for no statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceSpec(pub Option<ProvenanceOptions>);

pub fn provenance(text: &str) -> Result<ProvenanceSpec, String> {
    match text {
        "true" | "1" => return Ok(ProvenanceSpec(Some(ProvenanceOptions::default()))),
        "false" | "0" => return Ok(ProvenanceSpec(None)),
        _ => {}
    }
    let mut options = ProvenanceOptions::default();
    let mut wanted = true;
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("mode", "min")) => options.detail = Detail::Min,
            Some(("mode", "max")) => options.detail = Detail::Max,
            Some(("builder-id", id)) => options.builder = id.to_owned(),
            // What a step did is always part of its graph; there is no other form than version 1.
            Some(("version", "v1") | ("inline-only", "true" | "false")) => {}
            Some(("version", _)) => return Err("rbc writes version=v1 only".to_owned()),
            Some(("reproducible", "true" | "false")) => {}
            Some(("disabled", "true")) => wanted = false,
            Some(("disabled", "false")) => {}
            _ => {
                return Err("want true, false, mode=min or mode=max, and builder-id=URI".to_owned());
            }
        }
    }
    Ok(ProvenanceSpec(wanted.then_some(options)))
}

pub fn sbom(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" | "disabled=true" => Ok(false),
        _ if text.starts_with("generator=") => {
            Err("rbc lists packages itself and runs no generator image".to_owned())
        }
        _ => Err("want true or false".to_owned()),
    }
}

/// `--attest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attest {
    Provenance(ProvenanceSpec),
    Sbom(bool),
}

pub fn attest(text: &str) -> Result<Attest, String> {
    let (kind, rest) = text.split_once(',').unwrap_or((text, "true"));
    match kind {
        "type=provenance" => provenance(rest).map(Attest::Provenance),
        "type=sbom" => sbom(rest).map(Attest::Sbom),
        _ => Err("want type=provenance or type=sbom, then its options".to_owned()),
    }
}

/// `--build-context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildContext {
    pub name: String,
    pub value: ContextValue,
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextValue {
    Folder(PathBuf),
    Image(String),
    /// A layout and the tag or digest in it, possibly empty.
    OciLayout {
        path: PathBuf,
        image: String,
    },
    Stage(String),
    /// A git repository, as an address.
    Git(String),
    /// A file of the web.
    File(String),
}

pub fn build_context(text: &str) -> Result<BuildContext, String> {
    let wrong = "want NAME=VALUE, where VALUE is a folder, docker-image://REFERENCE, \
                 oci-layout://PATH[:TAG|@DIGEST], target:STAGE or the address of a git \
                 repository or file";
    let (name, value) = text.split_once('=').ok_or(wrong)?;
    if name.is_empty() || value.is_empty() {
        return Err(wrong.to_owned());
    }
    let value = if let Some(reference) = value.strip_prefix("docker-image://") {
        ContextValue::Image(reference.to_owned())
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        let (path, image) = split_layout(layout);
        ContextValue::OciLayout { path: path.into(), image: image.to_owned() }
    } else if let Some(stage) = value.strip_prefix("target:") {
        ContextValue::Stage(stage.to_owned())
    } else if Path::new(value).is_dir() {
        ContextValue::Folder(value.into())
    } else {
        match remote::address(value).map_err(|error| format!("{error:#}"))? {
            Some(Remote::Git(_)) => ContextValue::Git(value.to_owned()),
            Some(Remote::File(url)) => ContextValue::File(url),
            None if value.contains("://") => {
                return Err(format!("{value}: there is no such kind of context: {wrong}"));
            }
            None => ContextValue::Folder(value.into()),
        }
    };
    // Names are looked up as stages are, in lower case.
    Ok(BuildContext { name: name.to_ascii_lowercase(), value })
}

/// Splits `PATH@DIGEST` and `PATH:TAG`. A colon before a slash belongs to the path.
fn split_layout(text: &str) -> (&str, &str) {
    if let Some((path, digest)) = text.rsplit_once('@')
        && digest.starts_with("sha256:")
    {
        return (path, digest);
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, tag),
        _ => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("128", 128),
            ("64m", 64 << 20),
            ("1g", 1 << 30),
            ("2KB", 2048),
            ("1GiB", 1 << 30),
            ("1.5m", 3 << 19),
            ("0.5 g", 1 << 29),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "64bbb",
            "1ib",
            "1e3k",
            "1.2.3m",
            "99999999999999999999",
            "17179869184g",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let host = |text| extra_host(text).map(|h| (h.host, h.ip));
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(host("db:10.0.0.1"), pair("db", "10.0.0.1"));
        assert_eq!(host("db=::1"), pair("db", "::1"));
        assert_eq!(host("db:::1"), pair("db", "::1"));
        assert_eq!(host("db=[::1]"), pair("db", "::1"));
        assert_eq!(host("db:host-gateway"), pair("db", "host-gateway"));
        for text in ["db", ":1.2.3.4", "db:x", "db:1.2.3"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn where_annotations_go() {
        use rbc_runtime::export::AnnotationPlace::{Index, Manifest, ManifestDescriptor};
        let of = |text| {
            let all = annotations(text)?.0.into_iter();
            Ok::<Vec<_>, String>(all.map(|one| (one.name, one.place)).collect())
        };
        assert_eq!(of("a=b:c"), Ok(vec![("a".into(), Manifest)]));
        assert_eq!(of("index:a="), Ok(vec![("a".into(), Index)]));
        assert_eq!(
            of("index,manifest-descriptor:a=b"),
            Ok(vec![("a".into(), Index), ("a".into(), ManifestDescriptor)])
        );
        for text in ["a", "=b", "layer:a=b", ":a=b"] {
            assert!(annotations(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agents() {
        let paths = |text| ssh(text).map(|s| (s.id, s.paths.len()));
        assert_eq!(paths("default"), Ok(("default".into(), 0)));
        assert_eq!(paths("a=/x/id_rsa,/y"), Ok(("a".into(), 2)));
        assert!(paths("a=").is_err());
    }

    #[test]
    fn limits() {
        let limit = |text| ulimit(text).map(|u| (u.soft, u.hard));
        assert_eq!(limit("nofile=1024"), Ok((1024, 1024)));
        assert_eq!(limit("nofile=1:2"), Ok((1, 2)));
        assert_eq!(limit("core=-1"), Ok((-1, -1)));
        for text in ["nofile", "what=1", "nofile=2:1", "nofile=x", "nofile=-1:5"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets() {
        let source = |text| secret(text).map(|s| s.source);
        assert_eq!(source("id=a,src=b"), Ok(SecretSource::File("b".into())));
        assert_eq!(source("id=a,env=B"), Ok(SecretSource::Env("B".into())));
        assert_eq!(source("type=env,id=a"), Ok(SecretSource::Env("a".into())));
        assert_eq!(source("id=a"), Ok(SecretSource::EnvOrFile("a".into())));
        for text in ["", "a", "src2=x,id=a", "type=x,id=a"] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn contexts() {
        let value = |text| build_context(text).map(|c| c.value);
        assert_eq!(value("a=../x"), Ok(ContextValue::Folder("../x".into())));
        assert_eq!(
            value("a=oci-layout:///x/y:1"),
            Ok(ContextValue::OciLayout { path: "/x/y".into(), image: "1".into() })
        );
        assert_eq!(
            value("a=oci-layout://./x"),
            Ok(ContextValue::OciLayout { path: "./x".into(), image: String::new() })
        );
        assert_eq!(
            value("a=https://example.com/x.git#main:d"),
            Ok(ContextValue::Git("https://example.com/x.git#main:d".to_owned()))
        );
        assert_eq!(
            value("a=https://example.com/x.tar"),
            Ok(ContextValue::File("https://example.com/x.tar".to_owned()))
        );
        for text in ["a", "=x", "a=", "a=ftp://example.com/x", "a=https://h/x.git?what=1"] {
            assert!(value(text).is_err(), "{text}");
        }
    }
}
