//! Operations for tests.

use rbc_ir::{Exec, Network, Security};

/// A command that does nothing and asks for nothing.
pub(super) fn plain_exec() -> Exec {
    Exec {
        args: vec!["true".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts: Vec::new(),
        secret_env: Vec::new(),
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_size: 0,
    }
}
