//! Single HTTP exchanges: which agent speaks to a host, over what, and where redirects lead.
//!
//! Redirects are followed here rather than by the HTTP library, so that each hop gets the settings
//! of its own host and credentials never leave the one they were meant for.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, OnceLock, PoisonError},
    time::Duration,
};

use ureq::{
    Agent, Body, SendBody, Timeout,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    },
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig},
};

use super::{
    Registries, RegistryError, Stop, certificates::HostCertificates, client::error_message,
};

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// Time for a name to be resolved, and for a connection to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Time until an answer begins, and between two pieces of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Time until the answer to an upload begins; registries check the whole blob first.
const UPLOAD_ANSWER_LIMIT: Duration = Duration::from_secs(900);

/// How soon a stop is noticed.
const WATCH: Duration = Duration::from_millis(100);

/// What a request carries.
pub(super) enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// Part of a file.
    Part {
        path: &'a Path,
        from: u64,
        length: u64,
        /// Told how many bytes more were sent.
        sent: &'a (dyn Fn(u64) + Sync),
    },
}

/// A request to one address.
pub(super) struct Outgoing<'a> {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: &'a [(HeaderName, String)],
    pub(super) authorization: Option<&'a str>,
    pub(super) payload: Payload<'a>,
    /// What errors are about.
    pub(super) what: &'a str,
}

/// Where an answer came from.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The address after all redirects.
    pub(super) url: Uri,
}

/// Speaks HTTP to any host; connections are kept.
pub(super) struct Transport {
    registries: Registries,
    /// By host; hosts without settings of their own share the agents of `common`.
    agents: Arc<Mutex<HashMap<String, Agent>>>,
    common: Mutex<HashMap<Reach, Agent>>,
    stop: Stop,
    /// Done once somebody watches for the stop.
    watched: Once,
    /// `http` or `https` by host, once known.
    schemes: Mutex<HashMap<String, &'static str>>,
}

/// Where hosts are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Reach {
    /// On this machine: no proxy is used for them.
    Loopback,
    Elsewhere,
}

impl Transport {
    /// Speaks until `stop` is asked for, which breaks off what is being waited for.
    pub(super) fn new(registries: Registries, stop: Stop) -> Self {
        Self {
            registries,
            agents: Arc::default(),
            common: Mutex::default(),
            stop,
            watched: Once::new(),
            schemes: Mutex::default(),
        }
    }

    /// What is known of registries.
    pub(super) fn registries(&self) -> &Registries {
        &self.registries
    }

    /// Sends a request and follows redirects. A part that cannot be sent twice is not a thing
    /// here, so a redirect of an upload is followed too.
    pub(super) fn send(&self, outgoing: &Outgoing<'_>) -> Result<Answer, RegistryError> {
        let mut url = outgoing.url.clone();
        let mut authorization = outgoing.authorization;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(outgoing, &url, authorization)?;
            let Some(location) = redirection(&response, &outgoing.method) else {
                return Ok(Answer { response, url });
            };
            let next = resolve(&url, location).ok_or_else(|| {
                let host = host_of(&url);
                let reason = format!("{host} redirects to an address that is none");
                RegistryError::Protocol { what: outgoing.what.to_owned(), reason }
            })?;
            if !same_origin(&url, &next) {
                authorization = None;
            }
            url = next;
        }
        Err(RegistryError::Protocol {
            what: outgoing.what.to_owned(),
            reason: format!("{} redirects too often", host_of(&outgoing.url)),
        })
    }

    fn send_once(
        &self,
        outgoing: &Outgoing<'_>,
        url: &Uri,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let host = host_of(url);
        let failed = |error| unreachable(outgoing.what, &host, error);
        let headers = outgoing.headers.iter().map(|(name, value)| (name.clone(), value.as_str()));
        let credentials = authorization.map(|value| (header::AUTHORIZATION, value));
        let mut builder = Request::builder().method(outgoing.method.clone()).uri(url.clone());
        for (name, value) in headers.chain(credentials) {
            builder = builder.header(name, value);
        }
        let agent = self.agent(&host, outgoing.what)?;
        let run = |body: SendBody<'_>, length: Option<u64>| {
            let mut builder = builder;
            if let Some(length) = length {
                builder = builder.header(header::CONTENT_LENGTH, length);
            }
            let request = builder.body(body).map_err(|error| RegistryError::Protocol {
                what: outgoing.what.to_owned(),
                reason: format!("a request to {host} cannot be made: {error}"),
            })?;
            let request = match length {
                Some(1..) => agent
                    .configure_request(request)
                    .timeout_recv_response(Some(UPLOAD_ANSWER_LIMIT))
                    .timeout_per_write(Some(ANSWER_LIMIT))
                    .build(),
                _ => request,
            };
            agent.run(request).map_err(failed)
        };
        match &outgoing.payload {
            Payload::Nothing if outgoing.method == Method::POST => {
                run(SendBody::from_reader(&mut io::empty()), Some(0))
            }
            Payload::Nothing => run(SendBody::none(), None),
            Payload::Bytes(bytes) => {
                let mut bytes = *bytes;
                let length = bytes.len() as u64;
                run(SendBody::from_reader(&mut bytes), Some(length))
            }
            Payload::Part { path, from, length, sent } => {
                let open = || -> io::Result<File> {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(*from))?;
                    Ok(file)
                };
                let file = open().map_err(|source| RegistryError::Local {
                    what: outgoing.what.to_owned(),
                    path: path.to_path_buf(),
                    source,
                })?;
                let mut counted = Counted { input: file.take(*length), sent: *sent };
                run(SendBody::from_reader(&mut counted), Some(*length))
            }
        }
    }

    /// HTTPS, unless the settings or a host on this machine want otherwise.
    pub(super) fn scheme(&self, host: &str, what: &str) -> Result<&'static str, RegistryError> {
        let settings = self.registries.host(host);
        if settings.plain_http {
            return Ok("http");
        }
        let is_local = is_loopback(host);
        if !is_local && !settings.insecure {
            return Ok("https");
        }
        if let Some(scheme) = lock(&self.schemes).get(host) {
            return Ok(scheme);
        }
        let agent = self.agent(host, what)?;
        let scheme = if is_local {
            let probe = agent
                .get(format!("http://{host}/v2/"))
                .call()
                .map_err(|error| unreachable(what, host, error))?;
            // Servers with TLS answer a plain request with 400 and a remark.
            let wants_tls =
                probe.status() == StatusCode::BAD_REQUEST && error_message(probe).contains("HTTPS");
            if wants_tls { "https" } else { "http" }
        } else if agent.get(format!("https://{host}/v2/")).call().is_ok() {
            "https"
        } else {
            let plain = agent.get(format!("http://{host}/v2/")).call();
            plain.map_err(|error| unreachable(what, host, error))?;
            "http"
        };
        lock(&self.schemes).insert(host.to_owned(), scheme);
        Ok(scheme)
    }

    fn agent(&self, host: &str, what: &str) -> Result<Agent, RegistryError> {
        self.watched.call_once(|| break_off_at(&self.stop, &self.agents));
        let mut agents = lock(&self.agents);
        if let Some(agent) = agents.get(host) {
            return Ok(agent.clone());
        }
        let reach = if is_loopback(host) { Reach::Loopback } else { Reach::Elsewhere };
        let insecure = self.registries.host(host).insecure;
        let certificates = self.registries.certificates(host).map_err(|source| {
            RegistryError::Settings { what: what.to_owned(), source: Box::new(source) }
        })?;
        let agent = if certificates.is_empty() && !insecure {
            lock(&self.common)
                .entry(reach)
                .or_insert_with(|| {
                    new_agent(reach, TlsConfig::builder().root_certs(system_roots()).build())
                })
                .clone()
        } else {
            let tls = tls_with(&certificates, insecure).map_err(|(path, source)| {
                RegistryError::Local { what: what.to_owned(), path, source }
            })?;
            new_agent(reach, tls)
        };
        agents.insert(host.to_owned(), agent.clone());
        Ok(agent)
    }
}

/// Ends all connections once the user wants everything to end: a host that says nothing would keep
/// us for as long as answers may take. Without the thread that is so, and no worse.
fn break_off_at(stop: &Stop, agents: &Arc<Mutex<HashMap<String, Agent>>>) {
    if !stop.may_come() {
        return;
    }
    let (stop, agents) = (stop.clone(), Arc::downgrade(agents));
    let watch = move || {
        while let Some(agents) = agents.upgrade() {
            if stop.is_asked() {
                lock(&agents).drain().for_each(|(_, agent)| agent.shutdown());
            }
            drop(agents);
            std::thread::sleep(WATCH);
        }
    };
    let _ = std::thread::Builder::new().name("transfers".to_owned()).spawn(watch);
}

fn new_agent(reach: Reach, tls: TlsConfig) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("rbc/", env!("CARGO_PKG_VERSION")))
        // Blobs are compressed already, and their bytes must not be changed on the way.
        .accept_encoding("identity")
        .tls_config(tls)
        .timeout_resolve(Some(CONNECT_LIMIT))
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_recv_response(Some(ANSWER_LIMIT))
        .timeout_per_read(Some(ANSWER_LIMIT));
    if reach == Reach::Loopback {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

/// TLS with certificates of a host's own.
fn tls_with(own: &HostCertificates, insecure: bool) -> Result<TlsConfig, FileError> {
    let authorities = own.authorities.iter().map(|path| certificates(path));
    let authorities = authorities.collect::<Result<Vec<_>, _>>()?.concat();
    let client = own.client.as_ref().map(|(cert, key)| client_cert(cert, key)).transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(roots_with(authorities))
        .client_cert(client)
        .disable_verification(insecure)
        .build())
}

/// Tells how many bytes have been read.
struct Counted<'a, R> {
    input: R,
    sent: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        (self.sent)(n as u64);
        Ok(n)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an answer wants the request to be sent instead.
fn redirection<'a>(response: &'a Response<Body>, method: &Method) -> Option<&'a str> {
    let follows = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        // These change the method of anything but a question.
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    follows.then(|| header_text(response.headers(), header::LOCATION)).flatten()
}

/// A header's value, if it is text.
pub(super) fn header_text(headers: &HeaderMap<HeaderValue>, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A `Location` as an address (RFC 3986, section 5), without dot segments in the way.
pub(super) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let uri = if location.starts_with("//") {
        format!("{}:{location}", base.scheme_str()?).parse().ok()?
    } else if location.starts_with('/') {
        format!("{}://{}{location}", base.scheme_str()?, base.authority()?).parse().ok()?
    } else if location.contains("://") {
        location.parse::<Uri>().ok()?
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let authority = base.authority()?;
        format!("{}://{authority}{folder}/{location}", base.scheme_str()?).parse().ok()?
    };
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()).then_some(uri)
}

/// Whether two addresses are of the same server, so that what one may know the other may too.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().or(match uri.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// `host[:port]` of an address, without a user name.
pub(super) fn host_of(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    match url.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether a `host[:port]` is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The certificate authorities of the system.
pub(crate) fn system_roots() -> RootCerts {
    roots_with(Vec::new())
}

/// The certificate authorities of the system, and others. Those built in are taken where the system
/// has none, if there are no others either.
fn roots_with(own: Vec<Certificate<'static>>) -> RootCerts {
    static SYSTEM: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    let system = SYSTEM.get_or_init(|| {
        let from_environment = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let usual = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/cert.pem",
        ];
        let files = from_environment.into_iter().chain(usual.map(Into::into));
        files.filter_map(|file| certificates(&file).ok()).next().unwrap_or_default()
    });
    if system.is_empty() && own.is_empty() {
        return RootCerts::WebPki;
    }
    RootCerts::new_with_certs(&[system.as_slice(), &own].concat())
}

type FileError = (PathBuf, io::Error);

/// The certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, FileError> {
    let pem = std::fs::read(path).map_err(|error| (path.to_owned(), error))?;
    let found: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err((path.to_owned(), io::Error::other("there is no certificate in it")));
    }
    Ok(found)
}

fn client_cert(certificate: &Path, key: &Path) -> Result<ClientCert, FileError> {
    let chain = certificates(certificate)?;
    let failed = |error: io::Error| (key.to_owned(), error);
    let pem = std::fs::read(key).map_err(failed)?;
    let key = PrivateKey::from_pem(&pem)
        .map_err(|_| failed(io::Error::other("there is no private key in it")))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn unreachable(what: &str, host: &str, error: ureq::Error) -> RegistryError {
    use std::io::ErrorKind;
    let temporary = match &error {
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        // Invalid data is how TLS tells of a certificate that will not do.
        ureq::Error::Io(error) => {
            !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::InvalidData)
        }
        // An answer that is cut off within its head.
        ureq::Error::Protocol(_) => true,
        _ => false,
    };
    RegistryError::Unreachable {
        what: what.to_owned(),
        host: host.to_owned(),
        reason: reason(error),
        temporary,
    }
}

/// Why there is no answer, or no more of one.
pub(super) fn reason(error: ureq::Error) -> String {
    let after = |what: &str, limit: Duration| format!("{what} for {} seconds", limit.as_secs());
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => after("its name was not found", CONNECT_LIMIT),
        ureq::Error::Timeout(Timeout::Connect) => after("it took no connection", CONNECT_LIMIT),
        ureq::Error::Timeout(Timeout::PerRead) => after("nothing came", ANSWER_LIMIT),
        ureq::Error::Timeout(Timeout::PerWrite) => after("it took nothing", ANSWER_LIMIT),
        ureq::Error::Timeout(_) => "no answer came in time".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "128.0.0.1", "[2001:db8::1]:5000", "localhost.example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://h:5000/v2/a/blobs/uploads/1?x=y".parse().expect("base");
        let to = |location| resolve(&base, location).map(|uri| uri.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(to("/v2/b?_state=z"), some("https://h:5000/v2/b?_state=z"));
        assert_eq!(to("http://other/x#frag"), some("http://other/x"));
        assert_eq!(to("//other/x"), some("https://other/x"));
        assert_eq!(to("2?q"), some("https://h:5000/v2/a/blobs/uploads/2?q"));
        assert_eq!(to("ftp://other/x"), None);
        assert_eq!(to("http://"), None);
        assert_eq!(to("/a b"), None);
    }

    #[test]
    fn credentials_are_for_one_server() {
        let same = |a: &str, b: &str| {
            same_origin(&a.parse().expect("address"), &b.parse().expect("address"))
        };
        assert!(same("https://h/a", "https://H:443/b"));
        assert!(!same("https://h/a", "http://h/a"));
        assert!(!same("https://h/a", "https://h:444/a"));
        assert!(!same("https://h/a", "https://h.example/a"));
        assert!(!same("https://h@evil/a", "https://h/a"));
    }

    proptest::proptest! {
        #[test]
        fn any_location_is_answered(location in "\\PC{0,60}") {
            let base: Uri = "https://h/v2/".parse().expect("base");
            let _ = resolve(&base, &location);
        }
    }
}
