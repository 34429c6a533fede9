//! Programs that keep secrets for Docker: `docker-credential-NAME` (docker-credential-helpers).

use std::{
    io::{ErrorKind, Write},
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::{CredentialError, Secret};

/// The user name that helpers give when the secret is a refresh token.
const TOKEN_USER: &str = "<token>";
/// What helpers print when they have nothing for a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// One helper program.
pub(super) struct Helper<'a> {
    /// The part of the program's name behind `docker-credential-`.
    pub(super) name: &'a str,
    /// The file that names it.
    pub(super) named_in: &'a Path,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helper<'_> {
    /// Name of the program.
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// The secret for a server, if the helper has one.
    pub(super) fn get(&self, server: &str) -> Result<Option<Secret>, CredentialError> {
        let answer = match self.call("get", server.as_bytes())? {
            Answer::Done(answer) => answer,
            Answer::NotFound => return Ok(None),
        };
        let entry: Entry = serde_json::from_slice(&answer)
            .map_err(|e| self.failed(format!("gave an answer that cannot be read: {e}")))?;
        Ok(match entry {
            Entry { username, secret, .. } if username.is_empty() && secret.is_empty() => None,
            Entry { username, secret, .. } if username == TOKEN_USER => {
                Some(Secret::IdentityToken(secret))
            }
            Entry { username, secret, .. } => {
                Some(Secret::Password { user: username, password: secret })
            }
        })
    }

    /// Keeps a secret for a server.
    pub(super) fn store(&self, server: &str, secret: &Secret) -> Result<(), CredentialError> {
        let (username, secret) = match secret {
            Secret::Password { user, password } => (user.clone(), password.clone()),
            Secret::IdentityToken(token) | Secret::RegistryToken(token) => {
                (TOKEN_USER.to_owned(), token.clone())
            }
        };
        let entry = Entry { server_url: server.to_owned(), username, secret };
        let json = serde_json::to_vec(&entry)
            .map_err(|e| self.failed(format!("cannot be given the secret: {e}")))?;
        self.call("store", &json).map(drop)
    }

    /// Forgets a server; tells whether there was anything.
    pub(super) fn erase(&self, server: &str) -> Result<bool, CredentialError> {
        let known = self.get(server)?.is_some();
        if known {
            self.call("erase", server.as_bytes())?;
        }
        Ok(known)
    }

    fn call(&self, verb: &str, input: &[u8]) -> Result<Answer, CredentialError> {
        if self.name.is_empty() || self.name.contains('/') {
            return Err(self.failed("has a name that no program can have".to_owned()));
        }
        let mut child = Command::new(self.program())
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => self.failed("is not in PATH".to_owned()),
                _ => self.failed(format!("cannot be started: {error}")),
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may answer without reading; how it ends tells what counts.
            let _ = stdin.write_all(input);
        }
        let output = child
            .wait_with_output()
            .map_err(|error| self.failed(format!("cannot be waited for: {error}")))?;
        if output.status.success() {
            return Ok(Answer::Done(output.stdout));
        }
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said == NOT_FOUND {
            return Ok(Answer::NotFound);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = [said.as_str(), complaint.trim()]
            .into_iter()
            .find_map(|text| text.lines().next())
            .unwrap_or("it says nothing")
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect::<String>();
        Err(self.failed(format!("failed at {verb:?} ({}): {line}", output.status)))
    }

    fn failed(&self, reason: String) -> CredentialError {
        CredentialError::Helper { program: self.program(), path: self.named_in.to_owned(), reason }
    }
}

enum Answer {
    Done(Vec<u8>),
    NotFound,
}
