//! One exchange with a token service: a secret, or nothing, for a bearer token.

use ureq::http::{Method, StatusCode, Uri, header};

use super::{
    RegistryError, Secret,
    auth::{TokenAnswer, form, with_query},
    client::{error_message, success},
    token::basic,
    transport::{Outgoing, Payload, Transport, host_of, is_loopback},
};

/// What we call ourselves.
const CLIENT_ID: &str = "rbc";
/// Most bytes of an answer that are read.
const MAX_ANSWER: u64 = 256 << 10;

/// How long the caller wants to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenLife {
    /// With this token only.
    Once,
    /// With a refresh token as well, to be kept in place of the password.
    Offline,
}

/// What is asked of a token service.
pub(super) struct TokenRequest<'a> {
    pub(super) transport: &'a Transport,
    /// Host of the registry that sent us there.
    pub(super) registry: &'a str,
    /// The service's address.
    pub(super) realm: &'a str,
    /// Name of the registry for the service.
    pub(super) service: Option<&'a str>,
    /// What the token is to allow.
    pub(super) scopes: &'a [&'a str],
    pub(super) life: TokenLife,
    /// What errors are about.
    pub(super) what: &'a str,
}

/// Why there is no token.
pub(super) enum TokenError {
    /// The service does not want us.
    Refused {
        /// The service.
        host: String,
        /// What it said; may be empty.
        message: String,
    },
    Failed(RegistryError),
}

impl TokenRequest<'_> {
    /// Asks for a token, anonymously without a secret.
    pub(super) fn send(
        &self,
        secret: Option<&Secret>,
    ) -> Result<(String, TokenAnswer), TokenError> {
        let failed = |reason: String| {
            TokenError::Failed(RegistryError::Protocol { what: self.what.to_owned(), reason })
        };
        let no_address = || {
            failed(format!("{} names a token service without TLS: {}", self.registry, self.realm))
        };
        let realm: Uri = self.realm.parse().map_err(|_| no_address())?;
        let host = host_of(&realm);
        if !self.may_be_told(&realm).map_err(TokenError::Failed)? {
            return Err(no_address());
        }
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(self.service.map(|service| ("service", service)));
        let (method, url, body, authorization) = match secret {
            Some(Secret::IdentityToken(token)) => {
                let scopes = self.scopes.join(" ");
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("scope", &scopes),
                    ("refresh_token", token),
                ]);
                (Method::POST, realm, Some(form(&pairs)), None)
            }
            other => {
                pairs.extend(self.scopes.iter().map(|scope| ("scope", *scope)));
                let password = match other {
                    Some(Secret::Password { user, password }) => Some((user, password)),
                    _ => None,
                };
                if let Some((user, _)) = password {
                    pairs.push(("account", user));
                }
                if self.life == TokenLife::Offline {
                    pairs.extend([("offline_token", "true"), ("client_id", CLIENT_ID)]);
                }
                let url = with_query(self.realm, &form(&pairs));
                let url = url.parse().map_err(|_| no_address())?;
                let header = password.map(|(user, password)| basic(user, password));
                (Method::GET, url, None, header)
            }
        };
        let kind = (header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned());
        let headers = [kind];
        let answer = self
            .transport
            .send(&Outgoing {
                method,
                url,
                headers: if body.is_some() { &headers } else { &[] },
                authorization: authorization.as_deref(),
                payload: match &body {
                    Some(body) => Payload::Bytes(body.as_bytes()),
                    None => Payload::Nothing,
                },
                what: self.what,
            })
            .map_err(TokenError::Failed)?;
        let status = answer.response.status();
        // OAuth2 services answer 400 to a refresh token that is no good any more.
        let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            || (status == StatusCode::BAD_REQUEST && body.is_some());
        if is_refusal {
            return Err(TokenError::Refused { host, message: error_message(answer.response) });
        }
        let mut response =
            success(answer.response, &host, self.what).map_err(TokenError::Failed)?;
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|error| {
            TokenError::Failed(RegistryError::Broken {
                what: self.what.to_owned(),
                host: host.clone(),
                reason: error.to_string(),
            })
        })?;
        let none = || failed(format!("the token service {host} gave no token"));
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let token = answer.token().ok_or_else(none)?.to_owned();
        Ok((token, answer))
    }

    /// Passwords go only to services with TLS, unless the registry itself has none or the service
    /// is on this machine.
    fn may_be_told(&self, realm: &Uri) -> Result<bool, RegistryError> {
        Ok(match realm.scheme_str() {
            Some("https") => true,
            Some("http") => {
                is_loopback(&host_of(realm))
                    || self.transport.scheme(self.registry, self.what)? == "http"
            }
            _ => false,
        })
    }
}
