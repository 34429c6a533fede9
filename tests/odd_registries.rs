//! Registries that do what the specification allows but few do, and those that do what it forbids.

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{
    Bench,
    image::{self, sha256},
    registry::{PASSWORD, USER},
    scripted::{MANIFEST, Memory, Reply, Request, Scripted},
};

/// `user:secret`.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// A context whose image has a layer that is sent in pieces and one that is not.
fn write_context(bench: &Bench) {
    // Hexadecimal digits become half as long when they are compressed.
    let noise: String = (0..12_000_u32).map(|number| sha256(&number.to_le_bytes())).collect();
    bench.write("c/noise", noise);
    bench.write("c/small", "small");
    bench.write("c/Dockerfile", "FROM scratch\nCOPY noise /noise\nCOPY small /small\n");
}

/// The answer of a registry with passwords to who gives none.
fn unless_known(request: &Request, answer: impl FnOnce() -> Reply) -> Reply {
    match request.header("authorization") {
        Some(BASIC) => answer(),
        _ => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"here\""),
    }
}

fn log_in(bench: &Bench, host: &str) {
    bench.write(
        "docker/config.json",
        format!(r#"{{"auths":{{"{host}":{{"auth":"{}"}}}}}}"#, &BASIC["Basic ".len()..]),
    );
}

#[test]
fn uploads_go_where_the_registry_says_and_the_password_does_not() {
    let bench = Bench::new();
    write_context(&bench);
    let memory = Arc::new(Memory::default());
    // The place for bytes: it names its next address without a host and without a folder.
    let bytes = {
        let memory = Arc::clone(&memory);
        Scripted::start(move |request| {
            let reply = memory.answer(request);
            let next = request.path.rsplit('/').next().unwrap_or_default();
            match request.method.as_str() {
                "PATCH" => reply.header("Location", format!("{next}&part=2")),
                _ => reply,
            }
        })
    };
    let registry = {
        let (memory, elsewhere) = (Arc::clone(&memory), bytes.host.clone());
        Scripted::start(move |request| {
            unless_known(request, || {
                let mut reply = memory.answer(request);
                for (name, value) in &mut reply.headers {
                    if name == "Location" {
                        *value = format!("http://{elsewhere}{value}&sig=%2Bx%3D");
                    }
                }
                reply
            })
        })
    };
    log_in(&bench, &registry.host);
    bench.rbc(&format!("build -t {}/app:1 --push c", registry.host)).ok();
    let there = bytes.requests();
    assert!(there.iter().any(|line| line.starts_with("PATCH")), "{there:#?}");
    assert!(!there.iter().any(|line| line.contains(" as ")), "{there:#?}");
    // What was in the address is still in it, in its own spelling.
    let closed: Vec<&String> = there.iter().filter(|line| line.starts_with("PUT")).collect();
    assert!(closed.iter().all(|line| line.contains("?state=a%2Fb==&sig=%2Bx%3D&")), "{closed:#?}");
    assert!(closed.iter().any(|line| line.contains("&part=2&digest=sha256:")), "{closed:#?}");
    let other = Bench::new();
    log_in(&other, &registry.host);
    other.write("c/Dockerfile", format!("FROM {}/app:1\n", registry.host));
    other.rbc("build -o out c").ok();
    assert_eq!(other.read("out/noise"), bench.read("c/noise"));
}

#[test]
fn tokens_that_run_out_on_the_way_are_fetched_again() {
    let bench = Bench::new();
    write_context(&bench);
    let memory = Memory::default();
    let (valid, seen) = (AtomicUsize::new(1), Mutex::new(HashSet::new()));
    let registry = Scripted::start(move |request| {
        if request.path.starts_with("/token?") {
            let token = format!("token-{}", valid.load(Ordering::SeqCst));
            return Reply::status(200).body(format!(r#"{{"token":"{token}","expires_in":3600}}"#));
        }
        // Whatever the service said, no token is good any more when the bytes come, and when the
        // manifest does.
        let ends = ["PATCH", "PUT /v2/app/manifests/1"]
            .into_iter()
            .find(|end| format!("{} {}", request.method, request.path).starts_with(end));
        if ends.is_some_and(|end| seen.lock().unwrap().insert(end)) {
            valid.fetch_add(1, Ordering::SeqCst);
        }
        let good = format!("Bearer token-{}", valid.load(Ordering::SeqCst));
        if request.header("authorization") == Some(good.as_str()) {
            return memory.answer(request);
        }
        let host = request.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        Reply::status(401).header("WWW-Authenticate", challenge)
    });
    bench.rbc(&format!("build -t {}/app:1 --push c", registry.host)).ok();
    let asked = registry.requests().iter().filter(|line| line.contains("/token?")).count();
    assert!(asked >= 3, "{:#?}", registry.requests());
    bench.rbc(&format!("pull {}/app:1", registry.host)).ok();
}

#[test]
fn an_upload_goes_on_where_the_registry_says_that_it_is() {
    let bench = Bench::new();
    write_context(&bench);
    let memory = Arc::new(Memory::default());
    let patches = AtomicUsize::new(0);
    let shared = Arc::clone(&memory);
    let registry = Scripted::start(move |request| {
        if request.method != "PATCH" {
            return shared.answer(request);
        }
        let plain = request.path.split('?').next().unwrap_or_default();
        let number = plain.rsplit('/').next().unwrap().parse().expect("an upload");
        let kept = shared.uploaded(number).len();
        let from = request
            .header("content-range")
            .map_or(0, |range| range.split('-').next().unwrap().parse().expect("a range"));
        match patches.fetch_add(1, Ordering::SeqCst) {
            // It takes a part, and says that the rest does not fit there.
            0 => {
                shared.append(number, &request.body[..100_000]);
                Reply::status(416).header("Range", shared.range(number))
            }
            // It takes a part and is content.
            1 => {
                assert_eq!(from, kept);
                shared.append(number, &request.body[..50_000]);
                Reply::status(202).header("Range", shared.range(number))
            }
            _ => {
                assert_eq!(from, kept);
                shared.answer(request)
            }
        }
    });
    bench.rbc(&format!("build -t {}/app:1 --push c", registry.host)).ok();
    let patches = registry.requests().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(patches, 3, "{:#?}", registry.requests());
    assert!(memory.has("1"));
    bench.rbc(&format!("pull {}/app:1", registry.host)).ok();
}

#[test]
fn a_web_page_is_no_registry() {
    let bench = Bench::new();
    write_context(&bench);
    let portal = Scripted::start(|_| {
        Reply::status(200)
            .header("Content-Type", "text/html; charset=utf-8")
            .body("<!doctype html><title>Welcome to our network</title>")
    });
    let host = &portal.host;
    let says = format!("{host} answered with a web page");
    bench.rbc(&format!("pull {host}/app:1")).fails(1, &says);
    bench.rbc(&format!("build -t {host}/app:1 --push c")).fails(1, &says);
    bench.rbc(&format!("login -u {USER} -p {PASSWORD} {host}")).fails(1, &says);
}

#[test]
fn waits_are_as_long_as_the_registry_says_within_reason() {
    let bench = Bench::new();
    let memory = Memory::default();
    write_context(&bench);
    let asked = AtomicUsize::new(0);
    // Numbers that fit nowhere and dates that are over are no reason not to try again.
    let values = ["0", "99999999999999999999999999", "-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"];
    let busy = Scripted::start(move |request| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        match values.get(number / 2) {
            Some(value) if number.is_multiple_of(2) => {
                Reply::status(429).header("Retry-After", *value)
            }
            _ => memory.answer(request),
        }
    });
    bench.rbc(&format!("build -t {}/app:1 --push c", busy.host)).ok();
    let closed = Scripted::start(|_| {
        Reply::status(429).header("Retry-After", "86400").body(
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#,
        )
    });
    let run = bench
        .rbc(&format!("pull {}/app:1", closed.host))
        .fails(1, "answered 429 Too Many Requests: You have reached your limit");
    assert!(run.stderr.contains("wants to be asked again in 24 h"), "{}", run.stderr);
    assert_eq!(closed.requests().iter().filter(|line| line.contains("manifests")).count(), 1);
}

#[test]
fn nothing_goes_on_for_ever() {
    let bench = Bench::new();
    let pull = |answer: fn(&Request) -> Reply| {
        let registry = Scripted::start(answer);
        (bench.rbc(&format!("pull {}/app:1", registry.host)), registry)
    };
    let (run, registry) =
        pull(|request| Reply::status(307).header("Location", format!("{}x", request.path)));
    run.fails(1, "redirects too often");
    let asked = registry.requests().iter().filter(|line| line.contains("manifests")).count();
    assert!(asked < 20, "{asked}");
    let (run, _registry) = pull(|request| match request.path.as_str() {
        "/v2/" => Reply::status(200),
        _ => Reply::status(200).header("Content-Type", MANIFEST).body(" ".repeat(9 << 20)),
    });
    run.fails(1, "longer than the limit of 4194304 bytes");
    let (run, _registry) = pull(|request| match request.path.as_str() {
        "/v2/" => Reply::status(200),
        _ => (0..300_000).fold(Reply::status(200), |reply, n| reply.header("X", n.to_string())),
    });
    run.fails(1, "cannot reach");
}

#[test]
fn a_slow_registry_is_waited_for_and_shows_what_came() {
    let bench = Bench::new();
    let memory = Memory::default();
    let tar = image::tar_of("f", b"slowly");
    memory.image("1", &tar, "application/vnd.oci.image.layer.v1.tar");
    let layer = format!("sha256:{}", sha256(&tar));
    let registry = Scripted::start(move |request| {
        let mut reply = memory.answer(request);
        if request.path.ends_with(&layer) {
            reply.pieces = Some((64, Duration::from_millis(5)));
        }
        reply
    });
    bench.write("c/Dockerfile", format!("FROM {}/app:1\n", registry.host));
    let run = bench.rbc("build --progress rawjson -o out c").ok();
    assert_eq!(bench.read("out/f"), "slowly");
    let seen: Vec<&str> =
        run.stderr.lines().filter(|line| line.contains("\"event\":\"progress\"")).collect();
    assert!(seen.len() > 2, "{}", run.stderr);
    // Lines for a log tell how much it was.
    let other = Bench::new();
    other.write("c/Dockerfile", bench.read("c/Dockerfile"));
    let run = other.rbc("build --progress plain -o out c").ok();
    assert!(run.stderr.contains(" 0.0 MB\n#1 DONE"), "{}", run.stderr);
}

#[test]
fn layers_that_may_not_be_passed_on_are_left_where_they_are() {
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ] {
        let bench = Bench::new();
        let memory = Memory::default();
        let tar = image::tar_of("f", b"not to be passed on");
        memory.image("1", &tar, media_type);
        let origin = Scripted::start(move |request| memory.answer(request));
        let target = Arc::new(Memory::default());
        let shared = Arc::clone(&target);
        let registry = Scripted::start(move |request| shared.answer(request));
        bench.rbc(&format!("pull {}/app:1", origin.host)).ok();
        bench.rbc(&format!("push {}/app:1 {}/app:1", origin.host, registry.host)).ok();
        assert!(target.has("1"));
        // The config alone.
        let uploads = registry.requests().iter().filter(|line| line.starts_with("POST")).count();
        assert_eq!(uploads, 1, "{media_type}: {:#?}", registry.requests());
    }
}
