//! Options of `docker build`: agents for ssh, annotations, and what is taken without an effect.

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use support::{Bench, Run, need, output::Oci};

fn key(bench: &Bench, name: &str, arguments: &[&str]) -> String {
    need("ssh-keygen", "openssh-client");
    let path = bench.path(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", name, "-f"]).arg(&path).args(arguments);
    assert!(command.status().expect("ssh-keygen starts").success());
    // Whoever may read a key file is its owner's affair.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}

/// Runs rbc with an `ssh` that does not connect but prints the keys that it is offered.
fn with_listing_ssh(bench: &Bench, arguments: &str) -> Run {
    bench.write("bin/ssh", "#!/bin/sh\nssh-add -L >&2\nexit 1\n");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bench.path("bin/ssh"), mode).unwrap();
    let mut path = bench.path("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = bench.command();
    command.env("PATH", path).env_remove("SSH_AUTH_SOCK").args(arguments.split_whitespace());
    Run::from(command.output().expect("rbc starts"))
}

#[test]
fn git_through_ssh_sees_the_given_keys_only() {
    let bench = Bench::new();
    let first = key(&bench, "first", &["-t", "ed25519", "-N", ""]);
    let second = key(&bench, "second", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
    bench.write("Dockerfile", "FROM scratch\nADD git@host.invalid:a/b.git /\n");
    with_listing_ssh(&bench, "build .").fails(1, "use --ssh default");
    with_listing_ssh(&bench, "build --ssh other=first .").fails(1, "use --ssh default");
    let run = with_listing_ssh(&bench, "build --ssh default=first,second .");
    // The second word of a public key is the key itself.
    for public in [first, second] {
        let body = public.split(' ').nth(1).unwrap();
        assert!(run.stderr.contains(body), "{body} is not in\n{}", run.stderr);
    }
    run.fails(1, "git@host.invalid");
}

#[test]
fn steps_reach_an_agent_with_key_files() {
    let bench = Bench::with_busybox();
    key(&bench, "key", &["-t", "ed25519", "-N", ""]);
    bench.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=ssh,id=k,required test -S \"$SSH_AUTH_SOCK\"\n",
    );
    bench.rbc("build --ssh k=key .").ok();
    assert_eq!(agents_of(&bench.root()), 0);
}

/// How many agents of builds with this state folder are left.
fn agents_of(root: &Path) -> usize {
    let wanted = format!("RBC_ROOT={}", root.display());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let env = fs::read(entry.path().join("environ")).unwrap_or_default();
            name.trim() == "cat" && String::from_utf8_lossy(&env).contains(&wanted)
        })
        .count()
}

#[test]
fn bad_agents_are_told_apart() {
    let bench = Bench::new();
    key(&bench, "locked", &["-t", "ed25519", "-N", "secret"]);
    bench.write("text", "no key").write("Dockerfile", "FROM scratch\n");
    bench.rbc("build --ssh a=locked .").fails(1, "locked is no private key without a passphrase");
    bench.rbc("build --ssh a=text .").fails(1, "text is no private key");
    bench.rbc("build --ssh a=missing .").fails(1, "cannot read the key missing");
    bench.rbc("build --ssh a= .").fails(2, "want default or ID=SOCKET or ID=KEY");
}

#[test]
fn annotations_of_manifest_and_index() {
    let bench = Bench::new();
    bench.write("f", "x").write("Dockerfile", "FROM scratch\nCOPY f /\n");
    let text = "build --platform linux/amd64,linux/arm64 -o type=oci,dest=out,tar=false \
                --annotation a=1 --annotation index:b=2 --annotation index,manifest:c=3 .";
    bench.rbc(text).ok();
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_str(&bench.read(&format!("out/{path}"))).unwrap()
    };
    let blob = |entry: &serde_json::Value| {
        json(&format!("blobs/{}", entry["digest"].as_str().unwrap().replace(':', "/")))
    };
    let index = blob(&json("index.json")["manifests"][0]);
    assert_eq!(index["annotations"], serde_json::json!({ "b": "2", "c": "3" }));
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(blob(entry)["annotations"], serde_json::json!({ "a": "1", "c": "3" }));
    }
    bench.rbc("build --annotation layer:a=1 .").fails(2, "not on \"layer\"");
}

#[test]
fn options_that_docker_ignores() {
    let bench = Bench::new();
    bench.write("f", "x").write("Dockerfile", "FROM scratch\nCOPY f /\n");
    let run = bench
        .rbc(
            "build --compress --rm --force-rm=false --builder default --isolation default \
             -m 1g --memory-swap -1 --cpu-shares 5 --cpuset-cpus 0 --security-opt a=b --squash \
             -o type=oci,dest=out.tar .",
        )
        .ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/f"), "x");
    let warnings: Vec<&str> = run.stderr.lines().filter(|l| l.starts_with("warning: --")).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r"
    warning: --cpu-shares has no effect
    warning: --cpuset-cpus has no effect
    warning: --memory has no effect
    warning: --memory-swap has no effect
    warning: --security-opt has no effect
    warning: --squash has no effect
    ");
}

#[test]
fn a_cgroup_parent_limits_what_runs_below_it() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait\n",
    );
    let name = format!("rbc-test-{}", std::process::id());
    let top = Path::new("/sys/fs/cgroup");
    let one_of_many = top.join("pids").is_dir();
    let parent = if one_of_many { top.join("pids").join(&name) } else { top.join(&name) };
    let made = fs::create_dir(&parent).and_then(|()| fs::write(parent.join("pids.max"), "6"));
    if let Err(error) = made {
        let _ = fs::remove_dir(&parent);
        eprintln!("skipped: no group with a limit of processes can be made here: {error}");
        return;
    }
    let limited = bench.rbc(&format!("build --progress plain --cgroup-parent {name} c"));
    let left: Vec<_> = fs::read_dir(&parent)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name())
        .collect();
    for hierarchy in fs::read_dir(top).unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(&name));
    }
    let _ = fs::remove_dir(&parent);
    limited.fails(1, "can't fork");
    assert!(left.is_empty(), "{left:?}");
    // The parent counts for no key, and without it there is no limit.
    bench.rbc("build c").ok();
}
