//! Many processes on one state folder: each step runs once, and killing any of them at any moment
//! loses, damages and leaks nothing.
//!
//! `RBC_ROUNDS` is the number of rounds of killing (15 if not set), `RBC_SEED` repeats a run.

mod support;

use std::{
    collections::HashMap,
    fs::{self, File},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use support::{Bench, Run, image, registry::Registry};

/// Four builds that share some of their steps.
const DOCKERFILES: [&str; 4] = [
    "FROM busybox AS b\nRUN sleep 0.2; echo shared > /shared\nRUN echo a > /a\nFROM busybox\nCOPY --from=b /shared /a /\nCOPY src /src\n",
    "FROM busybox AS b\nRUN sleep 0.2; echo shared > /shared\nRUN echo b > /b\nFROM scratch\nCOPY --from=b /b /shared /\n",
    "FROM busybox\nCOPY src /src\nRUN --mount=type=cache,target=/cache cat /src/* > /all; echo x >> /cache/log\nRUN rm -r /src\n",
    "FROM busybox\nWORKDIR /work\nCOPY src/one .\nRUN --mount=type=bind,source=src,target=/in cp /in/two .; mkdir d; ln one d/link\n",
];

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    write_contexts(&bench);
    bench
}

fn write_contexts(bench: &Bench) {
    for (number, text) in DOCKERFILES.iter().enumerate() {
        bench.write(&format!("c{number}/Dockerfile"), text);
        // More than one buffer, so that a kill may hit the middle of a copy.
        for (name, size) in [("one", 10), ("two", 200_000), ("three", 3_000_000)] {
            let name = format!("c{number}/src/{name}");
            bench.write(&name, vec![b'a' + number as u8; size]);
            // Copied files keep their times.
            let file = File::options().write(true).open(bench.path(&name)).expect("the file");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
        }
    }
}

fn start(bench: &Bench, arguments: &str) -> Child {
    let mut command = bench.command();
    command.args(arguments.split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rbc starts")
}

fn end(child: Child) -> Run {
    Run::from(child.wait_with_output().expect("rbc ends"))
}

/// How often each step was executed, by its digest.
fn executions(events: &str, into: &mut HashMap<String, (String, usize)>) {
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        let name = event["name"].as_str().unwrap_or_default();
        if event["event"] == "started" && !name.starts_with("exporting") {
            let digest = event["digest"].as_str().expect("a digest").to_owned();
            into.entry(digest).or_insert_with(|| (name.to_owned(), 0)).1 += 1;
        }
    }
}

#[test]
fn eight_builds_at_once_run_each_distinct_step_once() {
    let bench = bench();
    let builds: Vec<Child> = (0..8)
        .map(|n| {
            let arguments = "build --progress rawjson -o type=oci,dest=";
            start(&bench, &format!("{arguments}out{n}.tar c{}", n % 4))
        })
        .collect();
    let mut counts = HashMap::new();
    for build in builds {
        executions(&end(build).ok().stderr, &mut counts);
    }
    let repeated: Vec<_> = counts.values().filter(|(_, count)| *count != 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    // The base image, and 2 + 2, 1 + 1, 3 and 3 steps, of which two share one, and the part of a
    // context that is mounted.
    assert!((13..=15).contains(&counts.len()), "{counts:#?}");
    for n in 0..4 {
        let same = |n: usize| fs::read(bench.path(format!("out{n}.tar"))).expect("the archive");
        assert!(same(n) == same(n + 4), "c{n} gave two different archives");
    }
    bench.rbc("fsck --check").ok();
}

/// A generator that is good enough to choose victims.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("RBC_SEED").ok().and_then(|text| text.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let seed = seed.unwrap_or_else(|| now() as u64 | 1);
        eprintln!("RBC_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The ids of the images of all Dockerfiles, built on a folder's state.
fn image_ids(bench: &Bench) -> Vec<String> {
    (0..DOCKERFILES.len()).map(|n| bench.rbc(&format!("build -q c{n}")).ok().stdout).collect()
}

/// Processes that have something mounted from below a folder.
fn users_of(root: &Path) -> Vec<String> {
    let root = root.to_str().expect("UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|entry| {
            let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
            mounts.contains(root)
        })
        .map(|entry| {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            format!("{}: {}", entry.file_name().display(), command.replace('\0', " "))
        })
        .collect()
}

fn sessions(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.root().join("tmp")).expect("tmp").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("s-")).collect()
}

/// What processes take in and put out besides builds: an image and a cache as files, and the image
/// and the cache in a registry, as another machine made them.
fn prepare(other: &Bench, bench: &Bench, registry: &Registry) {
    image::busybox().write_oci(&bench.path("image.tar"), "loaded:1");
    other.rbc(&format!("build -q -t {}/pulled:1 --push c0", registry.host)).ok();
    for place in [
        bench.path("cache.tar").display().to_string(),
        format!("docker-image://{}/cache:1", registry.host),
    ] {
        other.rbc(&format!("cache export -o {place}")).ok();
    }
}

/// Something to do with a state folder, chosen by the dice; `n` is one of the Dockerfiles.
fn any_command(dice: &mut Dice, registry: &str) -> String {
    let n = dice.below(DOCKERFILES.len() as u64);
    match dice.below(20) {
        0 => "prune --all --force".to_owned(),
        1 => "fsck".to_owned(),
        2 => format!("build -q --no-cache -t app{n} c{n}"),
        3 => format!("build -q --state-max-size 25m -t app{n} c{n}"),
        4 => format!("rmi --force app{n}"),
        5 => format!("build -q -o out{n} c{n}"),
        6 => format!("build -q -o type=oci,dest=out{n}.tar,compression=zstd c{n}"),
        7 => "load --input image.tar".to_owned(),
        8 => format!("pull {registry}/pulled:1"),
        9 => format!("cache export -o exported{n}.tar"),
        10 => "cache import cache.tar".to_owned(),
        11 => format!("cache import docker-image://{registry}/cache:1"),
        12 => format!("build -q --cache-to type=local,dest=cache{n},mode=max c{n}"),
        13 => format!("build -q --cache-from {registry}/cache:1 -t app{n} c{n}"),
        14 => format!("tag busybox app{n}:{}", dice.below(3)),
        15 => format!("build -q -t {registry}/app{n} --push c{n}"),
        16 => format!("prune --force --max-used-space {}m", dice.below(30)),
        _ => format!("build -q -t app{n} c{n}"),
    }
}

#[test]
fn killing_any_process_at_any_moment_harms_nothing() {
    let rounds = std::env::var("RBC_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let (bench, registry) = (bench(), Registry::start());
    let fresh = Bench::with_busybox();
    write_contexts(&fresh);
    let wanted = image_ids(&fresh);
    prepare(&fresh, &bench, &registry);
    let mut dice = Dice::new();
    for round in 0..rounds {
        let mut running: Vec<(String, Child)> = Vec::new();
        for _ in 0..2 + dice.below(4) {
            let arguments = any_command(&mut dice, &registry.host);
            let child = start(&bench, &arguments);
            running.push((arguments, child));
        }
        std::thread::sleep(Duration::from_millis(dice.below(500)));
        for (arguments, mut child) in running {
            if dice.below(3) > 0 {
                // The process may have ended by itself.
                let _ = child.kill();
                end(child);
                continue;
            }
            let run = end(child);
            let is_full = arguments.contains("max-size") && run.stderr.contains("is limited to");
            assert!(run.code == Some(0) || is_full, "round {round}: {arguments}\n{}", run.stderr);
        }
        let check = bench.rbc("fsck --check");
        assert_eq!(check.code, Some(0), "round {round}:\n{}{}", check.stdout, check.stderr);
        if round % 10 == 9 {
            assert_eq!(image_ids(&bench), wanted, "round {round}");
        }
    }
    assert_eq!(image_ids(&bench), wanted);
    bench.rbc("fsck").ok();
    let check = bench.rbc("fsck --check --format json").ok();
    assert!(check.stdout.contains(r#""bad":[],"leftovers":[]"#), "{}", check.stdout);
    assert_eq!(sessions(&bench), [""; 0]);
    // The kernel takes a moment to end what a killed process has started.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !users_of(&bench.root()).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(users_of(&bench.root()), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(bench.root().to_str().expect("UTF-8")), "{mounts}");
    // What outputs were being written to is left beside nobody's folder.
    let beside = fs::read_dir(bench.path("")).expect("the work folder").flatten();
    let left: Vec<_> = beside
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".rbc-"))
        .collect();
    assert_eq!(left, [""; 0]);
}
