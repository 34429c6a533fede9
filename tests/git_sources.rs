//! ADD of git repositories.

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use support::{
    Bench,
    output::Oci,
    repository::{Daemon, Repository},
    server::Server,
};

fn image(bench: &Bench) -> Oci {
    bench.rbc("build -o type=oci,dest=out.tar c").ok();
    Oci::read(&bench.path("out.tar"))
}

fn add(bench: &Bench, what: &str) {
    bench.write("c/Dockerfile", format!("FROM scratch\nADD {what} /\n"));
}

/// A repository with two commits, a tag on the first, and a branch.
fn repository(bench: &Bench) -> (Repository, String, String) {
    let repository = Repository::new(bench.path("srv/r.git"));
    repository.write("f", "first").write("doc/a/page", "page").write("run.sh", "#!/bin/sh\n");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(repository.path.join("run.sh"), mode).unwrap();
    let first = repository.commit("one");
    repository.git(&["tag", "-a", "v1", "-m", "version 1"]);
    repository.git(&["branch", "old"]);
    let second = repository.write("f", "second").commit("two");
    (repository, first, second)
}

#[test]
fn references_and_folders_of_a_repository() {
    let bench = Bench::new();
    let (_repository, first, _) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    let url = daemon.url("/r.git");
    for (reference, text) in [
        (String::new(), "second"),
        ("#main".to_owned(), "second"),
        ("#v1".to_owned(), "first"),
        ("#refs/heads/old".to_owned(), "first"),
        ("?tag=v1".to_owned(), "first"),
        ("?ref=old".to_owned(), "first"),
        (format!("#{first}"), "first"),
    ] {
        add(&bench, &format!("{url}{reference}"));
        let files = image(&bench).files();
        assert_eq!(files["/f"].data, text.as_bytes(), "{reference}");
        assert_eq!((files["/run.sh"].mode & 0o7777, files["/f"].mode & 0o7777), (0o755, 0o644));
        assert!(!files.keys().any(|path| path.starts_with("/.git")), "{files:?}");
    }
    for part in ["#main:doc/a", "?subdir=doc/a", "?ref=v1&subdir=doc/a"] {
        add(&bench, &format!("{url}{part}"));
        let paths: Vec<String> = image(&bench).files().into_keys().collect();
        assert_eq!(paths, ["/page"], "{part}");
    }
}

#[test]
fn a_moved_branch_misses_and_a_standing_one_hits() {
    let bench = Bench::new();
    let (repository, ..) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    add(&bench, &daemon.url("/r.git#main"));
    let executed = || bench.rbc("build --progress plain c").ok().done();
    assert!(executed() > 0);
    assert_eq!(executed(), 0);
    repository.write("f", "third").commit("three");
    assert!(executed() > 0);
    assert_eq!(image(&bench).text("/f"), "third");
}

#[test]
fn a_server_of_plain_files_will_do() {
    let (bench, server) = (Bench::new(), Server::start());
    let (repository, first, _) = repository(&bench);
    repository.git(&["gc", "-q"]);
    repository.git(&["update-server-info"]);
    server.set_folder(&bench.path("srv"));
    fs::rename(bench.path("srv/r.git/.git"), bench.path("srv/bare.git")).unwrap();
    for (reference, text) in
        [("", "second"), ("#v1", "first"), ("#main", "second"), (&format!("#{first}"), "first")]
    {
        add(&bench, &format!("{}{reference}", server.url("/bare.git")));
        assert_eq!(image(&bench).text("/f"), text, "{reference}");
    }
}

#[test]
fn the_repository_is_kept_if_asked() {
    let bench = Bench::new();
    let (_repository, first, second) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    for (reference, commit) in [("#main", &second), ("#v1", &first)] {
        add(&bench, &format!("--keep-git-dir {}{reference}", daemon.url("/r.git")));
        bench.rbc("build -o type=local,dest=out c").ok();
        let out = Repository { path: bench.path("out") };
        assert_eq!(out.git(&["rev-parse", "HEAD"]), **commit);
        assert_eq!(out.git(&["status", "--porcelain"]), "");
        assert_eq!(out.git(&["rev-parse", &format!("{}^{{commit}}", &reference[1..])]), **commit);
        assert_eq!(out.git(&["remote", "get-url", "origin"]), daemon.url("/r.git"));
        assert_eq!(out.git(&["rev-list", "--count", "HEAD"]), "1", "no history");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
}

#[test]
fn a_checksum_is_the_beginning_of_the_commit() {
    let bench = Bench::new();
    let (_repository, first, second) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    let url = daemon.url("/r.git");
    for good in [
        format!("--checksum={second} {url}#main"),
        format!("{url}?tag=v1&checksum={}", &first[..12]),
    ] {
        add(&bench, &good);
        image(&bench);
    }
    add(&bench, &format!("--checksum={first} {url}#main"));
    bench.rbc("build c").fails(1, &format!("expected checksum to match {first}, got {second}"));
}

#[test]
fn submodules_come_along_unless_refused() {
    let bench = Bench::new();
    let (repository, ..) = repository(&bench);
    let inner = Repository::new(bench.path("srv/inner.git"));
    inner.write("inside", "inner").commit("inner");
    let daemon = Daemon::start(&bench.path("srv"));
    repository.git(&["submodule", "--quiet", "add", "../inner.git", "sub"]);
    repository.commit("submodule");
    add(&bench, &daemon.url("/r.git#main"));
    let files = image(&bench).files();
    assert_eq!(files["/sub/inside"].data, b"inner");
    assert!(!files.contains_key("/sub/.git"), "it would lead nowhere");
    add(&bench, &daemon.url("/r.git?ref=main&submodules=false"));
    assert!(!image(&bench).files().contains_key("/sub/inside"));
}

#[test]
fn a_submodule_cannot_name_files_of_this_machine() {
    let bench = Bench::new();
    let (repository, ..) = repository(&bench);
    let secret = Repository::new(bench.path("secret"));
    secret.write("key", "private").commit("secret");
    repository.git(&["submodule", "--quiet", "add", bench.path("secret").to_str().unwrap(), "sub"]);
    repository.commit("submodule");
    let daemon = Daemon::start(&bench.path("srv"));
    add(&bench, &daemon.url("/r.git#main"));
    bench.rbc("build c").fails(1, "transport 'file' not allowed");
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let bench = Bench::new();
    let (repository, ..) = repository(&bench);
    std::os::unix::fs::symlink("/etc", repository.path.join("link")).unwrap();
    repository.commit("link");
    let daemon = Daemon::start(&bench.path("srv"));
    add(&bench, &daemon.url("/r.git#main:link"));
    bench.rbc("build c").fails(1, "invalid subdir link: it is not a folder");
    add(&bench, &daemon.url("/r.git#main:none"));
    bench.rbc("build c").fails(1, "invalid subdir none");
}

#[test]
fn what_is_not_there_is_told() {
    let bench = Bench::new();
    let (_repository, ..) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    add(&bench, &daemon.url("/r.git#none"));
    bench.rbc("build c").fails(1, "does not contain ref none");
    add(&bench, &daemon.url("/missing.git"));
    bench.rbc("build c").fails(1, "failed to fetch remote");
    add(&bench, &daemon.url("/r.git#--upload-pack=id"));
    bench.rbc("build c").fails(1, "invalid git ref");
    add(&bench, &daemon.url("/r.git"));
    let output = bench.command().args(["build", "c"]).env("PATH", "/nowhere").output().unwrap();
    support::Run::from(output).fails(1, "git sources need the program git");
}

#[test]
fn a_configuration_of_the_user_has_no_say() {
    let bench = Bench::new();
    let (_repository, ..) = repository(&bench);
    let daemon = Daemon::start(&bench.path("srv"));
    let config =
        format!("[core]\n\thooksPath = {0}/hooks\n\tautocrlf = true\n", bench.path("").display());
    bench.write("home/.gitconfig", config);
    bench.write(
        "hooks/post-checkout",
        format!("#!/bin/sh\ntouch {}\n", bench.path("ran").display()),
    );
    fs::set_permissions(bench.path("hooks/post-checkout"), fs::Permissions::from_mode(0o755))
        .unwrap();
    add(&bench, &daemon.url("/r.git"));
    let mut command = bench.command();
    command.args(["build", "-o", "type=oci,dest=out.tar", "c"]).env("HOME", bench.path("home"));
    support::Run::from(command.output().unwrap()).ok();
    assert_eq!(Oci::read(&bench.path("out.tar")).text("/run.sh"), "#!/bin/sh\n");
    assert!(!bench.path("ran").exists());
}
