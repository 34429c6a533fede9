//! Sources that are elsewhere: files of the web and git repositories.
//!
//! While a Dockerfile is compiled, [`http`] and [`git`] answer what a file's digest or a
//! reference's commit is; while the graph runs, they put just that into a layer. What arrives is
//! believed only if it is what was pinned.

pub mod git;
pub mod http;

/// An address for messages, without the user and password that may stand in it.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        // A user alone, as in ssh://git@host, is no secret.
        Some(at) if rest[..at].contains(':') => {
            format!("{scheme}://xxxxx:xxxxx@{}", &rest[at + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, want) in [
            ("https://u:p@h/r.git", "https://xxxxx:xxxxx@h/r.git"),
            ("https://u:p@q@h/r.git", "https://xxxxx:xxxxx@h/r.git"),
            ("ssh://git@h/r", "ssh://git@h/r"),
            ("https://h/a:b@c", "https://h/a:b@c"),
            ("git@h:r", "git@h:r"),
        ] {
            assert_eq!(redact(url), want);
        }
    }
}
