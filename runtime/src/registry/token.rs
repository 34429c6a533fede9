//! Proving who we are: credentials and a registry's challenge become an `Authorization` header.
//!
//! Distribution's token protocol: a registry answers 401 and names a token service, which gives a
//! token for a set of scopes. Tokens and challenges are kept, so each scope costs one exchange.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ureq::http::header;

use super::{
    CredentialFiles, Credentials, Denial, RegistryError, Secret,
    auth::Challenge,
    client::error_message,
    hosts::Endpoint,
    token_service::{TokenError, TokenLife, TokenRequest},
    transport::{Answer, Transport},
};

/// A token is not used any more so long before it ends.
const MARGIN: Duration = Duration::from_secs(10);

/// What a request does to a repository, in the words of token services.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(String);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }
}

impl Scope {
    /// Whether a scope is about the same thing, whatever is done to it.
    fn covers(&self, other: &str) -> bool {
        let thing = |scope: &str| scope.rsplit_once(':').map(|(thing, _)| thing.to_owned());
        thing(&self.0) == thing(other)
    }
}

/// Knows, or finds out, what to tell each registry.
pub(super) struct Authority {
    files: CredentialFiles,
    /// By registry and repository: helpers are programs and slow.
    found: Mutex<HashMap<(String, String), Option<Credentials>>>,
    /// What hosts have asked for.
    challenges: Mutex<HashMap<String, Challenge>>,
    /// By host and scopes; each has a lock of its own, so that only one thread asks for it.
    grants: Mutex<HashMap<(String, Vec<Scope>), Slot>>,
}

/// Where a grant is kept, locked while it is asked for.
type Slot = Arc<Mutex<Option<Grant>>>;

/// A header that opens a door for some time.
#[derive(Clone)]
struct Grant {
    header: String,
    until: Instant,
}

/// Whose token is wanted for what.
pub(super) struct Asker<'a> {
    pub(super) transport: &'a Transport,
    pub(super) endpoint: &'a Endpoint,
    pub(super) scopes: &'a [Scope],
    /// What errors are about.
    pub(super) what: &'a str,
}

impl Authority {
    pub(super) fn new(files: CredentialFiles) -> Self {
        Self {
            files,
            found: Mutex::default(),
            challenges: Mutex::default(),
            grants: Mutex::default(),
        }
    }

    /// The header for a request whose host has been spoken to before. `None` if nothing is known
    /// to be needed.
    pub(super) fn known(&self, asker: &Asker<'_>) -> Result<Option<String>, RegistryError> {
        let slot = self.slot(asker);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = slot.as_ref().filter(|grant| grant.until > Instant::now()) {
            return Ok(Some(grant.header.clone()));
        }
        let challenge = lock(&self.challenges).get(&asker.endpoint.host).cloned();
        let Some(challenge) = challenge else { return Ok(None) };
        let grant = self.grant(asker, &challenge, "")?;
        let header = grant.header.clone();
        *slot = Some(grant);
        Ok(Some(header))
    }

    /// The header to try after a 401 answer to a request that was sent with `used`.
    pub(super) fn challenged(
        &self,
        asker: &Asker<'_>,
        used: Option<&str>,
        refused: Answer,
    ) -> Result<String, RegistryError> {
        let host = &asker.endpoint.host;
        let slot = self.slot(asker);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grant) = slot.as_ref().filter(|grant| Some(grant.header.as_str()) != used) {
            // Another thread was refused as well and has been quicker.
            return Ok(grant.header.clone());
        }
        let challenges: Vec<Challenge> = refused
            .response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(Challenge::parse)
            .collect();
        let message = error_message(refused.response);
        let is_bearer = |challenge: &&Challenge| matches!(challenge, Challenge::Bearer { .. });
        let is_known = |challenge: &&Challenge| !matches!(challenge, Challenge::Other(_));
        let challenge =
            challenges.iter().find(is_bearer).or_else(|| challenges.iter().find(is_known));
        let Some(challenge) = challenge else {
            return Err(self.denied(asker, host, message));
        };
        let grant = self.grant(asker, challenge, &message)?;
        // A basic challenge met with the same password again leads nowhere.
        if used == Some(grant.header.as_str()) {
            return Err(self.denied(asker, host, message));
        }
        let mut lasting = challenge.clone();
        if let Challenge::Bearer { scope, .. } = &mut lasting {
            // It is about this repository only.
            *scope = None;
        }
        lock(&self.challenges).insert(host.clone(), lasting);
        let header = grant.header.clone();
        *slot = Some(grant);
        Ok(header)
    }

    /// An error that says who was turned away.
    pub(super) fn denied(&self, asker: &Asker<'_>, host: &str, message: String) -> RegistryError {
        let endpoint = asker.endpoint;
        let who = match self.credentials(endpoint, asker.what) {
            Ok(Some(found)) if found.origin.is_empty() => Some(found.secret.who()),
            Ok(Some(found)) => Some(format!("{} ({})", found.secret.who(), found.origin)),
            _ => None,
        };
        RegistryError::Denied(Box::new(Denial {
            what: asker.what.to_owned(),
            host: host.to_owned(),
            domain: endpoint.domain.clone(),
            who,
            message,
        }))
    }

    fn slot(&self, asker: &Asker<'_>) -> Slot {
        let key = (asker.endpoint.host.clone(), asker.scopes.to_vec());
        Arc::clone(lock(&self.grants).entry(key).or_default())
    }

    fn credentials(
        &self,
        endpoint: &Endpoint,
        what: &str,
    ) -> Result<Option<Credentials>, RegistryError> {
        let key = (endpoint.domain.clone(), endpoint.repository.clone());
        if let Some(found) = lock(&self.found).get(&key) {
            return Ok(found.clone());
        }
        let found = self.files.find(&endpoint.domain, &endpoint.repository).map_err(|source| {
            RegistryError::Credentials { what: what.to_owned(), source: Box::new(source) }
        })?;
        lock(&self.found).insert(key, found.clone());
        Ok(found)
    }

    fn grant(
        &self,
        asker: &Asker<'_>,
        challenge: &Challenge,
        message: &str,
    ) -> Result<Grant, RegistryError> {
        let found = self.credentials(asker.endpoint, asker.what)?;
        let secret = found.as_ref().map(|found| &found.secret);
        let forever = Instant::now() + Duration::from_secs(24 * 3600);
        match (challenge, secret) {
            (_, Some(Secret::RegistryToken(token))) => {
                Ok(Grant { header: format!("Bearer {token}"), until: forever })
            }
            (Challenge::Basic, Some(Secret::Password { user, password })) => {
                Ok(Grant { header: basic(user, password), until: forever })
            }
            (Challenge::Bearer { realm, service, scope }, secret) => {
                let mut scopes: Vec<&str> =
                    asker.scopes.iter().map(|scope| scope.0.as_str()).collect();
                // A registry may call a repository otherwise, or want something of its own.
                let named = scope.iter().flat_map(|scope| scope.split(' '));
                scopes.extend(named.filter(|named| {
                    !named.is_empty() && !asker.scopes.iter().any(|own| own.covers(named))
                }));
                let request = TokenRequest {
                    transport: asker.transport,
                    registry: &asker.endpoint.host,
                    realm,
                    service: service.as_deref(),
                    scopes: &scopes,
                    life: TokenLife::Once,
                    what: asker.what,
                };
                let (token, answer) = request.send(secret).map_err(|error| match error {
                    TokenError::Refused { host, message } => self.denied(asker, &host, message),
                    TokenError::Failed(error) => error,
                })?;
                let until = Instant::now() + answer.life() - MARGIN;
                Ok(Grant { header: format!("Bearer {token}"), until })
            }
            (Challenge::Basic | Challenge::Other(_), _) => {
                Err(self.denied(asker, &asker.endpoint.host, message.to_owned()))
            }
        }
    }
}

/// The header of basic authentication (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
