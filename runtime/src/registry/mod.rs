//! Registry client: images between an OCI distribution registry and the store.
//!
//! A small blocking client for what builds need. `transport` makes single HTTP exchanges, `token`
//! and `auth` answer a registry's challenge with what `credentials` has, `retry` decides about
//! another attempt, `hosts` knows mirrors and certificates, and [`Client`] ties them together. `pull` turns requests into images, whose blobs
//! `fetch` brings; `push` and `upload` are the way back. What arrives is believed only after its digest was computed; headers that name a digest are not.

mod auth;
mod certificates;
mod client;
mod containers;
mod credentials;
mod error;
mod fetch;
mod hosts;
mod login;
mod pull;
mod push;
mod referrers;
mod retry;
mod token;
mod token_service;
mod transport;
mod upload;

pub use client::{Client, ClientOptions};
pub use credentials::{
    CredentialError, CredentialFile, CredentialFiles, Credentials, Kept, Secret,
};
pub use error::{Denial, RegistryError, SettingsError};
pub use hosts::{HostSettings, Mirror, Registries, Serves};
pub use pull::{Progress, Remote, Unpacking, fetch, pull};
pub use push::{Naming, Pushed, push};
pub use retry::{Patience, Stop};
pub(crate) use transport::{is_loopback, system_roots};
pub use upload::Sent;
