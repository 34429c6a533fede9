//! Build contexts that are not folders of this machine: git repositories, archives, Dockerfiles.

mod support;

use std::{
    fs::File,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use support::{
    Bench, Run,
    image::add,
    output::Oci,
    repository::{Daemon, Repository},
    server::{Answer, Server},
};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\n";

fn build(bench: &Bench, arguments: &str) -> Oci {
    bench.rbc(&format!("build -o type=oci,dest=out.tar {arguments}")).ok();
    Oci::read(&bench.path("out.tar"))
}

/// A tar of a context with a second Dockerfile and an ignore file.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "Dockerfile", DOCKERFILE.as_bytes());
    add(&mut tar, "sub/Other", b"FROM scratch\nCOPY data /other\n");
    add(&mut tar, "data", b"data");
    add(&mut tar, ".dockerignore", b"data\n");
    tar.into_inner().unwrap()
}

/// The bytes, packed by the machine's own gzip.
fn gzip(bench: &Bench, bytes: &[u8]) -> Vec<u8> {
    bench.write("plain", bytes);
    let output = Command::new("gzip").arg("-c").arg(bench.path("plain")).output().expect("gzip");
    output.stdout
}

fn from_stdin(bench: &Bench, bytes: &[u8], arguments: &str) -> Run {
    bench.write("stdin", bytes);
    let stdin = Stdio::from(File::open(bench.path("stdin")).unwrap());
    let mut command = bench.command();
    command.args(["build", "-o", "type=oci,dest=out.tar"]).args(arguments.split_whitespace());
    Run::from(command.arg("-").stdin(stdin).output().unwrap())
}

#[test]
fn an_archive_on_standard_input() {
    let bench = Bench::new();
    for bytes in [archive(), gzip(&bench, &archive())] {
        from_stdin(&bench, &bytes, "").ok();
        // An ignore file is for what is sent: BuildKit reads none in an archive.
        assert_eq!(Oci::read(&bench.path("out.tar")).text("/all/data"), "data");
        from_stdin(&bench, &bytes, "-f sub/Other").ok();
        assert_eq!(Oci::read(&bench.path("out.tar")).text("/other"), "data");
    }
    from_stdin(&bench, &archive(), "-f none").fails(1, "cannot read the Dockerfile none");
    from_stdin(&bench, &archive()[..1300], "").fails(1, "unexpected EOF");
}

#[test]
fn a_dockerfile_on_standard_input_has_an_empty_context() {
    let bench = Bench::new();
    from_stdin(&bench, b"FROM scratch\nCOPY <<E /e\ntext\nE\n", "").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/e"), "text\n");
    from_stdin(&bench, b"FROM scratch\nCOPY f /\n", "").fails(1, "\"/f\": not found");
}

#[test]
fn a_dockerfile_in_an_archive_cannot_lead_out() {
    let bench = Bench::new();
    bench.write("outside", "FROM scratch\nLABEL a=b\n").write("ctx/f", "f");
    symlink(bench.path("outside"), bench.path("ctx/Dockerfile")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", bench.path("ctx")).unwrap();
    from_stdin(&bench, &tar.into_inner().unwrap(), "").fails(1, "outside of the build context");
}

#[test]
fn an_archive_of_the_web() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/ctx.tar.gz", Answer::body(gzip(&bench, &archive())));
    let url = server.url("/ctx.tar.gz");
    assert_eq!(build(&bench, &url).text("/all/data"), "data");
    assert_eq!(build(&bench, &format!("-f sub/Other {url}")).text("/other"), "data");
    let again = bench.rbc(&format!("build --progress plain {url}")).ok();
    assert_eq!(again.done(), 0, "{}", again.stderr);
    let missing = server.url("/none.tar");
    bench.rbc(&format!("build {missing}")).fails(1, "invalid response status 404");
}

#[test]
fn a_dockerfile_of_the_web_is_all_of_its_context() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/Dockerfile", Answer::body(DOCKERFILE));
    let files = build(&bench, &server.url("/Dockerfile")).files();
    assert_eq!(files["/all/context"].data, DOCKERFILE.as_bytes());
    assert_eq!(files["/all/context"].mode & 0o7777, 0o600);
}

#[test]
fn a_git_repository() {
    let bench = Bench::new();
    let repository = Repository::new(bench.path("srv/r.git"));
    repository.write("Dockerfile", DOCKERFILE).write("data", "main").write(".dockerignore", "data");
    repository.write("app/dockerfile", DOCKERFILE).write("app/data", "app").commit("one");
    let daemon = Daemon::start(&bench.path("srv"));
    let url = daemon.url("/r.git");
    let whole = build(&bench, &url);
    assert_eq!(whole.text("/all/data"), "main");
    assert!(!whole.files().contains_key("/all/.git"));
    // A folder of it, and the old spelling of the Dockerfile's name.
    assert_eq!(build(&bench, &format!("{url}#main:app")).text("/all/data"), "app");
    assert_eq!(build(&bench, &format!("-f app/dockerfile {url}")).text("/all/data"), "main");
    let kept = build(&bench, &format!("--build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1 {url}"));
    assert!(kept.files().contains_key("/all/.git/HEAD"));
    bench.rbc(&format!("build {url}#nosuch")).fails(1, "does not contain ref nosuch");
    bench.rbc(&format!("build {url}?what=1")).fails(1, "unexpected query");
}

#[test]
fn the_image_of_a_repository_is_the_same_at_any_time() {
    let bench = Bench::new();
    let repository = Repository::new(bench.path("srv/r.git"));
    repository.write("Dockerfile", DOCKERFILE).write("d/f", "f").commit("one");
    let daemon = Daemon::start(&bench.path("srv"));
    let manifest = |root: &str| {
        let mut command = bench.command();
        command.env("RBC_ROOT", bench.path(root));
        command.args(["build", "-o", "type=oci,dest=out.tar", &daemon.url("/r.git")]);
        Run::from(command.output().unwrap()).ok();
        Oci::read(&bench.path("out.tar")).manifest
    };
    let first = manifest("one");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(manifest("two"), first);
}

#[test]
fn named_contexts_that_are_elsewhere() {
    let (bench, server) = (Bench::new(), Server::start());
    let repository = Repository::new(bench.path("srv/r.git"));
    repository.write("sub/f", "from git").commit("one");
    let daemon = Daemon::start(&bench.path("srv"));
    server.set("/file", Answer::body("from the web"));
    let dockerfile = "FROM scratch\nCOPY --from=repo f /f\nCOPY --from=file context /g\n";
    bench.write("c/Dockerfile", dockerfile);
    let named = format!(
        "--build-context repo={}#main:sub --build-context file={}",
        daemon.url("/r.git"),
        server.url("/file")
    );
    let image = build(&bench, &format!("{named} c"));
    assert_eq!((image.text("/f"), image.text("/g")), ("from git".into(), "from the web".into()));
}

#[test]
fn a_pinned_graph_runs_with_the_context_it_was_made_from() {
    let bench = Bench::new();
    let repository = Repository::new(bench.path("srv/r.git"));
    repository.write("Dockerfile", DOCKERFILE).write("data", "one").commit("one");
    let daemon = Daemon::start(&bench.path("srv"));
    let url = daemon.url("/r.git#main");
    bench.rbc(&format!("compile --context {url} -o graph.bin")).ok();
    let run = |root: &str| {
        let mut command = bench.command();
        command.env("RBC_ROOT", bench.path(root));
        command.args(["run", "graph.bin", "--context", &url, "-o", "type=oci,dest=out.tar"]);
        Run::from(command.output().unwrap())
    };
    run("one").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/all/data"), "one");
    repository.write("data", "two").commit("two");
    // What is pinned is still in the cache, and still the same.
    run("one").ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/all/data"), "one");
    run("two").fails(1, "is not what the graph was compiled from");
}
