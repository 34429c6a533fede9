//! What comes out of a build, as other tools read it.

mod support;

use std::{fs, process::Command};

use support::{Bench, need, output::Oci};

const DOCKERFILE: &str = "FROM busybox AS made
RUN mkdir /d && echo data > /d/f && ln -s f /d/l && chmod 750 /d
FROM busybox
COPY --from=made /d /d
RUN rm /etc/group && echo 1 > /made
ENV A=1
CMD [\"cat\", \"/d/f\"]
";

fn built(outputs: &str) -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", DOCKERFILE);
    bench.rbc(&format!("build {outputs} c")).ok();
    bench
}

/// Runs a tool that must succeed, and gives what it printed.
#[track_caller]
fn tool(bench: &Bench, program: &str, arguments: &str) -> String {
    need(program, program);
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .current_dir(bench.path(""))
        .output()
        .expect("the tool starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn skopeo_and_umoci_read_an_oci_archive() {
    let bench = built("-o type=oci,dest=out.tar");
    let config = tool(&bench, "skopeo", "inspect --config oci-archive:out.tar");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "/d/f"]));
    tool(&bench, "skopeo", "--insecure-policy copy oci-archive:out.tar oci:layout:x");
    tool(&bench, "umoci", "unpack --image layout:x bundle");
    assert_eq!(bench.read("bundle/rootfs/d/f"), "data\n");
    assert!(!bench.path("bundle/rootfs/etc/group").exists());
}

#[test]
fn skopeo_reads_a_docker_archive() {
    let bench = built("-t org/app:1 -o type=docker,dest=out.tar");
    let config = tool(&bench, "skopeo", "inspect --config docker-archive:out.tar");
    assert!(config.contains("\"A=1\""), "{config}");
    let names = Command::new("tar")
        .args(["-xOf", "out.tar", "manifest.json"])
        .current_dir(bench.path(""))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&names.stdout).contains("org/app:1"));
}

#[test]
fn a_folder_gets_the_files_of_the_last_stage() {
    let bench = built("-o out");
    assert_eq!(bench.read("out/d/f"), "data\n");
    assert_eq!(bench.read("out/made"), "1\n");
    assert_eq!(fs::read_link(bench.path("out/d/l")).unwrap().to_str(), Some("f"));
    assert!(!bench.path("out/etc/group").exists());
}

#[test]
fn a_dash_gives_a_tar_on_standard_output() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM scratch\nCOPY f /f\n").write("c/f", "content");
    let run = bench.rbc("build -o - c").ok();
    let mut archive = tar::Archive::new(run.stdout_bytes.as_slice());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["f"]);
}

#[test]
fn several_outputs_come_from_one_build() {
    let bench = built("-t kept:1 -o type=oci,dest=a.tar -o type=tar,dest=b.tar -o c-out");
    assert!(bench.path("a.tar").exists() && bench.path("b.tar").exists());
    assert!(bench.path("c-out/made").exists());
}

#[test]
fn the_same_graph_gives_the_same_bytes_on_another_state_folder() {
    let bench = Bench::with_busybox();
    bench.write("f", "content").write(
        "Dockerfile",
        "FROM busybox\nCOPY f /x/f\nRUN echo made > /made; mkdir /many; for i in 1 2 3; do echo $i > /many/$i; done\nWORKDIR /w\n",
    );
    let graph = bench.rbc("compile Dockerfile").ok();
    bench.write("graph.bin", &graph.stdout_bytes);
    bench.rbc("run graph.bin -o type=oci,dest=one.tar -o type=docker,dest=one-docker.tar").ok();
    // The clock must move on, or the test would prove nothing.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let other = Bench::with_busybox();
    other.write("graph.bin", &graph.stdout_bytes).write("f", "content");
    fs::copy(bench.path("f"), other.path("f")).unwrap();
    let modified = fs::metadata(bench.path("f")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(other.path("f")).unwrap().set_modified(modified).unwrap();
    other
        .rbc("run graph.bin -j 1 -o type=oci,dest=two.tar -o type=docker,dest=two-docker.tar")
        .ok();
    for (one, two) in [("one.tar", "two.tar"), ("one-docker.tar", "two-docker.tar")] {
        assert!(fs::read(bench.path(one)).unwrap() == fs::read(other.path(two)).unwrap(), "{one}");
    }
}

#[test]
fn source_date_epoch_is_the_time_of_everything_newer() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo 1 > /made\nCOPY f /f\n").write("c/f", "x");
    let mut command = bench.command();
    command
        .args(["build", "-o", "type=oci,dest=out.tar", "c"])
        .env("SOURCE_DATE_EPOCH", "1500000000");
    assert!(command.output().unwrap().status.success());
    let image = Oci::read(&bench.path("out.tar"));
    let files = image.files();
    assert_eq!((files["/made"].mtime, files["/f"].mtime), (1_500_000_000, 1_500_000_000));
    assert_eq!(image.config["created"], "2017-07-14T02:40:00Z");
}

#[test]
fn images_are_named_listed_saved_loaded_and_removed() {
    let bench = built("-t org/app:1 -t org/app:2");
    let list = bench.rbc("images").ok().stdout;
    assert!(list.contains("org/app") && list.lines().count() == 4, "{list}");
    bench.rbc("save -o saved.tar org/app:1").ok();
    bench.rbc("rmi org/app:1 org/app:2").ok();
    assert!(!bench.rbc("images").ok().stdout.contains("org/app"));
    bench.rbc("load --input saved.tar").ok();
    assert!(bench.rbc("images").ok().stdout.contains("org/app"));
    bench.write("d/Dockerfile", "FROM org/app:1\nRUN test -e /made\n");
    bench.rbc("build d").ok();
    bench.rbc("rmi nosuch").fails(1, "nosuch");
}

#[test]
fn a_failed_build_leaves_the_old_output_alone() {
    let bench = built("-o type=oci,dest=out.tar");
    let before = fs::read(bench.path("out.tar")).unwrap();
    bench.write("c/Dockerfile", "FROM busybox\nRUN false\n");
    bench.rbc("build -o type=oci,dest=out.tar c").fails(1, "exit code: 1");
    assert!(fs::read(bench.path("out.tar")).unwrap() == before);
}

#[test]
fn messages_that_nobody_can_read_do_not_crash() {
    let bench = Bench::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = bench.command().args(["build", "missing"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let status = bench.command().args(["completions", "bash"]).stdout(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn an_archive_whose_reader_goes_away_is_a_failure() {
    let bench = Bench::with_busybox();
    let mut save = bench
        .command()
        .args(["save", "busybox"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(save.stdout.take());
    assert_eq!(save.wait().unwrap().code(), Some(1));
}

#[test]
fn a_file_that_cannot_be_written_at_the_end_is_told_at_the_start() {
    let bench = Bench::with_busybox();
    bench.write("Dockerfile", "FROM busybox\nRUN true\n");
    for option in ["--iidfile", "--metadata-file"] {
        let run = bench.rbc(&format!("build {option} nowhere/id ."));
        let run = run.fails(2, &format!("{option}: there is no folder nowhere"));
        assert!(!run.stderr.contains("RUN true"), "{}", run.stderr);
    }
    bench.rbc("build --pull=false --no-cache=true --iidfile=id -q=true .").ok();
    assert!(bench.read("id").starts_with("sha256:"));
}

#[test]
fn annotations_go_to_the_manifest_the_index_and_their_entries() {
    let bench = Bench::new();
    bench.write("c/Dockerfile", "FROM scratch\nCOPY f /f\n").write("c/f", "x");
    let platforms = "--platform linux/amd64,linux/arm64";
    bench
        .rbc(&format!(
            "build {platforms} --annotation a=1 --annotation index,manifest-descriptor:b=2 \
             -o type=oci,tar=false,dest=out,annotation-manifest[linux/arm64].c=3 c"
        ))
        .ok();
    let json =
        |path: String| -> serde_json::Value { serde_json::from_str(&bench.read(&path)).unwrap() };
    let blob = |digest: &serde_json::Value| {
        json(format!("out/blobs/{}", digest.as_str().unwrap().replace(':', "/")))
    };
    let index = blob(&json("out/index.json".to_owned())["manifests"][0]["digest"]);
    assert_eq!(index["annotations"], serde_json::json!({"b": "2"}));
    for (at, want) in
        [(0, serde_json::json!({"a": "1"})), (1, serde_json::json!({"a": "1", "c": "3"}))]
    {
        let entry = &index["manifests"][at];
        assert_eq!(entry["annotations"], serde_json::json!({"b": "2"}));
        assert_eq!(blob(&entry["digest"])["annotations"], want);
    }
    bench
        .rbc("build --annotation index:b=2 -o type=oci,dest=o.tar c")
        .fails(1, "annotations of the index need an index");
    bench.rbc("build --annotation layer:b=2 c").fails(2, "not on \"layer\"");
}

#[test]
fn layers_are_packed_as_hard_as_asked_for() {
    let bench = Bench::new();
    bench.write("c/Dockerfile", "FROM scratch\nCOPY f /f\n");
    let words: String =
        (0..60_000_u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) % 997)).collect();
    bench.write("c/f", words);
    let size = |fields: &str| {
        bench.rbc(&format!("build -o type=oci,dest=out.tar,{fields} c")).ok();
        fs::metadata(bench.path("out.tar")).unwrap().len()
    };
    for kind in ["gzip", "zstd"] {
        let quick = size(&format!("compression={kind},compression-level=1"));
        let hard = size(&format!("compression={kind},compression-level=9"));
        assert!(hard < quick, "{kind}: {hard} {quick}");
    }
    bench.rbc("build -o type=oci,dest=x.tar,compression-level=12 c").fails(2, "0 to 9 for gzip");
}

#[test]
fn a_build_for_the_cache_puts_nothing_out() {
    let bench = Bench::with_busybox();
    let images = bench.rbc("images").ok().stdout;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    bench.rbc("build -o type=cacheonly c").ok();
    assert_eq!(bench.rbc("images").ok().stdout, images);
    let again = bench.rbc("build --progress plain -o type=cacheonly c").ok().stderr;
    assert!(again.contains("CACHED"), "{again}");
}
