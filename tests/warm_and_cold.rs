//! The cache never shows: random Dockerfiles are built after random edits with everything that
//! earlier builds left and with nothing, and both images must be the same bit for bit.
//!
//! `RBC_ROUNDS` sets how many Dockerfiles are tried, `RBC_SEED` where to start.

mod support;

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use support::{Bench, output::Oci};

/// How many edits each Dockerfile sees.
const EDITS: usize = 6;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// One step of a stage, made from a number so that an edit can change just one.
fn step(seed: u64, stage: usize) -> String {
    let mut random = Random(seed);
    let file = random.pick(&["a", "b", "c"]);
    let other = random.pick(&["a", "b", "c"]);
    let flags = random.pick(&["", "--chmod=750 ", "--chown=8:8 ", "--link ", "--chown=mail "]);
    // Stages of one name each; `busybox` when there is none below.
    let from = match stage {
        0 => "busybox".to_owned(),
        _ => format!("s{}", random.below(stage)),
    };
    match random.below(13) {
        0 => format!("COPY {flags}{file} /{other}"),
        1 => format!("COPY {flags}dir /dir"),
        2 => format!("COPY {flags}dir/*.txt /dir/"),
        3 => format!("COPY {flags}--from={from} /work /work"),
        4 => format!("COPY {flags}--from={from} /work/v-* /work/{file}"),
        5 => format!("RUN grep -v '^#' /{file} > /work/{other}; true"),
        6 => "RUN find /work /dir -type f | sort | xargs stat -c '%n %a %u %g' > /list; true"
            .to_owned(),
        7 => format!(
            "RUN --mount=type=bind,target=/in grep -hv '^#' /in/{file} /in/dir/* > /work/{other}; true"
        ),
        8 => format!(
            "RUN --mount=type=bind,from={from},source=/work,target=/in \
             cat /in/* > /tmp/{file} 2> /dev/null; true"
        ),
        9 => format!("RUN mv /work/{file} /work/{other}; rm -rf /dir/sub; true"),
        10 => format!("RUN rm -f /work/v-*; touch /work/v-$(wc -c < /{file} || echo 0)"),
        11 => format!("ENV {file}={}", random.below(3)),
        _ => format!("RUN echo $a$b$c > /work/{file}; chmod 6{}0 /work/{file}", random.below(8)),
    }
}

/// The numbers that a Dockerfile is made of: for each stage what it starts from, and its steps.
type Plan = Vec<(u64, Vec<u64>)>;

fn plan(random: &mut Random) -> Plan {
    let stages = 1 + random.below(3);
    (0..stages)
        .map(|_| (random.next(), (0..1 + random.below(5)).map(|_| random.next()).collect()))
        .collect()
}

fn dockerfile(plan: &Plan) -> String {
    let mut text = String::new();
    for (stage, (start, steps)) in plan.iter().enumerate() {
        let mut random = Random(*start);
        let from = match random.below(3) {
            0 if stage > 0 => format!("s{}", random.below(stage)),
            _ => "busybox".to_owned(),
        };
        writeln!(text, "FROM {from} AS s{stage}\nRUN mkdir -p /work && touch /work/v-0").unwrap();
        for seed in steps {
            writeln!(text, "{}", step(*seed, stage)).unwrap();
        }
    }
    text
}

/// Changes something: mostly files, sometimes the Dockerfile. Gives further options of the build.
fn edit(random: &mut Random, context: &Path, plan: &mut Plan) -> String {
    let name = random.pick(&["a", "b", "c", "dir/x.txt", "dir/y.txt", "dir/sub/z"]);
    let path = context.join(name);
    match random.below(8) {
        0 | 1 => fs::write(&path, format!("# {}\ntext\n", random.below(4))).unwrap(),
        2 | 3 => fs::write(&path, format!("# c\ntext {}\n", random.below(4))).unwrap(),
        4 => {
            let mode = [0o644, 0o600, 0o755][random.below(3)];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        5 => {
            let extra = context.join(format!("dir/more-{}.txt", random.below(2)));
            if fs::remove_file(&extra).is_err() {
                fs::write(&extra, "more").unwrap();
            }
        }
        6 => {
            let stage = random.below(plan.len());
            let steps = &mut plan[stage].1;
            let at = random.below(steps.len());
            steps[at] = random.next();
        }
        _ => return format!("--no-cache-filter s{}", random.below(plan.len())),
    }
    String::new()
}

/// Gives every file of the context one time: times are no part of the cache's keys, so images of
/// the same key may differ in them.
fn settle(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            settle(&entry.path());
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        fs::File::open(entry.path()).unwrap().set_modified(time).unwrap();
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn the_image_is_the_same_with_and_without_a_cache() {
    let bench = Bench::with_busybox();
    let empty = bench.path("empty");
    fs::rename(bench.root(), &empty).unwrap();
    let copy_state = |to: &Path| {
        let copied = Command::new("cp").arg("-a").arg(&empty).arg(to).status();
        assert!(copied.expect("cp runs").success());
    };
    let seed = number("RBC_SEED", 1);
    let (mut executed, mut cached) = (0, 0);
    for round in seed..seed + number("RBC_ROUNDS", 8) {
        let mut random = Random(round);
        let mut plan = plan(&mut random);
        let context = bench.path(format!("c{round}"));
        for name in ["a", "b", "c", "dir/x.txt", "dir/y.txt", "dir/sub/z"] {
            bench.write(&format!("c{round}/{name}"), format!("# {name}\ntext\n"));
        }
        let warm_state = bench.path(format!("warm{round}"));
        copy_state(&warm_state);
        let mut options = String::new();
        for change in 0..=EDITS {
            bench.write(&format!("c{round}/Dockerfile"), dockerfile(&plan));
            settle(&context);
            let build = |state: &Path, output: &str, options: &str| {
                let _ = fs::remove_file(bench.path(output));
                let state = state.to_str().unwrap();
                let run = bench.rbc(&format!(
                    "--root {state} build --progress plain -o type=oci,dest={output} {options} c{round}"
                ));
                let image = (run.code == Some(0)).then(|| Oci::read(&bench.path(output)));
                (run, image)
            };
            let cold_state = bench.path("cold");
            copy_state(&cold_state);
            let (warm_run, warm) = build(&warm_state, "warm.tar", &options);
            let (cold_run, cold) = build(&cold_state, "cold.tar", "");
            fs::remove_dir_all(&cold_state).unwrap();
            let described = || {
                format!(
                    "RBC_SEED={round}, edit {change}:\n{}\nwarm {options}:\n{}\ncold:\n{}",
                    dockerfile(&plan),
                    warm_run.stderr,
                    cold_run.stderr
                )
            };
            match (&warm, &cold) {
                (Some(warm), Some(cold)) => {
                    let (ours, theirs) = (warm.files(), cold.files());
                    let differ: Vec<&String> = ours
                        .keys()
                        .chain(theirs.keys())
                        .filter(|name| ours.get(*name) != theirs.get(*name))
                        .collect();
                    assert!(differ.is_empty(), "{differ:?} differ: {}", described());
                    assert!(warm.manifest == cold.manifest, "images differ: {}", described());
                }
                (None, None) => assert_eq!(warm_run.code, cold_run.code, "{}", described()),
                _ => panic!("only one of them fails: {}", described()),
            }
            executed += warm_run.done();
            cached += warm_run.cached();
            options = edit(&mut random, &context, &mut plan);
        }
    }
    println!("{executed} steps were executed, {cached} were cached");
    assert!(cached > executed / 4, "the cache was hardly used: {cached} of {executed}");
}
