//! Packages that lock files name: `Cargo.lock`, `go.mod`, `package-lock.json`, `requirements.txt` and
//! their kin. They say what a project asks for, so they count where nothing installed says the same.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
};

use serde_json::Value;
use toml::de::DeTable;

use super::{Ecosystem, Package};

/// Reads the text of a lock file and gives its packages.
pub(super) type Reader = fn(&str) -> Vec<(String, String)>;

/// How a file of this name is read, and whose packages it names.
pub(super) fn reader(name: &OsStr) -> Option<(Ecosystem, Reader)> {
    Some(match name.to_str()? {
        "Cargo.lock" => (Ecosystem::Cargo, tables as Reader),
        "go.mod" => (Ecosystem::Go, go_mod),
        "package-lock.json" | "npm-shrinkwrap.json" | ".package-lock.json" => {
            (Ecosystem::Node, package_lock)
        }
        "requirements.txt" => (Ecosystem::Python, requirements),
        "poetry.lock" | "uv.lock" => (Ecosystem::Python, tables),
        _ => return None,
    })
}

/// Adds what lock files name, unless something that is installed is the same.
pub(super) fn add(named: BTreeSet<Package>, found: &mut BTreeSet<Package>) {
    let key =
        |package: &Package| (package.ecosystem, package.name.clone(), package.version.clone());
    let mut known: HashSet<_> = found.iter().map(key).collect();
    found.extend(named.into_iter().filter(|package| known.insert(key(package))));
}

/// TOML with a `[[package]]` for each.
fn tables(text: &str) -> Vec<(String, String)> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let list = document.get_ref().get("package").and_then(|list| list.get_ref().as_array());
    let packages = list.into_iter().flat_map(|list| list.iter());
    let named = packages.filter_map(|package| {
        let text = |key: &str| package.get_ref().get(key)?.get_ref().as_str().map(str::to_owned);
        Some((text("name")?, text("version")?))
    });
    named.collect()
}

/// The modules that a `go.mod` requires (go.dev/ref/mod, "go.mod file").
fn go_mod(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let words = match line.strip_prefix("require") {
            _ if in_block => line,
            Some(rest) if rest.trim_start().starts_with('(') => {
                in_block = true;
                continue;
            }
            Some(rest) if rest.starts_with([' ', '\t']) => rest,
            _ => continue,
        };
        if words == ")" {
            in_block = false;
            continue;
        }
        let mut words = words.split_whitespace();
        if let (Some(path), Some(version)) = (words.next(), words.next()) {
            out.push((path.trim_matches('"').to_owned(), version.to_owned()));
        }
    }
    out
}

/// npm's lock file: places by path since version 2, a tree before that.
fn package_lock(text: &str) -> Vec<(String, String)> {
    let Ok(read) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let version = |package: &Value| package["version"].as_str().map(str::to_owned);
    let mut out = Vec::new();
    if let Some(places) = read["packages"].as_object() {
        for (place, package) in places {
            let Some((_, folder)) = place.rsplit_once("node_modules/") else { continue };
            // A package under another name says its own.
            let name = package["name"].as_str().unwrap_or(folder);
            out.extend(version(package).map(|version| (name.to_owned(), version)));
        }
        return out;
    }
    let mut pending = vec![&read];
    while let Some(package) = pending.pop() {
        for (name, package) in package["dependencies"].as_object().into_iter().flatten() {
            out.extend(version(package).map(|version| (name.clone(), version)));
            pending.push(package);
        }
    }
    out
}

/// The lines of a requirements file that name one version.
fn requirements(text: &str) -> Vec<(String, String)> {
    let pinned = |line: &str| {
        let line = line.split([';', '#', '\\']).next().unwrap_or_default();
        let (name, version) = line.split_once("==")?;
        let name = name.split('[').next().unwrap_or_default().trim();
        let version = version.trim_start_matches('=').trim();
        let version = version.split([' ', '\t', ',']).next().unwrap_or_default();
        let is_name = !name.is_empty() && !name.starts_with('-') && !name.contains([' ', '/']);
        (is_name && !version.is_empty() && !version.contains('*'))
            .then(|| (super::language::python_name(name), version.to_owned()))
    };
    text.lines().filter_map(pinned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> String {
        let (ecosystem, reader) = reader(OsStr::new(name)).expect("a lock file");
        let read = reader(text).into_iter().map(|(name, version)| format!("{name} {version}"));
        format!("{ecosystem:?}: {}", read.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn lock_files_name_packages() {
        let v1 = r#"{"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"2.0.0"}}}}}"#;
        let v3 = r#"{"packages":{"":{"name":"app","version":"1.0.0"},
            "node_modules/a":{"version":"1.0.0"},
            "node_modules/a/node_modules/@s/b":{"version":"2.0.0"},
            "node_modules/c":{"resolved":"x","link":true}}}"#;
        let lines = [
            read("Cargo.lock", "version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n"),
            read("uv.lock", "[[package]]\nname = \"idna\"\nversion = \"3.4\"\n"),
            read(
                "go.mod",
                "module x\ngo 1.22\nrequire a.example/b v1.2.3 // indirect\nrequire (\n\
                 \tc.example/d/v2 v2.0.0\n)\nreplace c.example/d/v2 => ../d\n",
            ),
            read("package-lock.json", v1),
            read("npm-shrinkwrap.json", v3),
            read(
                "requirements.txt",
                "# all\n-r other.txt\nFlask[async]==2.0.1 ; python_version > '3'\nidna>=3\n\
                 six===1.16.0 --hash=sha256:00\nnumpy==1.*\nurl @ https://h/x==1\n",
            ),
        ]
        .join("\n");
        insta::assert_snapshot!(lines, @r"
        Cargo: serde 1.0.1
        Python: idna 3.4
        Go: a.example/b v1.2.3, c.example/d/v2 v2.0.0
        Node: a 1.0.0, b 2.0.0
        Node: a 1.0.0, @s/b 2.0.0
        Python: flask 2.0.1, six 1.16.0
        ");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,80}") {
            for name in ["Cargo.lock", "go.mod", "package-lock.json", "requirements.txt"] {
                let (_, reader) = reader(OsStr::new(name)).expect("a lock file");
                let _ = reader(&text);
            }
        }
    }
}
