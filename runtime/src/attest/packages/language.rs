//! Packages of languages, wherever they lie: programs, Python's `*.dist-info/METADATA` and
//! `*.egg-info/PKG-INFO`, Node's `node_modules/…/package.json`, and lock files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Ecosystem, MAX_DESCRIPTION, MAX_LOCK, Package, ends_with, lock, program, read_text, shown,
};
use crate::tree::{Kind, SourceTree, TreeError};

pub(super) fn add(tree: &dyn SourceTree, found: &mut BTreeSet<Package>) -> Result<(), TreeError> {
    let mut locked = BTreeSet::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let is_python_info = dir
            .file_name()
            .is_some_and(|name| ends_with(name, ".dist-info") || ends_with(name, ".egg-info"));
        for (name, entry) in tree.read_dir(&dir)?.iter() {
            let path = dir.join(name);
            match entry.kind {
                Kind::Dir => pending.push(path),
                Kind::File if is_python_info && (name == "METADATA" || name == "PKG-INFO") => {
                    let text = read_text(tree, &path, MAX_DESCRIPTION)?;
                    found.extend(text.and_then(|text| python(&text, &shown(&path))));
                }
                Kind::File if lock::reader(name).is_some() => {
                    let (text, reader) = (read_text(tree, &path, MAX_LOCK)?, lock::reader(name));
                    if let (Some(text), Some((ecosystem, read))) = (text, reader) {
                        let packages = read(&text).into_iter();
                        locked.extend(packages.map(|(name, version)| Package {
                            ecosystem,
                            name,
                            version,
                            architecture: String::new(),
                            supplier: String::new(),
                            license: String::new(),
                            found_in: shown(&path),
                        }));
                    }
                }
                // A program; a file without permission to run is none.
                Kind::File if entry.mode & 0o111 != 0 => {
                    program::packages(&tree.open(&path, entry)?, &shown(&path), found);
                }
                Kind::File if ends_with(name, ".egg-info") => {
                    let text = read_text(tree, &path, MAX_DESCRIPTION)?;
                    found.extend(text.and_then(|text| python(&text, &shown(&path))));
                }
                Kind::File if name == "package.json" && is_node_package(&dir) => {
                    let text = read_text(tree, &path, MAX_DESCRIPTION)?;
                    found.extend(text.and_then(|text| node(&text, &shown(&path))));
                }
                _ => {}
            }
        }
    }
    lock::add(locked, found);
    Ok(())
}

/// Names are compared without case, and with one kind of dash (PyPI, "Normalized names").
pub(super) fn python_name(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

/// Core metadata of a Python package: header fields up to an empty line.
fn python(text: &str, found_in: &str) -> Option<Package> {
    let head = text.lines().take_while(|line| !line.trim().is_empty());
    let fields: Vec<(&str, &str)> = head.filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    Some(Package {
        ecosystem: Ecosystem::Python,
        name: python_name(&field("Name")?),
        version: field("Version")?,
        architecture: String::new(),
        supplier: String::new(),
        license: field("License-Expression").or_else(|| field("License")).unwrap_or_default(),
        found_in: found_in.to_owned(),
    })
}

/// Whether a folder is a package in `node_modules`: `node_modules/NAME` or
/// `node_modules/@SCOPE/NAME`.
fn is_node_package(dir: &Path) -> bool {
    let names: Vec<_> = dir.iter().rev().take(3).collect();
    match names.as_slice() {
        [_, parent, ..] if *parent == "node_modules" => true,
        [_, scope, parent] => {
            *parent == "node_modules" && scope.as_encoded_bytes().starts_with(b"@")
        }
        _ => false,
    }
}

#[derive(Deserialize)]
struct NodePackage {
    name: String,
    version: String,
    #[serde(default)]
    license: serde_json::Value,
}

fn node(text: &str, found_in: &str) -> Option<Package> {
    let read: NodePackage = serde_json::from_str(text).ok()?;
    Some(Package {
        ecosystem: Ecosystem::Node,
        name: read.name,
        version: read.version,
        architecture: String::new(),
        supplier: String::new(),
        license: read.license.as_str().unwrap_or_default().to_owned(),
        found_in: found_in.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read() {
        let text =
            "Metadata-Version: 2.1\nName: Some_Package.x\nVersion: 1.0\nLicense: MIT\n\nName: no\n";
        let read = python(text, "f").expect("package");
        assert_eq!((read.name.as_str(), read.version.as_str()), ("some-package-x", "1.0"));
        let read = node(r#"{"name":"@a/b","version":"2.0.0","license":"ISC"}"#, "f");
        let purl = read.expect("package").purl(&super::super::Distribution::default());
        assert_eq!(purl, "pkg:npm/%40a/b@2.0.0");
        assert_eq!(node("{}", "f"), None);
        assert_eq!(node(&"[".repeat(100_000), "f"), None);
    }

    #[test]
    fn only_packages_in_node_modules_count() {
        let is = |path: &str| is_node_package(Path::new(path));
        assert!(is("app/node_modules/x") && is("node_modules/@a/b"));
        assert!(!is("app/x") && !is("node_modules/x/lib") && !is("node_modules"));
    }
}
