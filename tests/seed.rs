//! The three ways of shipping a small image of a Go program: the old builder pattern with two
//! Dockerfiles, multi-stage with `COPY --from=0`, and multi-stage with a named builder.
//!
//! The images stand in for those of Docker Hub and are made from Debian's packages: golang-go and
//! golang-golang-x-net-dev for `golang`, busybox-static for `alpine`.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
};

use support::{
    Bench,
    image::{Image, Maker},
    output::{Entry, Oci},
    toolchain::golang,
};

const APP: &str = include_str!("seed/app.go");

/// busybox with an `apk` that installs what it carries.
fn alpine() -> Image {
    Maker::new()
        .busybox()
        .file("/etc/alpine-release", 0o644, "3.19.0\n")
        .dir("/sbin", 0o755)
        .dir("/usr", 0o755)
        .dir("/usr/share", 0o755)
        .host("/etc/ssl/certs/ca-certificates.crt", "/usr/share/ca-certificates.crt")
        .file(
            "/sbin/apk",
            0o755,
            "#!/bin/sh\nset -e\n[ \"$*\" = '--no-cache add ca-certificates' ]\n\
             mkdir -p /etc/ssl/certs\n\
             cp /usr/share/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\n\
             echo 'OK: installed ca-certificates'\n",
        )
        .env("PATH=/bin:/sbin:/usr/bin")
        .finish()
}

/// Certificates and nothing else.
fn distroless() -> Image {
    let mut maker = Maker::new();
    for dir in ["/etc", "/etc/ssl", "/etc/ssl/certs"] {
        maker = maker.dir(dir, 0o755);
    }
    maker
        .host("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
        .file("/etc/passwd", 0o644, "root:x:0:0:root:/:/sbin/nologin\n")
        .finish()
}

/// Serves a page with three links within its site and two out of it, on loopback.
fn serve_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming().take(20).flatten() {
            let _ = answer(stream);
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let page = "<html><body><a href='/a'>a</a><a href='/b'>b</a><a href='c'>c</a>\
                <a href='http://example.com'>d</a><a href='https://example.org'>e</a></body></html>";
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
}

const COUNTED: &str = r#"{"internal":3,"external":2}"#;

/// Runs the program of an image, in a container and out of it, against a page on loopback.
fn check_image(bench: &Bench, name: &str, program: &str) {
    let page = serve_page();
    bench.rbc(&format!("save --format oci -o saved.tar {name}")).ok();
    let files = Oci::read(&bench.path("saved.tar")).files();
    assert_no_toolchain(&files);

    let binary = bench.path("app-outside");
    fs::write(&binary, &files[program].data).expect("a writable folder");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("an own file");
    let output = Command::new(&binary).env("url", &page).output().expect("the program starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), COUNTED);

    bench.write("probe/Dockerfile", format!("FROM {name}\nENV url={page}\nRUN [\"{program}\"]\n"));
    let run = bench.rbc("build --no-cache --progress plain probe").ok();
    assert!(run.stderr.contains(COUNTED), "{}", run.stderr);
}

fn assert_no_toolchain(files: &BTreeMap<String, Entry>) {
    let left: Vec<&String> = files
        .keys()
        .filter(|path| path.starts_with("/usr/local/go") || path.starts_with("/go"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!files.contains_key(Path::new("/go").to_str().unwrap()));
}

const BUILD_STAGE: &str = "WORKDIR /go/src/github.com/alexellis/href-counter/
RUN go get -d -v golang.org/x/net/html
COPY app.go    .
RUN CGO_ENABLED=0 GOOS=linux go build -a -installsuffix cgo -o app .
";

#[test]
fn the_three_ways_to_ship_a_go_program() {
    let bench = Bench::new();
    bench.load(&golang(), "golang:1.19");
    bench.load(&alpine(), "alpine:latest");
    bench.load(&distroless(), "distroless/static:latest");
    bench.write("app.go", APP);

    // (a) One Dockerfile builds, a second one packs, and the program is carried between them.
    bench.write("Dockerfile.build", format!("FROM golang:1.19\n{BUILD_STAGE}"));
    bench.write(
        "Dockerfile",
        "FROM alpine:latest\nRUN apk --no-cache add ca-certificates\nWORKDIR /root/\nCOPY app .\nCMD [\"./app\"]\n",
    );
    bench.rbc("build -t org/href-counter:build . -f Dockerfile.build").ok();
    bench.rbc("create --name extract org/href-counter:build").ok();
    bench.rbc("cp extract:/go/src/github.com/alexellis/href-counter/app ./app").ok();
    bench.rbc("rm -f extract").ok();
    bench.rbc("build --no-cache -t org/href-counter:latest .").ok();
    check_image(&bench, "org/href-counter:latest", "/root/app");
    fs::remove_file(bench.path("app")).expect("the program that was carried");

    // (b) Both in one, by number.
    bench.write(
        "Dockerfile",
        format!(
            "FROM golang:1.19\n{BUILD_STAGE}\nFROM alpine:latest\n\
             RUN apk --no-cache add ca-certificates\nWORKDIR /root/\n\
             COPY --from=0 /go/src/github.com/alexellis/href-counter/app .\nCMD [\"./app\"]\n"
        ),
    );
    let run = bench.rbc("build --progress plain -t org/href-counter:multi .").ok();
    assert!(run.cached() >= 4, "the steps of the first way are known:\n{}", run.stderr);
    check_image(&bench, "org/href-counter:multi", "/root/app");

    // (c) By name, ending in an image without even a shell.
    bench.write(
        "Dockerfile",
        format!(
            "FROM golang:1.19 as builder\n{BUILD_STAGE}\nFROM distroless/static\n\
             COPY --from=builder /go/src/github.com/alexellis/href-counter/app /app\nCMD [\"/app\"]\n"
        ),
    );
    bench.rbc("build -t org/href-counter:tiny .").ok();
    check_image(&bench, "org/href-counter:tiny", "/app");
    let again = bench.rbc("build --progress plain -t org/href-counter:tiny .").ok();
    assert_eq!(again.done(), 0, "{}", again.stderr);
}
