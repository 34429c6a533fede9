//! Values that look like secrets: what well-known services give out, keys, passwords in addresses.
//!
//! Only forms that cannot be anything else; checksums and random names must not be taken for
//! secrets, so nothing is judged by how random it looks.

use std::ops::Range;

/// A token: what it begins with, how many letters follow at least, whose it is.
const TOKENS: [(&str, usize, &str); 17] = [
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("ghp_", 30, "a GitHub token"),
    ("gho_", 30, "a GitHub token"),
    ("ghs_", 30, "a GitHub token"),
    ("ghu_", 30, "a GitHub token"),
    ("github_pat_", 30, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("npm_", 30, "an npm token"),
    ("pypi-", 40, "a PyPI token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("sk_live_", 20, "a Stripe key"),
    ("sk-ant-", 30, "an API key"),
    ("AIza", 35, "a Google API key"),
    ("dckr_pat_", 20, "a Docker token"),
    ("hvs.", 30, "a Vault token"),
];

/// What secret a value holds, and where in it.
pub(super) fn find(value: &str) -> Option<(&'static str, Range<usize>)> {
    if let Some(at) = value.find("PRIVATE KEY-----") {
        let start = value[..at].find("-----BEGIN").unwrap_or(at);
        return Some(("a private key", start..at + "PRIVATE KEY-----".len()));
    }
    for (prefix, length, kind) in TOKENS {
        for (at, _) in value.match_indices(prefix) {
            let starts_word = !value[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
            let tail = &value[at + prefix.len()..];
            let letters = tail
                .bytes()
                .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
                .count();
            if starts_word && letters >= length {
                return Some((kind, at..at + prefix.len() + letters));
            }
        }
    }
    password(value)
}

/// `scheme://user:password@host` with a password that is no variable.
fn password(value: &str) -> Option<(&'static str, Range<usize>)> {
    let mut at = 0;
    while let Some(found) = value[at..].find("://") {
        let start = at + found + "://".len();
        at = start;
        let end = value[start..]
            .find(|c: char| c == '/' || c.is_whitespace() || matches!(c, '"' | '\''))
            .map_or(value.len(), |length| start + length);
        let Some((login, _)) = value[start..end].rsplit_once('@') else { continue };
        let Some((_, password)) = login.split_once(':') else { continue };
        if !password.is_empty() && !password.contains(['$', '{', '<', '*']) {
            let from = start + login.len() - password.len();
            return Some(("an address with a password", from..start + login.len()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn secrets_and_what_only_looks_long() {
        let kind = |value: &str| find(value).map(|(kind, range)| (kind, value[range].to_owned()));
        let token = format!("ghp_{}", "a1B2".repeat(9));
        assert_eq!(kind(&format!("x={token};")), Some(("a GitHub token", token)));
        assert_eq!(kind("AKIAIOSFODNN7EXAMPLE").unwrap().0, "an AWS access key");
        assert_eq!(
            kind("\"postgres://me:hunter2@db/x\""),
            Some(("an address with a password", "hunter2".into()))
        );
        assert!(kind("-----BEGIN RSA PRIVATE KEY-----\\nabc").is_some());
        for harmless in [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "https://example.com/a@b:c",
            "postgres://me:$PASSWORD@db",
            "https://user@host/",
            "MAKIAIOSFODNN7EXAMPLE1",
            "ghp_short",
            "",
        ] {
            assert_eq!(kind(harmless), None, "{harmless}");
        }
    }
}
