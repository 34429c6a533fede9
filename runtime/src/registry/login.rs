//! `rbc login`: does a registry take these credentials?

use ureq::http::{Method, StatusCode, Uri, header};

use super::{
    Client, Denial, RegistryError, Secret,
    auth::Challenge,
    client::{error_message, refuse_web_page, success},
    hosts::Endpoint,
    retry::retry,
    token::basic,
    token_service::{TokenError, TokenLife, TokenRequest},
    transport::{Answer, Outgoing, Payload, host_of},
};

impl Client {
    /// Shows credentials to a registry and gives what to keep: the same, or the refresh token that
    /// its token service gave for them.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if the registry does not know them, or why it could not be asked.
    pub fn log_in(&self, domain: &str, secret: &Secret) -> Result<Secret, RegistryError> {
        retry(&self.stop, || self.log_in_once(domain, secret))
    }

    fn log_in_once(&self, domain: &str, secret: &Secret) -> Result<Secret, RegistryError> {
        let endpoint = Endpoint::origin(domain, "");
        let host = endpoint.host.as_str();
        let scheme = self.transport.scheme(host, domain)?;
        let url: Uri =
            format!("{scheme}://{host}/v2/").parse().map_err(|_| RegistryError::Protocol {
                what: domain.to_owned(),
                reason: "it is no host name".to_owned(),
            })?;
        let ask = |authorization: Option<&str>| {
            self.transport.send(&Outgoing {
                method: Method::GET,
                url: url.clone(),
                headers: &[],
                authorization,
                payload: Payload::Nothing,
                what: domain,
            })
        };
        let denied = |host: &str, message: String| {
            RegistryError::Denied(Box::new(Denial {
                what: domain.to_owned(),
                host: host.to_owned(),
                domain: domain.to_owned(),
                who: Some(secret.who()),
                message,
            }))
        };
        let settle = |answer: Answer| match answer.response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(denied(&host_of(&answer.url), error_message(answer.response)))
            }
            _ => success(answer.response, &host_of(&answer.url), domain).map(drop),
        };
        let answer = ask(None)?;
        refuse_web_page(&answer.response, host, domain)?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            // It takes anybody; whether it knows this user only a push could tell.
            success(answer.response, host, domain)?;
            return Ok(secret.clone());
        }
        let challenges = answer.response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> =
            challenges.filter_map(|value| Some(Challenge::parse(value.to_str().ok()?))).collect();
        for challenge in &challenges {
            match (challenge, secret) {
                (Challenge::Basic, Secret::Password { user, password }) => {
                    settle(ask(Some(&basic(user, password)))?)?;
                    return Ok(secret.clone());
                }
                (Challenge::Bearer { realm, service, .. }, _) => {
                    let request = TokenRequest {
                        transport: &self.transport,
                        registry: host,
                        realm,
                        service: service.as_deref(),
                        scopes: &[],
                        life: TokenLife::Offline,
                        what: domain,
                    };
                    let (token, answer) =
                        request.send(Some(secret)).map_err(|error| match error {
                            TokenError::Refused { host, message } => denied(&host, message),
                            TokenError::Failed(error) => error,
                        })?;
                    settle(ask(Some(&format!("Bearer {token}")))?)?;
                    let refresh = answer.refresh_token().map(str::to_owned);
                    return Ok(refresh.map_or_else(|| secret.clone(), Secret::IdentityToken));
                }
                _ => {}
            }
        }
        Err(denied(host, error_message(answer.response)))
    }
}
