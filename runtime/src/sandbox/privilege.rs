//! Gives up what the step's command must not have: user, capabilities, system calls, limits.
//!
//! The order matters: the seccomp filter goes in while the process may still install one without
//! `no_new_privs` (which Docker and BuildKit leave unset), the bounding set shrinks before the
//! user changes, and the parent-death signal, which a change of user clears, comes last.

use std::ffi::CStr;

use rbc_ir::{Security, Ulimit};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::error::{Context, SetupError};
use super::identity::Identity;
use super::mount::last_errno;

/// Docker's default capabilities (moby/moby `oci/caps/defaults.go`).
const DOCKER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Becomes `identity` with the capabilities that `security` grants.
pub(super) fn drop_to(
    identity: &Identity,
    security: Security,
    single_uid: bool,
) -> Result<(), SetupError> {
    let granted = match security {
        Security::Sandbox => {
            bound(DOCKER)?;
            DOCKER
        }
        Security::Insecure => everything(),
    };
    set_keep_capabilities(true).context(|| "keep capabilities".to_owned())?;
    switch_user(identity, single_uid)?;
    set_keep_capabilities(false).context(|| "keep capabilities".to_owned())?;
    let inherited = match security {
        Security::Sandbox => CapabilitySet::empty(),
        Security::Insecure => granted,
    };
    let sets = CapabilitySets { effective: granted, permitted: granted, inheritable: inherited };
    set_capabilities(None, sets).context(|| "set capabilities".to_owned())?;
    clear_ambient_capability_set().context(|| "clear ambient capabilities".to_owned())?;
    for capability in inherited.iter() {
        configure_capability_in_ambient_set(capability, true)
            .context(|| "set ambient capabilities".to_owned())?;
    }
    set_parent_process_death_signal(Some(Signal::KILL))
        .context(|| "set the parent-death signal".to_owned())
}

/// Takes all but `kept` from the bounding set.
fn bound(kept: CapabilitySet) -> Result<(), SetupError> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e).context(|| "drop capabilities".to_owned()),
        }
    }
    Ok(())
}

/// All capabilities that the process may have.
fn everything() -> CapabilitySet {
    (0..u64::BITS)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .filter(|c| capability_is_in_bounding_set(*c).unwrap_or(false))
        .collect()
}

fn switch_user(identity: &Identity, single_uid: bool) -> Result<(), SetupError> {
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    match set_thread_groups(&groups) {
        // A single mapped user may not change groups at all and has none that count.
        Err(_) if single_uid => {}
        set => set.context(|| "set the supplementary groups".to_owned())?,
    }
    let unmapped = |kind: &str, id: u32| {
        format!(
            "run as {kind} {id}{}",
            if single_uid {
                " (only root exists here, for want of ids in /etc/subuid and /etc/subgid)"
            } else {
                ""
            }
        )
    };
    let gid = Gid::from_raw(identity.gid);
    set_thread_res_gid(gid, gid, gid).context(|| unmapped("group", identity.gid))?;
    let uid = Uid::from_raw(identity.uid);
    set_thread_res_uid(uid, uid, uid).context(|| unmapped("user", identity.uid))
}

/// Sets the limits of `--ulimit`.
pub(super) fn limit(ulimits: &[Ulimit]) -> Result<(), SetupError> {
    for ulimit in ulimits {
        let resource = resource(&ulimit.name)
            .ok_or_else(|| SetupError::Invalid(format!("ulimit {}: no such limit", ulimit.name)))?;
        let limits = Rlimit {
            current: u64::try_from(ulimit.soft).ok(),
            maximum: u64::try_from(ulimit.hard).ok(),
        };
        setrlimit(resource, limits).context(|| format!("set ulimit {}", ulimit.name))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Installs a filter (see [`super::seccomp`]) for the process.
pub(super) fn install(filter: &[libc::sock_filter]) -> Result<(), SetupError> {
    let header = libc::sock_fprog {
        len: u16::try_from(filter.len())
            .map_err(|_| SetupError::Invalid("seccomp filter too long".to_owned()))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the header points to `filter`, which outlives the call; the kernel copies and
    // checks it.
    let status = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header)
    };
    if status == 0 {
        return Ok(());
    }
    Err(last_errno()).context(|| "install the seccomp filter".to_owned())
}

/// Puts every signal back to its default, for Rust's runtime ignores SIGPIPE, whoever started rbc
/// may ignore others, and an ignored signal stays so across an exec.
pub(super) fn default_signals() {
    /// The kernel's `sigset_t` has a bit for each signal.
    const SET_SIZE: libc::size_t = 8;
    // The kernel's `struct sigaction` is four words or fewer; all zero means the default.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // The C library keeps two signals to itself, hence the kernel's own call. It refuses
        // SIGKILL and SIGSTOP, which nobody can ignore.
        // SAFETY: the call reads `default`, which outlives it, and runs no code of ours.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                SET_SIZE,
            )
        };
    }
}

/// Lets nothing but the three standard streams reach the command: whoever started rbc may have
/// left files open. Kernels before 5.11 lack the call; all files of rbc's own are marked anyway.
pub(super) fn close_on_exec() {
    // SAFETY: it only marks descriptors; none is closed before the exec.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Replaces the process. Returns only on failure.
pub(super) fn execute(path: &CStr, args: &[&CStr], env: &[&CStr]) -> rustix::io::Errno {
    let pointers = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        let ends = std::iter::once(std::ptr::null());
        strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: path and both lists are C strings that outlive the call, and the lists end in null.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}
