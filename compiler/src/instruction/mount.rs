//! `RUN --mount` and `RUN --device`: comma-separated options.
//!
//! Options of a mount may hold variables, so only what can be known without them is checked when
//! the instruction is read ([`mount_from`]); [`parse_mount`] reads the whole once they are known.

use rbc_ir::CacheSharing;

use super::{
    option_error::OptionError,
    value::{parse_bool, parse_size},
};
use crate::{shellword::ExpandError, suggest};

/// The types of mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A folder that outlives the build.
    Cache,
    /// An empty folder in memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// The socket of an ssh agent.
    Ssh,
}

impl MountType {
    const NAMES: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    /// The name as it is written.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A value of `RUN --mount`, expanded and checked. An option that is not given is empty or `None`;
/// what then holds depends on the type and is decided when the mount is lowered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `type`.
    pub kind: MountType,
    /// `from`: a stage, image or named context.
    pub from: String,
    /// `source`.
    pub source: String,
    /// `target`.
    pub target: String,
    /// Whether writing is denied; the default is decided by the type.
    pub read_only: bool,
    /// `size` in bytes; 0 means no limit.
    pub size: u64,
    /// `id`.
    pub id: String,
    /// `sharing`.
    pub sharing: Option<CacheSharing>,
    /// `required`.
    pub required: bool,
    /// `env`: the variable that gets a secret; an empty name is that of the secret's id.
    pub env: Option<String>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
}

/// What a mount comes from as far as it is known before expansion; `None` if no `from` is given.
/// Errors: malformed options, a variable in `from`.
pub fn mount_from(text: &str) -> Result<Option<String>, OptionError> {
    let mut from = None;
    for field in csv_fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        // A dollar sign at the very end is no variable.
        if value.find('$').is_some_and(|at| at + 1 != value.len()) {
            return Err(OptionError::FromVariable);
        }
        from = Some(value.to_owned());
    }
    Ok(from.filter(|from| !from.is_empty()))
}

/// Reads a mount. `expand` expands the variables of one value.
pub fn parse_mount(
    text: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
) -> Result<MountOptions, OptionError> {
    let mut mount = MountOptions::default();
    let mut read_only = None;
    for field in csv_fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(expand(value)?)),
            None => (field.as_str(), None),
        };
        let key = key.to_lowercase();
        let wrong_value = |value: String| OptionError::Value { key: key.clone(), value };
        let truth = |value: String| parse_bool(&value).map_err(|_| wrong_value(value));
        let other_type =
            |kind: MountType| OptionError::KeyOfOtherType { key: key.clone(), kind: kind.name() };
        let Some(value) = value else {
            match (key.as_str(), mount.kind) {
                ("readonly" | "ro", _) => read_only = Some(true),
                ("readwrite" | "rw", _) => read_only = Some(false),
                ("required", MountType::Secret | MountType::Ssh) => mount.required = true,
                ("required", kind) => return Err(other_type(kind)),
                _ => return Err(OptionError::NoValue(field)),
            }
            continue;
        };
        match key.as_str() {
            "type" => mount.kind = mount_type(value)?,
            "from" => mount.from = value,
            "source" | "src" => mount.source = value,
            "target" | "dst" | "destination" => mount.target = value,
            "readonly" | "ro" => read_only = Some(truth(value)?),
            "readwrite" | "rw" => read_only = Some(!truth(value)?),
            "required" => match mount.kind {
                MountType::Secret | MountType::Ssh => mount.required = truth(value)?,
                kind => return Err(other_type(kind)),
            },
            "size" => match mount.kind {
                MountType::Tmpfs => {
                    mount.size = parse_size(&value).map_err(|_| wrong_value(value))?;
                }
                kind => return Err(other_type(kind)),
            },
            "id" => mount.id = value,
            "sharing" => mount.sharing = Some(sharing(value)?),
            "mode" => mount.mode = Some(number(&value, 8).ok_or_else(|| wrong_value(value))?),
            "uid" => mount.uid = Some(number(&value, 10).ok_or_else(|| wrong_value(value))?),
            "gid" => mount.gid = Some(number(&value, 10).ok_or_else(|| wrong_value(value))?),
            "env" => mount.env = Some(value),
            _ => return Err(unknown_key(key, field)),
        }
    }
    let writable = matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
    mount.read_only = read_only.unwrap_or(!writable);
    check(&mount)?;
    Ok(mount)
}

/// Checks what only shows once all options are read.
fn check(mount: &MountOptions) -> Result<(), OptionError> {
    let kind = mount.kind.name();
    if matches!(mount.kind, MountType::Bind | MountType::Tmpfs) {
        let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
            return Err(OptionError::OwnerOfOtherType { key, kind });
        }
    }
    if mount.kind == MountType::Secret {
        let conflict = |message| Err(OptionError::Conflict(message));
        if !mount.from.is_empty() {
            return conflict("secret mount should not have a from");
        }
        if mount.sharing.is_some() {
            return conflict("secret mount should not define sharing");
        }
        if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            return conflict("invalid secret mount: one of id, source, target is required");
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return conflict("invalid secret mount: both source and id can't be set");
        }
    }
    if mount.sharing.is_some() && mount.kind != MountType::Cache {
        return Err(OptionError::SharingOfOtherType(kind));
    }
    Ok(())
}

fn mount_type(value: String) -> Result<MountType, OptionError> {
    let names = MountType::NAMES;
    let found = names.iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let suggestion = suggest::nearest(&value, names.map(|(name, _)| name));
        OptionError::UnknownType { value, suggestion }
    })
}

fn sharing(value: String) -> Result<CacheSharing, OptionError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(CacheSharing::Shared),
        "private" => Ok(CacheSharing::Private),
        "locked" => Ok(CacheSharing::Locked),
        _ => {
            let suggestion = suggest::nearest(&value, ["shared", "private", "locked"]);
            Err(OptionError::UnknownSharing { value, suggestion })
        }
    }
}

fn unknown_key(key: String, field: String) -> OptionError {
    let keys = [
        "type",
        "from",
        "source",
        "target",
        "readonly",
        "id",
        "sharing",
        "required",
        "size",
        "mode",
        "uid",
        "gid",
        "src",
        "dst",
        "destination",
        "ro",
        "rw",
        "readwrite",
        "env",
    ];
    let suggestion = suggest::nearest(&key, keys);
    OptionError::UnknownKey { key, field, suggestion }
}

/// An unsigned number of 32 bits without sign.
fn number(text: &str, radix: u32) -> Option<u32> {
    text.starts_with(|char: char| char.is_ascii_digit())
        .then(|| u32::from_str_radix(text, radix).ok())
        .flatten()
}

/// Reads a value of `--device`: its name and whether it is required.
pub(super) fn parse_device(text: &str) -> Result<(String, bool), OptionError> {
    let mut name = String::new();
    let mut required = false;
    for field in csv_fields(text)? {
        match field.split_once('=').map(|(key, value)| (key.to_lowercase(), value)) {
            None if field.eq_ignore_ascii_case("required") => required = true,
            None if name.is_empty() => name = field,
            None => return Err(OptionError::NoValue(field)),
            Some((key, value)) if key == "name" => {
                if !name.is_empty() {
                    return Err(OptionError::DeviceNameTwice(name));
                }
                name = value.to_owned();
            }
            Some((key, value)) if key == "required" => {
                let wrong = |_| OptionError::Value { key, value: value.to_owned() };
                required = parse_bool(value).map_err(wrong)?;
            }
            // A CDI name itself holds an equals sign: vendor/class=device.
            Some(_) if name.is_empty() => name = field,
            Some((key, _)) => {
                let suggestion = suggest::nearest(&key, ["name", "required"]);
                return Err(OptionError::UnknownKey { key, field, suggestion });
            }
        }
    }
    Ok((name, required))
}

/// The fields of one line of comma-separated values (RFC 4180): a field that starts with a double
/// quote ends with one, and holds commas and doubled quotes.
fn csv_fields(text: &str) -> Result<Vec<String>, OptionError> {
    let mut rest = text;
    if rest.is_empty() {
        return Err(OptionError::Csv("nothing is given"));
    }
    let mut fields = Vec::new();
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(OptionError::Csv("a quote inside a field that is not quoted"));
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut body = quoted;
        loop {
            let Some((part, behind)) = body.split_once('"') else {
                return Err(OptionError::Csv("a quoted field without its end"));
            };
            field.push_str(part);
            match behind.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    body = more;
                }
                None => {
                    body = behind;
                    break;
                }
            }
        }
        fields.push(field);
        match body.strip_prefix(',') {
            Some(more) => rest = more,
            None if body.is_empty() => return Ok(fields),
            None => return Err(OptionError::Csv("text behind a quoted field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<MountOptions, String> {
        parse_mount(text, &mut |value| Ok(value.to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_defaults() {
        let cache =
            mount("type=cache,target=/c,sharing=LOCKED,mode=0755,uid=1,gid=2,id=x").unwrap();
        assert_eq!(cache.kind, MountType::Cache);
        assert_eq!(cache.sharing, Some(CacheSharing::Locked));
        assert_eq!((cache.mode, cache.uid, cache.gid), (Some(0o755), Some(1), Some(2)));
        assert!(!cache.read_only);
        assert!(mount("dst=/x,from=a").unwrap().read_only, "bind is the default and read-only");
        assert!(!mount("target=/x,rw").unwrap().read_only);
        assert!(!mount("target=/x,ro=false").unwrap().read_only);
        assert_eq!(mount("type=tmpfs,target=/t,size=64m").unwrap().size, 64 << 20);
        assert!(mount("type=secret,id=t,required").unwrap().required);
        assert_eq!(mount("type=secret,id=t,env=TOKEN").unwrap().env.as_deref(), Some("TOKEN"));
        assert_eq!(mount("\"target=/a,b\",source=c").unwrap().target, "/a,b");
    }

    #[test]
    fn values_are_expanded() {
        let mut expand = |value: &str| Ok(value.replace("$T", "cache"));
        assert_eq!(parse_mount("type=$T,target=/$T", &mut expand).unwrap().target, "/cache");
    }

    #[test]
    fn options_that_are_wrong() {
        for (text, message) in [
            (
                "type=cache,tarjet=/x",
                "unexpected key 'tarjet' in 'tarjet=/x' (did you mean target?)",
            ),
            ("type=bogus", "unsupported mount type \"bogus\""),
            ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
            ("type=cache,target", "invalid field 'target': must be a key=value pair"),
            ("target=/x,size=1m", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("target=/x,required", "unexpected key 'required' for mount type 'bind'"),
            ("target=/x,ro=maybe", "invalid value for ro: maybe"),
            ("target=/x,mode=0755", "mode not allowed for \"bind\" type mounts"),
            ("type=cache,mode=0999", "invalid value for mode: 0999"),
            ("type=cache,uid=-1", "invalid value for uid: -1"),
            (
                "type=cache,sharing=share",
                "unsupported sharing value \"share\" (did you mean shared?)",
            ),
            ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
            ("type=secret", "invalid secret mount: one of id, source, target is required"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,src=b", "invalid secret mount: both source and id can't be set"),
            ("", "failed to parse comma-separated options: nothing is given"),
            (
                "a=\"b\"",
                "failed to parse comma-separated options: a quote inside a field that is not quoted",
            ),
            ("\"a=b", "failed to parse comma-separated options: a quoted field without its end"),
            ("\"a\"b", "failed to parse comma-separated options: text behind a quoted field"),
        ] {
            assert_eq!(mount(text).unwrap_err(), message);
        }
    }

    #[test]
    fn from_takes_no_variables() {
        assert_eq!(mount_from("type=$T,FROM=a").unwrap(), Some("a".to_owned()));
        assert_eq!(mount_from("from=a$").unwrap(), Some("a$".to_owned()));
        assert_eq!(mount_from("target=/x").unwrap(), None);
        assert_eq!(mount_from("from=$A"), Err(OptionError::FromVariable));
    }

    #[test]
    fn devices() {
        assert_eq!(
            parse_device("vendor.com/dev=all,required").unwrap(),
            ("vendor.com/dev=all".into(), true)
        );
        assert_eq!(parse_device("name=x,required=false").unwrap(), ("x".into(), false));
        assert!(parse_device("a,b").is_err());
        assert!(
            parse_device("name=a,nmae=b").unwrap_err().to_string().contains("did you mean name")
        );
    }
}
