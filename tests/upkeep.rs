//! The state folder stays in order: what takes space, what is evicted, what is checked.

mod support;

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Stdio,
};

use serde_json::Value;
use support::{
    Bench,
    output::Oci,
    server::{Answer, Server},
};

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

/// JSON lines but for the sums at the end.
fn lines(text: &str) -> Vec<Value> {
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|line| line.get("summary").is_none()).collect()
}

/// The sums at the end of JSON lines.
fn summary(text: &str) -> Value {
    let last = text.lines().last().expect("a line");
    serde_json::from_str::<Value>(last).expect("JSON")["summary"].take()
}

/// Bytes on disk below a folder, each file once, as `du` counts; without what `but` is called.
fn disk(folder: &Path, but: &str) -> u64 {
    let mut seen = HashSet::new();
    let mut sum = 0;
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        // What a running build removes in the meantime is not there.
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        if seen.insert((facts.dev(), facts.ino())) {
            sum += facts.blocks() * 512;
        }
        if facts.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.filter(|e| e.file_name() != but).map(|e| e.path()));
        }
    }
    sum
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
    // The layer that is there already may be packed in the meantime.
    loop {
        let held = lines(&bench.rbc("du --format json --filter inuse").ok().stdout);
        let listed = lines(&bench.rbc("du --format json").ok().stdout);
        let in_use = listed.iter().filter(|item| item["inUse"] == true).count();
        assert!(in_use >= 3, "two layers and the cache mount: {listed:?}");
        if held.len() == in_use {
            break;
        }
    }
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
    for word in [
        "layer",
        "image-layer",
        "temporary",
        "other",
        "cache-mount",
        "index",
        "Reclaimable:",
        "Total:",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(bench.rbc("du -v").ok().stdout.contains("RUN cp /made /copy"));
    let fails = bench.rbc("prune");
    fails.fails(2, "--force");
}

/// Layers that share files by links, a base image, blobs, a cache mount.
fn everything() -> Bench {
    let bench = bench();
    for number in 0..50 {
        bench.write(&format!("d/src/{number}"), vec![b'x'; 3000 + number]);
    }
    bench.write(
        "d/Dockerfile",
        "FROM busybox AS one\nCOPY src /src\nFROM busybox\nCOPY --from=one /src /src\nRUN ls /src > /list\n",
    );
    // What was written a moment before it is read is not known the next time, and so not linked.
    std::thread::sleep(std::time::Duration::from_millis(100));
    bench.rbc("build -q -t app c").ok();
    bench.rbc("build -q -o type=oci,dest=out.tar,compression=zstd d").ok();
    bench.write("d/src/0", "changed");
    bench.rbc("build -q -o out d").ok();
    bench
}

#[test]
fn what_takes_space_adds_up_to_what_the_folder_takes() {
    let bench = everything();
    let du = bench.rbc("du --format json").ok().stdout;
    let (items, sums) = (lines(&du), summary(&du));
    let size = |item: &Value| item["size"].as_u64().expect("a size");
    let mut by_kind: HashMap<&str, u64> = HashMap::new();
    for item in &items {
        *by_kind.entry(item["kind"].as_str().expect("a kind")).or_default() += size(item);
    }
    for (kind, sum) in &by_kind {
        assert_eq!(sums["kinds"][kind]["size"], *sum, "{kind}");
    }
    let shared = sums["sharedByLayers"].as_u64().expect("bytes");
    assert!(shared >= 150_000, "the files of src are links: {sums}");
    assert_eq!(sums["total"], by_kind.values().sum::<u64>() + shared);
    // The index may grow while it is looked at.
    let (told, there) = (sums["total"].as_u64().expect("bytes"), disk(&bench.root(), ""));
    assert!(told.abs_diff(there) < 100_000, "told {told}, there are {there}");

    let free = sums["reclaimable"].as_u64().expect("bytes");
    let before = bench.rbc("prune --all --dry-run --format json").ok().stdout;
    let after = bench.rbc("prune --all --force --format json").ok().stdout;
    let going = |text: &str| {
        let items = lines(text).into_iter();
        items.map(|item| (item["id"].clone(), item["freed"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(going(&before), going(&after), "what would go goes");
    assert_eq!(summary(&before)["freed"], free);
    assert_eq!(summary(&after)["freed"], free);
    let left = summary(&bench.rbc("du --format json").ok().stdout);
    assert_eq!((&left["reclaimable"], &left["sharedByLayers"]), (&0.into(), &0.into()));
}

#[test]
fn filters_choose_what_is_listed_and_what_goes() {
    let bench = everything();
    let chosen = |filter: &str| {
        let listed = bench.rbc(&format!("du --format json --filter {filter}")).ok().stdout;
        lines(&listed)
    };
    let all = |items: &[Value], name: &str, value: Value| {
        !items.is_empty() && items.iter().all(|item| item[name] == value)
    };
    assert!(all(&chosen("type=cache-mount"), "kind", "cache-mount".into()));
    assert!(all(&chosen("type=exec.cachemount"), "name", "/cache".into()));
    assert!(chosen("type!=layer").iter().all(|item| item["kind"] != "layer"));
    assert!(all(&chosen("mutable"), "reclaimable", false.into()) || !chosen("mutable").is_empty());
    let (shared, private) = (chosen("shared"), chosen("private"));
    assert!(shared.iter().all(|item| item["shared"] != 0 || !item["partOf"].is_null()));
    assert!(private.iter().all(|item| item["shared"] == 0 && item["partOf"].is_null()));
    assert_eq!(chosen("shared=false"), private);
    assert_eq!(chosen("inuse").len(), 0);
    assert_eq!(chosen("until=1h --filter type=layer").len(), 0, "all are new");
    let step = chosen("name~=ls");
    assert!(step.iter().all(|item| item["name"].as_str().unwrap().contains("ls /src")), "{step:?}");
    // The short form of an id, as the table has it.
    let id = step[0]["id"].as_str().expect("an id").trim_start_matches("sha256:");
    assert_eq!(chosen(&format!("id={}", &id[..12])), [step[0].clone()]);

    bench.rbc("prune --force --filter colour=red").fails(2, "no filter \"colour\"");
    bench.rbc("prune --force --filter until=soon").fails(2, "no time span");
    let gone = bench.rbc("prune --force --format json --filter type=cache-mount").ok().stdout;
    assert!(all(&lines(&gone), "why", "filter".into()), "{gone}");
    assert_eq!(chosen("type=cache-mount"), [Value::Null; 0]);
    let gone = bench.rbc("prune --all --force --filter until=24h").ok().stdout;
    assert!(gone.contains("Freed: 0B") || gone.contains("unreferenced"), "{gone}");
    bench.rbc("fsck --check").ok();
}

#[test]
fn a_budget_is_kept_and_every_eviction_has_its_reason() {
    let bench = everything();
    let total = |bench: &Bench| {
        summary(&bench.rbc("du --format json").ok().stdout)["total"].as_u64().expect("bytes")
    };
    let before = total(&bench);
    // Nothing is too much.
    for bound in ["--max-used-space 1g", "--min-free-space 1", "--reserved-space 1g"] {
        let text = bench.rbc(&format!("prune --all --force {bound}")).ok().stdout;
        assert!(text.contains("Freed: 0B"), "{bound}: {text}");
    }
    let bound = before - 200_000;
    let text = bench.rbc(&format!("prune --all --dry-run --max-used-space {bound}")).ok().stdout;
    assert!(text.contains("Would free: "), "{text}");
    assert_eq!(total(&bench), before, "nothing has changed");
    let kept = format!("prune --all --force --max-used-space 1 --keep-storage {bound}");
    let gone = lines(&bench.rbc(&format!("{kept} --format json")).ok().stdout);
    assert!(!gone.is_empty());
    for item in &gone {
        let (why, reason) = (item["why"].as_str().unwrap(), item["reason"].as_str().unwrap());
        match why {
            "over-limit" => assert!(reason.starts_with("over ") && reason.contains("last used")),
            "unreferenced" => assert!(reason.contains("no result and no image needs it")),
            _ => panic!("{item}"),
        }
    }
    // The index is not smaller for it.
    assert!(total(&bench) <= bound + 100_000);
    bench.rbc("build -q -o out d").ok();
    let text = bench.rbc("prune --force").ok().stdout;
    assert!(text.contains("in no named image: last used"), "{text}");
    bench.rbc("build -q -o out d").ok();
    let text = bench.rbc("prune --all --force --max-used-space 1").ok().stdout;
    assert!(text.contains("over 1B: last used"), "{text}");
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
fn a_limit_holds_at_every_moment_of_a_build_and_tells_what_it_evicted() {
    let bench = Bench::with_busybox();
    let steps = |name: &str| {
        let run = |n: usize| format!("RUN echo {name}{n}; head -c 1000000 /dev/urandom > /f{n}\n");
        format!("FROM busybox\n{}", (0..5).map(run).collect::<String>())
    };
    for name in ["a", "b", "c"] {
        bench.write(&format!("{name}/Dockerfile"), steps(name));
    }
    // One build with its layers and blobs fits beside the base image, all of them do not.
    let max = disk(&bench.root(), "") + 16_000_000;
    let mut told = String::new();
    for name in ["a", "b", "c"] {
        let mut command = bench.command();
        command.args(["build", "--progress", "plain", "-o", "type=oci,dest=out.tar"]);
        command.args(["--state-max-size", &max.to_string(), name]);
        let mut build =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("rbc starts");
        let mut most = 0;
        while build.try_wait().expect("a child").is_none() {
            most = most.max(disk(&bench.root(), "tmp"));
        }
        let run = support::Run::from(build.wait_with_output().expect("ended")).ok();
        assert!(most <= max, "{name}: {most} of {max}");
        told = run.stderr;
    }
    let line = told.lines().find(|line| line.starts_with("evicted ")).expect("what was evicted");
    assert!(line.contains("to keep within"), "{told}");
    assert!(told.contains(": last used ") && told.contains("made in"), "{told}");
    bench.rbc("fsck --check").ok();
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

/// A stage of three steps that make so many million bytes each, and a file `/made`.
fn stage(name: &str, begin: &str, millions: u32) -> String {
    let run = |n: u32| format!("RUN head -c {millions}000000 /dev/urandom > /{n} # {name}\n");
    format!(
        "FROM {begin} AS {name}\n{}RUN echo {name} > /made\n",
        (1..=3).map(run).collect::<String>()
    )
}

/// A bench with a Dockerfile, and the smallest limit under which `millions` fit beside the base image.
fn limited(dockerfile: &str, millions: u64) -> (Bench, u64) {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", dockerfile);
    // The base image, the index and small layers.
    let max = disk(&bench.root(), "") + 1_000_000 + millions * 1_000_000;
    (bench, max)
}

/// Builds under a limit and gives the digest of the image, which must be that of a build without one.
fn builds_within(bench: &Bench, max: u64) -> support::Run {
    let build = |flags: &str| {
        bench
            .rbc(&format!("build --progress plain --iidfile id -o type=oci,dest=out.tar {flags} c"))
    };
    let run = build(&format!("--state-max-size {max}")).ok();
    assert!(total(bench) <= max, "{}", bench.rbc("du -v").stdout);
    bench.rbc("fsck --check").ok();
    let limited = bench.read("id");
    bench.rbc("prune --all --force").ok();
    build("").ok();
    assert_eq!(bench.read("id"), limited);
    run
}

#[test]
fn layers_of_a_stage_that_nothing_needs_any_more_make_room() {
    let one = stage("one", "busybox", 3);
    let two = "FROM busybox AS two\nRUN --mount=type=bind,from=one,target=/m cp /m/made /one\n";
    // Begins when the first stage is done with.
    let three = stage("three", "two", 3);
    let last = "FROM busybox\nCOPY --from=three /made /one /\nRUN cat /made /one > /both\n";
    let (bench, max) = limited(&format!("{one}{two}{three}{last}"), 13);
    let run = builds_within(&bench, max);
    assert!(run.stderr.contains("evicted "), "{}", run.stderr);
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/both"), "three\none\n");
}

#[test]
fn earlier_versions_of_a_layer_make_room_for_it() {
    let dockerfile = "FROM busybox\nCOPY src /\nRUN head -c 3000000 /dev/urandom > /big\n";
    // The layer once and a half.
    let (bench, max) = limited(dockerfile, 5);
    for version in 0..4 {
        bench.write("c/src", format!("{version}"));
        bench.rbc(&format!("build -q -o out --state-max-size {max} c")).ok();
        assert_eq!(bench.read("out/src"), version.to_string());
        assert!(total(&bench) <= max, "{}", bench.rbc("du -v").stdout);
    }
}

#[test]
fn what_came_from_another_cache_makes_room_too() {
    let dockerfile = |text: &str, layers| {
        let (one, three) = (stage("one", "busybox", 3), stage("three", "two", layers));
        format!(
            "{one}FROM busybox AS two\nCOPY --from=one /made /{text}\n{three}FROM busybox\n\
             COPY --from=three /made /{text} /\n"
        )
    };
    let (first, _) = limited(&dockerfile("first", 0), 0);
    let folder = first.path("cache");
    first.rbc("build -q -o out --cache-to type=local,dest=cache,mode=max c").ok();
    // The first stage and its tars, or the layers of the third.
    let (bench, max) = limited(&dockerfile("second", 5), 20);
    let from = format!("--cache-from type=local,src={}", folder.display());
    let run =
        bench.rbc(&format!("build --progress plain -o out --state-max-size {max} {from} c")).ok();
    assert!(run.stderr.contains("cached, from "), "{}", run.stderr);
    assert_eq!(bench.read("out/second"), "one\n");
    bench.rbc("fsck --check").ok();
}

#[test]
fn what_a_build_evicts_of_itself_is_a_miss_the_next_time() {
    let dockerfile = |last: &str| {
        let (one, three) = (stage("one", "busybox", 3), stage("three", "two", 3));
        format!("{one}FROM busybox AS two\nCOPY --from=one /made /one\n{three}{last}")
    };
    let last = "FROM busybox\nCOPY --from=three /made /\n";
    let (bench, max) = limited(&dockerfile(last), 13);
    let build =
        || bench.rbc(&format!("build --progress plain -o out --state-max-size {max} c")).ok();
    build();
    bench.write("c/Dockerfile", dockerfile(&format!("{last}COPY --from=one /made /again\n")));
    let again = build();
    let why = "its result was removed from the cache since the earlier build";
    assert!(again.stderr.contains(why), "{}", again.stderr);
    assert!(again.done() >= 2, "{}", again.stderr);
    assert_eq!(bench.read("out/again"), "one\n");
    bench.rbc("fsck --check").ok();
}

#[test]
fn stages_side_by_side_that_do_not_fit_together_run_one_after_the_other() {
    let stages: String = ["one", "two", "three"].map(|name| stage(name, "busybox", 3)).concat();
    let last = "FROM busybox\nCOPY --from=one /made /one\nCOPY --from=two /made /two\n\
                COPY --from=three /made /three\n";
    let (bench, max) = limited(&format!("{stages}{last}"), 13);
    for _ in 0..3 {
        builds_within(&bench, max);
        let image = Oci::read(&bench.path("out.tar"));
        assert_eq!(
            ["/one", "/two", "/three"].map(|p| image.text(p)),
            ["one\n", "two\n", "three\n"]
        );
        bench.rbc("prune --all --force").ok();
    }
}

/// So many million bytes that nothing compresses.
fn noise(millions: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let noise = fs::File::open("/dev/urandom").expect("noise");
    noise.take(millions * 1_000_000).read_to_end(&mut bytes).expect("noise");
    bytes
}

#[test]
fn what_a_finished_stage_was_fetched_from_makes_room() {
    let server = Server::start();
    server.set("/large", Answer::body(noise(5)));
    let add = format!("FROM busybox AS one\nADD {} /\n", server.url("/large"));
    // Each takes its bytes once as a blob and once as a layer.
    for (begin, millions) in [(add.as_str(), 14), ("FROM base AS one\n", 16)] {
        let one = format!("{begin}RUN echo one > /made\n");
        let two = "FROM busybox AS two\nCOPY --from=one /made /one\n";
        let last = "FROM busybox\nCOPY --from=three /made /one /\n";
        let dockerfile = format!("{one}{two}{}{last}", stage("three", "two", 4));
        let (bench, max) = limited(&dockerfile, millions);
        let base = support::image::Maker::new().busybox().file("/large", 0o644, noise(5)).finish();
        base.write_oci(&bench.path("base.tar"), "base:1");
        for flags in ["", "--no-cache"] {
            let limit =
                format!("--build-context base=oci-layout://base.tar:1 --state-max-size {max}");
            bench.rbc(&format!("build --progress plain {flags} {limit} -o out c")).ok();
            assert_eq!(bench.read("out/made"), "three\n");
            assert_eq!(bench.read("out/one"), "one\n");
            bench.rbc("fsck --check").ok();
        }
    }
}

#[test]
fn what_was_packed_ahead_makes_room_and_is_packed_again() {
    let last = "FROM busybox\nRUN head -c 3000000 /dev/urandom > /1\n\
                RUN head -c 3000000 /dev/urandom > /2\nCOPY --from=one /made /\n";
    // The layers that go out and their tars, or those layers and the other stage.
    let (bench, max) = limited(&format!("{}{last}", stage("one", "busybox", 3)), 16);
    for _ in 0..3 {
        bench.rbc(&format!("build -q -t app --state-max-size {max} c")).ok();
        assert!(total(&bench) <= max, "{}", bench.rbc("du -v").stdout);
        bench.rbc("fsck --check").ok();
        bench.rbc("rmi app").ok();
        bench.rbc("prune --all --force").ok();
    }
}

#[test]
fn what_goes_out_stays_and_what_is_needed_at_once_must_fit() {
    // All of a stage goes into the image.
    let (bench, max) = limited(&stage("one", "busybox", 3), 7);
    let build = |bench: &Bench, max: u64, flags: &str| {
        bench.rbc(&format!("build --progress plain -o out --state-max-size {max} {flags} c"))
    };
    let failed = build(&bench, max, "").fails(1, "the state folder is limited to");
    assert!(failed.stderr.contains("running builds hold"), "{}", failed.stderr);
    assert!(failed.stderr.contains("ERROR: the state folder is limited"), "{}", failed.stderr);
    bench.rbc("fsck --check").ok();
    build(&bench, max + 4_000_000, "").ok();
    assert!(bench.path("out/3").exists());

    // What can never fit waits for nobody.
    let never = "FROM busybox AS never\nRUN sleep 1000\n";
    let large =
        "FROM busybox\nRUN head -c 20000000 /dev/urandom > /1\nCOPY --from=never /etc /never\n";
    let (bench, max) = limited(&format!("{never}{large}"), 13);
    build(&bench, max, "").fails(1, "the state folder is limited to");

    // A step needs two stages at once.
    let both = "FROM busybox\nRUN --mount=from=one,target=/a --mount=from=two,target=/b ls /a /b\n";
    let stages = format!("{}{}{both}", stage("one", "busybox", 3), stage("two", "busybox", 3));
    let (bench, max) = limited(&stages, 13);
    build(&bench, max, "").fails(1, "the state folder is limited to");
    bench.rbc("fsck --check").ok();
    build(&bench, max + 8_000_000, "").ok();

    // A cache of all steps needs all of them.
    let last = "FROM busybox\nCOPY --from=three /made /\n";
    let stages = format!("{}{}{last}", stage("one", "busybox", 3), stage("three", "one", 3));
    let (bench, max) = limited(&stages, 20);
    build(&bench, max, "--cache-to type=local,dest=cache,mode=min").ok();
    let (one, three) = (stage("one", "busybox", 3), stage("three", "two", 3));
    let two = "FROM busybox AS two\nCOPY --from=one /made /one\n";
    let (bench, max) = limited(&format!("{one}{two}{three}{last}"), 13);
    build(&bench, max, "--cache-to type=local,dest=cache,mode=max").fails(1, "is limited to");
    build(&bench, max, "--cache-to type=local,dest=cache,mode=min").ok();
    bench.rbc("fsck --check").ok();
}
