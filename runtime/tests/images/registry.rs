//! Pulling from Debian's registry, and from servers that misbehave.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rbc_ir::{Digest, Platform};
use rbc_runtime::{
    image::{self, Reference},
    registry::{self, Client, ClientOptions, CredentialFiles},
};

use crate::support::{LayoutDir, Place, Registry, tar_of};

#[test]
fn images_are_pulled_by_tag_and_digest() {
    let (place, registry) = (Place::new(), Registry::start());
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    registry.push(&layout.path, "sample:v1");
    let client = Client::new();
    let name: Reference = format!("{}/sample:v1", registry.host).parse().expect("name");
    let fetched = AtomicU64::new(0);
    let count = |_: &image::Descriptor, _: u64| {
        fetched.fetch_add(1, Ordering::Relaxed);
    };
    let host = Platform::host();
    let image = registry::pull(&client, &place.store, &name, &host, &count).expect("pull");
    assert_eq!(image.config.config.env, ["A=b"]);
    assert!(fetched.swap(0, Ordering::Relaxed) > 0);
    // All blobs are there now, and pulled images are not listed but kept.
    registry::pull(&client, &place.store, &name, &host, &count).expect("pull again");
    assert_eq!(fetched.load(Ordering::Relaxed), 0);
    assert!(image::list(&place.store).expect("list").is_empty());
    assert!(image::sweep(&place.store).expect("sweep").0.is_empty());
    let manifest = image.descriptor.digest;
    let other = Place::new();
    registry::fetch(&client, &other.store, &name, &manifest, &count).expect("fetch");
    assert_eq!(image::layers_of(&other.store, &manifest).expect("layers").len(), 2);
    let mut other = other;
    other.reopen();
    image::forget_pulled(&other.store).expect("forget");
    assert_eq!(image::sweep(&other.store).expect("sweep").0.len(), 4);
}

#[test]
fn the_platform_is_chosen_from_an_index() {
    let (place, registry) = (Place::new(), Registry::start());
    let mut layout = LayoutDir::new(place.path("layout"));
    let images = ["linux/amd64", "linux/arm64", "linux/arm/v6"]
        .map(|platform| layout.image(platform, &[tar_of(&[("arch", platform.as_bytes())])]));
    let index = layout.index(images.to_vec());
    layout.list(index, None);
    registry.push(&layout.path, "multi:1");
    let client = Client::new();
    let name: Reference = format!("{}/multi:1", registry.host).parse().expect("name");
    let pull = |platform: &str| {
        let platform = platform.parse().expect("platform");
        registry::pull(&client, &place.store, &name, &platform, &|_, _| {})
    };
    assert_eq!(pull("linux/arm/v7").expect("arm").descriptor.digest, images[2].digest);
    assert_eq!(pull("linux/arm64").expect("arm64").descriptor.digest, images[1].digest);
    let error = pull("linux/s390x").expect_err("no such platform").to_string();
    let want = "no image for linux/s390x; there is linux/amd64, linux/arm64, linux/arm/v6";
    assert_eq!(error, format!("{}: {want}", name.familiar()));
}

#[test]
fn what_is_not_there_is_said() {
    let (place, registry) = (Place::new(), Registry::start());
    let client = Client::new();
    let error = |name: &str| {
        let name = name.replace("HOST", &registry.host).parse().expect("name");
        registry::pull(&client, &place.store, &name, &Platform::host(), &|_, _| {})
            .expect_err("not there")
            .to_string()
            .replace(&registry.host, "HOST")
    };
    assert_eq!(error("HOST/none:1"), "HOST/none:1: not found: manifest unknown");
    let nobody = error("127.0.0.1:1/none:1");
    assert!(nobody.starts_with("127.0.0.1:1/none:1: cannot reach 127.0.0.1:1: "), "{nobody}");
}

/// Serves canned answers on loopback: `answer` gets each request's first line and headers.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            while reader.read_line(&mut request).is_ok_and(|n| n > 2) {}
            let _ = stream.write_all(&answer(&request));
        }
    });
    host
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A registry of one image, whose blobs are answered by `blob`.
fn one_image(
    layout: &LayoutDir,
    image: &image::Descriptor,
    blob: impl Fn(&str, Vec<u8>) -> Vec<u8> + Send + 'static,
) -> String {
    let manifest = std::fs::read(layout.blob_path(&image.digest)).expect("read");
    let blobs = layout.path.join("blobs/sha256");
    serve(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path.rsplit_once("/blobs/sha256:") {
            Some((_, hex)) => blob(request, std::fs::read(blobs.join(hex)).expect("read")),
            None if path.contains("/manifests/") => {
                let kind = format!("Content-Type: {}\r\n", image::media_type::MANIFEST);
                response("200 OK", &kind, &manifest)
            }
            None => response("200 OK", "", b""),
        }
    })
}

fn pull(place: &Place, host: &str) -> Result<Digest, String> {
    let name = format!("{host}/some/image:1").parse().expect("name");
    registry::pull(&Client::new(), &place.store, &name, &Platform::host(), &|_, _| {})
        .map(|image| image.descriptor.digest)
        .map_err(|error| error.to_string().replace(host, "HOST"))
}

fn big_image(place: &Place) -> (LayoutDir, image::Descriptor) {
    let layout = LayoutDir::new(place.path("layout"));
    let mut noise = 1_u32;
    let data: Vec<u8> = (0..300_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    let image = layout.image(&Platform::host().to_string(), &[tar_of(&[("noise", &data)])]);
    (layout, image)
}

#[test]
fn broken_connections_and_busy_servers_are_tried_again() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let asked = AtomicU64::new(0);
    let host = one_image(&layout, &image, move |request, data| {
        match (data.len() > 1000, asked.fetch_add(1, Ordering::Relaxed)) {
            (false, _) => response("200 OK", "", &data),
            (true, 0 | 1) => response("503 Busy", "Retry-After: 0\r\n", b""),
            (true, 2) => {
                let mut cut = response("200 OK", "", &data);
                cut.truncate(cut.len() / 2);
                cut
            }
            (true, _) => {
                let range = request.to_ascii_lowercase();
                let from = range.split("bytes=").nth(1).and_then(|r| r.split('-').next());
                let from: usize = from.expect("a range is asked for").parse().expect("number");
                assert!(from > 0);
                let end = data.len() - 1;
                let header = format!("Content-Range: bytes {from}-{end}/{}\r\n", data.len());
                response("206 Partial Content", &header, &data[from..])
            }
        }
    });
    assert_eq!(pull(&place, &host), Ok(image.digest));
}

#[test]
fn wrong_content_is_refused() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let changed = one_image(&layout, &image, |_, mut data| {
        let last = data.len() - 1;
        data[last] ^= 1;
        response("200 OK", "", &data)
    });
    let error = pull(&place, &changed).expect_err("changed config");
    assert!(error.contains("is damaged: its content has the digest"), "{error}");
    let longer = one_image(&layout, &image, |_, mut data| {
        if data.len() > 1000 {
            data.push(0);
        }
        response("200 OK", "", &data)
    });
    let error = pull(&place, &longer).expect_err("longer layer");
    assert!(error.contains("its descriptor says"), "{error}");
    assert!(image::layers_of(&place.store, &image.digest).is_err(), "nothing may be kept");
}

#[test]
fn anonymous_tokens_are_fetched_and_sent() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let open = one_image(&layout, &image, |_, data| response("200 OK", "", &data));
    let host = serve(move |request| {
        if request.contains("/token?") {
            assert!(request.contains("service=here&scope=repository%3Asome%2Fimage%3Apull"));
            return response("200 OK", "", br#"{"token":"let-me-in"}"#);
        }
        if request.contains("/v2/some")
            && !request.to_ascii_lowercase().contains("bearer let-me-in")
        {
            let host = request
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"here\",\
                 scope=\"repository:some/image:pull\"\r\n",
                host.expect("host")
            );
            return response("401 Unauthorized", &challenge, b"");
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        // Blob stores are often elsewhere.
        response("307 Temporary Redirect", &format!("Location: http://{open}{path}\r\n"), b"")
    });
    assert_eq!(pull(&place, &host), Ok(image.digest));
}

#[test]
fn refusals_name_the_reference_and_the_reason() {
    let place = Place::new();
    let refuse = |status: &'static str, headers: &'static str, body: &'static str| {
        let host = serve(move |request| {
            if request.contains("/v2/ ") {
                return response("200 OK", "", b"");
            }
            response(status, headers, body.as_bytes())
        });
        pull(&place, &host).expect_err(status)
    };
    let lines = [
        refuse(
            "403 Forbidden",
            "",
            r#"{"errors":[{"code":"DENIED","message":"not for you \u001b[31m"}]}"#,
        ),
        refuse("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
        refuse("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"ftp://x\"\r\n", ""),
        refuse("418 I'm a teapot", "", "short and stout\nmore"),
        refuse("200 OK", "Content-Type: text/html\r\n", "<html>"),
        refuse("200 OK", "", r#"{"schemaVersion":1,"fsLayers":[]}"#),
    ];
    let text = lines.join("\n");
    let shown =
        text.split("sha256:").map(|part| part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("DIGEST"), @"
        HOST/some/image:1: access denied by HOST: it does not exist, or needs authentication (`rbc login HOST`): not for you [31m
        HOST/some/image:1: access denied by HOST: it does not exist, or needs authentication (`rbc login HOST`)
        HOST/some/image:1: HOST names a token service without TLS: ftp://x
        HOST/some/image:1: HOST answered 418 I'm a teapot: short and stout
        HOST/some/image:1: HOST answered with a web page: it is no registry, or something on the way (a login page of the network, a proxy) answers in its place
        HOST/some/image:1: manifest DIGEST: it is of Docker's schema 1, which rbc does not read; push the image again with a current tool
        ");
}

/// Names the registry for [`pull_as_the_environment_says`].
const REGISTRY_VARIABLE: &str = "RBC_TEST_REGISTRY";

/// Run by [`https_needs_a_known_authority`] in a process of its own, since the certificate
/// authorities come from the environment.
#[test]
#[ignore = "a part of https_needs_a_known_authority"]
fn pull_as_the_environment_says() {
    let place = Place::new();
    let host = std::env::var(REGISTRY_VARIABLE).expect("run by the other test");
    let name = format!("{host}/sample:v1").parse().expect("name");
    registry::pull(&Client::new(), &place.store, &name, &Platform::host(), &|_, _| {})
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn https_needs_a_known_authority() {
    let place = Place::new();
    let certificate = place.path("registry.pem");
    let registry = Registry::start_tls(&certificate);
    let layout = LayoutDir::sample(place.path("layout"), "docker.io/library/sample:v1");
    registry.push(&layout.path, "sample:v1");
    let pull = |certificates: Option<&std::path::Path>| {
        let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
        command
            .args(["--ignored", "--exact", "registry::pull_as_the_environment_says"])
            .env(REGISTRY_VARIABLE, &registry.host)
            .env_remove("SSL_CERT_FILE")
            .envs(certificates.map(|path| ("SSL_CERT_FILE", path)));
        command.output().expect("run")
    };
    let trusted = pull(Some(&certificate));
    let said = String::from_utf8_lossy(&trusted.stdout).into_owned();
    assert!(trusted.status.success() && said.contains("1 passed"), "{said}");
    let strange = pull(None);
    assert!(!strange.status.success());
    let said = [strange.stdout, strange.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("cannot reach") && said.contains("certificate"), "{said}");
}

/// A client with this content of a credential file.
fn client_with(place: &Place, credentials: &str) -> Client {
    let path = place.path("auth.json");
    std::fs::write(&path, credentials).expect("write");
    Client::with(ClientOptions {
        credentials: CredentialFiles::only(path),
        ..ClientOptions::default()
    })
}

fn header(request: &str, name: &str) -> Option<String> {
    request.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[test]
fn passwords_do_not_follow_redirects() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let elsewhere = one_image(&layout, &image, |request, data| {
        assert_eq!(header(request, "authorization"), None, "{request}");
        response("200 OK", "", &data)
    });
    let host = serve(move |request| {
        match header(request, "authorization") {
            None if request.contains("/v2/some") => {
                let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\n";
                return response("401 Unauthorized", challenge, b"");
            }
            Some(sent) => assert_eq!(sent, "Basic dXNlcjpzZWNyZXQ="),
            None => {}
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let to = format!("Location: http://{elsewhere}{path}\r\n");
        response("307 Temporary Redirect", &to, b"")
    });
    let client =
        client_with(&place, &format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#));
    let name = format!("{host}/some/image:1").parse().expect("name");
    let pulled = registry::pull(&client, &place.store, &name, &Platform::host(), &|_, _| {});
    assert_eq!(pulled.expect("pull").descriptor.digest, image.digest);
}

#[test]
fn a_refresh_token_is_exchanged_by_post() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let open = one_image(&layout, &image, |_, data| response("200 OK", "", &data));
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let host = serve(move |request| {
        if request.starts_with("POST /token ") {
            // What is posted follows the head, which is all that is read here.
            assert_eq!(header(request, "authorization"), None);
            let kind = header(request, "content-type");
            assert_eq!(kind.as_deref(), Some("application/x-www-form-urlencoded"));
            count.fetch_add(1, Ordering::Relaxed);
            return response("200 OK", "", br#"{"access_token":"new","expires_in":300}"#);
        }
        if request.contains("/v2/some") && header(request, "authorization").is_none() {
            let host = header(request, "host").expect("host");
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n");
            return response("401 Unauthorized", &challenge, b"");
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        response("307 Temporary Redirect", &format!("Location: http://{open}{path}\r\n"), b"")
    });
    let client =
        client_with(&place, &format!(r#"{{"auths":{{"{host}":{{"identitytoken":"long"}}}}}}"#));
    let name = format!("{host}/some/image:1").parse().expect("name");
    let pulled = registry::pull(&client, &place.store, &name, &Platform::host(), &|_, _| {});
    assert_eq!(pulled.expect("pull").descriptor.digest, image.digest);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the token is kept");
}

#[test]
fn layers_are_unpacked_while_they_come() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    // The second half comes only in the second answer.
    let host = one_image(&layout, &image, |request, data| match header(request, "range") {
        None if data.len() > 1000 => {
            let mut cut = response("200 OK", "", &data);
            cut.truncate(cut.len() / 2);
            cut
        }
        // A server without ranges sends all of it again.
        _ => response("200 OK", "", &data),
    });
    let name = format!("{host}/some/image:1").parse().expect("name");
    registry::fetch(&Client::new(), &place.store, &name, &image.digest, &|_, _| {}).expect("fetch");
    let layers = image::layers_of(&place.store, &image.digest).expect("layers");
    assert!(layers.iter().all(|layer| place.store.has_layer(&layer.id)));
}

#[test]
fn blobs_that_were_there_before_a_pull_are_unpacked_by_it() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let manifest = std::fs::read(layout.blob_path(&image.digest)).expect("manifest");
    let put_blobs = |place: &Place| {
        let parts: image::Manifest = serde_json::from_slice(&manifest).expect("manifest");
        for blob in std::iter::once(parts.config).chain(parts.layers) {
            let bytes = std::fs::read(layout.blob_path(&blob.digest)).expect("blob");
            place.store.blobs().write(&bytes).expect("write");
        }
        place.store.blobs().write(manifest.as_slice()).expect("write");
        image::layers_of(&place.store, &image.digest).expect("layers")
    };
    let layers = put_blobs(&place);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let host = one_image(&layout, &image, move |_, data| {
        count.fetch_add(u64::from(data.len() > 1000), Ordering::Relaxed);
        response("200 OK", "", &data)
    });
    let is_unpacked = || layers.iter().all(|layer| place.store.has_layer(&layer.id));
    assert!(!is_unpacked());
    assert_eq!(pull(&place, &host), Ok(image.digest));
    assert!(is_unpacked());
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is fetched again");
    // What a disk has spoilt is.
    let other = Place::new();
    put_blobs(&other);
    let blob = other.store.blobs().path(&layers[0].descriptor.digest);
    let mut bytes = std::fs::read(&blob).expect("blob");
    bytes[100] ^= 1;
    std::fs::remove_file(&blob).expect("remove");
    std::fs::write(&blob, bytes).expect("write");
    assert_eq!(pull(&other, &host), Ok(image.digest));
    assert!(layers.iter().all(|layer| other.store.has_layer(&layer.id)));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn damage_on_the_way_is_repaired_by_another_try() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let asked = AtomicU64::new(0);
    let host = one_image(&layout, &image, move |_, mut data| {
        if data.len() > 1000 && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            data[500] ^= 1;
        }
        response("200 OK", "", &data)
    });
    let name = format!("{host}/some/image:1").parse().expect("name");
    registry::fetch(&Client::new(), &place.store, &name, &image.digest, &|_, _| {}).expect("fetch");
    let layers = image::layers_of(&place.store, &image.digest).expect("layers");
    assert!(layers.iter().all(|layer| place.store.has_layer(&layer.id)));
}

#[test]
fn an_address_that_has_run_out_is_asked_for_again() {
    let place = Place::new();
    let (layout, image) = big_image(&place);
    let asked = AtomicU64::new(0);
    let store = one_image(&layout, &image, move |_, data| {
        // The first address of the layer is too old.
        if data.len() > 1000 && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return response("403 Forbidden", "", b"Request has expired");
        }
        response("200 OK", "", &data)
    });
    let host = serve(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if path == "/v2/" {
            return response("200 OK", "", b"");
        }
        response("307 Temporary Redirect", &format!("Location: http://{store}{path}\r\n"), b"")
    });
    assert_eq!(pull(&place, &host), Ok(image.digest));
}
