//! What programs print when something that they need is not there.

use rbc_ir::{Mount, MountKind, Network};

use super::{Failure, LITTLE_SPACE};

/// What resolvers of C libraries, curl, wget, apt, apk, Go, Node.js, Rust, Java and git say.
const NO_NAME: [&str; 15] = [
    "could not resolve host",
    "could not resolve proxy",
    "could not resolve '",
    "temporary failure in name resolution",
    "temporary failure resolving",
    "name or service not known",
    "bad address '",
    "no such host",
    "name does not resolve",
    "network is unreachable",
    "unable to resolve host address",
    "getaddrinfo enotfound",
    "getaddrinfo eai_again",
    "failed to lookup address information",
    "unknownhostexception",
];

/// What they say if there is nothing but loopback, and otherwise for other reasons too.
const NO_WAY: [&str; 4] = [
    "couldn't connect to server",
    "temporary error (try again later)",
    "no route to host",
    "dns: transient error",
];

impl Failure<'_> {
    pub(super) fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.to_ascii_lowercase().contains(text))
    }

    /// The last line in which a program complains of an error of the system: the text of the error
    /// stands behind what it is about, or behind its number in brackets.
    fn complaint(&self, error: &str) -> Option<&str> {
        let is_complaint = |line: &&String| {
            let lower = line.to_ascii_lowercase();
            lower.match_indices(error).any(|(at, _)| {
                let before = &lower[..at];
                before.ends_with(": ") || before.ends_with("] ") || lower.trim_end() == error
            })
        };
        self.lines.iter().rev().find(is_complaint).map(String::as_str)
    }

    /// The mount that a line speaks of: the innermost one whose path it holds.
    fn mount_in(&self, line: &str) -> Option<&Mount> {
        let holds = |target: &str| {
            line.match_indices(target).any(|(at, _)| {
                let next = line[at + target.len()..].chars().next();
                next.is_none_or(|c| !(c.is_alphanumeric() || "._-".contains(c)))
            })
        };
        let mounts = self.exec.mounts.iter().filter(|mount| holds(&mount.target));
        mounts.max_by_key(|mount| mount.target.len())
    }

    pub(super) fn no_space(&self) -> Option<String> {
        let line = self.complaint("no space left on device")?;
        let free = self.free?;
        if let Some(Mount { target, kind: MountKind::Tmpfs { size }, .. }) = self.mount_in(line) {
            return Some(match size {
                0 => format!("the tmpfs at {target} is full: there is no more memory for it"),
                size => format!("the tmpfs at {target} is full: its size is {size} bytes"),
            });
        }
        if line.contains("/dev/shm") {
            return Some("/dev/shm is full: --shm-size gives it more".to_owned());
        }
        self.full().or_else(|| {
            debug_assert!(free >= LITTLE_SPACE);
            let free = free / 1_000_000;
            Some(format!(
                "a disk was full; that of the state folder has {free} MB free now, and a tmpfs or \
                 /dev/shm of the step may be too small (--shm-size)"
            ))
        })
    }

    pub(super) fn network(&self) -> Option<String> {
        let is_cut_off = self.exec.network == Network::None;
        let unresolved = NO_NAME.iter().any(|text| self.says(text));
        if is_cut_off && (unresolved || NO_WAY.iter().any(|text| self.says(text))) {
            return Some("the step has no network: it runs with --network=none".to_owned());
        }
        unresolved.then(|| {
            "a name was not found, or the network not reached: steps use the network of this \
             machine and its /etc/resolv.conf"
                .to_owned()
        })
    }

    /// What the loaders of glibc and musl say of libraries.
    pub(super) fn library(&self) -> Option<String> {
        self.lines.iter().rev().find_map(|line| {
            let glibc = line.split_once("error while loading shared libraries: ");
            let musl = line.split_once("Error loading shared library ");
            if let Some((_, rest)) = glibc.or(musl) {
                let library = rest.split(':').next()?.trim();
                return Some(format!(
                    "the image has no library {library}, which the program was linked with: \
                     install its package in this stage, or link statically"
                ));
            }
            if line.starts_with("Error relocating ") && line.ends_with(": symbol not found") {
                return Some(
                    "the program was linked for another C library, or a newer one, than the image \
                     has: build it on the same base image, or link statically"
                        .to_owned(),
                );
            }
            let (_, rest) = line.split_once(": version `GLIBC_")?;
            let version = rest.split('\'').next()?;
            Some(format!(
                "the program needs glibc {version} or newer, and that of the image is older: \
                 build on the same base image, or link statically"
            ))
        })
    }

    /// Files that nobody may change.
    pub(super) fn read_only(&self) -> Option<String> {
        let line = self.complaint("read-only file system")?;
        if let Some(mount) = self.mount_in(line).filter(|mount| mount.read_only) {
            let target = &mount.target;
            return Some(match mount.kind {
                MountKind::Bind { .. } => format!(
                    "{target} is a bind mount, which is read-only: write elsewhere, or mount it \
                     with rw, and what is written there is dropped"
                ),
                _ => format!("{target} is mounted read-only"),
            });
        }
        ["/proc", "/sys"].into_iter().find(|path| line.contains(&format!("{path}/"))).map(|path| {
            format!("{path} is read-only in steps, except with RUN --security=insecure")
        })
    }

    /// Somebody else's files.
    pub(super) fn permission(&self) -> Option<String> {
        let user = self.exec.user.as_str();
        if ["", "0", "root"].contains(&user.split(':').next()?) {
            return None;
        }
        let errors = ["permission denied", "operation not permitted"];
        errors.into_iter().find_map(|error| self.complaint(error))?;
        Some(format!(
            "the step runs as USER {user}, who may not do this: give the files to that user \
             (COPY --chown={user}), or do it before USER"
        ))
    }
}
