//! The process's own private namespaces, entered once before any thread exists.
//!
//! Everything that rbc mounts lives in them and so dies with the process, whatever ends it. Root
//! needs a mount namespace only. An ordinary user gets a user namespace as well, with the ids of
//! `/etc/subuid` and `/etc/subgid` where `newuidmap` and `newgidmap` grant them, else with itself
//! as the only user, named root.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::SandboxError;

/// How the process is set up for running steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    rootless: bool,
    single_uid: bool,
    mounts: Mounts,
}

/// Whether the process may mount, which every step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mounts {
    Allowed,
    Forbidden,
}

impl Session {
    /// Whether the process runs in a user namespace of its own.
    pub fn is_rootless(self) -> bool {
        self.rootless
    }

    /// Whether only one user id exists, so that owners cannot be kept.
    pub fn single_uid(self) -> bool {
        self.single_uid
    }
}

static SESSION: OnceLock<Session> = OnceLock::new();

/// Whether [`enter`] made a user namespace.
pub fn is_rootless() -> bool {
    SESSION.get().is_some_and(|s| s.rootless)
}

/// Whether [`enter`] found a single user id only.
pub fn single_uid() -> bool {
    SESSION.get().is_some_and(|s| s.single_uid)
}

/// Whether [`enter`] could not get namespaces, so that no step can run.
pub(super) fn without_namespaces() -> bool {
    SESSION.get().is_some_and(|s| s.mounts == Mounts::Forbidden)
}

/// Moves the process into private namespaces. Must be called while it has one thread; a second
/// call returns the first one's session.
///
/// Root of a container without privileges may not make namespaces. It needs none for anything but
/// steps, so it goes on where it is.
pub fn enter() -> Result<Session, SandboxError> {
    if let Some(session) = SESSION.get() {
        return Ok(*session);
    }
    let (uid, gid) = (geteuid(), getegid());
    let of_root = || session_of_root(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
    let session = if uid.is_root() && unshare(UnshareFlags::NEWNS).is_ok() {
        of_root()
    } else {
        match enter_user_namespace(uid, gid) {
            Ok(single_uid) => Session { rootless: true, single_uid, mounts: Mounts::Allowed },
            Err(_) if uid.is_root() => {
                let session = Session { mounts: Mounts::Forbidden, ..of_root() };
                return Ok(*SESSION.get_or_init(|| session));
            }
            Err(error) => return Err(error),
        }
    };
    make_mounts_private()
        .map_err(|e| SandboxError::Namespace { what: "making mounts private", source: e.into() })?;
    if session.single_uid {
        crate::layer::owner::assume_single_user();
    }
    Ok(*SESSION.get_or_init(|| session))
}

/// What root can do under `uid_map`: rbc may itself run as root of somebody's user namespace.
fn session_of_root(uid_map: &str) -> Session {
    let users: u64 = uid_map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    Session {
        // All ids but the one that stands for "unchanged".
        rootless: users != u64::from(u32::MAX),
        single_uid: users == 1,
        mounts: Mounts::Allowed,
    }
}

/// Keeps mounts of this namespace from showing outside of it.
fn make_mounts_private() -> rustix::io::Result<()> {
    match mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC) {
        // In a plain chroot the root is no mount point: each mount below it is changed by itself.
        Err(Errno::INVAL) => {}
        changed => return changed,
    }
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.split(|b| *b == b'\n') {
        if let Some(point) = line.split(|b| *b == b' ').nth(4) {
            // Points outside of the chroot cannot be reached from here, nor mounted on.
            let _ = mount_change(point, MountPropagationFlags::PRIVATE);
        }
    }
    Ok(())
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the flags used here (namespaces) do not unshare the file descriptor table, which is
    // what the function's contract is about.
    unsafe { unshare_unsafe(flags) }
}

/// Unshares user and mount namespaces and maps ids. Returns whether only one user exists.
fn enter_user_namespace(uid: Uid, gid: Gid) -> Result<bool, SandboxError> {
    let mapper = Mapper::find(uid, gid).map(Mapper::start).transpose();
    let mapper = mapper
        .map_err(|e| SandboxError::Namespace { what: "starting the id mapper", source: e })?;
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|e| {
        let what = "unshare (are unprivileged user namespaces enabled? see \
                    /proc/sys/user/max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns)";
        SandboxError::Namespace {
            what,
            source: e.into(),
        }
    })?;
    if mapper.is_some_and(RunningMapper::finish) {
        return Ok(false);
    }
    map_single(uid, gid)
        .map_err(|e| SandboxError::Namespace { what: "mapping the user", source: e })?;
    Ok(true)
}

/// Maps what the mapper left unmapped to the user itself.
fn map_single(uid: Uid, gid: Gid) -> io::Result<()> {
    if fs::read_to_string("/proc/self/uid_map")?.trim().is_empty() {
        fs::write("/proc/self/uid_map", format!("0 {} 1\n", uid.as_raw()))?;
    }
    if fs::read_to_string("/proc/self/gid_map")?.trim().is_empty() {
        // The kernel demands it before an unprivileged gid mapping.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {} 1\n", gid.as_raw()))?;
    }
    Ok(())
}

/// The id ranges that the machine's administrator granted.
struct Mapper {
    uid: u32,
    gid: u32,
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

/// A shell-free helper outside the new user namespace that runs `newgidmap` and `newuidmap`.
struct RunningMapper {
    child: libc::pid_t,
    go: io::PipeWriter,
}

impl Mapper {
    fn find(uid: Uid, gid: Gid) -> Option<Mapper> {
        let name = user_name(uid.as_raw());
        let uids = ranges(Path::new("/etc/subuid"), uid.as_raw(), name.as_deref());
        let gids = ranges(Path::new("/etc/subgid"), uid.as_raw(), name.as_deref());
        (!uids.is_empty() && !gids.is_empty()).then(|| Mapper {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            uids,
            gids,
        })
    }

    /// Forks the helper, which waits until the parent has its new user namespace.
    fn start(self) -> io::Result<RunningMapper> {
        let (mut wait, go) = io::pipe()?;
        let parent = std::process::id();
        // SAFETY: the process has one thread (contract of `enter`), so that the child may go on
        // like any other process.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(go);
                // One byte means go; the end of the pipe means that the parent gave up.
                let granted = wait.read(&mut [0u8; 1]).is_ok_and(|n| n == 1)
                    && run_mapper("newgidmap", parent, self.gid, &self.gids)
                    && run_mapper("newuidmap", parent, self.uid, &self.uids);
                // SAFETY: `_exit` only ends the process.
                unsafe { libc::_exit(i32::from(!granted)) }
            }
            child => Ok(RunningMapper { child, go }),
        }
    }
}

impl RunningMapper {
    /// Lets the helper map and returns whether both maps are in place.
    fn finish(mut self) -> bool {
        let told = self.go.write_all(b"!").is_ok();
        drop(self.go);
        let mut status = 0;
        // SAFETY: `status` outlives the call; the pid is our own child's.
        let waited = unsafe { libc::waitpid(self.child, &mut status, 0) };
        told && waited == self.child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

fn run_mapper(program: &str, pid: u32, own: u32, ranges: &[(u32, u32)]) -> bool {
    let mut command = Command::new(program);
    command
        .args([&pid.to_string(), "0", &own.to_string(), "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut next = 1u64;
    for (start, count) in ranges {
        command.args([next.to_string(), start.to_string(), count.to_string()]);
        next += u64::from(*count);
    }
    command.status().is_ok_and(|s| s.success())
}

/// The name that `/etc/passwd` gives to a user id.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The `start:count` ranges of subuid(5) that belong to the user.
fn ranges(file: &Path, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let mine = Some(owner) == name || owner.parse() == Ok(uid);
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (mine && range.1 > 0).then_some(range)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_user_namespace_is_known_by_its_map() {
        let session = |map| {
            let s = session_of_root(map);
            (s.is_rootless(), s.single_uid())
        };
        assert_eq!(session("         0          0 4294967295\n"), (false, false));
        assert_eq!(session("0 1000 1\n"), (true, true));
        assert_eq!(session("0 1000 1\n1 100000 65536\n"), (true, false));
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "al:100000:65536\nbo:1:2\n1000:7:9\nbroken\nal:x:1\n").unwrap();
        assert_eq!(ranges(file.path(), 1000, Some("al")), [(100_000, 65_536), (7, 9)]);
        assert_eq!(ranges(file.path(), 5, None), []);
    }
}
