//! The state folder stays in order: what takes space, what is evicted, what is checked.

mod support;

use std::{fs, process::Stdio};

use support::{Bench, output::Oci};

const TWO_STAGES: &str = "FROM busybox AS builder
RUN --mount=type=cache,target=/cache echo kept >> /cache/f; echo made > /made
FROM busybox
COPY --from=builder /made /made
RUN cp /made /copy
";

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", TWO_STAGES);
    bench
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn layers(bench: &Bench) -> usize {
    fs::read_dir(bench.root().join("layers")).expect("layers").count()
}

#[test]
fn what_was_evicted_is_built_again_and_is_the_same() {
    let bench = bench();
    let id = |run: support::Run| run.ok().stdout;
    let first = id(bench.rbc("build -q -t app c"));
    let pruned = lines(&bench.rbc("prune --all --force --format json").ok().stdout);
    assert!(pruned.iter().any(|item| item["kind"] == "image-layer"), "{pruned:?}");
    assert!(pruned.iter().all(|item| item["reason"].is_string()));
    assert_eq!(layers(&bench), 0);
    bench.rbc("fsck --check").ok();
    // The image does not live on the cache.
    bench.rbc("save -o saved.tar app").ok();
    bench.rbc("build -o type=oci,dest=out.tar c").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/copy"), "made\n");
    assert_eq!(id(bench.rbc("build -q -t app c")), first);
    bench.rbc("fsck --check").ok();
}

#[test]
fn without_all_only_what_no_image_consists_of_goes() {
    let bench = bench();
    bench.rbc("build -q -t app c").ok();
    let pruned = lines(&bench.rbc("prune --force --format json").ok().stdout);
    let names: Vec<&str> = pruned.iter().filter_map(|item| item["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&"/cache"), "{names:?}");
    let again = bench.rbc("build --progress plain -t app c").ok();
    assert_eq!(again.done(), 0, "the image's own steps are there: {}", again.stderr);
}

#[test]
fn an_image_from_a_layout_survives_sweeps_and_evictions() {
    let bench = Bench::new();
    support::image::busybox().write_oci(&bench.path("base.tar"), "base:1");
    bench.write("c/Dockerfile", "FROM base\nRUN echo made > /made\n");
    let build = "build -o type=oci,dest=out.tar --build-context base=oci-layout://base.tar:1 c";
    bench.rbc(build).ok();
    let first = fs::read(bench.path("out.tar")).unwrap();
    bench.write("d/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    bench.rbc("build -q -t other d").ok();
    bench.rbc("rmi other").ok();
    bench.rbc(build).ok();
    assert_eq!(fs::read(bench.path("out.tar")).unwrap(), first);
    // Blobs alone may go too: they are brought in again for the image.
    bench.rbc("prune --force --filter type=pulled-image").ok();
    let again = bench.rbc(&format!("{build} --progress plain")).ok();
    assert_eq!(again.done(), 0, "{}", again.stderr);
    assert_eq!(fs::read(bench.path("out.tar")).unwrap(), first);
}

#[test]
fn a_running_build_keeps_what_it_uses() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN echo one > /one\nRUN --mount=type=cache,target=/cache touch /cache/begun; while [ ! -e /cache/go ]; do sleep 0.05; done; cat /one\n",
    );
    let mut build = bench
        .command()
        .args(["build", "-q", "-t", "app", "c"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mount = || {
        let mounts = fs::read_dir(bench.root().join("mounts")).ok()?.flatten();
        mounts.map(|entry| entry.path()).find(|path| path.join("begun").exists())
    };
    let mount = loop {
        if let Some(mount) = mount() {
            break mount;
        }
        assert!(build.try_wait().unwrap().is_none(), "the build ended early");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let listed = lines(&bench.rbc("du --format json").ok().stdout);
    let in_use = listed.iter().filter(|item| item["inUse"] == true).count();
    assert!(in_use >= 3, "two layers and the cache mount: {listed:?}");
    bench.rbc("prune --all --force").ok();
    bench.rbc("fsck").ok();
    fs::write(mount.join("go"), "").unwrap();
    let output = build.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench.rbc("fsck --check").ok();
}

#[test]
fn damage_is_found_and_dropped() {
    let bench = bench();
    bench.rbc("build -q -o type=oci,dest=out.tar c").ok();
    let first = fs::read(bench.path("out.tar")).unwrap();
    let layer = fs::read_dir(bench.root().join("layers"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("copy").exists())
        .expect("the layer of the last step");
    fs::write(layer.join("copy"), "wrong\n").unwrap();
    let report = bench.rbc("fsck --check");
    assert_eq!(report.code, Some(1));
    assert!(report.stdout.contains("diff ID"), "{}", report.stdout);
    let json = lines(&bench.rbc("fsck --format json").ok().stdout);
    assert!(json[0]["bad"].as_array().unwrap().iter().all(|bad| bad["repaired"] == true));
    bench.rbc("fsck --check").ok();
    bench.rbc("build -q -o type=oci,dest=out.tar c").ok();
    assert_eq!(fs::read(bench.path("out.tar")).unwrap(), first);
}

#[test]
fn what_takes_space_is_listed_by_kind_and_by_step() {
    let bench = bench();
    bench.rbc("build -q -t app c").ok();
    let table = bench.rbc("du").ok().stdout;
    for word in ["layer", "image-layer", "cache-mount", "index", "Reclaimable:", "Total:"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(bench.rbc("du -v").ok().stdout.contains("RUN cp /made /copy"));
    let fails = bench.rbc("prune");
    fails.fails(2, "--force");
}

/// A Dockerfile that makes so many million bytes which nothing compresses.
fn millions(name: &str, count: u32) -> String {
    format!(
        "FROM busybox AS made\nRUN echo {name} > /name; head -c {count}000000 /dev/urandom > /data\n\
         FROM scratch\nCOPY --from=made /name /\n"
    )
}

fn total(bench: &Bench) -> u64 {
    let items = lines(&bench.rbc("du --format json").ok().stdout);
    let counted = items.iter().filter(|i| i["kind"] != "history" && i["kind"] != "context");
    counted.filter_map(|item| item["size"].as_u64()).sum()
}

#[test]
fn a_limit_evicts_the_oldest_and_holds() {
    let bench = Bench::with_busybox();
    for name in ["a", "b", "c", "d", "e"] {
        bench.write(&format!("{name}/Dockerfile"), millions(name, 3));
        bench.rbc(&format!("build -q -o out --state-max-size 14m {name}")).ok();
        assert!(total(&bench) <= 14 << 20, "after {name}: {}", bench.rbc("du -v").stdout);
    }
    bench.rbc("fsck --check").ok();
    let executed =
        |name: &str| bench.rbc(&format!("build --progress plain -o out {name}")).ok().done();
    assert_eq!(executed("e"), 0, "the newest is there");
    // How long each took to make counts as well, so any of the others may have gone.
    assert!(["a", "b", "c", "d"].into_iter().map(executed).sum::<usize>() >= 2);
}

#[test]
fn builds_side_by_side_keep_one_limit() {
    let bench = Bench::with_busybox();
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        bench.write(&format!("{name}/Dockerfile"), millions(name, 3));
    }
    let start = |name: &str| {
        let mut command = bench.command();
        command.args(["build", "-q", "-o"]).arg(format!("out-{name}"));
        command.args(["--state-max-size", "12m", name]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let builds: Vec<_> = names.map(start).into_iter().collect();
    for build in builds {
        let run = support::Run::from(build.wait_with_output().unwrap());
        // Three fit beside the base image; more may have to give up.
        assert!(run.code == Some(0) || run.stderr.contains("is limited to"), "{}", run.stderr);
    }
    assert!(total(&bench) <= 12 << 20, "{}", bench.rbc("du -v").stdout);
    bench.rbc("fsck --check").ok();
}

#[test]
fn what_does_not_fit_fails_and_says_what_is_in_the_way() {
    let bench = Bench::with_busybox();
    bench.write("config.toml", "[state]\nmax-size = \"7m\"\n");
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN head -c 3000000 /dev/urandom > /one\nRUN head -c 3000000 /dev/urandom > /two\n",
    );
    let build = |args: &[&str]| {
        let mut command = bench.command();
        command.env("RBC_CONFIG", bench.path("config.toml")).args(["build", "-o", "out", "c"]);
        support::Run::from(command.args(args).output().unwrap())
    };
    let failed = build(&[]).fails(1, "limited to 7.3MB");
    assert!(failed.stderr.contains("running builds hold"), "{}", failed.stderr);
    assert!(failed.stderr.contains("RUN head"), "{}", failed.stderr);
    assert!(total(&bench) <= 7 << 20);
    bench.rbc("fsck --check").ok();
    build(&["--state-max-size", "0"]).ok();
    assert!(bench.path("out/two").exists());
    bench.write("config.toml", "[state]\nmax-size = \"1m\"\n");
    support::image::busybox().write_oci(&bench.path("more.tar"), "more:1");
    let mut load = bench.command();
    load.env("RBC_CONFIG", bench.path("config.toml")).args(["load", "--input", "more.tar"]);
    let failed = support::Run::from(load.output().unwrap());
    failed.fails(1, "images with names take");
}
