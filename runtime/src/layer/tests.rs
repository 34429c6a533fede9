//! Layers to tars and back, and layers that attack.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use rustix::fs::{CWD, FileType, Mode};

use super::*;

fn tar_of(dir: &Path, options: &TarOptions) -> Vec<u8> {
    let mut out = Vec::new();
    write_tar(dir, &mut out, options).unwrap();
    out
}

/// Kind, mode, owner, link and name of every entry, as GNU tar lists them.
fn listing(tar: &[u8]) -> String {
    let mut child = Command::new("tar")
        .args(["--numeric-owner", "-tvf", "-"])
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// A layer with something of everything.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/file"), "content").unwrap();
    fs::write(at("a/z"), vec![7; 5000]).unwrap();
    fs::hard_link(at("a/z"), at("a/again")).unwrap();
    symlink("/no/where", at("a/link")).unwrap();
    fs::write(at("suid"), "x").unwrap();
    rustix::fs::chownat(
        CWD,
        at("suid"),
        Some(rustix::fs::Uid::from_raw(3)),
        Some(rustix::fs::Gid::from_raw(3_000_000)),
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    fs::set_permissions(at("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("gone", FileType::CharacterDevice, 0);
    fs::create_dir(at("new")).unwrap();
    rustix::fs::lsetxattr(at("new"), OPAQUE, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let long = "n".repeat(120);
    fs::write(at(&long), "long").unwrap();
    fs::write(at("ümlaut"), "x").unwrap();
    for name in [
        "a/b/file", "a/b", "a/z", "a/link", "a", "suid", "fifo", "null", "gone", "new", &long,
        "ümlaut",
    ] {
        set(&at(name), 1_000_000_000, 5);
    }
    dir
}

fn set(path: &Path, seconds: i64, nanos: i64) {
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn a_layer_as_other_tools_see_it() {
    let dir = sample();
    let list = listing(&tar_of(dir.path(), &TarOptions::default()));
    let long = "n".repeat(120);
    let list = list.replace(&long, "LONG");
    insta::assert_snapshot!(list, @r"
    drwxr-xr-x 0/0               0 2001-09-09 01:46 a/
    -rw-r--r-- 0/0            5000 2001-09-09 01:46 a/again
    drwxr-xr-x 0/0               0 2001-09-09 01:46 a/b/
    -rw-r--r-- 0/0               7 2001-09-09 01:46 a/b/file
    lrwxrwxrwx 0/0               0 2001-09-09 01:46 a/link -> /no/where
    hrw-r--r-- 0/0               0 2001-09-09 01:46 a/z link to a/again
    prw------- 0/0               0 2001-09-09 01:46 fifo
    ---------- 0/0               0 1980-02-01 00:00 .wh.gone
    drwxr-xr-x 0/0               0 2001-09-09 01:46 new/
    ---------- 0/0               0 1980-02-01 00:00 new/.wh..wh..opq
    -rw-r--r-- 0/0               4 2001-09-09 01:46 LONG
    crw------- 0/0             1,3 2001-09-09 01:46 null
    -rwsr-xr-x 3/3000000         1 2001-09-09 01:46 suid
    -rw-r--r-- 0/0               1 2001-09-09 01:46 \303\274mlaut
    ");
}

#[test]
fn to_a_tar_and_back_is_the_same() {
    let first = sample();
    let tar = tar_of(first.path(), &TarOptions::default());
    let second = tempfile::tempdir().unwrap();
    let applied = apply_tar(tar.as_slice(), second.path()).unwrap();
    assert_eq!((applied.diff_id, applied.size), (Digest::of(&tar), tar.len() as u64));
    assert!(tar_of(second.path(), &TarOptions::default()) == tar);
}

#[test]
fn what_a_step_made_gets_the_time_of_the_image() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old"), "x").unwrap();
    set(&dir.path().join("old"), 1_500_000_000, 0);
    let started = {
        let probe = tempfile::tempdir().unwrap();
        Started::of(probe.path()).unwrap()
    };
    fs::write(dir.path().join("made"), "x").unwrap();
    commit(dir.path(), &started).unwrap();
    let times = |options: &TarOptions| -> Vec<u64> {
        let tar = tar_of(dir.path(), options);
        let mut archive = tar::Archive::new(tar.as_slice());
        archive.entries().unwrap().map(|e| e.unwrap().header().mtime().unwrap()).collect()
    };
    assert_eq!(times(&TarOptions::default()), [DEFAULT_EPOCH as u64, 1_500_000_000]);
    let early = TarOptions { source_date_epoch: Some(1_400_000_000) };
    assert_eq!(times(&early), [1_400_000_000, 1_400_000_000]);
    let late = TarOptions { source_date_epoch: Some(1_600_000_000) };
    assert_eq!(times(&late), [1_600_000_000, 1_500_000_000]);
    let made = fs::metadata(dir.path().join("made")).unwrap();
    assert_eq!(made.mtime_nsec(), i64::from(MADE_NSEC));
    assert!(made.mtime() > 1_600_000_000, "the seconds stay for make");
}

/// One raw entry; the tar crate itself refuses to write such names.
fn entry(name: &str, kind: tar::EntryType, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_ustar_mut().unwrap();
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

#[test]
fn nothing_gets_out_of_the_layer() {
    use tar::EntryType as Kind;
    let outside = tempfile::tempdir().unwrap();
    let dir = outside.path().join("layer");
    let victim = outside.path().join("victim");
    let absolute = victim.to_str().unwrap();
    let parent = outside.path().to_str().unwrap();
    let file = |name: &str| entry(name, Kind::Regular, "", b"evil");
    let attacks: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("dot dot", vec![file("../victim")]),
        ("dot dot in the middle", vec![file("a/../../victim")]),
        ("absolute", vec![file(absolute)]),
        ("through a link", vec![entry("l", Kind::Symlink, parent, b""), file("l/victim")]),
        (
            "through a relative link",
            vec![entry("l", Kind::Symlink, "../..", b""), file("l/victim")],
        ),
        ("onto a link", vec![entry("victim", Kind::Symlink, absolute, b""), file("victim")]),
        ("hard link out", vec![entry("h", Kind::Link, "../victim", b""), file("h")]),
        (
            "hard link through a link",
            vec![
                entry("l", Kind::Symlink, parent, b""),
                entry("h", Kind::Link, "l/victim", b""),
                file("h"),
            ],
        ),
        ("whiteout out", vec![file("../.wh.victim")]),
        ("whiteout of dot dot", vec![file(".wh...")]),
        ("link loop", vec![entry("l", Kind::Symlink, "l", b""), file("l/x")]),
    ];
    for (what, parts) in attacks {
        fs::write(&victim, "untouched").unwrap();
        fs::create_dir(&dir).unwrap();
        let result = apply_tar(parts.concat().as_slice(), &dir);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "{what}");
        let mut names: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["layer", "victim"], "{what}");
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn bad_entries_are_named() {
    use tar::EntryType as Kind;
    let refused = |parts: &[Vec<u8>]| {
        let dir = tempfile::tempdir().unwrap();
        apply_tar(parts.concat().as_slice(), dir.path()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        refused(&[entry("../x", Kind::Regular, "", b"")]),
        @r#"layer entry "../x": its name leads out of the layer through "..""#
    );
    insta::assert_snapshot!(
        refused(&[entry("h", Kind::Link, "missing", b"")]),
        @r#"layer entry "h": it is a hard link to "missing", which is not in this layer"#
    );
    insta::assert_snapshot!(
        refused(&[entry("f", Kind::Regular, "", b""), entry("f/x", Kind::Regular, "", b"")]),
        @r#"layer entry "f/x": its name leads through a file that is no folder"#
    );
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    use tar::EntryType as Kind;
    let dir = tempfile::tempdir().unwrap();
    let tar = [
        entry("x", Kind::Directory, "", b""),
        entry("x/deep", Kind::Regular, "", b"1"),
        entry("x", Kind::Regular, "", b"2"),
        entry("y", Kind::Regular, "", b"3"),
        entry("y", Kind::Directory, "", b""),
        entry("y/in", Kind::Regular, "", b"4"),
    ];
    apply_tar(tar.concat().as_slice(), dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("x")).unwrap(), "2");
    assert_eq!(fs::read_to_string(dir.path().join("y/in")).unwrap(), "4");
}

#[test]
fn a_layer_may_not_unpack_to_more_than_allowed() {
    let mut packer = Packer::new(Vec::new(), Packing::Gzip).unwrap();
    let mut tar = Vec::new();
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(8 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.resize(tar.len() + (8 << 20) + 1024, 0);
    packer.write_all(&tar).unwrap();
    let (bomb, _) = packer.finish().unwrap();
    assert!(bomb.len() < 64 << 10);
    let dir = tempfile::tempdir().unwrap();
    let error = apply_tar_within(bomb.as_slice(), dir.path(), 1 << 20).unwrap_err().to_string();
    assert!(error.contains("unpacks to more than the 1048576 bytes"), "{error}");
    let other = tempfile::tempdir().unwrap();
    assert_eq!(
        apply_tar_within(bomb.as_slice(), other.path(), 16 << 20).unwrap().size,
        tar.len() as u64
    );
}

#[test]
fn packing_does_not_depend_on_threads_and_others_unpack_it() {
    let plain: Vec<u8> = (0..5_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    for (packing, program) in [(Packing::Gzip, "gzip"), (Packing::Zstd, "zstd")] {
        let pack = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut packer = Packer::new(Vec::new(), packing).unwrap();
                for chunk in plain.chunks(77_777) {
                    packer.write_all(chunk).unwrap();
                }
                packer.finish().unwrap()
            })
        };
        let (one, packed) = pack(1);
        for threads in [2, 8] {
            assert!(one == pack(threads).0, "{program} with {threads} threads");
        }
        assert_eq!(packed.diff_id, Digest::of(&plain));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("packed");
        fs::write(&file, &one).unwrap();
        let output =
            Command::new(program).arg("-dc").stdin(File::open(&file).unwrap()).output().unwrap();
        assert!(output.stdout == plain, "{program}");
    }
}

#[test]
fn an_empty_stream_is_packed_too() {
    for packing in [Packing::None, Packing::Gzip, Packing::Zstd] {
        let (out, packed) = Packer::new(Vec::new(), packing).unwrap().finish().unwrap();
        assert_eq!(packed.diff_id, Digest::of(b""));
        let mut plain = Vec::new();
        let mut reader = crate::archive::decompress(out.as_slice()).unwrap();
        std::io::Read::read_to_end(&mut reader, &mut plain).unwrap();
        assert_eq!(plain, b"");
    }
}
