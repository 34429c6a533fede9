//! Packages that programs were built from: the module list that Go links into every program
//! (debug/buildinfo), and the crate list of Rust programs built with `cargo auditable`.

use std::{collections::BTreeSet, fs::File, io::Read, os::unix::fs::FileExt};

use serde::Deserialize;

use super::{Ecosystem, Package};

/// Largest list of one program that is read, in bytes.
const MAX_LIST: u64 = 16 << 20;
/// Most sections of a program that are looked at.
const MAX_SECTIONS: u64 = 4096;
/// Beginning of Go's list.
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// Length of the head of Go's list.
const GO_HEAD: usize = 32;
/// What stands before and behind the text with Go's modules.
const GO_GUARD: usize = 16;

/// The packages in a program; none if it is no ELF file or says nothing.
pub(super) fn packages(file: &File, found_in: &str, found: &mut BTreeSet<Package>) {
    let Some(elf) = Elf::read(file) else { return };
    if let Some(list) = elf.section(b".go.buildinfo").and_then(|data| go_modules(&data)) {
        found.extend(list.lines().filter_map(|line| go_module(line, found_in)));
    }
    if let Some(list) = elf.section(b".dep-v0") {
        found.extend(crates(&list, found_in));
    }
}

/// The text with a Go program's modules, as Go 1.18 and newer write it.
fn go_modules(data: &[u8]) -> Option<String> {
    let (flags, rest) = (*data.strip_prefix(GO_MAGIC)?.get(1)?, data.get(GO_HEAD..)?);
    // Older programs hold addresses in place of texts.
    (flags & 2 != 0).then_some(())?;
    let (_version, rest) = sized(rest)?;
    let (modules, _) = sized(rest)?;
    let inner = modules.get(GO_GUARD..modules.len().checked_sub(GO_GUARD)?)?;
    Some(String::from_utf8_lossy(inner).into_owned())
}

/// A text behind its length, which is a base-128 number.
fn sized(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (at, byte) in data.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let rest = data.get(at + 1..)?;
            return Some((rest.get(..length)?, rest.get(length..)?));
        }
    }
    None
}

/// A line `dep<TAB>PATH<TAB>VERSION<TAB>SUM`. What a module is replaced by has a line of its own.
fn go_module(line: &str, found_in: &str) -> Option<Package> {
    let mut fields = line.split('\t');
    let kind = fields.next()?;
    matches!(kind, "mod" | "dep" | "=>").then_some(())?;
    let (path, version) = (fields.next()?, fields.next()?);
    // The main module of a build that was not of a release.
    (!path.is_empty() && !matches!(version, "" | "(devel)")).then_some(())?;
    Some(Package {
        ecosystem: Ecosystem::Go,
        name: path.to_owned(),
        version: version.to_owned(),
        architecture: String::new(),
        supplier: String::new(),
        license: String::new(),
        found_in: found_in.to_owned(),
    })
}

#[derive(Deserialize)]
struct Crates {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    source: String,
}

/// The crates from registries in a list of cargo-auditable: JSON, compressed with zlib.
fn crates(list: &[u8], found_in: &str) -> Vec<Package> {
    let mut json = Vec::new();
    let mut plain = flate2::read::ZlibDecoder::new(list).take(MAX_LIST);
    let Ok(_) = plain.read_to_end(&mut json) else { return Vec::new() };
    let Ok(Crates { packages }) = serde_json::from_slice(&json) else { return Vec::new() };
    packages
        .into_iter()
        .filter(|one| one.source != "local")
        .map(|one| Package {
            ecosystem: Ecosystem::Cargo,
            name: one.name,
            version: one.version,
            architecture: String::new(),
            supplier: String::new(),
            license: String::new(),
            found_in: found_in.to_owned(),
        })
        .collect()
}

/// The section table of a 64-bit ELF file (elf(5)).
struct Elf<'a> {
    file: &'a File,
    little: bool,
    /// Name (as an offset), place and length of each section.
    sections: Vec<(u64, u64, u64)>,
    /// Place of the names.
    names: u64,
}

impl<'a> Elf<'a> {
    fn read(file: &'a File) -> Option<Self> {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).ok()?;
        (head.starts_with(b"\x7fELF") && head[4] == 2).then_some(())?;
        let mut elf = Self { file, little: head[5] == 1, sections: Vec::new(), names: 0 };
        let table = elf.number(head.get(0x28..0x30)?);
        let (size, count) = (elf.number(&head[0x3a..0x3c]), elf.number(&head[0x3c..0x3e]));
        let names = elf.number(&head[0x3e..0x40]);
        (size >= 64 && count <= MAX_SECTIONS).then_some(())?;
        for section in 0..count {
            let mut entry = [0; 64];
            let at = table.checked_add(section * size)?;
            file.read_exact_at(&mut entry, at).ok()?;
            let number = |from: usize, to: usize| elf.number(&entry[from..to]);
            let facts = (number(0, 4), number(0x18, 0x20), number(0x20, 0x28));
            elf.sections.push(facts);
        }
        elf.names = elf.sections.get(usize::try_from(names).ok()?)?.1;
        Some(elf)
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }

    /// The content of the section with a name.
    fn section(&self, wanted: &[u8]) -> Option<Vec<u8>> {
        for (name, place, length) in &self.sections {
            let mut found = vec![0; wanted.len() + 1];
            let Some(at) = self.names.checked_add(*name) else { continue };
            if self.file.read_exact_at(&mut found, at).is_err()
                || found.strip_suffix(b"\0") != Some(wanted)
            {
                continue;
            }
            (*length <= MAX_LIST).then_some(())?;
            // The length is a claim of the file's: memory is taken as far as there is content.
            let size = self.file.metadata().ok()?.len();
            let length = (*length).min(size.checked_sub(*place)?);
            let mut content = vec![0; usize::try_from(length).ok()?];
            self.file.read_exact_at(&mut content, *place).ok()?;
            return Some(content);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with one section of content.
    fn program(name: &str, content: &[u8]) -> File {
        let names = format!("\0{name}\0");
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let place_of_content = 64 + names.len();
        let table = place_of_content + content.len();
        head[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        head[0x3a..0x40].copy_from_slice(&[64, 0, 2, 0, 0, 0]);
        let section = |name: u32, place: usize, length: usize| {
            let mut entry = vec![0; 64];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[0x18..0x20].copy_from_slice(&(place as u64).to_le_bytes());
            entry[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            entry
        };
        let parts = [
            head,
            names.clone().into_bytes(),
            content.to_vec(),
            section(0, 64, names.len()),
            section(1, place_of_content, content.len()),
        ];
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(&parts.concat()).expect("write");
        file
    }

    fn listed(file: &File) -> Vec<String> {
        let mut found = BTreeSet::new();
        packages(file, "bin/x", &mut found);
        found.iter().map(|p| p.purl(&super::super::Distribution::default())).collect()
    }

    #[test]
    fn go_modules_are_listed() {
        let modules = "path\tx\nmod\texample.org/x\t(devel)\t\ndep\tgolang.org/x/net\tv0.30.0\th1:=\n\
                       dep\tgithub.com/A/b\tv1.0.0\n=>\t./local\t\t\n";
        let guarded = format!("{}{modules}{}", "g".repeat(16), "g".repeat(16));
        let mut data = [GO_MAGIC, &[8, 2], &[0; 16]].concat();
        data.push(6);
        data.extend(b"go1.22");
        data.extend([(guarded.len() & 0x7f | 0x80) as u8, (guarded.len() >> 7) as u8]);
        data.extend(guarded.as_bytes());
        assert_eq!(
            listed(&program(".go.buildinfo", &data)),
            ["pkg:golang/github.com/A/b@v1.0.0", "pkg:golang/golang.org/x/net@v0.30.0"]
        );
        assert_eq!(listed(&program(".go.buildinfo", &data[..60])), [""; 0]);
        assert_eq!(listed(&program(".other", &data)), [""; 0]);
    }

    #[test]
    fn crates_are_listed() {
        let json = br#"{"packages":[{"name":"me","version":"1.0.0","source":"local","root":true},
            {"name":"serde","version":"1.0.200","source":"crates.io"}]}"#;
        let mut packed =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(json).expect("pack");
        let packed = packed.finish().expect("pack");
        assert_eq!(listed(&program(".dep-v0", &packed)), ["pkg:cargo/serde@1.0.200"]);
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_answered(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 64..400)) {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let mut file = tempfile::tempfile().expect("file");
            file.write_all(&bytes).expect("write");
            listed(&file);
        }
    }
}
