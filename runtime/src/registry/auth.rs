//! Answering a registry's challenge: anonymous bearer tokens (distribution's token protocol).

use std::collections::HashMap;

use serde::Deserialize;

/// What a `WWW-Authenticate` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from the realm.
    Bearer {
        /// URL of the token service.
        realm: String,
        /// Name of the registry for the token service.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
    /// A user name and password, or something else that rbc does not know.
    Other(String),
}

/// The answer of a token service.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl TokenAnswer {
    /// The token; services call it one or the other.
    pub(super) fn token(self) -> Option<String> {
        self.token
            .or(self.access_token)
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
    }
}

impl Challenge {
    /// Reads a header's value; of several challenges in it the bearer one counts.
    pub(super) fn parse(header: &str) -> Self {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::Other(scheme.to_owned());
        }
        let mut values = parameters(rest);
        match values.remove("realm") {
            Some(realm) => Self::Bearer {
                realm,
                service: values.remove("service"),
                scope: values.remove("scope"),
            },
            None => Self::Other(scheme.to_owned()),
        }
    }
}

/// `key="value"` pairs separated by commas; values may be quoted and hold commas then.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut out = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let mut value = String::new();
        let after = after.trim_start();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(characters.next().map(|(_, next)| next)),
                    other => value.push(other),
                }
            }
            rest = &quoted[end..];
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value.push_str(after[..end].trim());
            rest = &after[end..];
        }
        out.insert(key, value);
    }
    out
}

/// The URL of the token service with its query.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut url = realm.to_owned();
    url.push(if realm.contains('?') { '&' } else { '?' });
    if let Some(service) = service {
        url.push_str(&format!("service={}&", escape(service)));
    }
    url.push_str(&format!("scope={}", escape(scope)));
    url
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg, istry",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(header),
            Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: Some("reg, istry".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            }
        );
        assert_eq!(Challenge::parse("Basic realm=x"), Challenge::Other("Basic".to_owned()));
        assert_eq!(Challenge::parse("Bearer service=x"), Challenge::Other("Bearer".to_owned()));
        assert_eq!(Challenge::parse(""), Challenge::Other(String::new()));
    }

    #[test]
    fn token_urls_are_escaped() {
        assert_eq!(
            token_url("https://a/t", Some("my registry"), "repository:a/b:pull"),
            "https://a/t?service=my%20registry&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(token_url("https://a/t?x=1", None, "s"), "https://a/t?x=1&scope=s");
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_answered(header in "\\PC{0,60}") {
            let _ = Challenge::parse(&header);
        }
    }
}
