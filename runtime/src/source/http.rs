//! Files of the web.
//!
//! [`Client::resolve`] downloads a file into the store's blobs and tells its digest; the node that
//! pins it is then executed from the blob ([`Client::write_file`]). What the server said last time
//! is remembered by address, so that an unchanged file with an `ETag` is not sent again.

use std::{
    fs::{self, File, FileTimes},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rbc_ir::{Digest, HttpSource};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
    tls::TlsConfig,
};

use super::redact;
use crate::{
    registry,
    store::{Store, StoreError},
};

/// How often a request is sent before its failure is final.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled for each later one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Most redirects that are followed, as in Go's client.
const MAX_REDIRECTS: u32 = 10;
/// Largest note on an earlier download that is read.
const MAX_NOTE: u64 = 64 << 10;

/// Why a file of the web cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The server has another answer than the file.
    #[error("{url}: invalid response status {status}")]
    Status {
        /// The address.
        url: String,
        /// HTTP status code with its meaning.
        status: StatusCode,
    },
    /// No answer at all.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// What failed.
        reason: String,
        /// Whether it may work later.
        temporary: bool,
    },
    /// The connection broke while the file was sent.
    #[error("{url}: the download broke off after {received} bytes: {reason}")]
    Broken {
        /// The address.
        url: String,
        /// How much had arrived.
        received: u64,
        /// What failed.
        reason: String,
    },
    /// The file is not what it should be.
    #[error("digest mismatch for {url}: {actual} (expected: {expected})")]
    Mismatch {
        /// The address.
        url: String,
        /// Digest of what arrived.
        actual: Digest,
        /// Digest that was asked for.
        expected: Digest,
    },
    /// The file cannot be put into the layer.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HttpError {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            Self::Unreachable { temporary, .. } => *temporary,
            Self::Broken { .. } => true,
            Self::Mismatch { .. } | Self::Write { .. } | Self::Store(_) => false,
        }
    }
}

/// A file of the web as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Digest of its bytes.
    pub checksum: Digest,
    /// `Last-Modified` in seconds since the epoch; 0 if the server does not say.
    pub mtime: i64,
    /// The server's `ETag`, if it gave one.
    etag: Option<String>,
}

/// Downloads files. It may be used from several threads.
pub struct Client {
    /// For servers on this machine, which no proxy is used for.
    direct: Agent,
    agent: Agent,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client that trusts the same certificate authorities as [`registry::Client`].
    pub fn new() -> Self {
        let builder = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(MAX_REDIRECTS)
                .user_agent(concat!("rbc/", env!("CARGO_PKG_VERSION")))
                .tls_config(TlsConfig::builder().root_certs(registry::system_roots()).build())
                .timeout_resolve(Some(Duration::from_secs(20)))
                .timeout_connect(Some(Duration::from_secs(20)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
                .timeout_per_read(Some(Duration::from_secs(60)))
        };
        Self {
            direct: builder().proxy(None).build().new_agent(),
            agent: builder().build().new_agent(),
        }
    }

    /// Finds out the digest of the file at `url`, which is then a blob of the store. A file whose
    /// `expected` digest is known from an earlier download is not asked for again.
    ///
    /// # Errors
    /// What kept the file from arriving after several attempts, or [`HttpError::Mismatch`].
    pub fn resolve(
        &self,
        store: &Store,
        url: &str,
        expected: Option<Digest>,
    ) -> Result<Download, HttpError> {
        let note = read_note(&store.download_path(url));
        if let (Some(note), Some(expected)) = (&note, expected)
            && note.checksum == expected
        {
            return Ok(note.clone());
        }
        let known = note.filter(|_| expected.is_none());
        let found = self.download(store, url, known.as_ref(), expected)?;
        // Only time is lost without the note.
        let _ = write_note(&store.download_path(url), &found);
        Ok(found)
    }

    /// Puts the file that `source` pins into `folder`.
    ///
    /// # Errors
    /// As [`Client::resolve`], if the file is not in the store any more.
    pub fn write_file(
        &self,
        store: &Store,
        source: &HttpSource,
        folder: &Path,
    ) -> Result<(), HttpError> {
        let path = folder.join(&source.filename);
        if !store.blobs().has(&source.checksum) {
            self.download(store, &source.url, None, Some(source.checksum))?;
        }
        match copy_blob(store, source, &path) {
            Err(HttpError::Store(StoreError::Damaged { .. })) => {
                store.blobs().remove(&source.checksum)?;
                self.download(store, &source.url, None, Some(source.checksum))?;
                copy_blob(store, source, &path)
            }
            other => other,
        }
    }

    /// Downloads with several attempts.
    fn download(
        &self,
        store: &Store,
        url: &str,
        known: Option<&Download>,
        expected: Option<Digest>,
    ) -> Result<Download, HttpError> {
        let mut wait = FIRST_WAIT;
        for _ in 1..ATTEMPTS {
            match self.attempt(store, url, known, expected) {
                Err(error) if error.is_temporary() => {
                    thread::sleep(wait);
                    wait *= 2;
                }
                other => return other,
            }
        }
        self.attempt(store, url, known, expected)
    }

    fn attempt(
        &self,
        store: &Store,
        url: &str,
        known: Option<&Download>,
        expected: Option<Digest>,
    ) -> Result<Download, HttpError> {
        let etag = known.and_then(|known| known.etag.as_deref());
        // The file itself, not a packed form of it, is what the digest is of.
        let mut call = self.agent_for(url).get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(etag) = etag {
            call = call.header(header::IF_NONE_MATCH, etag);
        }
        let response = call.call().map_err(|error| unreachable(url, &error))?;
        match (response.status(), known) {
            (StatusCode::NOT_MODIFIED, Some(known)) if etag.is_some() => return Ok(known.clone()),
            (status, _) if status.is_success() => {}
            (status, _) => return Err(HttpError::Status { url: redact(url), status }),
        }
        let mtime = last_modified(&response).unwrap_or(0);
        let etag = header_text(&response, header::ETAG).map(str::to_owned);
        let checksum = receive(store, url, response, expected)?;
        Ok(Download { checksum, mtime, etag })
    }

    fn agent_for(&self, url: &str) -> &Agent {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if registry::is_loopback(host) { &self.direct } else { &self.agent }
    }
}

/// Streams a body into a blob.
fn receive(
    store: &Store,
    url: &str,
    response: Response<Body>,
    expected: Option<Digest>,
) -> Result<Digest, HttpError> {
    let announced: Option<u64> =
        header_text(&response, header::CONTENT_LENGTH).and_then(|text| text.trim().parse().ok());
    let mut blob = store.blobs().writer()?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 128 << 10];
    let broken = |received, reason| HttpError::Broken { url: redact(url), received, reason };
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(blob.size(), e.to_string())),
        };
        blob.write_all(&buffer[..n])
            .map_err(|source| HttpError::Write { path: blob.path().to_owned(), source })?;
    }
    if let Some(announced) = announced.filter(|announced| *announced != blob.size()) {
        return Err(broken(blob.size(), format!("{announced} bytes were announced")));
    }
    match blob.finish(store, expected) {
        Ok((checksum, _)) => Ok(checksum),
        Err(StoreError::WrongDigest { expected, actual }) => {
            Err(HttpError::Mismatch { url: redact(url), actual, expected })
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies the blob to its place in a layer and checks it on the way.
fn copy_blob(store: &Store, source: &HttpSource, path: &Path) -> Result<(), HttpError> {
    let wrong = |source| HttpError::Write { path: path.to_owned(), source };
    let mut blob = store.blobs().open(&source.checksum)?;
    let _ = fs::remove_file(path);
    let mut file =
        File::options().write(true).create_new(true).mode(source.mode).open(path).map_err(wrong)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = match blob.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(wrong(e)),
        };
        hash.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(wrong)?;
    }
    let actual = Digest::from_bytes(hash.finalize().into());
    if actual != source.checksum {
        let path = store.blobs().path(&source.checksum);
        return Err(StoreError::Damaged { path, actual }.into());
    }
    // The user's umask has no say in it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(source.mode);
    file.set_permissions(mode).map_err(wrong)?;
    file.set_times(FileTimes::new().set_modified(at_second(source.mtime))).map_err(wrong)
}

fn at_second(mtime: i64) -> SystemTime {
    let distance = Duration::from_secs(mtime.unsigned_abs());
    let time = match mtime {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn header_text(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn last_modified(response: &Response<Body>) -> Option<i64> {
    let text = header_text(response, header::LAST_MODIFIED)?;
    Some(OffsetDateTime::parse(text, &Rfc2822).ok()?.unix_timestamp())
}

/// The notes of downloads, each with the address and the blob that it speaks of; `None` for one that
/// cannot be read.
pub(crate) fn notes(store: &Store) -> Vec<(PathBuf, Option<Digest>)> {
    let Ok(entries) = fs::read_dir(store.root().join("downloads")) else { return Vec::new() };
    let note = |path: PathBuf| (path.clone(), read_note(&path).map(|note| note.checksum));
    entries.flatten().map(|entry| note(entry.path())).collect()
}

fn read_note(path: &Path) -> Option<Download> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_NOTE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_note(path: &Path, note: &Download) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut staged = tempfile::NamedTempFile::new_in(folder)?;
    staged.write_all(&serde_json::to_vec(note)?)?;
    staged.persist(path)?;
    Ok(())
}

fn unreachable(url: &str, error: &ureq::Error) -> HttpError {
    let temporary = matches!(
        error,
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Io(_)
    );
    HttpError::Unreachable { url: redact(url), reason: error.to_string(), temporary }
}
