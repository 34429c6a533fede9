//! The cache on its way to another state folder: `--cache-to`, `--cache-from` and `rbc cache`, through
//! folders, tars and Debian's docker-registry.

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use support::{
    Bench, Run,
    output::Oci,
    proxy::{Fault, Proxy},
    registry::Registry,
};

/// A builder stage whose program is what its source says without comments, and a stage that copies
/// it.
const TWO_STAGES: &str = "FROM busybox AS build
RUN head -c 300000 /dev/urandom > /toolchain
COPY main.src /src/
RUN mkdir /out && grep -v '^#' /src/main.src > /out/app && date +%N > /log
FROM busybox
RUN date +%N > /stamp
COPY --from=build /out/app /app
";

fn with_sources(bench: &Bench, source: &str) {
    bench.write("c/Dockerfile", TWO_STAGES).write("c/main.src", source);
}

/// A bench with the image and the sources, and no cache.
fn machine(source: &str) -> Bench {
    let bench = Bench::with_busybox();
    with_sources(&bench, source);
    bench
}

/// Builds the folder `c`, with more options.
#[track_caller]
fn build(bench: &Bench, options: &str) -> Run {
    bench.rbc(&format!("build --progress plain {options} c")).ok()
}

/// All steps were taken from the cache.
#[track_caller]
fn nothing_ran(run: &Run) {
    assert_eq!(run.done(), 0, "{}", run.stderr);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

/// Lets the store lose the results of earlier sources, as time would.
fn forget_and_build_again(bench: &Bench) {
    bench.rbc("prune --all --force").ok();
    build(bench, "");
}

/// The layers that a state folder has.
fn layers(bench: &Bench) -> usize {
    let dir = fs::read_dir(bench.root().join("layers")).unwrap();
    dir.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
        .count()
}

#[test]
fn a_second_machine_runs_nothing() {
    let one = machine("# one\nprogram\n");
    let (folder, registry) = (one.path("cache"), Registry::start());
    let reference = format!("{}/app:cache", registry.host);
    let folder = folder.display();
    build(
        &one,
        &format!(
            "--cache-to type=local,dest={folder} --cache-to type=registry,ref={reference},mode=max \
             -o type=oci,dest=one.tar"
        ),
    );
    let first = Oci::read(&one.path("one.tar")).manifest;
    for from in [format!("type=local,src={folder}"), reference] {
        let two = machine("# one\nprogram\n");
        let run = build(&two, &format!("--cache-from {from} -o type=oci,dest=two.tar"));
        nothing_ran(&run);
        assert!(run.stderr.contains("cached, from "), "{}", run.stderr);
        let told = two.rbc("explain").ok().stdout;
        assert!(told.contains("COPY --from=build /out/app /app: cached, from "), "{told}");
        assert_eq!(Oci::read(&two.path("two.tar")).manifest, first, "bit for bit");
        nothing_ran(&build(&two, ""));
        two.rbc("fsck --check").ok();
    }
}

#[test]
fn only_what_is_needed_is_downloaded() {
    let (one, registry) = (machine("# one\nprogram\n"), Registry::start());
    let reference = format!("{}/app:cache", registry.host);
    build(&one, &format!("--cache-to type=registry,ref={reference},mode=max"));

    let proxy = Proxy::start(&registry.host, |_, _| Fault::None);
    let two = machine("# one\nprogram\n");
    let run = build(&two, &format!("--cache-from {}/app:cache", proxy.host));
    nothing_ran(&run);
    let blobs = proxy.requests().iter().filter(|line| line.contains("/blobs/")).count();
    // The document, and for each of two layers of the last stage a tar and times; the base's layer
    // is here.
    assert_eq!(blobs, 5, "{:#?}", proxy.requests());
    assert_eq!(layers(&two), 3, "base, RUN date, COPY");

    // Another source: the toolchain is taken and the rest of the builder is made; it makes the same
    // program, which is compared with the one of the other machine.
    let three = machine("# another\nprogram\n");
    let run = build(&three, &format!("--cache-from {}/app:cache", registry.host));
    assert_eq!(run.done(), 2, "COPY main.src and RUN grep:\n{}", run.stderr);
    assert!(run.stderr.contains("COPY --from=build /out/app /app\n#"), "{}", run.stderr);
}

#[test]
fn the_least_holds_the_image_and_the_most_all_steps() {
    let one = machine("# one\nprogram\n");
    let (least, most) = (one.path("least"), one.path("most"));
    build(
        &one,
        &format!(
            "--cache-to type=local,dest={} --cache-to type=local,dest={},mode=max",
            least.display(),
            most.display()
        ),
    );
    let ran = |folder: &Path| {
        let two = machine("# one\nanother program\n");
        build(&two, &format!("--cache-from type=local,src={}", folder.display())).done()
    };
    assert_eq!(ran(&most), 3, "COPY, RUN grep, COPY --from");
    assert_eq!(ran(&least), 4, "the toolchain too");
}

#[test]
fn what_was_not_needed_is_not_lost() {
    let (one, registry) = (machine("# one\nprogram\n"), Registry::start());
    let reference = format!("{}/app:cache", registry.host);
    let to = format!("--cache-to type=registry,ref={reference},mode=max");
    build(&one, &to);
    // The second machine needs nothing of the builder, and writes the cache anew.
    let two = machine("# one\nprogram\n");
    nothing_ran(&build(&two, &format!("--cache-from {reference} {to}")));
    let folder = two.path("folder");
    build(
        &two,
        &format!(
            "--cache-from {reference} --cache-to type=local,dest={},mode=max",
            folder.display()
        ),
    );
    for from in [reference, format!("type=local,src={}", folder.display())] {
        let three = machine("# one\nanother program\n");
        let run = build(&three, &format!("--cache-from {from}"));
        assert_eq!(run.done(), 3, "the toolchain is still cached:\n{}", run.stderr);
    }
}

#[test]
fn a_layer_that_a_cache_lost_is_left_out_of_the_next() {
    let one = machine("# one\nprogram\n");
    let folder = one.path("cache");
    let cache = |dest: &Path| format!("--cache-to type=local,dest={},mode=max", dest.display());
    build(&one, &cache(&folder));
    // Another build that wrote to the folder would remove what its own cache does not need.
    let toolchain = fs::read_dir(folder.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap());
    let toolchain = toolchain.filter(|e| (290_000..320_000).contains(&e.metadata().unwrap().len()));
    let lost: Vec<_> = toolchain.map(|entry| fs::remove_file(entry.path()).unwrap()).collect();
    assert_eq!(lost.len(), 1, "the layer with the toolchain");
    for to in [one.path("other"), folder.clone()] {
        let two = machine("# one\nprogram\n");
        let from = format!("--cache-from type=local,src={}", folder.display());
        let run = build(&two, &format!("{from} {}", cache(&to)));
        assert_eq!(run.done(), 0, "{}", run.stderr);
        assert!(run.stderr.contains("has lost layers while it was used"), "{}", run.stderr);
        // The rest has travelled on.
        let three = machine("# one\nprogram\n");
        nothing_ran(&build(&three, &format!("--cache-from type=local,src={}", to.display())));
    }
}

#[test]
fn an_image_carries_its_own_cache() {
    let (one, registry) = (machine("# one\nprogram\n"), Registry::start());
    let name = format!("{}/app:1", registry.host);
    build(&one, &format!("-t {name} --push --cache-to type=inline"));
    let two = machine("# one\nprogram\n");
    let other = format!("{}/app:2", registry.host);
    let options = format!("--cache-from {name} -t {other} --push --cache-to type=inline");
    nothing_ran(&build(&two, &options));
    nothing_ran(&build(&machine("# one\nprogram\n"), &format!("--cache-from {other}")));
    // The images are the same, with the cache in their configs.
    let digest = |name: &str| {
        let three = Bench::new();
        three.rbc(&format!("pull {name}")).ok();
        three.rbc("images --format json").ok().stdout
    };
    let id = |json: String| serde_json::from_str::<Value>(&json).unwrap()["id"].clone();
    assert_eq!(id(digest(&name)), id(digest(&other)));
    // An image without a cache is told and does no harm.
    build(&one, &format!("-t {name} --push"));
    let four = machine("# one\nprogram\n");
    let run = build(&four, &format!("--cache-from {name}"));
    assert!(run.stderr.contains("it holds no cache of rbc's"), "{}", run.stderr);
    one.rbc("build --cache-to type=inline -o out c").fails(2, "no output is one");
}

#[test]
fn a_missing_cache_is_a_warning_and_a_cache_that_cannot_be_written_a_failure() {
    let (bench, registry) = (machine("# one\nprogram\n"), Registry::start());
    let missing = [
        format!("{}/app:missing", registry.host),
        "type=local,src=nowhere".to_owned(),
        "127.0.0.1:1/app:cache".to_owned(),
    ];
    for from in missing {
        let run = build(&bench, &format!("--cache-from {from}"));
        assert!(run.stderr.contains("warning: --cache-from "), "{}", run.stderr);
    }
    bench.write("file", "");
    for to in ["type=local,dest=file/x", "type=registry,ref=127.0.0.1:1/app:cache"] {
        bench.rbc(&format!("build --cache-to {to} c")).fails(1, "error");
        let run = build(&bench, &format!("--cache-to {to},ignore-error=true"));
        assert!(run.stderr.contains("warning: exporting cache to "), "{}", run.stderr);
    }
    for (option, says) in [
        ("--cache-to type=gha", "a service of its vendor"),
        ("--cache-from type=s3,bucket=x", "a service of its vendor"),
        ("--cache-to type=local", "dest is missing"),
        ("--cache-from type=local,dest=x", "unknown key"),
    ] {
        bench.rbc(&format!("build {option} c")).fails(2, says);
    }
}

#[test]
fn damaged_caches_are_not_used() {
    let one = machine("# one\nprogram\n");
    let folder = one.path("cache");
    build(&one, &format!("--cache-to type=local,dest={},mode=max", folder.display()));
    let blobs = folder.join("blobs/sha256");
    let read = |digest: &str| {
        let name = digest.strip_prefix("sha256:").unwrap();
        serde_json::from_slice::<Value>(&fs::read(blobs.join(name)).unwrap()).unwrap()
    };
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let manifest = read(index["manifests"][0]["digest"].as_str().unwrap());
    let config = read(manifest["config"]["digest"].as_str().unwrap());
    let two = |what: &str, steps: usize| {
        let two = machine("# one\nprogram\n");
        let run = build(&two, &format!("--cache-from type=local,src={}", folder.display()));
        assert!(run.stderr.contains("warning: --cache-from"), "{what}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{what}: {}", run.stderr);
        assert_eq!(run.done(), steps, "{what}: {}", run.stderr);
        two.rbc("fsck --check").ok();
        assert!(!two.path("state/escape").exists());
    };

    // A blob that is not what its digest says.
    let last = config["results"]
        .as_array()
        .unwrap()
        .iter()
        .find(|result| result["name"].as_str().unwrap().contains("RUN date +%N > /stamp"));
    let layer = last.unwrap()["layers"].as_array().unwrap().last().unwrap().as_u64().unwrap();
    let at = config["layers"][layer as usize]["blob"].as_u64().unwrap() as usize;
    let digest = manifest["layers"][at]["digest"].as_str().unwrap();
    let blob = blobs.join(digest.strip_prefix("sha256:").unwrap());
    let whole = fs::read(&blob).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (what, bytes) in [
        ("a changed byte", flipped),
        ("a cut blob", whole[..whole.len() / 2].to_vec()),
        ("another blob", b"not a layer".to_vec()),
    ] {
        fs::write(&blob, bytes).unwrap();
        two(what, 2);
    }
    fs::remove_file(&blob).unwrap();
    two("a blob that is gone", 2);
    fs::write(&blob, whole).unwrap();

    // Documents that say what is not so, under digests that are right.
    let put = |config: Value| {
        let write = |bytes: &[u8]| {
            use sha2::Digest;
            let hex: String =
                sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(blobs.join(&hex), bytes).unwrap();
            (format!("sha256:{hex}"), bytes.len())
        };
        let (digest, size) = write(config.to_string().as_bytes());
        let mut manifest = manifest.clone();
        manifest["config"]["digest"] = digest.into();
        manifest["config"]["size"] = size.into();
        let (digest, size) = write(manifest.to_string().as_bytes());
        let mut index = index.clone();
        index["manifests"][0]["digest"] = digest.into();
        index["manifests"][0]["size"] = size.into();
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
    };
    let mut other = config.clone();
    other["layers"][layer as usize]["diffId"] = format!("sha256:{}", "0".repeat(64)).into();
    put(other);
    two("a wrong diff ID", 2);
    for id in ["../../escape", "", "a/b", &"a".repeat(1000)] {
        let mut other = config.clone();
        other["layers"][layer as usize]["id"] = id.into();
        put(other);
        two("a layer's name", 6);
    }
    let mut other = config.clone();
    other["results"][0]["layers"] = serde_json::json!([4_000_000_000_u64]);
    put(other);
    let run =
        build(&machine("program\n"), &format!("--cache-from type=local,src={}", folder.display()));
    assert!(run.stderr.contains("damaged results are not used"), "{}", run.stderr);
    put(Value::Null);
    two("no document", 6);
    fs::write(folder.join("index.json"), "{").unwrap();
    two("no index", 6);
}

#[test]
fn the_whole_cache_goes_through_tars_folders_and_registries() {
    let (one, registry) = (machine("# one\nprogram\n"), Registry::start());
    build(&one, "-o type=oci,dest=one.tar");
    let first = Oci::read(&one.path("one.tar")).manifest;
    let reference = format!("docker-image://{}/app:all", registry.host);
    let (tar, folder) = (one.path("cache.tar"), one.path("cache"));
    for place in [tar.display().to_string(), format!("{}/", folder.display()), reference] {
        one.rbc(&format!("cache export -o {place}")).ok();
        let two = machine("# one\nprogram\n");
        let run = two.rbc(&format!("cache import {place}")).ok();
        assert!(run.stderr.contains("imported "), "{}", run.stderr);
        nothing_ran(&build(&two, "-o type=oci,dest=two.tar"));
        assert_eq!(Oci::read(&two.path("two.tar")).manifest, first);
        two.rbc("fsck --check").ok();
        let again = two.rbc(&format!("cache import {place}")).ok();
        assert!(again.stderr.contains("imported 0 results"), "{}", again.stderr);
        // All of the builder is there too: a comment ends at the program.
        with_sources(&two, "# another\nprogram\n");
        assert_eq!(build(&two, "").done(), 2);
    }
    one.rbc("cache import nowhere.tar").fails(1, "nowhere.tar");
    one.rbc("cache export -o type=s3,bucket=x").fails(2, "a service of its vendor");
}

#[test]
fn a_folder_keeps_no_blobs_of_a_cache_that_was_replaced() {
    let one = machine("# one\nprogram\n");
    let blobs = || fs::read_dir(one.path("cache/blobs/sha256")).unwrap().count();
    let to = |tag: &str| {
        let place = format!("type=local,dest={},mode=max,tag={tag}", one.path("cache").display());
        build(&one, &format!("--cache-to {place}"));
        blobs()
    };
    let first = to("latest");
    with_sources(&one, "# one\nanother program\n");
    build(&one, "");
    forget_and_build_again(&one);
    assert_eq!(to("latest"), first, "as many as before, though others");
    // What another tag needs stays.
    assert_eq!(to("other"), first);
    with_sources(&one, "# one\nthird program\n");
    assert!(to("latest") > first);
    let from = |tag: &str| {
        let two = machine("# one\nanother program\n");
        let src = one.path("cache");
        let run = build(&two, &format!("--cache-from type=local,src={},tag={tag}", src.display()));
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
        run.done()
    };
    assert_eq!(from("other"), 0);
}

#[test]
fn layers_are_compressed_once_for_the_image_and_its_cache() {
    let (one, registry) = (machine("program\n"), Registry::start());
    let name = format!("{}/app", registry.host);
    let dest = one.path("cache");
    build(
        &one,
        &format!(
            "-t {name}:1 --push -o type=oci,dest=one.tar,compression=gzip \
             --cache-to type=local,dest={},mode=max --cache-to type=registry,ref={name}:cache,mode=max",
            dest.display()
        ),
    );
    let blobs = fs::read_dir(one.root().join("blobs/sha256")).unwrap().flatten();
    let heads = blobs.map(|entry| fs::read(entry.path()).unwrap());
    let packed = heads.filter(|bytes| bytes.starts_with(&[0x1f, 0x8b])).count();
    assert_eq!(packed, layers(&one) - 1, "one blob for each layer but that of the base image");
    let compressed = one.rbc("du --format json --filter name~=tar").ok().stdout;
    let mut names: Vec<String> = compressed
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).ok()?["name"].as_str().map(str::to_owned)
        })
        .collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
}

/// An ordinary user of the machine, with a state folder of their own.
struct User {
    bench: Bench,
}

impl User {
    fn new(source: &str) -> Self {
        let bench = Bench::new();
        let everyone = fs::Permissions::from_mode(0o777);
        fs::set_permissions(bench.path(""), everyone).unwrap();
        // The binary itself must be readable by others, whatever the folder it was built in.
        fs::copy(env!("CARGO_BIN_EXE_rbc"), bench.path("rbc")).unwrap();
        fs::set_permissions(bench.path("rbc"), fs::Permissions::from_mode(0o755)).unwrap();
        support::image::busybox().write_oci(&bench.path("busybox.tar"), "busybox:latest");
        with_sources(&bench, source);
        let user = Self { bench };
        user.rbc("load --input busybox.tar").ok();
        user
    }

    fn rbc(&self, arguments: &str) -> Run {
        support::need("setpriv", "util-linux");
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(self.bench.path("rbc")).args(arguments.split_whitespace());
        command.current_dir(self.bench.path("")).env("NO_COLOR", "1");
        command.env("RBC_ROOT", self.bench.root()).env("HOME", self.bench.path("home"));
        Run::from(command.output().unwrap())
    }
}

#[test]
fn a_cache_travels_between_root_and_an_ordinary_user() {
    let (one, registry) = (machine("# one\nprogram\n"), Registry::start());
    let reference = format!("{}/app:cache", registry.host);
    build(
        &one,
        &format!("--cache-to type=registry,ref={reference},mode=max -o type=oci,dest=one.tar"),
    );
    let first = Oci::read(&one.path("one.tar")).manifest;
    let user = User::new("# one\nprogram\n");
    let to = format!("type=local,dest={},mode=max", user.bench.path("cache").display());
    let run = user.rbc(&format!(
        "build --progress plain --cache-from {reference} --cache-to {to} -o type=oci,dest=two.tar c"
    ));
    nothing_ran(&run.ok());
    assert_eq!(Oci::read(&user.bench.path("two.tar")).manifest, first, "bit for bit");
    user.rbc("fsck --check").ok();

    // Back, what the user has made: another program.
    with_sources(&user.bench, "# one\nprogram of a user\n");
    user.rbc(&format!("build --cache-to {to} -o type=oci,dest=two.tar c")).ok();
    user.rbc("cache export -o all.tar").ok();
    let made = Oci::read(&user.bench.path("two.tar")).manifest;
    let three = machine("# one\nprogram of a user\n");
    let from = format!("type=local,src={}", user.bench.path("cache").display());
    let run = build(&three, &format!("--cache-from {from} -o type=oci,dest=three.tar"));
    nothing_ran(&run);
    assert_eq!(Oci::read(&three.path("three.tar")).manifest, made);
    let four = machine("# one\nprogram of a user\n");
    four.rbc(&format!("cache import {}", user.bench.path("all.tar").display())).ok();
    nothing_ran(&build(&four, ""));
    four.rbc("fsck --check").ok();
}

#[test]
fn cache_mounts_go_to_another_machine() {
    let (one, registry) = (Bench::with_busybox(), Registry::start());
    one.write(
        "c/Dockerfile",
        "FROM busybox
RUN --mount=type=cache,id=tools,target=/tools,uid=12,gid=34,mode=0750 \\
    echo first > /tools/file && chown 7:8 /tools/file && chmod 4711 /tools/file \\
    && ln -s file /tools/link && touch -d '2001-02-03 04:05:06' /tools/file
RUN --mount=type=cache,target=/other,sharing=locked echo other > /other/file
",
    );
    build(&one, "");
    let look = "FROM busybox
RUN --mount=type=cache,id=tools,target=/tools,uid=12,gid=34,mode=0750 ls -ln /tools | grep -v total && ls -dln /tools \\
    && cat /tools/link && stat -c %Y /tools/file
";
    one.write("look/Dockerfile", look);
    let seen = |bench: &Bench| {
        let run = bench.rbc("build --no-cache --progress plain look").ok();
        let lines =
            run.stderr.lines().filter(|line| !line.contains("DONE") && line.contains(" 0."));
        lines.map(|line| line.splitn(3, ' ').last().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = seen(&one);
    assert!(before.iter().any(|line| line.starts_with("-rws--x--x")), "{before:?}");
    let reference = format!("docker-image://{}/mounts:1", registry.host);
    let (tar, folder) = (one.path("mounts.tar"), one.path("mounts"));
    for place in [tar.display().to_string(), format!("{}/", folder.display()), reference] {
        one.rbc(&format!("cache export --mount tools -o {place}")).ok();
        let two = Bench::with_busybox();
        two.write("look/Dockerfile", look);
        assert_eq!(two.rbc(&format!("cache import {place}")).ok().stdout, "tools\n");
        assert_eq!(seen(&two), before);
        // In place of what is there.
        two.write(
            "c/Dockerfile",
            "FROM busybox\nRUN --mount=type=cache,id=tools,target=/t,uid=12,gid=34,mode=0750 touch /t/mine\n",
        );
        build(&two, "");
        two.rbc(&format!("cache import {place}")).ok();
        assert_eq!(seen(&two), before);
        two.rbc("fsck --check").ok();
    }
    one.rbc("cache export --mount tools,/other -o both.tar").ok();
    assert_eq!(one.rbc("cache import both.tar").ok().stdout, "tools\n/other\n");
    assert_eq!(one.rbc("cache import --mount /other both.tar").ok().stdout, "/other\n");
    one.rbc("cache export --mount what -o x.tar").fails(1, "there are /other, tools");
    assert!(!one.path("x.tar").exists());
    one.rbc("cache import --mount what both.tar").fails(1, "no cache mount \"what\"");
}

#[test]
fn secrets_stay() {
    let one = Bench::with_busybox();
    one.write("token", "very-secret-token").write(
        "c/Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=token test -s /run/secrets/token && echo ok > /ok\n",
    );
    build(&one, "--secret id=token,src=token --cache-to type=local,dest=cache,mode=max");
    for blob in fs::read_dir(one.path("cache/blobs/sha256")).unwrap() {
        let bytes = fs::read(blob.unwrap().path()).unwrap();
        assert!(!bytes.windows(17).any(|window| window == b"very-secret-token"));
    }
    let two = Bench::with_busybox();
    two.write("c/Dockerfile", one.read("c/Dockerfile"));
    let from = one.path("cache");
    nothing_ran(&build(&two, &format!("--cache-from type=local,src={}", from.display())));
}

#[test]
fn made_files_keep_their_times_for_later_steps() {
    let one = Bench::with_busybox();
    let dockerfile = "FROM busybox\nRUN touch -d '2020-01-01' /source && echo > /object\n";
    one.write("c/Dockerfile", dockerfile);
    build(&one, "--cache-to type=local,dest=cache");
    let two = Bench::with_busybox();
    two.write("c/Dockerfile", format!("{dockerfile}RUN test /object -nt /source\n"));
    let from = one.path("cache");
    let run = build(&two, &format!("--cache-from type=local,src={}", from.display()));
    assert_eq!(run.done(), 1, "{}", run.stderr);
}
