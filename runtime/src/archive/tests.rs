//! Archives as other programs write them, and as attackers do.

use std::{
    io,
    process::{Command, Stdio},
};

use super::*;

/// Lists the entries of an archive with the length of what could be read of each.
fn list(data: &[u8]) -> Result<Vec<(String, EntryKind, u64)>, ArchiveError> {
    let mut found = Vec::new();
    read(data, &mut |entry, content| {
        let n = io::copy(content, &mut io::sink())?;
        found.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.kind, n));
        Ok(())
    })?;
    Ok(found)
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, data).unwrap();
    tar.into_inner().unwrap()
}

fn through(program: &str, data: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program} ({e}): install its Debian package"));
    let mut stdin = child.stdin.take().unwrap();
    let data = data.to_vec();
    let writer = std::thread::spawn(move || io::Write::write_all(&mut stdin, &data));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

#[test]
fn every_compression_is_told_by_its_content() {
    let plain = file("f", b"content");
    let want = vec![("f".to_owned(), EntryKind::File, 7)];
    assert_eq!(list(&plain).unwrap(), want);
    for (program, kind) in [
        ("gzip", Compression::Gzip),
        ("bzip2", Compression::Bzip2),
        ("xz", Compression::Xz),
        ("zstd", Compression::Zstd),
    ] {
        let packed = through(program, &plain);
        assert_eq!(detect(&packed), Some(kind));
        assert_eq!(list(&packed).unwrap(), want, "{program}");
        let cut = list(&packed[..packed.len() / 2]).unwrap_err().to_string();
        assert!(cut.contains("unexpected EOF"), "{program}: {cut}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_an_error_or_the_whole() {
    let whole = file(&"long-name".repeat(30), &[7; 1500]);
    let want = list(&whole).unwrap();
    for end in 1..whole.len() {
        match list(&whole[..end]) {
            Ok(found) => assert!(found == want, "cut at {end}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("unexpected EOF"), "cut at {end}: {error}");
            }
        }
    }
}

#[test]
fn forged_sizes_allocate_nothing() {
    let mut archive = file("f", b"x");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&archive[..512]);
    header.set_size(1 << 60);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    assert!(list(&archive).unwrap_err().to_string().contains("unexpected EOF"));

    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    assert!(list(&archive).unwrap_err().to_string().contains("more than 1048576"));
}

#[test]
fn sparse_files_of_gnu_tar_come_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let sparse = std::fs::File::create(&path).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    let pack = |format: &str| {
        let output = Command::new("tar")
            .args(["--sparse", format, "-cf", "-", "-C"])
            .arg(dir.path())
            .arg("sparse")
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let mut content = Vec::new();
    read(pack("--format=gnu").as_slice(), &mut |_, data| {
        data.read_to_end(&mut content)?;
        Ok(())
    })
    .unwrap();
    assert!(content == std::fs::read(&path).unwrap());
    let refused = list(&pack("--format=pax")).unwrap_err().to_string();
    assert!(refused.contains("sparse"), "{refused}");
}

#[test]
fn names_and_attributes_of_pax_win() {
    let mut tar = tar::Builder::new(Vec::new());
    let records: [(&str, &[u8]); 4] = [
        ("path", b"from-pax"),
        ("mtime", b"10.25"),
        ("uid", b"3000000"),
        ("SCHILY.xattr.user.x", b"a\0b"),
    ];
    tar.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    tar.append_data(&mut header, "short", io::empty()).unwrap();
    let mut seen = None;
    read(tar.into_inner().unwrap().as_slice(), &mut |entry, _| {
        seen = Some(entry.clone());
        Ok(())
    })
    .unwrap();
    let entry = seen.unwrap();
    assert_eq!(entry.path, b"from-pax");
    assert_eq!((entry.mtime, entry.uid), ((10, 250_000_000), 3_000_000));
    assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a\0b".to_vec())]);
}

#[test]
fn what_is_no_archive_is_told_apart() {
    let check = |data: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, data).unwrap();
        is_archive(&mut file).unwrap()
    };
    assert!(check(&file("f", b"x")));
    assert!(check(&through("gzip", &file("f", b"x"))));
    assert!(!check(&[0; 10240]));
    assert!(!check(b"text"));
    assert!(!check(&through("gzip", b"text")));
    assert!(!check(b"\x1f\x8b\x08 but no gzip"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
        let _ = list(&data);
    }
}
