//! The client for registries that a run of rbc uses, with this user's credentials.

use anyhow::Result;
use rbc_runtime::registry::{Client, ClientOptions, CredentialFiles, Stop};

/// A client that goes by the environment. It ends its transfers when `stop` says so.
pub fn client(stop: Stop) -> Result<Client> {
    let credentials = CredentialFiles::from_environment();
    Ok(Client::with(ClientOptions { credentials, stop, ..ClientOptions::default() }))
}
