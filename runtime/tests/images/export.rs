//! Unpacking, and outputs that skopeo and umoci accept.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use rbc_ir::{Digest, ImageConfig, Platform};
use rbc_runtime::{
    export::{ExportOptions, Exported, Origins, OutputSpec, Target, export},
    image::{self, Source},
    layer,
    progress::Silent,
    store::{LayerId, Store},
};

use crate::support::{LayoutDir, Place, run, skopeo, tar_of};

/// A build's result: the sample image with one more layer.
struct Built {
    place: Place,
    target: Target,
    options: ExportOptions,
}

fn built() -> Built {
    let place = Place::new();
    let layout = LayoutDir::sample(place.path("base"), "docker.io/library/base:1");
    image::load(&place.store, Source::Path(layout.path)).expect("load");
    let host = Platform::host();
    let base = image::resolve_local(&place.store, &"base:1".parse().expect("name"), &host);
    let base = base.expect("resolve").expect("found");
    let manifest = base.descriptor.digest;
    let mut layers = image::unpack(&place.store, &manifest).expect("unpack");
    layers.push(own_layer(&place.store));
    let target = Target { platform: host, config: base.config, layers };
    let options = ExportOptions {
        names: vec!["org/app:2".parse().expect("name")],
        epoch: Some(1_000_000_000),
        origins: Origins::of_manifests(&place.store, &[manifest]).expect("origins"),
        ..ExportOptions::default()
    };
    Built { place, target, options }
}

/// A layer as a step leaves it, made from a tar.
fn own_layer(store: &Store) -> LayerId {
    let staging = store.tmp_dir().expect("folder");
    let dir = staging.path().join("layer");
    fs::create_dir(&dir).expect("mkdir");
    let tar = tar_of(&[("app/", b""), ("app/run", b"#!/bin/sh\n"), ("etc/.wh.motd", b"")]);
    layer::apply_tar(&tar[..], &dir).expect("apply");
    let id = LayerId::unique();
    store.publish_layer(&dir, &id).expect("publish");
    id
}

impl Built {
    fn export(&self, spec: &str) -> Exported {
        self.export_targets(std::slice::from_ref(&self.target), spec)
    }

    fn export_targets(&self, targets: &[Target], spec: &str) -> Exported {
        let spec = spec.replace("OUT", &self.place.path("out").display().to_string());
        let output = OutputSpec::parse(&spec).expect("spec");
        export(&self.place.store, targets, &output, &self.options, 1, &Silent).expect("export")
    }

    fn out(&self) -> String {
        self.place.path("out").display().to_string()
    }
}

/// All files below a folder: path and content, or kind.
fn listing(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("list") {
            let path = entry.expect("entry").path();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            if metadata.is_dir() {
                out.push(format!("{name}/"));
                pending.push(path);
            } else if metadata.file_type().is_char_device() {
                out.push(format!("{name} device {}", metadata.rdev()));
            } else {
                out.push(format!("{name} {:?}", fs::read_to_string(&path).expect("read")));
            }
        }
    }
    out.sort();
    out
}

const MERGED: [&str; 4] = ["app/", r##"app/run "#!/bin/sh\n""##, "etc/", r#"new "new\n""#];

#[test]
fn images_unpack_to_layers() {
    let Built { place, target, .. } = built();
    let dir = |at: usize| place.store.layer_dir(&target.layers[at]);
    assert_eq!(listing(&dir(0)), ["etc/", r#"etc/motd "hello\n""#, r#"gone "x""#]);
    assert_eq!(listing(&dir(1)), ["etc/", "etc/none device 0", "gone device 0", r#"new "new\n""#]);
}

#[test]
fn oci_archives_are_accepted_and_reproducible() {
    let (first, second) = (built(), built());
    let exported = first.export("type=oci,dest=OUT");
    assert_eq!(second.export("type=oci,dest=OUT"), exported);
    let bytes = fs::read(first.out()).expect("read");
    assert_eq!(bytes, fs::read(second.out()).expect("read"));
    // Again from the blobs that are cached by now.
    first.export("type=oci,dest=OUT");
    assert_eq!(bytes, fs::read(first.out()).expect("read"));

    let shown = skopeo(&["inspect", &format!("oci-archive:{}", first.out())]);
    assert!(shown.contains(&exported.digest().expect("digest").to_string()), "{shown}");
    assert!(shown.contains(r#""Created": "2001-09-09T01:46:40Z""#), "{shown}");
    let docker = format!("docker-archive:{}:x:1", first.place.path("docker.tar").display());
    skopeo(&["copy", &format!("oci-archive:{}", first.out()), &docker]);
    let folder = first.place.path("layout");
    let to = format!("oci:{}:tag", folder.display());
    skopeo(&["copy", &format!("oci-archive:{}", first.out()), &to]);
    let bundle = first.place.path("bundle");
    run(
        "umoci",
        "umoci",
        &[
            "unpack",
            "--rootless",
            "--image",
            &format!("{}:tag", folder.display()),
            &bundle.display().to_string(),
        ],
    );
    assert_eq!(listing(&bundle.join("rootfs")), MERGED);
}

#[test]
fn base_layers_keep_their_blobs() {
    let built = built();
    built.export("type=oci,dest=OUT,tar=false");
    let base = image::resolve_local(
        &built.place.store,
        &"base:1".parse().expect("name"),
        &Platform::host(),
    );
    for layer in base.expect("resolve").expect("found").manifest.layers {
        let blob = Path::new(&built.out()).join("blobs/sha256").join(layer.digest.hex());
        assert_eq!(fs::metadata(blob).expect("blob").len(), layer.size);
    }
    // A second image goes beside the first one; the same name is replaced.
    built.export("type=oci,dest=OUT,tar=false,name=other:1,compression=zstd");
    built.export("type=oci,dest=OUT,tar=false,name=other:1");
    let shown = fs::read_to_string(Path::new(&built.out()).join("index.json")).expect("read");
    assert_eq!(shown.matches("io.containerd.image.name").count(), 2, "{shown}");
}

#[test]
fn docker_archives_are_read_by_skopeo_and_by_rbc() {
    let built = built();
    let exported = built.export("type=docker,dest=OUT");
    let shown = skopeo(&["inspect", &format!("docker-archive:{}", built.out())]);
    assert!(shown.contains(r#""A=b""#), "{shown}");
    let bundle = format!("dir:{}", built.place.path("dir").display());
    skopeo(&["copy", &format!("docker-archive:{}:org/app:2", built.out()), &bundle]);
    let other = Place::new();
    let loaded = image::load(&other.store, Source::Path(built.out().into())).expect("load");
    assert_eq!(loaded[0].digest, exported.digest().expect("digest"));
    assert_eq!(loaded[0].names[0].familiar(), "org/app:2");
}

#[test]
fn every_compression_unpacks_to_the_same_layers() {
    let built = built();
    let mut manifests = Vec::new();
    for compression in ["gzip", "zstd", "uncompressed"] {
        let spec = format!("type=oci,dest=OUT,compression={compression},force-compression=true");
        manifests.push(built.export(&spec).digest().expect("digest"));
        let other = Place::new();
        image::load(&other.store, Source::Path(built.out().into())).expect("load");
        let layers =
            image::unpack(&other.store, manifests.last().expect("pushed")).expect("unpack");
        assert_eq!(layers[..2], built.target.layers[..2]);
        assert_eq!(
            listing(&other.store.layer_dir(&layers[2])),
            ["app/", r##"app/run "#!/bin/sh\n""##, "etc/", "etc/motd device 0"]
        );
    }
    manifests.dedup();
    assert_eq!(manifests.len(), 3);
}

#[test]
fn merged_files_are_written_as_tar_and_folder() {
    let built = built();
    built.export("type=local,dest=OUT");
    assert_eq!(listing(Path::new(&built.out())), MERGED);
    let tar = built.place.path("out.tar");
    let exported = built.export(&format!("type=tar,dest={}", tar.display()));
    assert_eq!(exported, Exported { root: None, config: None });
    let listed = run("tar", "tar", &["--numeric-owner", "-tf", &tar.display().to_string()]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["app/", "app/run", "etc/", "new"]);
}

#[test]
fn named_images_go_to_the_store() {
    let built = built();
    let exported = built.export("type=image");
    let store = &built.place.store;
    let found = image::find(store, "org/app:2").expect("found");
    assert_eq!(Some(found), exported.digest());
    let rows = image::list(store).expect("list");
    let row = rows.iter().find(|row| row.repository.as_deref() == Some("org/app")).expect("row");
    assert_eq!(row.id, exported.config);
    // Nothing that the image needs is swept, and it unpacks again.
    image::remove(store, "base:1").expect("remove");
    assert_eq!(image::unpack(store, &found).expect("unpack").len(), 3);
}

#[test]
fn several_platforms_become_one_index() {
    let built = built();
    let other = Target { platform: Platform::new("linux", "s390x", ""), ..built.target.clone() };
    let targets = [built.target.clone(), other];
    let exported = built.export_targets(&targets, "type=oci,dest=OUT");
    let raw = skopeo(&["inspect", "--raw", &format!("oci-archive:{}", built.out())]);
    assert!(raw.contains("s390x") && raw.contains(&Platform::host().architecture), "{raw}");
    assert_eq!(Digest::of(raw.as_bytes()), exported.digest().expect("digest"));
    built.export_targets(&targets, "type=local,dest=OUT.d");
    let folder = format!("{}.d", built.out());
    assert_eq!(listing(&Path::new(&folder).join("linux_s390x")), MERGED);
    let output = OutputSpec::parse("type=docker,dest=x").expect("spec");
    let error = export(&built.place.store, &targets, &output, &built.options, 1, &Silent);
    let error = error.expect_err("two platforms").to_string();
    assert!(error.starts_with("type=docker cannot hold several platforms"), "{error}");
}

#[test]
fn images_from_scratch_may_have_no_layer() {
    let built = built();
    let target =
        Target { layers: Vec::new(), config: ImageConfig::default(), ..built.target.clone() };
    let exported = built.export_targets(&[target], "type=oci,dest=OUT");
    let other = Place::new();
    image::load(&other.store, Source::Path(built.out().into())).expect("load");
    let layers = image::unpack(&other.store, &exported.digest().expect("digest"));
    assert!(layers.expect("unpack").is_empty());
}

#[test]
fn layers_that_are_not_what_the_config_says_are_refused() {
    let place = Place::new();
    let layer = tar_of(&[("file", b"content")]);
    let host = Platform::host().to_string();
    let else_id = Digest::of(b"else").to_string();
    let cases = [
        (vec![else_id], "but the image config says"),
        (Vec::new(), "lists 1 layers, but its config has 0 diff IDs"),
    ];
    for (number, (diff_ids, expected)) in cases.into_iter().enumerate() {
        let mut layout = LayoutDir::new(place.path(&format!("layout-{number}")));
        let image = layout.image_with(&host, std::slice::from_ref(&layer), &diff_ids);
        layout.list(image, Some("docker.io/library/wrong:1"));
        let error = image::load(&place.store, Source::Path(layout.path)).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(image::find(&place.store, "wrong:1").is_err(), "it has a name");
    }
}

/// Removes what was unpacked of an image.
fn drop_layers(store: &Store, manifest: &Digest) {
    for layer in image::layers_of(store, manifest).expect("layers") {
        fs::remove_dir_all(store.layer_dir(&layer.id)).expect("an unpacked layer");
    }
}

#[test]
fn damaged_blobs_in_the_store_are_found_when_unpacked() {
    let mut place = Place::new();
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:1");
    let load = |store: &Store| image::load(store, Source::Path(layout.path.clone())).expect("load");
    let manifest = load(&place.store)[0].digest;
    let layers = image::layers_of(&place.store, &manifest).expect("layers");
    let blob = place.store.blobs().path(&layers[0].descriptor.digest);
    let mut data = fs::read(&blob).expect("read");
    let last = data.len() - 6;
    data[last] ^= 1;
    fs::write(&blob, data).expect("write");
    drop_layers(&place.store, &manifest);
    place.reopen();
    let error = image::unpack(&place.store, &manifest).expect_err("damaged").to_string();
    assert!(error.contains("is damaged: its content has the digest"), "{error}");
    assert!(!place.store.has_layer(&layers[0].id));
    // It can be loaded again.
    load(&place.store);
    assert_eq!(image::unpack(&place.store, &manifest).expect("unpack").len(), 2);
}

#[test]
fn several_threads_and_stores_unpack_at_once() {
    let place = Place::new();
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:1");
    let loaded = image::load(&place.store, Source::Path(layout.path)).expect("load");
    drop_layers(&place.store, &loaded[0].digest);
    let root = place.store.root().to_owned();
    let results: Vec<Vec<LayerId>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(&root).expect("open");
                    image::unpack(&store, &loaded[0].digest).expect("unpack")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    assert!(results.iter().all(|layers| *layers == results[0]));
}
