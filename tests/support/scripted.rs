//! A registry on loopback that a test writes itself: a function gives the answer to each request, and
//! leaves what it has no opinion about to a small registry in memory.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;

use super::{image::sha256, listener::Listener};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A request with all of its body.
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Method and path.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send the body in pieces of so many bytes, with a pause behind each.
    pub pieces: Option<(usize, Duration)>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A running server; it ends when dropped.
pub struct Scripted {
    /// `127.0.0.1:PORT`.
    pub host: String,
    log: Arc<Mutex<Vec<String>>>,
    _listener: Listener,
}

impl Scripted {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let log = Arc::default();
        let listener = {
            let log = Arc::clone(&log);
            Listener::start_parallel(move |stream| {
                // A client that goes away is its own business.
                let _ = serve(stream, &answer, &log);
            })
        };
        Self { host: listener.address.to_string(), log, _listener: listener }
    }

    /// Method and path of the requests so far, with ` as WHO` behind those with credentials.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&Request) -> Reply,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    let who = request.header("authorization").map_or(String::new(), |who| format!(" as {who}"));
    log.lock().unwrap().push(format!("{} {}{who}", request.method, request.path));
    let reply = answer(&request);
    write!(stream, "HTTP/1.1 {} Scripted\r\nConnection: close\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", reply.body.len())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let Some((size, pause)) = reply.pieces else { return stream.write_all(&reply.body) };
    for piece in reply.body.chunks(size) {
        stream.write_all(piece)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// A registry that knows no repositories: blobs and manifests are there by digest or tag.
#[derive(Default)]
pub struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    blobs: HashMap<String, Vec<u8>>,
    /// By digest and tag, with their media types.
    manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: Vec<Vec<u8>>,
}

impl Memory {
    /// What is kept of an upload.
    pub fn uploaded(&self, number: usize) -> Vec<u8> {
        self.kept.lock().unwrap().uploads[number].clone()
    }

    /// Adds to an upload as if it had come.
    pub fn append(&self, number: usize, bytes: &[u8]) {
        self.kept.lock().unwrap().uploads[number].extend_from_slice(bytes);
    }

    /// Whether a tag or digest stands for a manifest.
    pub fn has(&self, name: &str) -> bool {
        self.kept.lock().unwrap().manifests.contains_key(name)
    }

    /// Keeps a manifest under a name.
    pub fn tag(&self, name: &str, kind: &str, manifest: impl Into<Vec<u8>>) {
        let kept = (kind.to_owned(), manifest.into());
        self.kept.lock().unwrap().manifests.insert(name.to_owned(), kept);
    }

    /// Keeps a blob and gives its digest.
    pub fn blob(&self, content: impl Into<Vec<u8>>) -> String {
        let content = content.into();
        let digest = format!("sha256:{}", sha256(&content));
        self.kept.lock().unwrap().blobs.insert(digest.clone(), content);
        digest
    }

    /// Keeps an image with one layer that is not compressed, under a tag.
    pub fn image(&self, tag: &str, layer: &[u8], media_type: &str) {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))] },
        });
        let config = config.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": config.len(),
                "digest": self.blob(config),
            },
            "layers": [{
                "mediaType": media_type,
                "size": layer.len(),
                "digest": self.blob(layer),
            }],
        });
        let manifest = manifest.to_string();
        self.tag(&format!("sha256:{}", sha256(manifest.as_bytes())), MANIFEST, manifest.clone());
        self.tag(tag, MANIFEST, manifest);
    }

    /// The `Range` of an upload.
    pub fn range(&self, number: usize) -> String {
        format!("0-{}", self.uploaded(number).len().saturating_sub(1))
    }

    pub fn answer(&self, request: &Request) -> Reply {
        let plain = request.path.split('?').next().unwrap_or_default();
        let name = plain.rsplit('/').next().unwrap_or_default().to_owned();
        let upload = name.parse::<usize>().ok().filter(|_| plain.contains("/uploads/"));
        match (request.method.as_str(), upload) {
            ("POST", _) => {
                let uploads = &mut self.kept.lock().unwrap().uploads;
                uploads.push(Vec::new());
                let number = uploads.len() - 1;
                Reply::status(202).header("Location", format!("{plain}{number}?state=a%2Fb=="))
            }
            ("PATCH", Some(number)) => {
                self.append(number, &request.body);
                Reply::status(202).header("Range", self.range(number))
            }
            ("GET", Some(number)) => Reply::status(204).header("Range", self.range(number)),
            ("PUT", Some(number)) => {
                self.append(number, &request.body);
                let digest = self.blob(self.uploaded(number));
                let said = request.path.split("digest=").nth(1).unwrap_or_default();
                Reply::status(if said == digest { 201 } else { 400 })
            }
            ("PUT", None) => {
                let kind = request.header("content-type").unwrap_or_default();
                self.tag(&name, kind, request.body.clone());
                let digest = format!("sha256:{}", sha256(&request.body));
                self.tag(&digest, kind, request.body.clone());
                Reply::status(201)
            }
            _ if plain == "/v2/" => Reply::status(200),
            _ => {
                let kept = self.kept.lock().unwrap();
                if let Some(blob) = kept.blobs.get(&name) {
                    return Reply::status(200).body(blob.clone());
                }
                match kept.manifests.get(&name) {
                    Some((kind, manifest)) if plain.contains("/manifests/") => {
                        Reply::status(200).header("Content-Type", kind).body(manifest.clone())
                    }
                    _ => Reply::status(404),
                }
            }
        }
    }
}
