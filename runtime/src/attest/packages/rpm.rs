//! rpm's database in its present form, an SQLite file of package headers (rpm 4.16 and newer). The
//! older forms, Berkeley DB and ndb, are recognised and refused.

use std::{collections::BTreeSet, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{Ecosystem, MAX_DATABASE, Package, PackageError, find_file, shown};
use crate::tree::SourceTree;

const FOLDERS: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];

/// Tags of a header (rpm's rpmtag.h).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;

pub(super) fn add(
    tree: &dyn SourceTree,
    found: &mut BTreeSet<Package>,
) -> Result<(), PackageError> {
    for folder in FOLDERS.map(Path::new) {
        let path = folder.join("rpmdb.sqlite");
        if let Some((place, entry)) = find_file(tree, &path)? {
            let unreadable = || PackageError::OldRpm { path: shown(&place) };
            let file = tree.immutable_file(&place, &entry).filter(|_| entry.size <= MAX_DATABASE);
            let file = file.ok_or_else(unreadable)?;
            let headers = headers(&file).map_err(|_| unreadable())?;
            found.extend(headers.iter().filter_map(|header| package(header, &shown(&place))));
            return Ok(());
        }
        for old in ["Packages", "Packages.db"] {
            if let Some((place, entry)) = find_file(tree, &folder.join(old))?
                && entry.size > 0
            {
                return Err(PackageError::OldRpm { path: shown(&place) });
            }
        }
    }
    Ok(())
}

/// All headers of a database that nobody writes to.
fn headers(file: &Path) -> rusqlite::Result<Vec<Vec<u8>>> {
    // `immutable` keeps SQLite from looking for a journal beside the file, and from locks.
    let path: String = file
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            c => c.to_string(),
        })
        .collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?;
    let mut query = connection.prepare("SELECT blob FROM Packages")?;
    let rows = query.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// A package by its header: two counts, entries of 16 bytes, and their data (rpm's "header format").
fn package(header: &[u8], found_in: &str) -> Option<Package> {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(header.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let entries = usize::try_from(number(0)?).ok()?;
    let data = entries.checked_mul(16)?.checked_add(8)?;
    header.get(data..)?;
    let field = |wanted: u32| {
        (0..entries).find_map(|entry| {
            let at = 8 + entry * 16;
            (number(at)? == wanted).then_some(())?;
            let (kind, offset) = (number(at + 4)?, usize::try_from(number(at + 8)?).ok()?);
            Some((kind, data.checked_add(offset)?))
        })
    };
    let text = |wanted: u32| {
        let (kind, at) = field(wanted)?;
        // A string, or the first of several in different languages.
        matches!(kind, 6 | 8 | 9).then_some(())?;
        let rest = header.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let name = text(NAME)?;
    // Keys that packages are signed with look like packages.
    if name == "gpg-pubkey" {
        return None;
    }
    let epoch = field(EPOCH).and_then(|(_, at)| number(at)).filter(|epoch| *epoch > 0);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    Some(Package {
        ecosystem: Ecosystem::Rpm,
        name,
        version: format!("{epoch}{}-{}", text(VERSION)?, text(RELEASE)?),
        architecture: text(ARCH).unwrap_or_default(),
        supplier: text(VENDOR).unwrap_or_default(),
        license: text(LICENSE).unwrap_or_default(),
        found_in: found_in.to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header with the given tags.
    pub fn header(fields: &[(u32, &str)], epoch: Option<u32>) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        let mut count = 0_u32;
        let mut entry = |tag: u32, kind: u32, bytes: &[u8]| {
            for number in [tag, kind, data.len() as u32, 1] {
                entries.extend(number.to_be_bytes());
            }
            data.extend(bytes);
            count += 1;
        };
        if let Some(epoch) = epoch {
            entry(EPOCH, 4, &epoch.to_be_bytes());
        }
        for (tag, text) in fields {
            entry(*tag, 6, format!("{text}\0").as_bytes());
        }
        let head = [count.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
        [head, entries, data].concat()
    }

    #[test]
    fn headers_are_read() {
        let fields = [(NAME, "bash"), (VERSION, "5.2"), (RELEASE, "1.fc40"), (ARCH, "x86_64")];
        let read = package(&header(&fields, Some(2)), "f").expect("package");
        assert_eq!((read.name.as_str(), read.version.as_str()), ("bash", "2:5.2-1.fc40"));
        assert_eq!(read.architecture, "x86_64");
        let key = [(NAME, "gpg-pubkey"), (VERSION, "1"), (RELEASE, "2")];
        assert_eq!(package(&header(&key, None), "f"), None);
        assert_eq!(package(&header(&fields[..2], None), "f"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_answered(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120)) {
            let _ = package(&bytes, "f");
        }
    }
}
