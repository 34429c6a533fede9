//! The client for registries that a run of rbc uses: with this user's settings and credentials.

use std::path::PathBuf;

use rbc_runtime::registry::{Client, ClientOptions, CredentialFiles, HostSettings, Patience, Stop};

use crate::{commands::Failure, config::Config};

/// A client that goes by the config files and the environment. It ends its transfers when `stop`
/// says so.
pub fn client(stop: Stop) -> Result<Client, Failure> {
    client_for(stop, &[], Patience::Long)
}

/// A client that lets some hosts pass without proof of who they are.
pub fn client_for(stop: Stop, insecure: &[String], patience: Patience) -> Result<Client, Failure> {
    let mut registries = Config::load()?.registries();
    for host in insecure {
        registries.set(host, HostSettings { insecure: true, ..HostSettings::default() });
    }
    registries.add_containers_conf()?;
    for dir in ["/etc/docker/certs.d", "/etc/containers/certs.d"] {
        registries.add_certificates(dir.into());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    if let Some(config) = config {
        registries.add_certificates(config.join("containers/certs.d"));
    }
    let credentials = CredentialFiles::from_environment();
    Ok(Client::with(ClientOptions { registries, credentials, stop, patience }))
}
