//! Uploads to a registry that keeps what came before a cut, and to one that takes small pieces only.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use rbc_ir::Digest;
use rbc_runtime::{
    image::{self, Descriptor, Manifest, media_type},
    registry::{self, Client, Naming, Sent},
};

use crate::support::Place;

/// What the registry has.
#[derive(Default)]
struct Kept {
    /// What came in each session.
    sessions: Vec<Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    /// Method and `Content-Range` of the requests that carried something.
    log: Vec<String>,
}

/// Takes at most `limit` bytes of a PATCH; of the first one only `cut` bytes arrive.
fn start(limit: usize, cut: Option<usize>) -> (String, Arc<Mutex<Kept>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    let kept: Arc<Mutex<Kept>> = Arc::default();
    let shared = Arc::clone(&kept);
    thread::spawn(move || {
        let mut cut = cut;
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length: usize = header("content-length").map_or(0, |n| n.parse().expect("length"));
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let mut kept = shared.lock().expect("lock");
            let session = path
                .split_once("/uploads/")
                .and_then(|(_, id)| id.split('?').next()?.parse::<usize>().ok())
                .unwrap_or(0);
            if length > 0 {
                let range = header("content-range").unwrap_or_default();
                kept.log.push(format!("{method} {range}"));
            }
            if method == "PATCH"
                && let Some(cut) = cut.take()
            {
                let mut part = vec![0; cut];
                reader.read_exact(&mut part).expect("part");
                kept.sessions[session].extend(part);
                continue;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("body");
            let range =
                |session: &[u8]| format!("Range: 0-{}\r\n", session.len().saturating_sub(1));
            let (status, headers) = match (method, path) {
                ("HEAD", path) if path.contains("/blobs/") => {
                    let digest = path.rsplit('/').next().unwrap_or_default();
                    let known = kept.blobs.contains_key(digest);
                    (if known { "200 OK" } else { "404 No" }, String::new())
                }
                ("POST", _) => {
                    let id = kept.sessions.len();
                    kept.sessions.push(Vec::new());
                    ("202 Accepted", format!("Location: /v2/some/app/blobs/uploads/{id}\r\n"))
                }
                ("PATCH", _) if length > limit => ("413 Too Large", String::new()),
                ("PATCH", _) => {
                    let from = header("content-range")
                        .and_then(|range| range.split('-').next()?.parse().ok())
                        .unwrap_or(0);
                    if from == kept.sessions[session].len() {
                        kept.sessions[session].extend(body);
                        ("202 Accepted", range(&kept.sessions[session]))
                    } else {
                        ("416 Out Of Order", range(&kept.sessions[session]))
                    }
                }
                ("GET", path) if path.contains("/uploads/") => {
                    ("204 No Content", range(&kept.sessions[session]))
                }
                ("PUT", path) if path.contains("/uploads/") => {
                    let digest = path.split("digest=").nth(1).unwrap_or_default().to_owned();
                    let mut content = std::mem::take(&mut kept.sessions[session]);
                    content.extend(body);
                    if Digest::of(&content).to_string() == digest {
                        kept.blobs.insert(digest, content);
                        ("201 Created", String::new())
                    } else {
                        ("400 Wrong Digest", String::new())
                    }
                }
                ("PUT", path) => {
                    kept.manifests.insert(path.to_owned(), body);
                    ("201 Created", String::new())
                }
                _ => ("200 OK", String::new()),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
            );
        }
    });
    (host, kept)
}

/// An image in the store, with one layer of so many bytes.
fn image_of(place: &Place, size: usize) -> (Digest, Digest) {
    let data: Vec<u8> = (0..size).map(|at| ((at / 7) ^ (at >> 9)) as u8).collect();
    let store = &place.store;
    let put = |kind: &str, bytes: &[u8]| {
        store.blobs().write(bytes).expect("write");
        Descriptor::of(kind, bytes)
    };
    let layer = put(media_type::LAYER_GZIP, &data);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: put(media_type::CONFIG, b"{}"),
        layers: vec![layer.clone()],
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest).expect("manifest");
    let root = image::store_manifest(store, media_type::MANIFEST, &bytes).expect("store");
    (root.digest, layer.digest)
}

#[test]
fn an_upload_goes_on_behind_what_has_arrived() {
    let place = Place::new();
    let (root, layer) = image_of(&place, 2_000_000);
    let (host, kept) = start(usize::MAX, Some(1_200_000));
    let name = format!("{host}/some/app:1").parse().expect("name");
    let pushed = registry::push(
        &Client::new(),
        &place.store,
        &root,
        std::slice::from_ref(&name),
        Naming::Tags,
        &|_, _| {},
    )
    .expect("push");
    assert_eq!(pushed[0].root.digest, root);
    assert!(pushed[0].blobs.contains(&(layer, Sent::Uploaded)), "{pushed:?}");
    let kept = kept.lock().expect("lock");
    let ranges: Vec<&String> = kept.log.iter().filter(|line| line.starts_with("PATCH")).collect();
    assert_eq!(ranges, ["PATCH ", "PATCH 1200000-1999999"]);
    assert!(kept.manifests.contains_key("/v2/some/app/manifests/1"));
}

#[test]
fn pieces_become_as_small_as_the_registry_wants_them() {
    let place = Place::new();
    let (root, layer) = image_of(&place, 5_000_000);
    let (host, kept) = start(1_500_000, None);
    let name = format!("{host}/some/app:1").parse().expect("name");
    let client = Client::new();
    let push = || {
        let names = std::slice::from_ref(&name);
        registry::push(&client, &place.store, &root, names, Naming::Tags, &|_, _| {})
    };
    push().expect("push");
    {
        let kept = kept.lock().expect("lock");
        assert!(kept.blobs.contains_key(&layer.to_string()));
        let pieces = kept.log.iter().filter(|line| line.starts_with("PATCH ")).count();
        assert_eq!(pieces, 5, "{:?}", kept.log);
    }
    let again = push().expect("push again");
    assert!(again[0].blobs.iter().all(|(_, how)| *how == Sent::Existing), "{again:?}");
}
