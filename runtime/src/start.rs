//! What starts a program: the loader that an ELF file names (PT_INTERP), or the interpreter of a
//! script. Reads only the few bytes it needs and trusts none of them.

use std::{
    io::{self, Read, Seek, SeekFrom},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

/// How the kernel starts a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// An ELF program that this loader maps together with its libraries.
    Dynamic(PathBuf),
    /// A script: its interpreter, and the rest of the `#!` line.
    Script(PathBuf, String),
    /// Anything else: a static program, or nothing that can be started.
    Alone,
}

/// What an ELF file is for, from its `e_machine` (System V ABI, chapter 4): the architecture in the
/// words of image configs, or the number. `None` if the bytes are no ELF header.
pub fn machine(head: &[u8]) -> Option<String> {
    let big_endian = match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', _, data] => *data == 2,
        _ => return None,
    };
    Some(match number(head, (18, 2), big_endian)? {
        3 => "386".to_owned(),
        8 => "mips".to_owned(),
        21 => if big_endian { "ppc64" } else { "ppc64le" }.to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loong64".to_owned(),
        other => format!("machine {other}"),
    })
}

/// Program headers that are looked at; real programs have about a dozen.
const MAX_HEADERS: u64 = 1024;
/// Longest path of a loader (PATH_MAX).
const MAX_PATH: u64 = 4096;
/// Longest `#!` line that Linux reads.
const MAX_LINE: u64 = 256;
/// The program header type of the loader's path.
const PT_INTERP: u64 = 3;

/// Where the fields of the two ELF classes lie: offset and size in bytes (System V ABI, chapter 4
/// "ELF Header" and chapter 5 "Program Header").
struct Class {
    phoff: (usize, usize),
    phentsize: (usize, usize),
    phnum: (usize, usize),
    offset: (usize, usize),
    filesz: (usize, usize),
    header: u64,
}

const ELF32: Class = Class {
    phoff: (28, 4),
    phentsize: (42, 2),
    phnum: (44, 2),
    offset: (4, 4),
    filesz: (16, 4),
    header: 32,
};

const ELF64: Class = Class {
    phoff: (32, 8),
    phentsize: (54, 2),
    phnum: (56, 2),
    offset: (8, 8),
    filesz: (32, 8),
    header: 56,
};

/// Finds out how a file is started. A damaged ELF file counts as [`Start::Alone`]: the kernel would
/// refuse it, and it is not for this reader to say why.
///
/// # Errors
/// If the file cannot be read.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Start> {
    let head = part(file, 0, 64)?;
    if head.starts_with(b"#!") {
        return Ok(script(&part(file, 2, MAX_LINE)?));
    }
    Ok(loader(file, &head)?.map_or(Start::Alone, Start::Dynamic))
}

fn script(line: &[u8]) -> Start {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let (program, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if program.is_empty() {
        return Start::Alone;
    }
    Start::Script(program.into(), rest.trim().to_owned())
}

fn loader(file: &mut (impl Read + Seek), head: &[u8]) -> io::Result<Option<PathBuf>> {
    let class = match head.get(..6) {
        Some([0x7f, b'E', b'L', b'F', 1, _]) => &ELF32,
        Some([0x7f, b'E', b'L', b'F', 2, _]) => &ELF64,
        _ => return Ok(None),
    };
    let big_endian = head[5] == 2;
    let facts = (|| {
        Some((
            number(head, class.phoff, big_endian)?,
            number(head, class.phentsize, big_endian)?,
            number(head, class.phnum, big_endian)?,
        ))
    })();
    let Some((start, size, count)) = facts else { return Ok(None) };
    if size < class.header {
        return Ok(None);
    }
    for index in 0..count.min(MAX_HEADERS) {
        let Some(place) = start.checked_add(index * size) else { return Ok(None) };
        let header = part(file, place, class.header)?;
        match number(&header, (0, 4), big_endian) {
            Some(PT_INTERP) => {}
            Some(_) => continue,
            None => return Ok(None),
        }
        let path = number(&header, class.offset, big_endian)
            .zip(number(&header, class.filesz, big_endian))
            .filter(|(_, length)| *length <= MAX_PATH);
        let Some((offset, length)) = path else { return Ok(None) };
        let bytes = part(file, offset, length)?;
        let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let whole = bytes.len() as u64 == length && path.starts_with(b"/");
        return Ok(whole.then(|| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()))));
    }
    Ok(None)
}

/// Up to `length` bytes from `offset`; fewer at the end of the file.
fn part(file: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The system refuses offsets that no file can have.
    if i64::try_from(offset).is_ok() {
        file.seek(SeekFrom::Start(offset))?;
        file.take(length).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn number(bytes: &[u8], (offset, size): (usize, usize), big_endian: bool) -> Option<u64> {
    let field = bytes.get(offset..offset + size)?;
    let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    Some(if big_endian { field.iter().fold(0, join) } else { field.iter().rev().fold(0, join) })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Start {
        read(&mut Cursor::new(bytes)).unwrap()
    }

    /// A little ELF64 file whose second program header names `/lib/ld.so`.
    fn elf64() -> Vec<u8> {
        let mut bytes = vec![0; 64 + 2 * 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        bytes[64] = 1;
        bytes[120] = 3;
        bytes[128] = 176;
        bytes[152] = 11;
        bytes.extend_from_slice(b"/lib/ld.so\0");
        bytes
    }

    /// The same for big-endian ELF32, with one header.
    fn elf32() -> Vec<u8> {
        let mut bytes = vec![0; 52 + 32];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x02");
        bytes[31] = 52;
        bytes[43] = 32;
        bytes[45] = 1;
        bytes[55] = 3;
        bytes[59] = 84;
        bytes[71] = 11;
        bytes.extend_from_slice(b"/lib/ld.so\0");
        bytes
    }

    #[test]
    fn finds_the_loader_of_a_program() {
        for bytes in [elf64(), elf32()] {
            assert_eq!(of(&bytes), Start::Dynamic("/lib/ld.so".into()));
            // Cut anywhere, it names none, or a whole one: never a part of one.
            for end in 0..bytes.len() {
                assert_eq!(of(&bytes[..end]), Start::Alone, "{end}");
            }
        }
    }

    #[test]
    fn tells_what_a_program_is_for() {
        let mut head = elf64();
        assert_eq!(machine(&head).as_deref(), Some("machine 0"));
        head[18] = 183;
        assert_eq!(machine(&head).as_deref(), Some("arm64"));
        assert_eq!(machine(&elf32()[..19]), None);
        assert_eq!(machine(b"#!/bin/sh"), None);
    }

    #[test]
    fn finds_the_interpreter_of_a_script() {
        for (text, program, rest) in [
            ("#!/bin/sh\necho", "/bin/sh", ""),
            ("#! /usr/bin/env\tpython3 -u \nx", "/usr/bin/env", "python3 -u"),
            ("#!/bin/sh", "/bin/sh", ""),
        ] {
            assert_eq!(of(text.as_bytes()), Start::Script(program.into(), rest.to_owned()));
        }
        for text in ["", "#!", "#!\n", "echo"] {
            assert_eq!(of(text.as_bytes()), Start::Alone);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            of(&bytes);
        }

        #[test]
        fn damaged_programs_never_panic(
            changes in proptest::collection::vec((0usize..176, any::<u8>()), 1..12),
        ) {
            for mut bytes in [elf64(), elf32()] {
                for (place, value) in &changes {
                    let length = bytes.len();
                    bytes[place % length] = *value;
                }
                of(&bytes);
            }
        }
    }
}
