//! The cache never shows: random Dockerfiles are built after random edits with everything that
//! earlier builds left and with nothing, and both images must be the same bit for bit.
//!
//! `RBC_ROUNDS` sets how many Dockerfiles are tried, `RBC_SEED` where to start.

mod support;

use std::{
    fmt::Write,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use support::{Bench, output::Oci};

/// How many edits each Dockerfile sees.
const EDITS: usize = 8;

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
    let number = random.below(3);
    let flags = random.pick(&["", "--chmod=750 ", "--chown=8:8 ", "--link ", "--chown=mail "]);
    // Stages of one name each; `busybox` when there is none below.
    let from = match stage {
        0 => "busybox".to_owned(),
        _ => format!("s{}", random.below(stage)),
    };
    match random.below(27) {
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
        11 => format!("ENV {file}={number}"),
        12 => format!("COPY {flags}--exclude=*.txt --exclude=sub dir /dir"),
        13 => format!("COPY {flags}--parents dir/./sub/* dir/x* /work/"),
        14 => format!("COPY {flags}dir/mor?-* /work/one\nRUN cat /work/one > /one; true"),
        15 => format!("COPY {flags}link /work/{file}"),
        16 => format!("COPY {flags}--from={from} /cur/{file} /work/{other}"),
        17 => format!(
            "RUN mkdir -p /v{number}; cp /{file} /v{number}/{other}; ln -sfn v{number} /cur; true"
        ),
        18 => format!(
            "RUN --mount=type=bind,from={from},source=/cur,target=/in cat /in/* > /{other}; true"
        ),
        19 => format!("COPY {flags}<<TEXT /work/{file}\ntext {number} of $v\nTEXT"),
        20 => format!(
            "RUN <<TEXT\necho {number} > /work/{file}\nln -f /work/{file} /work/v-{other}\nTEXT"
        ),
        21 => format!(
            "RUN --mount=type=cache,target=/kept echo {number} >> /kept/log; \
             cat /{file} > /work/{other}; true"
        ),
        22 => format!("ARG v={number}\nRUN echo $v > /work/{file}"),
        23 => format!("WORKDIR /work/{file}/\nWORKDIR /"),
        24 => {
            format!("RUN rm -rf /dir /work/{file} && mkdir -p /dir && touch -d @{number} /dir/new")
        }
        25 => format!("COPY {flags}--exclude=**/{file} . /all/"),
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
        let from = match random.below(5) {
            0 | 1 if stage > 0 => format!("s{}", random.below(stage)),
            2 | 3 => "base".to_owned(),
            _ => "busybox".to_owned(),
        };
        writeln!(text, "FROM {from} AS s{stage}\nRUN mkdir -p /work && touch /work/v-0").unwrap();
        for seed in steps {
            writeln!(text, "{}", step(*seed, stage)).unwrap();
        }
    }
    text
}

/// How the next build is called.
#[derive(Default)]
struct Options {
    /// What the build with a cache is told in addition.
    warm: String,
    /// What both builds are told.
    both: String,
    /// Whether a build that is killed comes before the one with a cache, and others run beside it.
    crowd: bool,
}

const FILES: [&str; 6] = ["a", "b", "c", "dir/x.txt", "dir/y.txt", "dir/sub/z"];

/// Changes something: mostly files, sometimes the Dockerfile or how the build is called. `base` is
/// the context of the base image.
fn edit(random: &mut Random, context: &Path, base: &Path, plan: &mut Plan) -> Options {
    let path = context.join(random.pick(&FILES));
    let other = context.join(random.pick(&FILES));
    let make = |path: &Path, text: String| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        remove(path);
        fs::write(path, text).unwrap();
    };
    let mut options = Options { crowd: random.below(6) == 0, ..Options::default() };
    let stage = random.below(plan.len());
    match random.below(20) {
        0 | 1 => make(&path, format!("# {}\ntext\n", random.below(4))),
        // All of one size and, once settled, of one time; written in place, so of one inode.
        2 | 3 if path.is_file() => {
            fs::write(&path, format!("# c\ntext {}\n", random.below(4))).unwrap()
        }
        4 if path.is_file() => {
            let mode = [0o644, 0o600, 0o755][random.below(3)];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        5 => {
            let extra = context.join(format!("dir/more-{}.txt", random.below(2)));
            if fs::remove_file(&extra).is_err() {
                make(&extra, "more".to_owned());
            }
        }
        6 | 7 => {
            let steps = &mut plan[stage].1;
            let at = random.below(steps.len());
            steps[at] = random.next();
        }
        8 => plan[stage].1.push(random.next()),
        9 => plan[stage].0 = random.next(),
        10 if path != other && path.is_file() => {
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            remove(&other);
            fs::rename(&path, &other).unwrap();
        }
        11 if path != other && path.is_file() => {
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            remove(&other);
            fs::hard_link(&path, &other).unwrap();
        }
        12 => {
            remove(&path);
            if random.below(2) == 0 {
                make(&path.join("below"), "x".to_owned());
            }
        }
        13 | 14 => {
            let link = context.join("link");
            remove(&link);
            symlink(random.pick(&["a", "b", "dir", "dir/sub"]), link).unwrap();
        }
        15 => {
            let lines = ["", "*.txt\n", "dir/sub\n", "*\n!dir\n!a\n", "b\nlink\n", "**/z\n!a\n"];
            fs::write(context.join(".dockerignore"), random.pick(&lines)).unwrap();
        }
        16 => {
            let name = random.pick(&["data/a", "data/b", "cur/a"]);
            make(&base.join(name), format!("base {}\n", random.below(3)));
        }
        17 => options.both = format!("--build-arg v={}", random.below(3)),
        18 => options.both = format!("--target s{stage}"),
        _ => options.warm = format!("--no-cache-filter s{stage}"),
    }
    options
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path).unwrap();
    } else {
        let _ = fs::remove_file(path);
    }
}

/// Gives every file of the context one time: times are no part of the cache's keys, so images of
/// the same key may differ in them.
fn settle(folder: &Path) {
    let touched = Command::new("find")
        .arg(folder)
        .args(["-exec", "touch", "-h", "-d", "@1500000000", "{}", "+"])
        .status();
    assert!(touched.expect("find runs").success());
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
    let (mut executed, mut cached, mut succeeded) = (0, 0, 0);
    for round in seed..seed + number("RBC_ROUNDS", 8) {
        let mut random = Random(round);
        let mut plan = plan(&mut random);
        let context = bench.path(format!("c{round}"));
        for name in FILES {
            bench.write(&format!("c{round}/{name}"), format!("# {name}\ntext\n"));
        }
        symlink("a", context.join("link")).unwrap();
        let base = bench.path(format!("b{round}"));
        for name in ["data/a", "data/b", "cur/a", "cur/b"] {
            bench.write(&format!("b{round}/{name}"), format!("base {name}\n"));
        }
        let text = "FROM busybox\nCOPY cur /cur\nCOPY data /data\n";
        bench.write(&format!("b{round}/Dockerfile"), text);
        let warm_state = bench.path(format!("warm{round}"));
        copy_state(&warm_state);
        let mut options = Options::default();
        for change in 0..=EDITS {
            bench.write(&format!("c{round}/Dockerfile"), dockerfile(&plan));
            settle(&context);
            settle(&base);
            let call = |state: &Path, output: &str, options: &str| {
                let _ = fs::remove_file(bench.path(output));
                let state = state.to_str().unwrap();
                format!(
                    "--root {state} build --progress plain -o type=oci,dest={output} {options} c{round}"
                )
            };
            let image = |run: &support::Run, output: &str| {
                (run.code == Some(0)).then(|| Oci::read(&bench.path(output)))
            };
            let cold_state = bench.path("cold");
            copy_state(&cold_state);
            for state in [&warm_state, &cold_state] {
                let state = state.to_str().unwrap();
                bench.rbc(&format!("--root {state} build -q -t base b{round}")).ok();
            }
            let Options { warm: warm_only, both, crowd } = &options;
            let spawn = |arguments: String| {
                let mut command = bench.command();
                command.args(arguments.split_whitespace());
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rbc starts")
            };
            let mut beside = Vec::new();
            if *crowd {
                let mut victim = spawn(call(&warm_state, "victim.tar", both));
                std::thread::sleep(Duration::from_millis(random.below(300) as u64));
                let _ = victim.kill();
                victim.wait().expect("it ends");
                beside.push(spawn(call(&warm_state, "beside.tar", both)));
            }
            let warm_run =
                bench.rbc(&call(&warm_state, "warm.tar", &format!("{warm_only} {both}")));
            let warm = image(&warm_run, "warm.tar");
            let cold_run = bench.rbc(&call(&cold_state, "cold.tar", both));
            let cold = image(&cold_run, "cold.tar");
            fs::remove_dir_all(&cold_state).unwrap();
            let described = || {
                format!(
                    "RBC_SEED={round}, edit {change}:\n{}\nwarm {warm_only} {both}:\n{}\ncold:\n{}",
                    dockerfile(&plan),
                    warm_run.stderr,
                    cold_run.stderr
                )
            };
            for child in beside {
                let run = support::Run::from(child.wait_with_output().expect("it ends"));
                assert_eq!(run.code, cold_run.code, "{}\nbeside:\n{}", described(), run.stderr);
                let beside = image(&run, "beside.tar").map(|image| image.manifest);
                assert!(
                    beside == cold.as_ref().map(|image| image.manifest.clone()),
                    "the image of a build beside differs: {}",
                    described()
                );
            }
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
            succeeded += usize::from(warm.is_some());
            executed += warm_run.done();
            cached += warm_run.cached();
            options = edit(&mut random, &context, &base, &mut plan);
        }
    }
    println!("{executed} steps were executed, {cached} were cached; {succeeded} builds succeeded");
    assert!(succeeded > 0, "no build succeeded");
    assert!(cached > executed / 4, "the cache was hardly used: {cached} of {executed}");
}
