//! ADD of files of the web and of git repositories, and contexts that are elsewhere.

mod support;

use support::{
    Bench,
    image::sha256,
    output::Oci,
    server::{Answer, Server},
};

const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const DATE_SECONDS: u64 = 1_445_412_480;

/// Builds the Dockerfile in `c` and reads the image.
fn image(bench: &Bench) -> Oci {
    bench.rbc("build -o type=oci,dest=out.tar c").ok();
    Oci::read(&bench.path("out.tar"))
}

fn dockerfile(bench: &Bench, text: &str) {
    bench.write("c/Dockerfile", text);
}

/// How many steps a build of `c` executes.
fn executed(bench: &Bench) -> usize {
    bench.rbc("build --progress plain c").ok().done()
}

#[test]
fn a_file_of_the_web_is_added_with_its_time() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/d/tool.bin?v=1", Answer::body("content").header("Last-Modified", DATE));
    server.set("/old", Answer::body("no time"));
    dockerfile(
        &bench,
        &format!(
            "FROM scratch\nADD {} /bin/\nADD {} /renamed\n",
            server.url("/d/tool.bin?v=1"),
            server.url("/old")
        ),
    );
    let image = image(&bench);
    assert_eq!(image.text("/bin/tool.bin"), "content");
    let files = image.files();
    let entry = &files["/bin/tool.bin"];
    assert_eq!((entry.mode & 0o7777, entry.mtime), (0o600, DATE_SECONDS));
    assert_eq!(files["/renamed"].mtime, 0);
    assert_eq!(server.requests().len(), 2, "each file is sent once");
}

#[test]
fn a_changed_file_misses_and_an_unchanged_one_hits() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/f", Answer::body("one").header("ETag", "\"1\""));
    dockerfile(&bench, &format!("FROM scratch\nADD {} /f\n", server.url("/f")));
    assert!(executed(&bench) > 0);
    assert_eq!(executed(&bench), 0);
    assert_eq!(server.requests(), ["/f", "/f 304"], "an unchanged file is not sent again");
    server.set("/f", Answer::body("two").header("ETag", "\"2\""));
    assert!(executed(&bench) > 0);
    assert_eq!(image(&bench).text("/f"), "two");
    // Without an ETag only the content tells.
    server.set("/f", Answer::body("two"));
    assert_eq!(executed(&bench), 0);
    server.set("/f", Answer::body("six"));
    assert!(executed(&bench) > 0);
}

#[test]
fn a_checksum_is_checked_and_saves_the_request() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/f", Answer::body("right"));
    let add = |content: &str| {
        let checksum = sha256(content.as_bytes());
        format!("FROM scratch\nADD --checksum=sha256:{checksum} {} /f\n", server.url("/f"))
    };
    dockerfile(&bench, &add("wrong"));
    let run = bench.rbc("build c").fails(1, "digest mismatch for http://127.0.0.1");
    assert!(run.stderr.contains(&sha256(b"right")), "{}", run.stderr);
    dockerfile(&bench, &add("right"));
    assert_eq!(image(&bench).text("/f"), "right");
    server.requests();
    server.set("/f", Answer { status: 500, ..Answer::default() });
    assert_eq!(executed(&bench), 0);
    assert!(server.requests().is_empty());
}

#[test]
fn redirects_are_followed_and_refusals_told() {
    let (bench, server) = (Bench::new(), Server::start());
    let to = |path: &str| {
        Answer { status: 302, ..Answer::default() }.header("Location", server.url(path))
    };
    server.set("/a", to("/b"));
    server.set("/b", to("/c"));
    server.set("/c", Answer::body("there"));
    server.set("/loop", to("/loop"));
    dockerfile(&bench, &format!("FROM scratch\nADD {} /d/\n", server.url("/a")));
    assert_eq!(image(&bench).text("/d/a"), "there");
    dockerfile(&bench, &format!("FROM scratch\nADD {} /d/\n", server.url("/loop")));
    bench.rbc("build c").fails(1, "redirect");
    dockerfile(&bench, &format!("FROM scratch\nADD {} /d/\n", server.url("/none")));
    bench.rbc("build c").fails(1, "invalid response status 404");
}

#[test]
fn a_passing_failure_is_survived_and_a_short_body_is_not_taken() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/f", Answer { failures: 2, ..Answer::body("late") });
    dockerfile(&bench, &format!("FROM scratch\nADD {} /f\n", server.url("/f")));
    assert_eq!(image(&bench).text("/f"), "late");
    assert_eq!(server.requests().len(), 3);
    server.set("/f", Answer { withheld: 3, ..Answer::body("truncated") });
    bench.rbc("build c").fails(1, "broke off after");
    assert_eq!(server.requests().len(), 4);
    drop(server);
    bench.rbc("build c").fails(1, "127.0.0.1");
}

#[test]
fn a_remote_archive_is_unpacked_only_if_asked() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut tar = tar::Builder::new(Vec::new());
    support::image::add(&mut tar, "inner.txt", b"inside");
    server.set("/a.tar", Answer::body(tar.into_inner().unwrap()));
    let url = server.url("/a.tar");
    dockerfile(&bench, &format!("FROM scratch\nADD {url} /p/\nADD --unpack=true {url} /u/\n"));
    let image = image(&bench);
    assert_eq!(image.text("/u/inner.txt"), "inside");
    let files = image.files();
    assert!(files.contains_key("/p/a.tar") && !files.contains_key("/p/inner.txt"));
}

#[test]
fn a_pinned_graph_refuses_another_file() {
    let (bench, server) = (Bench::new(), Server::start());
    server.set("/f", Answer::body("pinned"));
    dockerfile(&bench, &format!("FROM scratch\nADD {} /f\n", server.url("/f")));
    bench.rbc("compile --context c -o graph.bin c/Dockerfile").ok();
    let run = |root: &str| {
        let mut command = bench.command();
        command.env("RBC_ROOT", bench.path(root));
        command.args(["run", "graph.bin", "--context", "c", "-o", "type=oci,dest=out.tar"]);
        support::Run::from(command.output().unwrap())
    };
    run("other").ok();
    server.set("/f", Answer::body("another"));
    run("third").fails(1, "digest mismatch");
}
