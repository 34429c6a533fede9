//! Ways of using rbc from end to end: graphs, base images from everywhere, parallel steps,
//! interruption, ordinary users.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use support::{Bench, image, need, output::Oci, registry::Registry};

#[test]
fn compile_inspect_and_run() {
    let bench = Bench::with_busybox();
    bench.write("f", "content").write(
        "Dockerfile",
        "FROM busybox AS build\nCOPY f /f\nRUN tr a-z A-Z < /f > /g\nFROM scratch\nCOPY --from=build /g /g\n",
    );
    let graph = bench.rbc("compile Dockerfile").ok();
    bench.write("graph.bin", &graph.stdout_bytes);
    let again = bench.rbc("compile Dockerfile").ok();
    assert!(graph.stdout_bytes == again.stdout_bytes, "compiling is deterministic");
    let tree = bench.rbc("inspect graph.bin").ok().stdout;
    assert!(tree.contains("RUN tr a-z A-Z"), "{tree}");
    bench.rbc("run graph.bin -o type=oci,dest=out.tar").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/g"), "CONTENT");
}

#[test]
fn a_graph_is_run_only_on_the_files_it_was_compiled_from() {
    let bench = Bench::with_busybox();
    bench.write("f", "content").write("Dockerfile", "FROM busybox\nCOPY f /f\n");
    bench.rbc("compile -o graph.bin Dockerfile").ok();
    bench.write("f", "changed");
    bench.rbc("run graph.bin").fails(1, "is not what the graph was compiled from");
    bench.write("f", "content");
    bench.rbc("run graph.bin").ok();
}

#[test]
fn a_stage_that_is_not_needed_is_not_built_and_named_with_v() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox AS unused\nRUN false\nFROM busybox\nRUN true\n");
    let run = bench.rbc("build -v c").ok();
    assert!(run.stderr.contains("stage unused is not needed"), "{}", run.stderr);
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let bench = Bench::with_busybox();
    // Each stage waits until the other has begun, so one after the other would never end.
    let stage = |me: &str, other: &str| {
        format!(
            "FROM busybox AS {me}\nRUN --mount=type=cache,id=meet,target=/m touch /m/{me}; \
             while [ ! -e /m/{other} ]; do sleep 0.05; done; echo {me} > /{me}\n"
        )
    };
    bench.write(
        "c/Dockerfile",
        format!(
            "{}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
            stage("a", "b"),
            stage("b", "a")
        ),
    );
    bench.rbc("build c").ok();
}

#[test]
fn the_whole_log_of_a_step_is_kept() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN seq 1 5000; exit 3\n");
    let run = bench.rbc("build c").fails(1, "exit code: 3");
    let log = run.stderr.lines().find_map(|line| line.split("all that it printed is in ").nth(1));
    let log = fs::read_to_string(log.expect("the log is named").trim()).unwrap();
    assert_eq!((log.lines().count(), log.lines().last()), (5000, Some("5000")));
    assert!(run.stderr.contains("Dockerfile:2:1"), "{}", run.stderr);
}

/// Processes whose command line holds a text.
fn running(text: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(text))
        .count()
}

#[test]
fn ctrl_c_stops_the_steps_and_leaves_nothing_behind() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo begun; sleep 98765\n");
    let mut build = bench
        .command()
        .args(["build", "--progress", "plain", "c"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(build.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(" begun")));
    let begin = Instant::now();
    // SAFETY: sends a signal to a child of this process.
    assert_eq!(unsafe { libc::kill(build.id() as i32, libc::SIGINT) }, 0);
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(build.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(running("sleep\x0098765"), 0);
    let left = fs::read_dir(bench.root().join("tmp")).unwrap().count();
    assert_eq!(left, 1, "only the lock of the folder itself");
}

#[test]
fn contexts_may_hold_the_same_files() {
    let bench = Bench::with_busybox();
    for context in ["a", "b", "c"] {
        bench.write(&format!("{context}/LICENSE"), "free\n");
    }
    bench.write(
        "c/Dockerfile",
        "FROM scratch\nCOPY --from=a LICENSE /a/\nCOPY --from=b LICENSE /b/\nCOPY LICENSE /c/\n",
    );
    bench.rbc("build --build-context a=a --build-context b=b -o out c").ok();
    for context in ["a", "b", "c"] {
        assert_eq!(bench.read(&format!("out/{context}/LICENSE")), "free\n");
    }
}

#[test]
fn base_images_come_from_archives_and_layouts() {
    let bench = Bench::new();
    let busybox = image::busybox();
    busybox.write_oci(&bench.path("busybox.tar"), "busybox:latest");
    bench.write("c/Dockerfile", "FROM base\nRUN echo ok > /ok\n");
    bench.rbc("build --build-context base=oci-layout://busybox.tar c").ok();
    fs::create_dir(bench.path("layout")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["xf", "busybox.tar", "-C", "layout"]).current_dir(bench.path(""));
    assert!(tar.status().unwrap().success());
    bench.rbc("build --build-context base=oci-layout://layout:latest c").ok();
    bench.rbc("build --build-context base=oci-layout://layout:nosuch c").fails(1, "nosuch");

    // As `docker save` writes it.
    need("skopeo", "skopeo");
    let copy = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "oci-archive:busybox.tar"])
        .arg("docker-archive:saved.tar:saved/busybox:2")
        .current_dir(bench.path(""))
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    bench.rbc("load --input saved.tar").ok();
    bench.write("c/Dockerfile", "FROM saved/busybox:2\nRUN echo ok > /ok\n");
    bench.rbc("build c").ok();
}

#[test]
fn base_images_are_pulled_from_a_registry() {
    let registry = Registry::start();
    let bench = Bench::new();
    image::busybox().write_oci(&bench.path("busybox.tar"), "busybox:latest");
    registry.push(&bench.path("busybox.tar"), "lib/busybox:1");
    bench.write(
        "c/Dockerfile",
        format!("FROM {}/lib/busybox:1\nRUN echo ok > /ok\n", registry.host),
    );
    bench.rbc("build c").ok();
    bench.write("c/Dockerfile", format!("FROM {}/lib/busybox:none\nRUN true\n", registry.host));
    bench.rbc("build c").fails(1, "lib/busybox:none");
}

#[test]
fn a_container_gives_files_the_old_way() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN mkdir /out && echo 1 > /out/a && ln -s a /out/l\n",
    );
    bench.rbc("build -t made c").ok();
    bench.rbc("create --name box made").ok();
    bench.rbc("create --name box made").fails(1, "is taken");
    bench.rbc("cp box:/out/a ./here").ok();
    assert_eq!(bench.read("here"), "1\n");
    fs::create_dir(bench.path("dir")).unwrap();
    bench.rbc("cp box:/out dir").ok();
    assert_eq!(bench.read("dir/out/a"), "1\n");
    bench.rbc("cp box:/out/. dir").ok();
    assert_eq!(bench.read("dir/a"), "1\n");
    bench.rbc("cp box:/nosuch x").fails(1, "/nosuch");
    bench.rbc("rm box").ok();
    bench.rbc("rm box").fails(1, "no such container");
    bench.rbc("rm -f box").ok();
}

#[test]
fn an_ordinary_user_builds_too() {
    need("setpriv", "util-linux");
    let bench = Bench::new();
    image::busybox().write_oci(&bench.path("busybox.tar"), "busybox:latest");
    bench.write("c/f", "x").write(
        "c/Dockerfile",
        "FROM busybox\nRUN id -u > /id; chown 5:6 /bin/busybox && echo chowned >> /id\nCOPY --chown=7:8 f /f\n",
    );
    let everyone = fs::Permissions::from_mode(0o777);
    fs::set_permissions(bench.path(""), everyone.clone()).unwrap();
    // The binary itself must be readable by others, whatever the folder it was built in.
    let program = bench.path("rbc");
    fs::copy(env!("CARGO_BIN_EXE_rbc"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |arguments: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(arguments.split_whitespace())
            .current_dir(bench.path(""))
            .env("RBC_ROOT", bench.path("user-state"))
            .output()
            .unwrap();
        support::Run::from(output)
    };
    as_user("load --input busybox.tar").ok();
    as_user("build -o type=oci,dest=out.tar c").ok();
    let image = Oci::read(&bench.path("out.tar"));
    assert_eq!(image.text("/id"), "0\nchowned\n");
    let files = image.files();
    assert_eq!((files["/f"].uid, files["/f"].gid), (7, 8));
    let again = as_user("build --progress plain c").ok();
    assert_eq!(again.done(), 0);
}

#[test]
fn a_step_finds_the_ssh_agent_it_was_given() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo found > /o\nRUN test -z \"$SSH_AUTH_SOCK\"\n",
    );
    let socket = bench.path("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let argument = format!("default={}", socket.display());
    bench.rbc_args(["build", "--ssh", &argument, "-o", "type=oci,dest=out.tar", "c"]).ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/o"), "found\n");
}

#[test]
fn a_command_for_another_machine_is_refused_before_anything_runs() {
    let foreign = if cfg!(target_arch = "s390x") { "ppc64le" } else { "s390x" };
    if std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        // With an interpreter the machine can, and then it must not be refused.
        eprintln!("this machine interprets s390x programs: refusing them is not tested");
        return;
    }
    let mut busybox = image::busybox();
    busybox.config["architecture"] = foreign.into();
    let bench = Bench::new();
    bench.load(&busybox, "foreign:latest");
    bench.load(&image::busybox(), "busybox:latest");
    bench.write(
        "c/Dockerfile",
        "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN echo $TARGETARCH > /o\n\
         FROM foreign\nCOPY --from=build /o /o\n",
    );
    let build = |file: &str| {
        let call = format!(
            "build --progress plain --platform linux/{foreign} -o type=oci,dest=out.tar {file}"
        );
        bench.rbc(&call)
    };
    build("c").ok();
    let image = Oci::read(&bench.path("out.tar"));
    assert_eq!(image.config["architecture"], foreign);
    bench.write("d/Dockerfile", "FROM foreign\nRUN echo 1 > /o\n");
    let run = build("d").fails(1, "cannot run programs for linux/s390x");
    assert_eq!(run.done(), 0, "{}", run.stderr);
}

#[test]
fn a_step_may_mount_one_locked_cache_twice() {
    let bench = Bench::with_busybox();
    bench.write(
        "c/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=one,target=/a,sharing=locked \
         --mount=type=cache,id=one,target=/b,sharing=locked echo same > /a/f; cat /b/f > /o\n",
    );
    // Waiting for itself, the build would never end.
    let mut child = bench
        .command()
        .args(["build", "-o", "type=oci,dest=out.tar", "c"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the build waits for its own lock");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(status.success());
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/o"), "same\n");
}
