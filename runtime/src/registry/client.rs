//! Single requests to a registry: where it is, time limits, retries, tokens.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde::Deserialize;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use super::{
    RegistryError,
    auth::{Challenge, TokenAnswer, token_url},
};
use crate::image::Reference;

/// How often a request is sent before its failure is final.
const ATTEMPTS: u32 = 5;
/// Wait before the second attempt; doubled for each later one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait that a registry's `Retry-After` is followed for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of an error answer that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// Most bytes of a token service's answer that are read.
const MAX_TOKEN_BODY: u64 = 256 << 10;

/// Sends requests to registries. Connections and tokens are kept, so one client should serve a
/// whole build; it may be used from several threads.
pub struct Client {
    /// For registries on this machine, which no proxy is used for.
    direct: Agent,
    agent: Agent,
    /// Bearer tokens by repository.
    tokens: Mutex<HashMap<String, String>>,
    /// `http` or `https` by host, once known.
    schemes: Mutex<HashMap<String, &'static str>>,
}

/// One request of a GET kind.
pub(super) struct Request<'a> {
    /// Whose repository is asked.
    pub(super) reference: &'a Reference,
    /// Behind `/v2/<repository>/`, for example `manifests/latest`.
    pub(super) path: &'a str,
    /// Value of `Accept`.
    pub(super) accept: &'a str,
    /// First byte wanted.
    pub(super) from: u64,
    /// What errors are about.
    pub(super) what: &'a str,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client that trusts the system's certificate authorities (`SSL_CERT_FILE` if set), or
    /// those built in where the system has none.
    pub fn new() -> Self {
        let builder = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .user_agent(concat!("rbc/", env!("CARGO_PKG_VERSION")))
                .tls_config(TlsConfig::builder().root_certs(system_roots()).build())
                .timeout_resolve(Some(Duration::from_secs(20)))
                .timeout_connect(Some(Duration::from_secs(20)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
                .timeout_per_read(Some(Duration::from_secs(60)))
        };
        Self {
            direct: builder().proxy(None).build().new_agent(),
            agent: builder().build().new_agent(),
            tokens: Mutex::default(),
            schemes: Mutex::default(),
        }
    }

    /// One attempt; a challenge for a token is answered within it.
    pub(super) fn get_once(&self, request: &Request<'_>) -> Result<Response<Body>, RegistryError> {
        let host = api_host(request.reference.domain());
        let scheme = self.scheme(host, request.what)?;
        let url = format!("{scheme}://{host}/v2/{}/{}", request.reference.path(), request.path);
        let repository = request.reference.name();
        let token = lock(&self.tokens).get(&repository).cloned();
        let response = self.send(host, &url, request, token.as_deref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return success(response, host, request.what);
        }
        let token = self.new_token(host, scheme, request, response)?;
        lock(&self.tokens).insert(repository, token.clone());
        let response = self.send(host, &url, request, Some(&token))?;
        success(response, host, request.what)
    }

    fn send(
        &self,
        host: &str,
        url: &str,
        request: &Request<'_>,
        token: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut call = self.agent_for(host).get(url).header(header::ACCEPT, request.accept);
        if let Some(token) = token {
            call = call.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if request.from > 0 {
            call = call.header(header::RANGE, format!("bytes={}-", request.from));
        }
        call.call().map_err(|error| unreachable(request.what, host, error))
    }

    /// Asks the token service that a 401 answer names for an anonymous token.
    fn new_token(
        &self,
        host: &str,
        scheme: &str,
        request: &Request<'_>,
        refused: Response<Body>,
    ) -> Result<String, RegistryError> {
        let what = request.what;
        let challenges: Vec<Challenge> = refused
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(Challenge::parse)
            .collect();
        let message = error_message(refused);
        let bearer = challenges.into_iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Other(_) => None,
        });
        let Some((realm, service, scope)) = bearer else {
            return Err(RegistryError::Denied { what: what.to_owned(), message });
        };
        if !(realm.starts_with("https://") || (scheme == "http" && realm.starts_with("http://"))) {
            return Err(RegistryError::Protocol {
                what: what.to_owned(),
                reason: format!("{host} names a token service without TLS: {realm}"),
            });
        }
        let scope =
            scope.unwrap_or_else(|| format!("repository:{}:pull", request.reference.path()));
        let url = token_url(&realm, service.as_deref(), &scope);
        let realm_host = realm.split('/').nth(2).unwrap_or_default();
        let response = self
            .agent_for(realm_host)
            .get(&url)
            .call()
            .map_err(|error| unreachable(what, realm_host, error))?;
        let mut response = success(response, realm_host, what)?;
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_TOKEN_BODY)
            .read_to_vec()
            .map_err(|error| unreachable(what, realm_host, error))?;
        serde_json::from_slice::<TokenAnswer>(&body).ok().and_then(TokenAnswer::token).ok_or_else(
            || RegistryError::Protocol {
                what: what.to_owned(),
                reason: format!("the token service {realm_host} gave no token"),
            },
        )
    }

    fn agent_for(&self, host: &str) -> &Agent {
        if is_loopback(host) { &self.direct } else { &self.agent }
    }

    /// HTTPS, but plain HTTP for a registry on this machine that speaks it.
    fn scheme(&self, host: &str, what: &str) -> Result<&'static str, RegistryError> {
        if !is_loopback(host) {
            return Ok("https");
        }
        if let Some(scheme) = lock(&self.schemes).get(host) {
            return Ok(scheme);
        }
        let probe = self
            .direct
            .get(format!("http://{host}/v2/"))
            .call()
            .map_err(|error| unreachable(what, host, error))?;
        // Servers with TLS answer a plain request with 400 and a remark.
        let wants_tls =
            probe.status() == StatusCode::BAD_REQUEST && error_message(probe).contains("HTTPS");
        let scheme = if wants_tls { "https" } else { "http" };
        lock(&self.schemes).insert(host.to_owned(), scheme);
        Ok(scheme)
    }
}

/// Runs an attempt again, after a growing wait, as long as its failure may pass.
pub(super) fn retry<T>(
    mut attempt: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_temporary() => {
                let asked = match &error {
                    RegistryError::Status { retry_after, .. } => *retry_after,
                    _ => None,
                };
                thread::sleep(asked.unwrap_or(wait).min(LONGEST_WAIT));
                wait *= 2;
            }
            other => return other,
        }
    }
    attempt()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host that serves a registry's API.
fn api_host(domain: &str) -> &str {
    if domain == "docker.io" { "registry-1.docker.io" } else { domain }
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
    let from_environment = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let files = from_environment.into_iter().chain(usual.map(Into::into));
    for file in files {
        let Ok(pem) = std::fs::read(file) else { continue };
        let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if !certificates.is_empty() {
            return RootCerts::new_with_certs(&certificates);
        }
    }
    RootCerts::WebPki
}

fn success(
    response: Response<Body>,
    host: &str,
    what: &str,
) -> Result<Response<Body>, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let message = error_message(response);
    let what = what.to_owned();
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what, message },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied { what, message },
        _ => RegistryError::Status {
            what,
            host: host.to_owned(),
            status: status.to_string(),
            message,
            retry_after,
            temporary: status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT),
        },
    })
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<ErrorLine>,
}

#[derive(Deserialize)]
struct ErrorLine {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says about its refusal (distribution-spec, "Error codes"), else the first line
/// of a plain answer. Control characters are left out, since it goes to a terminal.
fn error_message(mut response: Response<Body>) -> String {
    let body = response.body_mut().with_config().limit(MAX_ERROR_BODY).read_to_vec();
    let body = body.unwrap_or_default();
    let text = match serde_json::from_slice::<ErrorAnswer>(&body) {
        Ok(answer) => answer
            .errors
            .into_iter()
            .map(|line| if line.message.is_empty() { line.code } else { line.message })
            .collect::<Vec<_>>()
            .join("; "),
        Err(_) => String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn unreachable(what: &str, host: &str, error: ureq::Error) -> RegistryError {
    use std::io::ErrorKind;
    let temporary = match &error {
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => error.kind() != ErrorKind::ConnectionRefused,
        _ => false,
    };
    RegistryError::Unreachable {
        what: what.to_owned(),
        host: host.to_owned(),
        reason: error.to_string(),
        temporary,
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
    fn only_passing_failures_are_retried() {
        let mut calls = 0;
        let result: Result<(), _> = retry(|| {
            calls += 1;
            Err(RegistryError::NotFound { what: "a".to_owned(), message: String::new() })
        });
        assert_eq!((result.expect_err("fails").to_string(), calls), ("a: not found".to_owned(), 1));
        let mut calls = 0;
        let result = retry(|| {
            calls += 1;
            if calls < 3 {
                return Err(RegistryError::Status {
                    what: "a".to_owned(),
                    host: "h".to_owned(),
                    status: "503".to_owned(),
                    message: String::new(),
                    retry_after: Some(Duration::ZERO),
                    temporary: true,
                });
            }
            Ok(calls)
        });
        assert_eq!(result.expect("works in the end"), 3);
    }
}
