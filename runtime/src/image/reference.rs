//! Image references: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
//!
//! A reference is normalised as Docker does it, so that `alpine`, `library/alpine` and
//! `docker.io/library/alpine:latest` are one name. The grammar is that of distribution's
//! `reference` package.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use rbc_ir::Digest;

/// Host that a name without one belongs to.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Folder on [`DEFAULT_DOMAIN`] that a name of one component belongs to.
const OFFICIAL: &str = "library/";
/// Longest repository path that registries take.
const MAX_PATH: usize = 255;

/// A normalised image reference. It always has a tag or a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {name:?}: {reason}")]
pub struct ReferenceError {
    name: String,
    reason: String,
}

impl Reference {
    /// The registry's name, with its port if one was given: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag. `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the image must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The full name without tag and digest: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it, without tag and digest: `alpine`, `ghcr.io/org/tool`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            // `library/a/b` must keep its folder, or it would read as `a/b`.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The shortest form that means the same image: `alpine:latest`.
    pub fn familiar(&self) -> String {
        let mut out = self.familiar_name();
        self.push_suffix(&mut out);
        out
    }

    /// The same repository with the given digest and without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same name without the digest; a tag is put in if there was none.
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().or_else(|| Some("latest".to_owned()));
        Self { tag, digest: None, ..self.clone() }
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }
}

/// The full form, which is also how the store keeps names.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = self.name();
        self.push_suffix(&mut out);
        f.write_str(&out)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = |reason: &str| ReferenceError {
            name: text.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| wrong("want sha256: and 64 hexadecimal digits behind '@'"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong("the tag has characters or a length that tags cannot have"));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(domain) {
            return Err(wrong("the host is not a host name"));
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(wrong(&format!("repository name ({path}) must be lowercase")));
        }
        if path.len() > MAX_PATH {
            return Err(wrong("the repository name is longer than 255 characters"));
        }
        if !path.split('/').all(is_component) {
            return Err(wrong("the repository name is empty or has characters it cannot have"));
        }
        if name.len() == 64 && Digest::from_hex(name).is_ok() {
            return Err(wrong("64 hexadecimal digits cannot be a name"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

/// Splits at the colon of a tag: the last one, unless a slash follows (then it is a port's).
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// The first component is a host if it looks like one: a dot, a colon, `localhost`, or capitals,
/// which a path cannot have.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|&b| word(b))
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(domain: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Lower-case letters and digits, in runs joined by one dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let legal =
        |&b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if !bytes.iter().all(legal) || bytes.is_empty() {
        return false;
    }
    let mut runs = bytes.split(|b| b.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
    let ends = [bytes[0], bytes[bytes.len() - 1]];
    ends.iter().all(u8::is_ascii_alphanumeric)
        && runs.all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn full(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| e.to_string(), |r| r.to_string())
    }

    #[test]
    fn names_are_normalised() {
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.18", "docker.io/library/alpine:3.18"),
            ("org/tool", "docker.io/org/tool:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("127.0.0.1:80/a", "127.0.0.1:80/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("LOCALHOST/a", "LOCALHOST/a:latest"),
            ("ghcr.io/org/a__b.c--d", "ghcr.io/org/a__b.c--d:latest"),
            ("a:5000", "docker.io/library/a:5000"),
        ] {
            assert_eq!(full(text), want, "{text}");
        }
        let pinned = format!("alpine@sha256:{HEX}");
        assert_eq!(full(&pinned), format!("docker.io/library/alpine@sha256:{HEX}"));
        let both = format!("alpine:1@sha256:{HEX}");
        assert_eq!(full(&both), format!("docker.io/library/alpine:1@sha256:{HEX}"));
    }

    #[test]
    fn familiar_form_is_short() {
        for name in ["alpine:latest", "org/tool:v1", "ghcr.io/org/tool:v1", "library/a/b:x"] {
            assert_eq!(name.parse::<Reference>().expect(name).familiar(), name);
        }
    }

    #[test]
    fn wrong_names_say_why() {
        insta::assert_snapshot!(
            ["", "Alpine", "ghcr.io/Org/x", "a//b", "a b", "-a", "a___b", "a:", "a@sha256:12",
             "a.b:x/c", HEX, ":5000/x", "a/", "[::g]/a"]
                .map(full).join("\n"),
            @r#"
        invalid reference format: "": it is empty
        invalid reference format: "Alpine": repository name (library/Alpine) must be lowercase
        invalid reference format: "ghcr.io/Org/x": repository name (Org/x) must be lowercase
        invalid reference format: "a//b": the repository name is empty or has characters it cannot have
        invalid reference format: "a b": the repository name is empty or has characters it cannot have
        invalid reference format: "-a": the repository name is empty or has characters it cannot have
        invalid reference format: "a___b": the repository name is empty or has characters it cannot have
        invalid reference format: "a:": the tag has characters or a length that tags cannot have
        invalid reference format: "a@sha256:12": want sha256: and 64 hexadecimal digits behind '@'
        invalid reference format: "a.b:x/c": the host is not a host name
        invalid reference format: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": 64 hexadecimal digits cannot be a name
        invalid reference format: ":5000/x": the host is not a host name
        invalid reference format: "a/": the repository name is empty or has characters it cannot have
        invalid reference format: "[::g]/a": the host is not a host name
        "#
        );
    }

    proptest! {
        #[test]
        fn both_forms_parse_back(text in "([a-z]{1,5}(\\.[a-z]{2})?(:[0-9]{2})?/)?[a-z0-9]{1,4}([._-][a-z]{1,3})?(/[a-z]{1,3})?(:[A-Za-z0-9_.-]{1,5})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            }
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,80}") {
            let _ = text.parse::<Reference>();
        }
    }
}
