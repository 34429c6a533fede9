//! Reading a registry's challenge and a token service's answer (distribution's token protocol).

use std::{collections::HashMap, time::Duration};

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
    /// A user name and a password with each request.
    Basic,
    /// Something that rbc does not know.
    Other(String),
}

/// The answer of a token service.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    /// Seconds.
    #[serde(default)]
    expires_in: Option<u64>,
}

/// How long a token is good for if the service does not say, and at least.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// Longest time that a token is kept.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

impl TokenAnswer {
    /// The token; services call it one or the other.
    pub(super) fn token(&self) -> Option<&str> {
        [&self.token, &self.access_token]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .find(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
    }

    /// A token to get other tokens with, if one was asked for and given.
    pub(super) fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref().filter(|token| !token.is_empty())
    }

    /// How long the token is good for.
    pub(super) fn life(&self) -> Duration {
        let said = Duration::from_secs(self.expires_in.unwrap_or(0));
        said.clamp(SHORTEST_LIFE, LONGEST_LIFE)
    }
}

impl Challenge {
    /// Reads a header's value; of several challenges in it the bearer one counts.
    pub(super) fn parse(header: &str) -> Self {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::Basic;
        }
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

/// Pairs in the form of a URL's query and of `application/x-www-form-urlencoded`.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A URL with a query put behind it.
pub(super) fn with_query(url: &str, query: &str) -> String {
    match (query, url.contains('?')) {
        ("", _) => url.to_owned(),
        (_, true) => format!("{url}&{query}"),
        (_, false) => format!("{url}?{query}"),
    }
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
        assert_eq!(Challenge::parse("Basic realm=x"), Challenge::Basic);
        assert_eq!(Challenge::parse("Negotiate"), Challenge::Other("Negotiate".to_owned()));
        assert_eq!(Challenge::parse("Bearer service=x"), Challenge::Other("Bearer".to_owned()));
        assert_eq!(Challenge::parse(""), Challenge::Other(String::new()));
    }

    #[test]
    fn queries_are_escaped() {
        let pairs = [("service", "my registry"), ("scope", "repository:a/b:pull")];
        assert_eq!(
            with_query("https://a/t", &form(&pairs)),
            "https://a/t?service=my%20registry&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(with_query("https://a/t?x=1", "scope=s"), "https://a/t?x=1&scope=s");
        assert_eq!(with_query("https://a/t", ""), "https://a/t");
    }

    #[test]
    fn answers_of_token_services_are_read() {
        let read = |json: &str| {
            let answer: TokenAnswer = serde_json::from_str(json).expect("json");
            let text = |token: Option<&str>| token.unwrap_or("-").to_owned();
            (text(answer.token()), text(answer.refresh_token()), answer.life().as_secs())
        };
        let want = |token: &str, refresh: &str, life| (token.to_owned(), refresh.to_owned(), life);
        assert_eq!(read(r#"{"token":"a","access_token":"b"}"#), want("a", "-", 60));
        assert_eq!(
            read(r#"{"access_token":"b","refresh_token":"r","expires_in":300}"#),
            want("b", "r", 300)
        );
        assert_eq!(read(r#"{"token":"a\nb","expires_in":5}"#), want("-", "-", 60));
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_answered(header in "\\PC{0,60}") {
            let _ = Challenge::parse(&header);
        }
    }
}
