//! Whether this machine can run the commands of a platform.

use std::path::Path;

use rbc_ir::{Graph, Op, Platform};

use super::{
    BuildError,
    plan::{Fate, Plan},
};

/// Where the kernel lists the interpreters of foreign programs.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Checks, before anything runs, that every command that will run can.
///
/// # Errors
/// [`BuildError::ForeignPlatform`] with the first step that cannot.
pub(super) fn check(graph: &Graph, plan: &Plan) -> Result<(), BuildError> {
    let host = Platform::host();
    for (at, (digest, node)) in graph.nodes.iter().enumerate() {
        let (Op::Exec(_), Some(platform)) = (&node.op, &node.platform) else { continue };
        if plan.fates[at] == Fate::Run && !runs_on(platform, &host) && !is_interpreted(platform) {
            return Err(BuildError::ForeignPlatform {
                name: graph.node_meta(digest).name.clone(),
                platform: Box::new(platform.clone()),
                host: Box::new(host),
            });
        }
    }
    Ok(())
}

/// Whether the processor itself runs programs of the platform.
fn runs_on(platform: &Platform, host: &Platform) -> bool {
    platform.os == host.os
        && (platform.architecture == host.architecture
            || matches!(
                (host.architecture.as_str(), platform.architecture.as_str()),
                ("amd64", "386") | ("arm64", "arm")
            ))
}

/// Whether an interpreter is registered for the platform's programs, under the name that
/// qemu-user's and Docker's set-up give it.
fn is_interpreted(platform: &Platform) -> bool {
    let name = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        "loong64" => "loongarch64",
        other => other,
    };
    let entry = Path::new(BINFMT).join(format!("qemu-{name}"));
    platform.os == "linux"
        && std::fs::read_to_string(entry).is_ok_and(|state| state.starts_with("enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_runs_its_own_and_its_little_brothers_programs() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let host = platform("linux/amd64");
        assert!(runs_on(&platform("linux/amd64"), &host));
        assert!(runs_on(&platform("linux/amd64/v3"), &host));
        assert!(runs_on(&platform("linux/386"), &host));
        assert!(!runs_on(&platform("linux/arm64"), &host));
        assert!(!runs_on(&platform("windows/amd64"), &host));
        assert!(runs_on(&platform("linux/arm/v6"), &platform("linux/arm64")));
    }
}
