//! Paths of an image as text: how instructions join and clean them. Pure text; nothing is looked
//! up. The rules are those of BuildKit's `util/system`, which keep what the user wrote where they
//! can: a trailing slash of WORKDIR stays, and so does that of a destination.

pub(crate) use rbc_ir::pattern::clean;

/// `path` below the folder `parent`, cleaned.
pub(crate) fn join(parent: &str, path: &str) -> String {
    match (parent.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(parent),
        (false, false) => clean(&format!("{parent}/{path}")),
    }
}

/// A source of COPY or ADD: absolute below the root of its tree, `..` stops there.
pub(crate) fn source(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// The destination of COPY or ADD seen from the working directory `cwd`: absolute and cleaned,
/// with the trailing `/` or `/.` that says "this is a folder".
pub(crate) fn destination(cwd: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." { "./" } else { path };
    let mut out =
        if path.starts_with('/') { clean(path) } else { source(&join(&rooted(cwd), path)) };
    if path.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    } else if path.ends_with("/.") {
        out.push_str(if out == "/" { "." } else { "/." });
    }
    out
}

/// The working directory after `WORKDIR path` in `current`. An absolute one stays as written.
pub(crate) fn workdir(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else if path.is_empty() {
        rooted(current)
    } else {
        join(&rooted(current), path)
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { source(path) }
}

/// Whether Go's `filepath.Match` would see more than a plain name in `path`.
pub(crate) fn has_wildcard(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// Go's `path.Base`.
pub(crate) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some("") | None if path.is_empty() => ".",
        Some("") | None => "/",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_what_says_folder() {
        for (cwd, path, want) in [
            ("/app", ".", "/app/"),
            ("/app", "", "/app/"),
            ("/app", "./", "/app/"),
            ("/app", "b", "/app/b"),
            ("/app", "b/", "/app/b/"),
            ("/app", "../x", "/x"),
            ("/app", "../../../x", "/x"),
            ("/app", "/abs/", "/abs/"),
            ("/app", "/abs/.", "/abs/."),
            ("/app", "/", "/"),
            ("", "etc/conf", "/etc/conf"),
            ("/", "/.", "/."),
        ] {
            assert_eq!(destination(cwd, path), want, "{cwd:?} {path:?}");
        }
    }

    #[test]
    fn working_directories_chain() {
        assert_eq!(workdir("", "/root/"), "/root/");
        assert_eq!(workdir("/x/y/", "z"), "/x/y/z");
        assert_eq!(workdir("/b/c", "../d"), "/b/d");
        assert_eq!(workdir("", "w"), "/w");
    }

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        assert!(has_wildcard("a*"));
        assert!(has_wildcard("a[b"));
        assert!(!has_wildcard("a\\*"));
        assert!(!has_wildcard("{a,b}"));
    }

    #[test]
    fn base_names() {
        assert_eq!(base("/a/b/"), "b");
        assert_eq!(base("/"), "/");
        assert_eq!(base(""), ".");
    }
}
