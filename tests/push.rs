//! Pushing to Debian's docker-registry, directly and through a proxy that does harm.

mod support;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use sha2::Digest;
use support::{
    Bench, need,
    proxy::{Fault, Proxy},
    registry::Registry,
};

/// What skopeo says of an image in a registry.
fn inspect(name: &str, raw: bool) -> Value {
    need("skopeo", "skopeo");
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "inspect", "--tls-verify=false"]);
    if raw {
        command.arg("--raw");
    }
    let output = command.arg(format!("docker://{name}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes a context whose image has a layer of `size` bytes that do not compress.
fn noisy_context(bench: &Bench, size: usize) {
    let mut noise = 1_u32;
    let data: Vec<u8> = (0..size)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    bench.write("c/noise", data);
    bench.write("c/Dockerfile", "FROM scratch\nCOPY noise /noise\nCMD [\"/noise\"]\n");
}

#[test]
fn a_build_is_pushed_under_all_its_names() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo hello > /motd\n");
    bench
        .rbc(&format!(
            "build -t {host}/team/app:1 -t {host}/team/app:latest -t {host}/other/app:2 --push \
             --metadata-file meta.json --iidfile id c"
        ))
        .ok();
    let meta: Value = serde_json::from_str(&bench.read("meta.json")).unwrap();
    for name in ["team/app:1", "team/app:latest", "other/app:2"] {
        assert_eq!(
            inspect(&format!("{host}/{name}"), false)["Digest"],
            meta["containerimage.digest"]
        );
    }
    let manifest = inspect(&format!("{host}/team/app:1"), true);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["digest"], meta["containerimage.config.digest"]);
    assert_eq!(bench.read("id"), meta["containerimage.config.digest"].as_str().unwrap());
    assert_eq!(
        meta["image.name"],
        format!("{host}/team/app:1,{host}/team/app:latest,{host}/other/app:2")
    );
    assert_eq!(meta["containerimage.descriptor"]["digest"], meta["containerimage.digest"]);
    // What was pushed can be pulled and built upon.
    let other = Bench::new();
    other.write("c/Dockerfile", format!("FROM {host}/team/app:1\nRUN test -s /motd\n"));
    other.rbc("build c").ok();
}

#[test]
fn outputs_say_what_is_pushed_and_how() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo hello > /motd\n");
    bench.rbc(&format!("build -o type=registry,name={host}/a:1,compression=zstd c")).ok();
    let zstd = inspect(&format!("{host}/a:1"), true);
    assert_eq!(
        zstd["layers"].as_array().unwrap().last().unwrap()["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    bench
        .rbc(&format!("build -o type=image,name={host}/b:1,push=true,oci-mediatypes=false c"))
        .ok();
    let docker = inspect(&format!("{host}/b:1"), true);
    assert_eq!(docker["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    bench
        .rbc(&format!(
            "build -o type=image,name={host}/c:1,push=true,push-by-digest=true \
             --metadata-file meta.json c"
        ))
        .ok();
    let meta: Value = serde_json::from_str(&bench.read("meta.json")).unwrap();
    let digest = meta["containerimage.digest"].as_str().unwrap();
    assert_eq!(inspect(&format!("{host}/c@{digest}"), true)["schemaVersion"], 2);
    bench
        .rbc(&format!("build --pull -t x --build-context busybox=docker-image://{host}/c:1 c"))
        .fails(1, "not found");
    bench.rbc(&format!("build -t {host}/d:1 -o type=image,name={host}/e:1,push=true c")).ok();
    for name in ["d:1", "e:1"] {
        assert_eq!(inspect(&format!("{host}/{name}"), true)["schemaVersion"], 2);
    }
    bench.rbc("build --push c").fails(2, "a push needs a name");
}

#[test]
fn one_index_is_pushed_for_several_platforms() {
    let (bench, registry) = (Bench::new(), Registry::start());
    let name = format!("{}/multi:1", registry.host);
    bench
        .write("c/f", "x")
        .write("c/Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /f\n");
    bench
        .rbc(&format!(
            "build --platform linux/amd64,linux/arm64 -t {name} --push --metadata-file m.json c"
        ))
        .ok();
    let index = inspect(&name, true);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let architectures: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let meta: Value = serde_json::from_str(&bench.read("m.json")).unwrap();
    assert!(meta.get("containerimage.config.digest").is_none(), "{meta}");
}

#[test]
fn an_image_with_a_part_missing_is_not_pushed() {
    let (bench, registry) = (Bench::new(), Registry::start());
    bench
        .write("c/f", "x")
        .write("c/Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY f /f\n");
    bench.rbc("build --platform linux/amd64,linux/arm64 -t multi -o type=image c").ok();
    let list = inspect_stored(&bench, "multi");
    let digest = list["manifests"][1]["digest"].as_str().unwrap().replace("sha256:", "");
    std::fs::remove_file(bench.root().join("blobs/sha256").join(digest)).unwrap();
    bench
        .rbc(&format!("push multi {}/multi:1", registry.host))
        .fails(1, "the local store lacks the part for linux/arm64");
}

/// The index of an image in the store.
fn inspect_stored(bench: &Bench, name: &str) -> Value {
    let images = bench.rbc("images --format json").ok().stdout;
    let image: Value = images
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|image| image["repository"] == name)
        .unwrap();
    let digest = image["digest"].as_str().unwrap().replace("sha256:", "");
    let path = bench.root().join("blobs/sha256").join(digest);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_image_of_the_store_is_compressed_when_it_is_pushed() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo hello > /motd\n");
    bench.rbc("build -t app c").ok();
    let out = bench.rbc(&format!("push app {host}/app:1 {host}/app:2")).ok();
    let manifest = inspect(&format!("{host}/app:2"), true);
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    assert_eq!(inspect(&format!("{host}/app:1"), false)["Digest"], out.stdout.trim());
    // Again gives the same bytes.
    let again = bench.rbc(&format!("push app {host}/app:1")).ok();
    assert_eq!(again.stdout, out.stdout);
    bench.rbc("push nosuch").fails(1, "nosuch");
    bench.rbc(&format!("pull {host}/app:1")).ok();
    let images = bench.rbc("images").ok().stdout;
    assert!(images.contains(&format!("{host}/app")), "{images}");
    bench.rbc(&format!("push --compression zstd --force-compression {host}/app:1")).ok();
    let manifest = inspect(&format!("{host}/app:1"), true);
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    }
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let (bench, registry) = (Bench::with_busybox(), Registry::start());
    let proxy = Proxy::start(&registry.host, |_, _| Fault::None);
    let host = &proxy.host;
    noisy_context(&bench, 400_000);
    bench.rbc(&format!("build -t {host}/one:1 --push c")).ok();
    let count =
        |method: &str| proxy.requests().iter().filter(|line| line.starts_with(method)).count();
    let (patches, posts) = (count("PATCH"), count("POST"));
    assert_eq!((patches, posts), (1, 2), "{:#?}", proxy.requests());
    bench.rbc(&format!("build -t {host}/one:2 --push c")).ok();
    assert_eq!((count("PATCH"), count("POST")), (patches, posts));
    // Another repository of the same registry takes the blobs from the first one.
    bench.rbc(&format!("build -t {host}/two:1 --push c")).ok();
    assert_eq!((count("PATCH"), count("POST")), (patches, posts + 2));
    let mounts = proxy.requests().iter().filter(|line| line.contains("&from=one ")).count();
    assert_eq!(mounts, 2, "{:#?}", proxy.requests());
    inspect(&format!("{}/two:1", registry.host), false);
}

#[test]
fn a_push_through_a_bad_line_arrives_whole() {
    let (bench, registry) = (Bench::new(), Registry::start());
    noisy_context(&bench, 3_000_000);
    let patches = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&patches);
    let proxy = Proxy::start(&registry.host, move |number, line| {
        if line.starts_with("PATCH") {
            return match seen.fetch_add(1, Ordering::SeqCst) {
                0 => Fault::CutRequest(1_000_000),
                1 => Fault::Status(502, ""),
                2 => Fault::CutRequest(700_000),
                _ => Fault::None,
            };
        }
        match number % 7 {
            1 => Fault::Status(503, ""),
            4 => Fault::Status(429, "Retry-After: 0\r\n"),
            _ => Fault::None,
        }
    });
    bench.rbc(&format!("build -t {}/app:1 --push --metadata-file meta.json c", proxy.host)).ok();
    assert!(patches.load(Ordering::SeqCst) >= 4, "{:#?}", proxy.requests());
    let meta: Value = serde_json::from_str(&bench.read("meta.json")).unwrap();
    let name = format!("{}/app:1", registry.host);
    assert_eq!(inspect(&name, false)["Digest"], meta["containerimage.digest"]);
    let other = Bench::new();
    other.write("c/Dockerfile", format!("FROM {name}\n"));
    other.rbc("build -o out c").ok();
    assert_eq!(
        std::fs::read(other.path("out/noise")).unwrap(),
        std::fs::read(bench.path("c/noise")).unwrap()
    );
}

#[test]
fn a_registry_that_never_works_fails_cleanly() {
    let (bench, registry) = (Bench::new(), Registry::start());
    noisy_context(&bench, 300_000);
    let proxy = Proxy::start(&registry.host, |_, line| match line {
        line if line.starts_with("PATCH") => Fault::Status(500, "Retry-After: 0\r\n"),
        _ => Fault::None,
    });
    let name = format!("{}/app:1", proxy.host);
    bench.rbc(&format!("build -t {name} --push c")).fails(1, "answered 500");
    // Nothing has the name: manifests go last.
    bench.rbc(&format!("pull {}/app:1", registry.host)).fails(1, "not found");
}

#[test]
fn a_pull_through_a_bad_line_arrives_whole_or_not_at_all() {
    let (bench, registry) = (Bench::new(), Registry::start());
    noisy_context(&bench, 2_000_000);
    bench.rbc(&format!("build -t {}/app:1 --push c", registry.host)).ok();
    let build = |proxy: &Proxy| {
        let other = Bench::new();
        other.write("c/Dockerfile", format!("FROM {}/app:1\n", proxy.host));
        let run = other.rbc("build -o out c");
        (other, run)
    };
    // Each of these happens to all requests for blobs a few times.
    let kinds = [
        Fault::CutAnswer(300_000),
        Fault::Status(503, ""),
        Fault::Status(429, "Retry-After: 0\r\n"),
        Fault::CutRequest(0),
        Fault::Truncate(100_000),
    ];
    for kind in kinds {
        let (left, fault) = (AtomicUsize::new(3), kind.clone());
        let proxy = Proxy::start(&registry.host, move |_, line| {
            let is_blob = line.starts_with("GET") && line.contains("/blobs/");
            let harm = is_blob
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_ok();
            if harm { fault.clone() } else { Fault::None }
        });
        let (other, run) = build(&proxy);
        run.ok();
        let same = std::fs::read(other.path("out/noise")).unwrap()
            == std::fs::read(bench.path("c/noise")).unwrap();
        assert!(same, "{kind:?}");
    }
    let manifest = inspect(&format!("{}/app:1", registry.host), true);
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    for (kind, says) in [
        (Fault::Corrupt(50_000), "is damaged: its content has the digest"),
        (Fault::Truncate(50_000), "bytes came"),
        (Fault::Status(404, ""), "not found"),
        (Fault::Status(403, ""), "access denied"),
    ] {
        let (fault, layer) = (kind.clone(), layer.clone());
        let proxy = Proxy::start(&registry.host, move |_, line| {
            if line.starts_with("GET") && line.contains(&layer) {
                fault.clone()
            } else {
                Fault::None
            }
        });
        let (other, run) = build(&proxy);
        run.fails(1, says);
        assert_nothing_wrong_is_stored(&other, &kind);
    }
}

/// Every blob is what its name says, and no layer is there.
fn assert_nothing_wrong_is_stored(bench: &Bench, after: &Fault) {
    for entry in std::fs::read_dir(bench.root().join("blobs/sha256")).unwrap().flatten() {
        let content = std::fs::read(entry.path()).unwrap();
        let digest: String =
            sha2::Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(entry.file_name().to_string_lossy(), digest, "{after:?}");
    }
    let layers = std::fs::read_dir(bench.root().join("layers")).unwrap().count();
    assert_eq!(layers, 0, "{after:?}");
}
