//! What strangers send: each gets a clear error and leaves a state folder that still works.

mod support;

use std::fs;

use support::{Bench, image};

/// After a failure the same state folder must still build.
fn still_works(bench: &Bench) {
    bench.write("good/Dockerfile", "FROM busybox\nRUN true\n");
    bench.rbc("build good").ok();
}

#[test]
fn a_graph_cut_anywhere_or_changed_is_refused() {
    let bench = Bench::with_busybox();
    bench.write("Dockerfile", "FROM busybox\nRUN true\n");
    let graph = bench.rbc("compile Dockerfile").ok().stdout_bytes;
    for end in (0..graph.len()).step_by(7) {
        bench.write("cut.bin", &graph[..end]);
        bench.rbc("run cut.bin").fails(1, "graph");
    }
    for at in (0..graph.len()).step_by(11) {
        let mut changed = graph.clone();
        changed[at] ^= 0x40;
        bench.write("changed.bin", &changed);
        bench.rbc("inspect changed.bin").fails(1, "graph");
    }
    still_works(&bench);
}

#[test]
fn archives_that_attack_the_host_are_refused_or_contained() {
    use tar::EntryType as Kind;
    let bench = Bench::with_busybox();
    let raw = |name: &str, kind: Kind, link: &str, size: u64, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    };
    let victim = bench.path("victim");
    let absolute = victim.to_str().unwrap().to_owned();
    let parent = bench.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let file = |name: &str| raw(name, Kind::Regular, "", 4, b"evil");
    let attacks = [
        ("dot dot", file("../../../../../../victim")),
        ("absolute", file(&absolute)),
        ("link", [raw("l", Kind::Symlink, &parent, 0, b""), file("l/victim")].concat()),
        (
            "relative link",
            [raw("l", Kind::Symlink, "../../../..", 0, b""), file("l/victim")].concat(),
        ),
        ("hard link", [raw("h", Kind::Link, &absolute, 0, b""), file("h")].concat()),
        ("device", raw("disk", Kind::Block, "", 0, b"")),
        ("forged size", raw("big", Kind::Regular, "", 1 << 32, b"small")),
        ("forged name", raw("x", Kind::GNULongName, "", 1 << 32, b"")),
    ];
    for (what, archive) in attacks {
        bench.write("victim", "untouched").write("c/a.tar", &archive);
        bench.write("c/Dockerfile", "FROM busybox\nADD a.tar /dst/in/\n");
        let run = bench.rbc("build --no-cache c");
        assert!(matches!(run.code, Some(0 | 1)), "{what}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
        assert_eq!(bench.read("victim"), "untouched", "{what}");
    }
    bench.write("c/a.tar", &file("x")[..300]);
    bench.rbc("build c").ok();
    still_works(&bench);
}

#[test]
fn images_that_are_not_what_their_digest_says_are_refused() {
    // Without busybox in the store: blobs that are there are not read again.
    let bench = Bench::new();
    let good = bench.path("good.tar");
    image::busybox().write_oci(&good, "victim:latest");
    let bytes = fs::read(&good).unwrap();
    // One byte of each blob in turn: after its header, so that the tar itself stays whole.
    let mut archive = tar::Archive::new(bytes.as_slice());
    let blobs: Vec<(String, usize, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            (name, entry.raw_file_position() as usize, entry.header().size().unwrap())
        })
        .filter(|(name, ..)| name.starts_with("blobs/"))
        .collect();
    assert_eq!(blobs.len(), 3);
    for (name, start, size) in blobs {
        let mut damaged = bytes.clone();
        damaged[start + size as usize / 2] ^= 1;
        bench.write("damaged.tar", &damaged);
        let digest = name.rsplit('/').next().unwrap();
        bench.rbc("load --input damaged.tar").fails(1, digest);
    }
    assert!(!bench.rbc("images").ok().stdout.contains("victim"));
    for end in [0, 1, 511, 512, 1000, bytes.len() / 2, bytes.len() - 2000] {
        bench.write("cut.tar", &bytes[..end]);
        let run = bench.rbc("load --input cut.tar");
        assert_eq!(run.code, Some(1), "cut at {end}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
    bench.load(&image::busybox(), "busybox:latest");
    still_works(&bench);
}

#[test]
fn wrong_calls_exit_with_2() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\n");
    for call in [
        "build --nosuch .",
        "nosuch",
        "build --shm-size 1x .",
        "build -o type=what .",
        "build --platform a/b/c/d .",
        "build --ulimit nofile=x .",
        "build --push .",
        "save",
    ] {
        bench.rbc(call).fails(2, "error");
    }
}

#[test]
fn missing_things_are_named() {
    let bench = Bench::with_busybox();
    bench.rbc("build nosuch").fails(1, "nosuch");
    fs::create_dir(bench.path("c")).unwrap();
    bench.rbc("build c").fails(1, "c/Dockerfile");
    bench.rbc("run nosuch.bin").fails(1, "nosuch.bin");
    bench.rbc("load --input nosuch.tar").fails(1, "nosuch.tar");
    bench.write("c/Dockerfile", "FROM busybox\nCOPY a.log /\n");
    bench.write("c/a.log", "x").write("c/.dockerignore", "*.log\n");
    let run = bench.rbc("build c").fails(1, "\"/a.log\": not found");
    assert!(
        run.stderr.contains("*.log") && run.stderr.contains("c/Dockerfile:2:6"),
        "{}",
        run.stderr
    );
}
