//! Archives in: layouts, `docker save` files, and damaged ones.

use std::{
    fs,
    io::Read,
    time::{Duration, Instant},
};

use rbc_ir::{Digest, Platform};
use rbc_runtime::{
    export::Dest,
    image::{self, ImageError, Loaded, SaveFormat, Source},
    store::Store,
};

use crate::support::{LayoutDir, Place, gzip, skopeo, tar_of};

fn load(place: &Place, name: &str) -> Result<Vec<Loaded>, ImageError> {
    image::load(&place.store, Source::Path(place.path(name)))
}

fn names(loaded: &[Loaded]) -> Vec<String> {
    loaded.iter().flat_map(|image| &image.names).map(|name| name.familiar()).collect()
}

#[test]
fn layouts_load_from_folders_tars_and_pipes() {
    let place = Place::new();
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    layout.pack(&place.path("layout.tar"));
    let tar = fs::read(place.path("layout.tar")).expect("read");
    fs::write(place.path("layout.tar.gz"), gzip(&tar)).expect("write");
    fs::write(place.path("layout.tar.zst"), zstd::encode_all(&tar[..], 1).expect("zstd"))
        .expect("write");
    let mut xz = Vec::new();
    liblzma::read::XzEncoder::new(&tar[..], 1).read_to_end(&mut xz).expect("xz");
    fs::write(place.path("layout.tar.xz"), xz).expect("write");
    let first = load(&place, "layout").expect("folder");
    assert_eq!(names(&first), ["sample:v1"]);
    for name in ["layout.tar", "layout.tar.gz", "layout.tar.zst", "layout.tar.xz"] {
        assert_eq!(load(&place, name).expect(name), first, "{name}");
    }
    let mut pipe = &tar[..];
    assert_eq!(image::load(&place.store, Source::Stream(&mut pipe)).expect("pipe"), first);
    let rows = image::list(&place.store).expect("list");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].repository.as_deref(), Some("sample"));
    assert_eq!(rows[0].tag.as_deref(), Some("v1"));
    assert_eq!(rows[0].created, "2001-02-03T04:05:06Z");
    assert_eq!(rows[0].platforms, [Platform::host()]);
}

#[test]
fn docker_archives_of_skopeo_load_and_keep_the_config() {
    let place = Place::new();
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    let from = format!("oci:{}", layout.path.display());
    let to = format!("docker-archive:{}:other/name:2", place.path("docker.tar").display());
    skopeo(&["copy", &from, &to]);
    let loaded = load(&place, "docker.tar").expect("docker archive");
    assert_eq!(names(&loaded), ["other/name:2"]);
    let name = "other/name:2".parse().expect("name");
    let found = image::resolve_local(&place.store, &name, &Platform::host());
    let found = found.expect("resolve").expect("found");
    assert_eq!(found.config.config.env, ["A=b"]);
    assert_eq!(found.manifest.layers.len(), 2);
}

#[test]
fn archives_of_the_old_form_with_links_load() {
    let place = Place::new();
    let layer = tar_of(&[("file", b"content")]);
    let config = rbc_ir::ImageConfig::default().to_json(
        &Platform::host(),
        "2001-02-03T04:05:06Z",
        &[Digest::of(&layer).to_string(), Digest::of(&layer).to_string()],
    );
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let mut builder = tar::Builder::new(Vec::new());
    let plain =
        tar_of(&[("a/layer.tar", &layer), ("c.json", &config), ("manifest.json", manifest)]);
    let mut archive = tar::Archive::new(&plain[..]);
    for entry in archive.entries().expect("entries") {
        let entry = entry.expect("entry");
        builder.append(&entry.header().clone(), entry).expect("append");
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "b/layer.tar", "../a/layer.tar").expect("link");
    fs::write(place.path("old.tar"), builder.into_inner().expect("finish")).expect("write");
    assert_eq!(names(&load(&place, "old.tar").expect("load")), ["old:1"]);
}

#[test]
fn indexes_load_with_the_platforms_that_are_there() {
    let place = Place::new();
    let mut layout = LayoutDir::new(place.path("layout"));
    let layer = |text: &str| [tar_of(&[("arch", text.as_bytes())])];
    let amd64 = layout.image("linux/amd64", &layer("amd64"));
    let arm = layout.image("linux/arm/v7", &layer("arm"));
    let absent = layout.image("linux/s390x", &layer("s390x"));
    fs::remove_file(layout.blob_path(&absent.digest)).expect("remove");
    let index = layout.index(vec![amd64.clone(), arm.clone(), absent]);
    layout.list(index, Some("docker.io/library/multi:latest"));
    load(&place, "layout").expect("load");
    let name = "multi".parse().expect("name");
    let resolve = |platform: &str| {
        image::resolve_local(&place.store, &name, &platform.parse().expect("platform"))
    };
    let found = |platform: &str| resolve(platform).expect("resolve").map(|i| i.descriptor.digest);
    assert_eq!(found("linux/amd64"), Some(amd64.digest));
    assert_eq!(found("linux/arm/v8"), Some(arm.digest));
    // Listed, but not held: a registry may be asked.
    assert_eq!(found("linux/s390x"), None);
    assert_eq!(
        resolve("linux/ppc64le").expect_err("no such platform").to_string(),
        "multi:latest: no image for linux/ppc64le; there is linux/amd64, linux/arm/v7, linux/s390x"
    );
}

#[test]
fn names_move_and_images_go() {
    let mut place = Place::new();
    LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    load(&place, "layout").expect("load");
    // What one has loaded it uses until it is closed.
    place.reopen();
    let store = &place.store;
    image::tag(store, "sample:v1", &"localhost:5000/x:2".parse().expect("name")).expect("tag");
    let id = image::list(store).expect("list")[0].id.expect("id");
    assert!(image::find(store, &id.short()).is_ok());
    let removed = image::remove(store, "sample:v1").expect("remove");
    assert_eq!((removed.untagged.as_slice(), removed.freed), (&["sample:v1".to_owned()][..], 0));
    let removed = image::remove(store, &id.short()).expect("remove");
    assert_eq!(removed.untagged, ["localhost:5000/x:2"]);
    let deleted = removed.deleted.len() + sweep_rest(store, 4 - removed.deleted.len());
    assert_eq!(deleted, 4, "manifest, config and two layers");
    assert!(store.blobs().list().expect("blobs").is_empty());
    let gone = image::remove(store, "sample:v1").expect_err("gone").to_string();
    assert_eq!(gone, "sample:v1: no such image in the local store");
}

#[test]
fn what_another_process_uses_is_not_swept() {
    let mut place = Place::new();
    LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    load(&place, "layout").expect("load");
    place.reopen();
    let other = rbc_runtime::store::Store::open(place.store.root()).expect("open again");
    let manifest = image::find(&other, "sample:v1").expect("found");
    assert_eq!(image::layers_of(&other, &manifest).expect("layers").len(), 2);
    let removed = image::remove(&place.store, "sample:v1").expect("remove");
    let deleted = removed.deleted.len() + sweep_rest(&place.store, 2 - removed.deleted.len());
    assert_eq!(deleted, 2, "the layers that it has not looked at");
    assert_eq!(image::sweep(&place.store).expect("sweep").0.len(), 0);
    drop(other);
    assert_eq!(sweep_rest(&place.store, 2), 2);
}

/// Sweeps until so many blobs went. A program that another test is just starting has what this process
/// had open until it runs, locks of a closed store included.
fn sweep_rest(store: &Store, blobs: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut gone = 0;
    while gone < blobs && Instant::now() < deadline {
        gone += image::sweep(store).expect("sweep").0.len();
        std::thread::sleep(Duration::from_millis(5));
    }
    gone
}

#[test]
fn saved_images_are_read_by_skopeo_and_are_the_same_each_time() {
    let place = Place::new();
    LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    load(&place, "layout").expect("load");
    let names = ["sample:v1".to_owned()];
    for (file, format, transport) in [
        ("d.tar", SaveFormat::DockerArchive, "docker-archive"),
        ("o.tar", SaveFormat::Oci, "oci-archive"),
    ] {
        let save = |file: &str| {
            let dest = Dest::Path(place.path(file));
            image::save(&place.store, &names, format, &dest).expect("save");
            fs::read(place.path(file)).expect("read")
        };
        assert_eq!(save(file), save("again.tar"), "{file}");
        let source = format!("{transport}:{}", place.path(file).display());
        let shown = skopeo(&["inspect", &source]);
        assert!(shown.contains(r#""A=b""#), "{shown}");
        let other = Place::new();
        let loaded = image::load(&other.store, Source::Path(place.path(file))).expect("load");
        assert_eq!(loaded[0].names[0].familiar(), "sample:v1");
    }
}

#[test]
fn damaged_archives_are_refused_and_leave_the_store_usable() {
    let place = Place::new();
    let refuse = |what: &str, damage: &dyn Fn(&LayoutDir)| {
        let dir = place.path(&what.replace(' ', "-"));
        let layout = LayoutDir::sample(dir.clone(), "docker.io/library/bad:1");
        damage(&layout);
        let error = image::load(&place.store, Source::Path(dir)).expect_err(what);
        let hex = |text: String| {
            let mut text = text.replace(&place.path("").display().to_string(), "/");
            while let Some(at) = text.find("sha256:") {
                text.replace_range(at..(at + 71).min(text.len()), "DIGEST");
            }
            text
        };
        format!("{what}: {}", hex(error.to_string()))
    };
    let biggest = |layout: &LayoutDir, wanted: &str| {
        let files = fs::read_dir(layout.path.join("blobs/sha256")).expect("list");
        files
            .map(|file| file.expect("entry").path())
            .find(|path| {
                let data = fs::read(path).expect("read");
                match wanted {
                    "layer" => data.starts_with(&[0x1f, 0x8b]),
                    key => String::from_utf8_lossy(&data).contains(key),
                }
            })
            .expect("a blob")
    };
    let flip = |path: &std::path::Path| {
        let mut data = fs::read(path).expect("read");
        let last = data.len() - 1;
        data[last] ^= 1;
        fs::write(path, data).expect("write");
    };
    let lines = [
        refuse("layer changed", &|l| flip(&biggest(l, "layer"))),
        refuse("config changed", &|l| flip(&biggest(l, "rootfs"))),
        refuse("manifest changed", &|l| flip(&biggest(l, "schemaVersion"))),
        refuse("layer longer", &|l| {
            let path = biggest(l, "layer");
            let mut data = fs::read(&path).expect("read");
            data.push(0);
            fs::write(path, data).expect("write");
        }),
        refuse("layer missing", &|l| fs::remove_file(biggest(l, "layer")).expect("remove")),
        refuse("config missing", &|l| fs::remove_file(biggest(l, "rootfs")).expect("remove")),
        refuse("no index", &|l| fs::remove_file(l.path.join("index.json")).expect("remove")),
        refuse("index cut", &|l| fs::write(l.path.join("index.json"), "{").expect("write")),
        refuse("name wrong", &|l| {
            let path = l.path.join("index.json");
            let json = fs::read_to_string(&path).expect("read");
            fs::write(path, json.replace("library/bad", "library/../BAD")).expect("write");
        }),
        refuse("names lead out", &|l| {
            fs::remove_file(l.path.join("index.json")).expect("remove");
            let json = r#"[{"Config":"../../etc/passwd","RepoTags":[],"Layers":[]}]"#;
            fs::write(l.path.join("manifest.json"), json).expect("write");
        }),
        refuse("a fifo", &|l| {
            let path = l.path.join("index.json");
            fs::remove_file(&path).expect("remove");
            crate::support::run("mkfifo", "coreutils", &[&path.display().to_string()]);
        }),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
        layer changed: blob DIGEST is damaged: its content has the digest DIGEST
        config changed: blob DIGEST is damaged: its content has the digest DIGEST
        manifest changed: blob DIGEST is damaged: its content has the digest DIGEST
        layer longer: blob DIGEST has 158 bytes, its descriptor says 157
        layer missing: /layer-missing: blob DIGEST is missing
        config missing: blob DIGEST is missing
        no index: /no-index: it is no image archive: it has neither index.json (OCI layout) nor manifest.json (docker save)
        index cut: /index-cut: index.json: EOF while parsing an object at line 1 column 1
        name wrong: invalid reference format: "docker.io/library/../BAD:1": repository name (library/../BAD) must be lowercase
        names lead out: /names-lead-out: it refers to "../../etc/passwd", which is outside of it
        a fifo: /a-fifo: it is no image archive: it has neither index.json (OCI layout) nor manifest.json (docker save)
        "#);
    assert!(image::list(&place.store).expect("list").is_empty());
    LayoutDir::sample(place.path("good"), "docker.io/library/good:1");
    load(&place, "good").expect("the store still works");
}

#[test]
fn archives_cut_anywhere_are_refused() {
    let place = Place::new();
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    layout.pack(&place.path("whole.tar"));
    let whole = fs::read(place.path("whole.tar")).expect("read");
    for length in (0..whole.len() - 1024).step_by(509) {
        fs::write(place.path("cut.tar"), &whole[..length]).expect("write");
        // Cut behind the last blob that counts it may still be complete.
        if let Err(error) = load(&place, "cut.tar") {
            assert!(!error.to_string().is_empty());
        } else {
            assert!(length > whole.len() / 2, "cut at {length} of {}", whole.len());
        }
    }
    load(&place, "whole.tar").expect("the store still works");
}
