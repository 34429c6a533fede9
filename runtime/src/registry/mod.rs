//! Registry client: images from an OCI distribution registry into the store.
//!
//! A small blocking client for what builds need. [`Client`] sends single requests (scheme, time
//! limits, retries), `auth` answers a registry's challenge, `pull` turns requests into images. What
//! arrives is believed only after its digest was computed; headers that name a digest are not.

mod auth;
mod client;
mod error;
mod pull;

pub use client::Client;
pub(crate) use client::{is_loopback, system_roots};
pub use error::RegistryError;
pub use pull::{Progress, Remote, fetch, pull};
