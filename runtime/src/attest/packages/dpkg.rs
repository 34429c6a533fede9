//! dpkg's database: `/var/lib/dpkg/status`, and `status.d/` in images without dpkg.

use std::{collections::BTreeSet, path::Path};

use super::{Ecosystem, MAX_DATABASE, MAX_DESCRIPTION, Package, ends_with, list, read_text, shown};
use crate::tree::{SourceTree, TreeError};

pub(super) fn add(tree: &dyn SourceTree, found: &mut BTreeSet<Package>) -> Result<(), TreeError> {
    let status = Path::new("var/lib/dpkg/status");
    if let Some(text) = read_text(tree, status, MAX_DATABASE)? {
        found.extend(read(&text, &shown(status)));
    }
    let folder = Path::new("var/lib/dpkg/status.d");
    for (name, _) in list(tree, folder)?.iter() {
        let path = folder.join(name);
        if ends_with(name, ".md5sums") {
            continue;
        }
        if let Some(text) = read_text(tree, &path, MAX_DESCRIPTION)? {
            found.extend(read(&text, &shown(&path)));
        }
    }
    Ok(())
}

/// The installed packages of a text with one paragraph for each (deb-control(5)).
fn read<'a>(text: &'a str, found_in: &'a str) -> impl Iterator<Item = Package> {
    text.split("\n\n").filter_map(move |paragraph| {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        // Packages that were removed stay in the database; those of status.d have no state.
        let is_there = field("Status").is_none_or(|status| status.ends_with(" installed"));
        Some(Package {
            ecosystem: Ecosystem::Dpkg,
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture").unwrap_or_default(),
            supplier: field("Maintainer").unwrap_or_default(),
            license: String::new(),
            found_in: found_in.to_owned(),
        })
        .filter(|_| is_there)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed() {
        let text = "Package: bash\nStatus: install ok installed\nMaintainer: M <m@x>\n\
                    Architecture: amd64\nVersion: 5.2-1\nDescription: a: b\n Version: no\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: noversion\n\nPackage: plain\nVersion: 1:2\n";
        let names: Vec<String> =
            read(text, "f").map(|p| format!("{} {} {}", p.name, p.version, p.supplier)).collect();
        assert_eq!(names, ["bash 5.2-1 M <m@x>", "plain 1:2 "]);
    }
}
