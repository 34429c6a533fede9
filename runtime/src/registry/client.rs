//! Requests to registries: where they go, as whom, and what an answer means.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rbc_ir::Digest;
use serde::Deserialize;
use ureq::{
    Body,
    http::{HeaderName, Method, Response, StatusCode, Uri, header},
};

use super::{
    CredentialFiles, Patience, Registries, RegistryError, Stop,
    hosts::Endpoint,
    retry::retry_after,
    token::{Asker, Authority, Scope},
    transport::{Answer, Outgoing, Payload, Transport, header_text, host_of, same_origin},
};
use crate::image::Reference;

/// Header with the digest of what a registry has stored.
pub(super) const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
/// Most bytes of an error answer that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Sends requests to registries. Connections, tokens and credentials are kept, so one client should
/// serve a whole run; it may be used from several threads.
pub struct Client {
    pub(super) transport: Transport,
    authority: Authority,
    pub(super) stop: Stop,
    patience: Patience,
    /// Blobs that are being fetched, so that two images with a common layer fetch it once.
    in_flight: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

/// What a client goes by.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// What is special about single registries.
    pub registries: Registries,
    /// Where credentials are looked up.
    pub credentials: CredentialFiles,
    /// Ends everything.
    pub stop: Stop,
    /// How long registries are waited for.
    pub patience: Patience,
}

/// A request to a registry.
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scopes: &'a [Scope],
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: &'a [(HeaderName, String)],
    pub(super) payload: Payload<'a>,
    /// What errors are about.
    pub(super) what: &'a str,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client that asks anonymously and knows of no special registries. It trusts the system's
    /// certificate authorities (`SSL_CERT_FILE` if set), or those built in where the system has
    /// none.
    pub fn new() -> Self {
        Self::with(ClientOptions::default())
    }

    /// A client with options.
    pub fn with(options: ClientOptions) -> Self {
        Self {
            transport: Transport::new(options.registries, options.stop.clone()),
            authority: Authority::new(options.credentials),
            stop: options.stop,
            patience: options.patience,
            in_flight: Mutex::default(),
        }
    }

    /// Where a repository may be: mirrors first, the registry itself last.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = self.transport.registries().endpoints(reference)?;
        if self.patience == Patience::Short {
            endpoints.iter_mut().for_each(|endpoint| endpoint.patience = Patience::Short);
        }
        Ok(endpoints)
    }

    /// The address of `path` (`manifests/latest`) in an endpoint's repository.
    pub(super) fn url(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
    ) -> Result<Uri, RegistryError> {
        let scheme = self.transport.scheme(&endpoint.host, what)?;
        let url = format!("{scheme}://{}/v2/{}/{path}", endpoint.host, endpoint.repository);
        url.parse().map_err(|_| RegistryError::Protocol {
            what: what.to_owned(),
            reason: format!("{url} is no address"),
        })
    }

    /// One attempt, in which a challenge is answered. Any answer but a refusal of who we are is
    /// given to the caller. Credentials are sent to the endpoint's own host only.
    pub(super) fn call(&self, call: Call<'_>) -> Result<Answer, RegistryError> {
        let Call { endpoint, scopes, method, url, headers, payload, what } = call;
        let asker = Asker { transport: &self.transport, endpoint, scopes, what };
        let own = self.url(endpoint, "", what)?;
        let is_own = same_origin(&own, &url);
        let used = if is_own { self.authority.known(&asker)? } else { None };
        let mut outgoing =
            Outgoing { method, url, headers, authorization: used.as_deref(), payload, what };
        let answer = self.transport.send(&outgoing)?;
        // Who is elsewhere (a blob store) has nothing to ask us.
        if answer.response.status() != StatusCode::UNAUTHORIZED || !same_origin(&own, &answer.url) {
            return Ok(answer);
        }
        let header = self.authority.challenged(&asker, used.as_deref(), answer)?;
        outgoing.authorization = Some(&header);
        let answer = self.transport.send(&outgoing)?;
        if answer.response.status() == StatusCode::UNAUTHORIZED {
            let host = host_of(&answer.url);
            return Err(self.authority.denied(&asker, &host, error_message(answer.response)));
        }
        Ok(answer)
    }

    /// An answer that is a success; anything else as an error.
    pub(super) fn expect_success(
        &self,
        endpoint: &Endpoint,
        answer: Answer,
        what: &str,
    ) -> Result<Response<Body>, RegistryError> {
        let host = host_of(&answer.url);
        let is_own = host == endpoint.host;
        if is_own {
            refuse_web_page(&answer.response, &host, what)?;
        }
        if answer.response.status() != StatusCode::FORBIDDEN {
            return success(answer.response, &host, what);
        }
        if is_own {
            let asker = Asker { transport: &self.transport, endpoint, scopes: &[], what };
            return Err(self.authority.denied(&asker, &host, error_message(answer.response)));
        }
        // A blob store that does not take the address any more which the registry gave: it will
        // give another one.
        Err(RegistryError::Status {
            what: what.to_owned(),
            host,
            status: StatusCode::FORBIDDEN.to_string(),
            message: error_message(answer.response),
            retry_after: None,
            temporary: true,
        })
    }

    /// The lock of a blob: whoever has it fetches the blob.
    pub(super) fn blob_lock(&self, digest: &Digest) -> Arc<Mutex<()>> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(in_flight.entry(*digest).or_default())
    }
}

/// An error if an answer is a page for people, which whoever stands between us and the registry (or
/// a server that is no registry) sends in place of an answer. Some registries say of their empty
/// answers that they were HTML, but those name a digest or place.
pub(super) fn refuse_web_page(
    response: &Response<Body>,
    host: &str,
    what: &str,
) -> Result<(), RegistryError> {
    let is_html = header_text(response.headers(), header::CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let says_more = [header::LOCATION, DIGEST_HEADER, header::WWW_AUTHENTICATE]
        .iter()
        .any(|name| response.headers().contains_key(name));
    if response.status() != StatusCode::OK || !is_html || says_more {
        return Ok(());
    }
    Err(RegistryError::Protocol {
        what: what.to_owned(),
        reason: format!(
            "{host} answered with a web page: it is no registry, or something on the way (a login \
             page of the network, a proxy) answers in its place"
        ),
    })
}

/// An answer that is a success; anything else as an error.
pub(super) fn success(
    response: Response<Body>,
    host: &str,
    what: &str,
) -> Result<Response<Body>, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let asked = header_text(response.headers(), header::RETRY_AFTER)
        .and_then(|value| retry_after(value, SystemTime::now()));
    let message = error_message(response);
    let what = what.to_owned();
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what, message },
        _ => RegistryError::Status {
            what,
            host: host.to_owned(),
            status: status.to_string(),
            message,
            retry_after: asked,
            temporary: status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT),
        },
    })
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    errors: Vec<ErrorLine>,
    /// Token services use other words.
    #[serde(default)]
    details: String,
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
pub(super) fn error_message(mut response: Response<Body>) -> String {
    let body = response.body_mut().with_config().limit(MAX_ERROR_BODY).read_to_vec();
    let body = body.unwrap_or_default();
    let text = match serde_json::from_slice::<ErrorAnswer>(&body) {
        Ok(answer) if answer.errors.is_empty() => answer.details,
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
