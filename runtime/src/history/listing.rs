//! The files behind the digest of a context selection, so that a change of the digest can be told
//! as a change of files.
//!
//! A listing is named by the digest, so it is written once however often a context is built. It is
//! text with one entry a line: kind and mode, content, path, with tabs between them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use rbc_ir::Digest;

use crate::tree::{Kind, SelectedPart};

/// What is known of one file of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// `file`, `folder`, `symlink` or `special`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Its content.
    pub content: Content,
}

/// What a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing beside its metadata.
    None,
    /// Bytes with this digest.
    Digest(Digest),
    /// The target of a symlink.
    Target(PathBuf),
}

/// Files by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub files: BTreeMap<PathBuf, FileFacts>,
}

const KINDS: [(u8, &str); 4] =
    [(b'f', "file"), (b'd', "folder"), (b'l', "symlink"), (b's', "special")];

/// Writes what a selection took.
pub(super) fn encode(parts: &[SelectedPart]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        for (item, content) in part.iter() {
            let kind = match item.entry.kind {
                Kind::File => b'f',
                Kind::Dir => b'd',
                Kind::Symlink => b'l',
                Kind::Fifo | Kind::Char | Kind::Block | Kind::Socket => b's',
            };
            out.push(kind);
            out.extend(format!("{:o}\t", item.entry.mode).bytes());
            match content {
                crate::tree::ItemContent::None => {}
                crate::tree::ItemContent::Digest(digest) => out.extend(digest.hex().bytes()),
                crate::tree::ItemContent::Target(target) => {
                    out.push(b'>');
                    escape(target, &mut out);
                }
            }
            out.push(b'\t');
            escape(&part.path_of(&item), &mut out);
            out.push(b'\n');
        }
    }
    out
}

impl Listing {
    /// Reads a listing; `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        // Most listings are sorted, of which a map is made more quickly than entry by entry.
        let mut files = Vec::new();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let mut fields = line.split(|b| *b == b'\t');
            let (&kind, mode) = fields.next()?.split_first()?;
            let kind = KINDS.iter().find(|(letter, _)| *letter == kind)?.1;
            let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?;
            let content = match fields.next()? {
                b"" => Content::None,
                [b'>', target @ ..] => Content::Target(unescape(target)?),
                hex => Content::Digest(Digest::from_hex(std::str::from_utf8(hex).ok()?).ok()?),
            };
            let path = unescape(fields.next()?)?;
            files.push((path, FileFacts { kind, mode, content }));
        }
        Some(Self { files: files.into_iter().collect() })
    }
}

/// Two listings without what is the same in both: the longer they are, the less of them is usually
/// apart. `None` if one is damaged.
pub(super) fn decode_apart(old: &[u8], new: &[u8]) -> Option<(Listing, Listing)> {
    let (start, end) = common_lines(old, new);
    let mut apart = (
        Listing::decode(&old[start..old.len() - end])?,
        Listing::decode(&new[start..new.len() - end])?,
    );
    if apart.0.files.keys().eq(apart.1.files.keys()) {
        return Some(apart);
    }
    // A file that was selected twice may be in the common part as well.
    for common in [&old[..start], &old[old.len() - end..]] {
        for (path, facts) in Listing::decode(common)?.files {
            let listings = [&mut apart.0.files, &mut apart.1.files];
            if listings.iter().any(|files| files.contains_key(&path)) {
                for files in listings {
                    files.entry(path.clone()).or_insert_with(|| facts.clone());
                }
            }
        }
    }
    Some(apart)
}

/// How many bytes at the start and at the end are lines that both have.
fn common_lines(old: &[u8], new: &[u8]) -> (usize, usize) {
    let same = |(a, b): &(&u8, &u8)| a == b;
    let start = old.iter().zip(new).take_while(same).count();
    let start = old[..start].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    // From the first line that is whole in both.
    let tail = &old[old.len() - end..];
    let starts_line = |text: &[u8]| text.len() == end || text[text.len() - end - 1] == b'\n';
    if starts_line(old) && starts_line(new) {
        return (start, end);
    }
    let cut = tail.iter().position(|byte| *byte == b'\n').map_or(end, |at| at + 1);
    (start, end - cut)
}

fn escape(path: &Path, out: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'\\' => out.extend(b"\\\\"),
            b'\n' => out.extend(b"\\n"),
            b'\t' => out.extend(b"\\t"),
            byte => out.push(byte),
        }
    }
}

fn unescape(text: &[u8]) -> Option<PathBuf> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b't' => b'\t',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(OsString::from_vec(out).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rbc_ir::{SelectPath, Selection};

    use super::*;
    use crate::tree::{NoHashes, fixture::World, selection_listing};

    #[test]
    fn a_listing_says_what_a_selection_took() {
        let mut world = World::new();
        let tree = world.context("src/a = one\nsrc/odd\\name = two\nsrc/link -> a\nother = o", &[]);
        let paths = vec![SelectPath { path: "src".into(), wildcard: false }];
        let selection = Selection { paths, follow_symlinks: true, ..Selection::default() };
        let (_, parts) = selection_listing(&tree, &selection, &NoHashes).unwrap();
        let listing = Listing::decode(&encode(&parts)).unwrap();
        let of = |path: &str| {
            let facts = &listing.files[Path::new(path)];
            (facts.kind, facts.content.clone())
        };
        assert_eq!(listing.files.len(), 4, "{listing:?}");
        assert_eq!(of("src"), ("folder", Content::None));
        assert_eq!(of("src/a"), ("file", Content::Digest(Digest::of(b"one"))));
        assert_eq!(of("src/odd\\name"), ("file", Content::Digest(Digest::of(b"two"))));
        assert_eq!(of("src/link"), ("symlink", Content::Target("a".into())));
    }

    /// A listing of files named by letters with contents by numbers.
    fn text(files: &[(u8, u8)]) -> Vec<u8> {
        let line = |(name, content): &(u8, u8)| {
            let digest = Digest::of(&[*content]).hex();
            format!("f644\t{digest}\t{}\n", char::from(b'a' + name))
        };
        files.iter().map(line).collect::<String>().into_bytes()
    }

    proptest! {
        #[test]
        fn what_differs_is_apart(
            old in proptest::collection::vec((0..6_u8, 0..2_u8), 0..12),
            new in proptest::collection::vec((0..6_u8, 0..2_u8), 0..12),
        ) {
            // A name has one content in a listing, however often it is there.
            let settled = |files: Vec<(u8, u8)>| -> Vec<(u8, u8)> {
                let last: BTreeMap<u8, u8> = files.iter().copied().collect();
                files.iter().map(|(name, _)| (*name, last[name])).collect()
            };
            let (old, new) = (text(&settled(old)), text(&settled(new)));
            let differences = |old: &Listing, new: &Listing| {
                let names: std::collections::BTreeSet<_> =
                    old.files.keys().chain(new.files.keys()).cloned().collect();
                let pair = |name: &PathBuf| (old.files.get(name).cloned(), new.files.get(name).cloned());
                let pairs = names.into_iter().map(|name| (pair(&name), name));
                pairs.filter(|((old, new), _)| old != new).collect::<Vec<_>>()
            };
            let (whole_old, whole_new) = (Listing::decode(&old).unwrap(), Listing::decode(&new).unwrap());
            let apart = decode_apart(&old, &new).unwrap();
            prop_assert_eq!(differences(&apart.0, &apart.1), differences(&whole_old, &whole_new));
        }

        #[test]
        fn any_path_comes_back(bytes in proptest::collection::vec(1_u8.., 0..40)) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            let mut out = Vec::new();
            escape(&path, &mut out);
            prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\t'));
            prop_assert_eq!(unescape(&out), Some(path));
        }

        #[test]
        fn damage_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Listing::decode(&bytes);
        }
    }
}
