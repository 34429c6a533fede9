//! Reading containers' registries.conf (containers-registries.conf(5)), version 2: mirrors, other
//! locations, insecure and blocked registries. Search lists and short names do not apply: names mean
//! what they mean to Docker.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    SettingsError,
    hosts::{Mirror, Serves},
};

/// What holds for all repositories whose names begin in the same way.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// `host[:port][/path]`, or `*.domain[/path]`.
    pub(super) prefix: String,
    /// What the prefix is replaced by.
    pub(super) location: Option<Mirror>,
    insecure: bool,
    /// Whether nothing may be pulled from there.
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    insecure_mirrors: Vec<String>,
    /// The file that says so.
    pub(super) file: PathBuf,
}

impl Rule {
    /// What follows the prefix in a repository's full name, if it has the prefix.
    pub(super) fn rest_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = match self.prefix.strip_prefix('*') {
            None => name.strip_prefix(&self.prefix)?,
            Some(domain) => {
                let (host, _) = name.split_once('/').unwrap_or((name, ""));
                let (suffix, path) =
                    domain.split_once('/').map_or((domain, None), |(s, p)| (s, Some(p)));
                host.strip_suffix(suffix).filter(|sub| !sub.is_empty())?;
                let rest = &name[host.len()..];
                match path {
                    Some(path) => rest.strip_prefix('/')?.strip_prefix(path)?,
                    None => rest,
                }
            }
        };
        match rest.strip_prefix('/') {
            Some(rest) => Some(rest),
            None => rest.is_empty().then_some(rest),
        }
    }

    /// The hosts that it leads to, and whether they are insecure.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (&str, bool)> {
        let prefix = self.prefix.split('/').next().unwrap_or_default();
        let own = self.location.as_ref().map_or(prefix, |location| location.host.as_str());
        let mirrors = self
            .mirrors
            .iter()
            .map(|mirror| (mirror.host.as_str(), self.insecure_mirrors.contains(&mirror.host)));
        std::iter::once((own, self.insecure)).chain(mirrors)
    }
}

/// The files that the environment names, in the order in which they are read.
pub(super) fn files() -> Vec<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("CONTAINERS_REGISTRIES_CONF") {
        return vec![file];
    }
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let user = config.map(|dir| dir.join("containers/registries.conf"));
    let main = user.filter(|file| file.exists());
    let main = main.unwrap_or_else(|| PathBuf::from("/etc/containers/registries.conf"));
    let mut files: Vec<PathBuf> =
        Some(main.clone()).filter(|main| main.exists()).into_iter().collect();
    let mut dirs = vec![PathBuf::from("/etc/containers/registries.conf.d")];
    let user_dir = main.with_extension("conf.d");
    if !dirs.contains(&user_dir) {
        dirs.push(user_dir);
    }
    for dir in dirs {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            .collect();
        found.sort();
        files.extend(found);
    }
    files
}

/// The rules of a file. What it says beside them is not looked at.
pub(super) fn read(file: &Path) -> Result<Vec<Rule>, SettingsError> {
    let text = fs::read_to_string(file)
        .map_err(|source| SettingsError::Io { path: file.to_owned(), source })?;
    let source = Source { file, text: &text };
    let document = DeTable::parse(&text)
        .map_err(|error| source.wrong(error.span().unwrap_or_default().start, error.message()))?;
    let table = document.get_ref();
    let mut rules = source.first_version(table)?;
    for entry in source.tables(table, "registry")? {
        let text_of = |key| source.text(entry, key);
        let location = text_of("location")?;
        let prefix = text_of("prefix")?.or(location);
        let Some((prefix, at)) = prefix else {
            return Err(source.wrong(0, "a [[registry]] has neither prefix nor location"));
        };
        let mut insecure_mirrors = Vec::new();
        let mut mirrors = Vec::new();
        let by_digest = source.flag(entry, "mirror-by-digest-only")?;
        for table in source.tables(entry, "mirror")? {
            let Some((text, at)) = source.text(table, "location")? else {
                return Err(source.wrong(at, "a [[registry.mirror]] has no location"));
            };
            let serves = match source.text(table, "pull-from-mirror")? {
                None if by_digest => Serves::Digests,
                None | Some(("all", _)) => Serves::All,
                Some(("digest-only", _)) => Serves::Digests,
                Some(("tag-only", _)) => Serves::Tags,
                Some((_, at)) => {
                    let reason = "pull-from-mirror is all, digest-only or tag-only";
                    return Err(source.wrong(at, reason));
                }
            };
            let mirror = source.place(text, at)?;
            if source.flag(table, "insecure")? {
                insecure_mirrors.push(mirror.host.clone());
            }
            mirrors.push(Mirror { serves, ..mirror });
        }
        let location = match location.filter(|(location, _)| !location.is_empty()) {
            // What is not moved need not be taken apart.
            Some((location, _)) if location == prefix => None,
            Some((location, at)) => Some(source.place(location, at)?),
            None => None,
        };
        rules.push(Rule {
            prefix: prefix.trim_end_matches('/').to_owned(),
            location,
            insecure: source.flag(entry, "insecure")?,
            blocked: source.flag(entry, "blocked")?,
            mirrors,
            insecure_mirrors,
            file: file.to_owned(),
        });
    }
    Ok(rules)
}

/// A file's text, for errors with a place.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn wrong(&self, at: usize, reason: &str) -> SettingsError {
        let before = self.text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        SettingsError::Malformed {
            path: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason: reason.to_owned(),
        }
    }

    /// What version 1 of the format could say: lists of insecure and of blocked registries.
    fn first_version(&self, table: &DeTable<'_>) -> Result<Vec<Rule>, SettingsError> {
        let mut rules = Vec::new();
        for list in ["insecure", "block"] {
            let section = table.get("registries").and_then(|all| all.get_ref().get(list));
            let value = section.and_then(|section| section.get_ref().get("registries"));
            let Some(value) = value else { continue };
            let wrong = || self.wrong(value.span().start, "want a list of registries");
            for item in value.get_ref().as_array().ok_or_else(wrong)?.iter() {
                rules.push(Rule {
                    prefix: item.get_ref().as_str().ok_or_else(wrong)?.to_owned(),
                    location: None,
                    insecure: list == "insecure",
                    blocked: list == "block",
                    mirrors: Vec::new(),
                    insecure_mirrors: Vec::new(),
                    file: self.file.to_owned(),
                });
            }
        }
        Ok(rules)
    }

    fn text<'t>(
        &self,
        table: &'t DeTable<'_>,
        key: &str,
    ) -> Result<Option<(&'t str, usize)>, SettingsError> {
        let Some(value) = table.get(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some((text, value.span().start))),
            None => Err(self.wrong(value.span().start, &format!("{key} must be a text"))),
        }
    }

    fn flag(&self, table: &DeTable<'_>, key: &str) -> Result<bool, SettingsError> {
        let Some(value) = table.get(key) else { return Ok(false) };
        let wrong = || self.wrong(value.span().start, &format!("{key} must be true or false"));
        value.get_ref().as_bool().ok_or_else(wrong)
    }

    fn tables<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
    ) -> Result<Vec<&'t DeTable<'i>>, SettingsError> {
        let Some(value) = table.get(key) else { return Ok(Vec::new()) };
        let wrong = |value: &Spanned<DeValue<'_>>| {
            self.wrong(value.span().start, &format!("want [[{key}]]"))
        };
        let list = value.get_ref().as_array().ok_or_else(|| wrong(value))?;
        list.iter().map(|item| item.get_ref().as_table().ok_or_else(|| wrong(item))).collect()
    }

    fn place(&self, text: &str, at: usize) -> Result<Mirror, SettingsError> {
        Mirror::parse(text)
            .ok_or_else(|| self.wrong(at, &format!("{text:?} is not HOST[:PORT][/PATH]")))
    }
}

/// Whether a file that nobody named is not there, or belongs to somebody else.
pub(super) fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("r.conf");
        fs::write(&file, text).expect("write");
        let error = read(&file).expect_err("wrong").to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    }

    #[test]
    fn errors_have_a_place() {
        let lines = [
            error("[[registry]]\nlocation = 5\n"),
            error("[[registry]]\n"),
            error("[registry]\nlocation = \"a.b\"\n"),
            error("[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\nlocation = \"nohost\"\n"),
            error("[[registry]]\nlocation = \"a.b\"\n blocked = 1\n"),
            error("a = \n"),
            error("[registries.block]\nregistries = 1\n"),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        DIR/r.conf:2:12: location must be a text
        DIR/r.conf:1:1: a [[registry]] has neither prefix nor location
        DIR/r.conf:1:1: want [[registry]]
        DIR/r.conf:4:12: "nohost" is not HOST[:PORT][/PATH]
        DIR/r.conf:3:12: blocked must be true or false
        DIR/r.conf:1:5: string values must be quoted, expected literal string
        DIR/r.conf:2:14: want a list of registries
        "#);
    }

    #[test]
    fn the_first_version_is_understood() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("r.conf");
        let text = "[registries.search]\nregistries = ['docker.io']\n\
                    [registries.insecure]\nregistries = ['a.b:5000']\n\
                    [registries.block]\nregistries = ['c.d']\n";
        fs::write(&file, text).expect("write");
        let rules = read(&file).expect("read");
        let facts: Vec<_> =
            rules.iter().map(|rule| (rule.prefix.as_str(), rule.insecure, rule.blocked)).collect();
        assert_eq!(facts, [("a.b:5000", true, false), ("c.d", false, true)]);
    }
}
