//! Image references: `alpine` → `docker.io/library/alpine:latest`.
//!
//! The grammar is that of the distribution project's `reference` package, with Docker's defaults
//! for the registry, the namespace and the tag.

use rbc_ir::Digest;

/// A text that names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid reference format: {reference:?}: {reason}")]
pub struct ReferenceError {
    reference: String,
    reason: &'static str,
}

/// The complete form of an image reference: registry, repository, and a tag or digest (`latest` if
/// there is neither).
pub(crate) fn normalise(reference: &str) -> Result<String, ReferenceError> {
    let wrong =
        |reason| ReferenceError { reference: reference.chars().take(255).collect(), reason };
    if Digest::from_hex(reference).is_ok() {
        return Err(wrong("a name cannot be 64 hexadecimal digits"));
    }
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => {
            digest.parse::<Digest>().map_err(|_| wrong("the part after @ is no sha256 digest"))?;
            (rest, Some(digest))
        }
        None => (reference, None),
    };
    // A colon after the last slash starts the tag; one before belongs to the registry's port.
    let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_end..].rfind(':') {
        Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(wrong("a tag has up to 128 letters, digits, '_', '.' and '-'"));
    }
    let (domain, path) = match name.split_once('/') {
        Some((domain, path)) if is_registry(domain) => (domain, path.to_owned()),
        _ => ("docker.io", name.to_owned()),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let path =
        if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
    if !is_domain(domain) {
        return Err(wrong("the registry is not a host name with an optional port"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(wrong("a repository name must be lowercase"));
    }
    if path.len() > 255 || !path.split('/').all(is_path_component) {
        return Err(wrong("a repository name has lower-case letters, digits and separators"));
    }
    let mut full = format!("{domain}/{path}");
    match (tag, digest) {
        (None, None) => full.push_str(":latest"),
        (Some(tag), _) => {
            full.push(':');
            full.push_str(tag);
        }
        (None, Some(_)) => {}
    }
    if let Some(digest) = digest {
        full.push('@');
        full.push_str(digest);
    }
    Ok(full)
}

/// The short form by which named contexts are known: without Docker's defaults and `:latest`.
pub(crate) fn context_name(reference: &str) -> Option<String> {
    let full = normalise(reference).ok()?;
    let short = full
        .strip_prefix("docker.io/")
        .map_or(full.as_str(), |path| path.strip_prefix("library/").unwrap_or(path));
    Some(short.strip_suffix(":latest").unwrap_or(short).to_owned())
}

fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !domain.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && match address {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.split('.').all(label),
        }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().next_back().is_some_and(alphanumeric);
    ends && part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_dockers_defaults() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (short, full) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3", "docker.io/library/alpine:3".to_owned()),
            ("org/app", "docker.io/org/app:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t".to_owned()),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest".to_owned()),
            ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest".to_owned()),
            (&format!("a@{digest}"), format!("docker.io/library/a@{digest}")),
            (&format!("a:1@{digest}"), format!("docker.io/library/a:1@{digest}")),
        ] {
            assert_eq!(normalise(short), Ok(full));
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in ["", "Alpine", "a:", "a:b:c", "a@sha256:xyz", "a//b", "-a", "a_", "a b", "a/"] {
            let error = normalise(text).expect_err(text).to_string();
            assert!(error.contains("invalid reference format"), "{error}");
        }
    }

    #[test]
    fn contexts_are_known_by_the_short_name() {
        assert_eq!(context_name("docker.io/library/alpine:latest").as_deref(), Some("alpine"));
        assert_eq!(context_name("alpine:3").as_deref(), Some("alpine:3"));
        assert_eq!(context_name("ghcr.io/a/b").as_deref(), Some("ghcr.io/a/b"));
        assert_eq!(context_name("A B"), None);
    }
}
