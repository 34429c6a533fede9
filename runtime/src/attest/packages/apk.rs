//! apk's database: `/lib/apk/db/installed`, one letter a field.

use std::{collections::BTreeSet, path::Path};

use super::{Ecosystem, MAX_DATABASE, Package, read_text, shown};
use crate::tree::{SourceTree, TreeError};

pub(super) fn add(tree: &dyn SourceTree, found: &mut BTreeSet<Package>) -> Result<(), TreeError> {
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"].map(Path::new) {
        if let Some(text) = read_text(tree, path, MAX_DATABASE)? {
            found.extend(read(&text, &shown(path)));
            // The second one may be the first by another name.
            break;
        }
    }
    Ok(())
}

fn read<'a>(text: &'a str, found_in: &'a str) -> impl Iterator<Item = Package> {
    text.split("\n\n").filter_map(move |paragraph| {
        let field = |letter: &str| {
            paragraph.lines().find_map(|line| {
                line.strip_prefix(letter)?.strip_prefix(':').map(|value| value.trim().to_owned())
            })
        };
        Some(Package {
            ecosystem: Ecosystem::Apk,
            name: field("P")?,
            version: field("V")?,
            architecture: field("A").unwrap_or_default(),
            supplier: field("m").unwrap_or_default(),
            license: field("L").unwrap_or_default(),
            found_in: found_in.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed() {
        let text = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nm:A <a@x>\nF:lib\nR:x\n\n\
                    P:busybox\nV:1.36-r1\nA:x86_64\n\n";
        let names: Vec<String> =
            read(text, "f").map(|p| format!("{} {} {}", p.name, p.version, p.license)).collect();
        assert_eq!(names, ["musl 1.2.5-r0 MIT", "busybox 1.36-r1 "]);
    }
}
