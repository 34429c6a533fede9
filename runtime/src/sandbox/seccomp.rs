//! The system calls that a confined step may make: Docker's default profile for its default
//! capabilities, compiled to BPF.
//!
//! Facts: moby/moby `profiles/seccomp/default.json`. All that is not listed fails with EPERM, and
//! `clone3` with ENOSYS, since its flags are out of a filter's reach and libcs then use `clone`.

use std::collections::BTreeMap;

use rbc_ir::Security;

use super::{
    bpf::{self, Answer, Condition, Instruction, Table},
    calls32,
};

/// The filter of a step, if it needs one. With `single_uid`, changes of owner succeed without effect,
/// so that package managers get through.
pub(super) fn filter(security: Security, single_uid: bool) -> Option<Vec<Instruction>> {
    let (mut tables, otherwise, foreign) = match security {
        Security::Sandbox => (confined(), REFUSED, libc::SECCOMP_RET_KILL_PROCESS),
        Security::Insecure if single_uid => (free(), Answer::Allow, libc::SECCOMP_RET_ALLOW),
        Security::Insecure => return None,
    };
    if single_uid {
        let little = calls32::CALLS.map(|calls| calls.chown).unwrap_or_default();
        let own: Vec<u32> = CHOWN.iter().map(|&nr| number(nr)).collect();
        for (table, chown) in tables.iter_mut().zip([&own, little]) {
            // Errno 0 skips the call and lets it return 0.
            table.rules.extend(chown.iter().map(|&nr| (nr, Answer::Errno(0))));
        }
    }
    Some(bpf::compile(&tables, otherwise, foreign))
}

/// A call that fails.
const REFUSED: Answer = Answer::Errno(libc::EPERM as u16);

/// The architectures whose calls are known, this program's own first, and nothing of them.
fn free() -> Vec<Table> {
    let own = Table { architecture: bpf::ARCHITECTURE, rules: BTreeMap::new() };
    let little = calls32::CALLS.map(|calls| calls.architecture);
    let little = little.map(|architecture| Table { architecture, rules: BTreeMap::new() });
    [own].into_iter().chain(little).collect()
}

/// The answers of a confined step to all calls that do not just fail.
fn confined() -> Vec<Table> {
    let mut tables = free();
    let rules = &mut tables[0].rules;
    rules.extend(COMMON.iter().chain(ARCH_ONLY).map(|&nr| (number(nr), Answer::Allow)));
    let clone = [libc::SYS_clone, libc::SYS_clone3].map(number);
    restrict(rules, clone, number(libc::SYS_socket), number(libc::SYS_personality));
    if let (Some(calls), Some(Table { rules, .. })) = (calls32::CALLS, tables.get_mut(1)) {
        let allowed = calls.allowed.iter().flat_map(|&(first, last)| first..=last);
        rules.extend(allowed.map(|nr| (nr, Answer::Allow)));
        restrict(rules, [calls.clone, calls.clone3], calls.socket, calls.personality);
    }
    tables
}

/// Adds the calls that are allowed in part.
fn restrict(
    rules: &mut BTreeMap<u32, Answer>,
    [clone, clone3]: [u32; 2],
    socket: u32,
    personality: u32,
) {
    let when = |condition| Answer::AllowIf(condition, libc::EPERM as u16);
    rules.insert(clone3, Answer::Errno(libc::ENOSYS as u16));
    // New namespaces need CAP_SYS_ADMIN, which a confined step lacks.
    rules.insert(clone, when(Condition::NoneOf(NAMESPACE_FLAGS)));
    // AF_VSOCK reaches the hypervisor past the network namespace.
    rules.insert(socket, when(Condition::Not(libc::AF_VSOCK as u32)));
    rules.insert(personality, when(Condition::Among(PERSONAS)));
}

/// Call numbers are small; libc's type is that of `syscall`'s argument.
const fn number(nr: libc::c_long) -> u32 {
    nr as u32
}

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, UNAME26 alone and with the latter, and the query.
const PERSONAS: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

#[cfg(target_arch = "x86_64")]
const CHOWN: &[i64] = &[libc::SYS_chown, libc::SYS_lchown, libc::SYS_fchown, libc::SYS_fchownat];
#[cfg(not(target_arch = "x86_64"))]
const CHOWN: &[i64] = &[libc::SYS_fchown, libc::SYS_fchownat];

/// Calls that every architecture has.
#[rustfmt::skip]
const COMMON: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_adjtimex,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chdir,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fanotify_mark,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_io_getevents,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_ioctl,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mq_getsetattr,
    libc::SYS_mq_notify,
    libc::SYS_mq_open,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_unlink,
    libc::SYS_mremap,
    libc::SYS_mseal,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_name_to_handle_at,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_prlimit64,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pselect6,
    libc::SYS_ptrace,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_remap_file_pages,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_sendfile,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_setuid,
    libc::SYS_setxattr,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_vmsplice,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
    // Younger calls, whose numbers are the same on every architecture: cachestat, fchmodat2,
    // map_shadow_stack, futex_wake, futex_wait, futex_requeue, setxattrat, getxattrat,
    // listxattrat, removexattrat.
    451, 452, 453, 454, 455, 456, 463, 464, 465, 466,
];

/// Calls of this architecture alone.
#[cfg(target_arch = "x86_64")]
const ARCH_ONLY: &[i64] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_ctl_old,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_wait_old,
    libc::SYS_eventfd,
    libc::SYS_fchmodat2,
    libc::SYS_fork,
    libc::SYS_futimesat,
    libc::SYS_get_thread_area,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_inotify_init,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_set_thread_area,
    libc::SYS_setrlimit,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_sync_file_range,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
    333, // io_pgetevents
];
/// Calls of this architecture alone, by number where libc lacks a name: getrlimit, setrlimit,
/// renameat, sync_file_range, io_pgetevents.
#[cfg(target_arch = "aarch64")]
const ARCH_ONLY: &[i64] = &[163, 164, 38, 84, 292];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH_ONLY: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    fn answer(filter: &[Instruction], nr: libc::c_long, argument: u64) -> u32 {
        bpf::tests::run(filter, number(nr), argument)
    }

    #[test]
    fn a_confined_step_reads_and_does_not_mount() {
        let filter = filter(Security::Sandbox, false).unwrap();
        for nr in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, 1000] {
            assert_eq!(answer(&filter, nr, 0), REFUSED, "{nr}");
        }
        for nr in COMMON.iter().chain(ARCH_ONLY) {
            assert_eq!(answer(&filter, *nr, 0), ALLOWED, "{nr}");
        }
        assert_eq!(answer(&filter, libc::SYS_fchown, 0), ALLOWED);
        let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(answer(&filter, libc::SYS_clone3, 0), no_such_call);
    }

    #[test]
    fn arguments_count_where_they_must() {
        let filter = filter(Security::Sandbox, false).unwrap();
        let cases = [
            (libc::SYS_clone, libc::SIGCHLD as u64, ALLOWED),
            (libc::SYS_clone, libc::CLONE_NEWUSER as u64, REFUSED),
            (libc::SYS_clone, (libc::CLONE_NEWNS | libc::SIGCHLD) as u64, REFUSED),
            (libc::SYS_socket, libc::AF_INET as u64, ALLOWED),
            (libc::SYS_socket, libc::AF_VSOCK as u64, REFUSED),
            (libc::SYS_personality, 0x8, ALLOWED),
            (libc::SYS_personality, 0xffff_ffff, ALLOWED),
            (libc::SYS_personality, 0x4_0000, REFUSED),
        ];
        for (nr, argument, expected) in cases {
            assert_eq!(answer(&filter, nr, argument), expected, "{nr} {argument:#x}");
            // The kernel looks at 32 bits of these.
            assert_eq!(answer(&filter, nr, argument | 1 << 40), expected, "{nr} {argument:#x}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn programs_of_32_bits_may_do_the_same() {
        let x86 = |filter: &[Instruction], nr| bpf::tests::run_as(0x4000_0003, filter, nr, 0);
        let confined = filter(Security::Sandbox, false).unwrap();
        // exit, read, socketcall, futex_time64; mount, unshare, bpf.
        for nr in [1, 3, 102, 422] {
            assert_eq!(x86(&confined, nr), ALLOWED, "{nr}");
        }
        for nr in [21, 310, 357, 1000] {
            assert_eq!(x86(&confined, nr), REFUSED, "{nr}");
        }
        let arm = bpf::tests::run_as(0x4000_0028, &confined, 1, 0);
        assert_eq!(arm, libc::SECCOMP_RET_KILL_PROCESS);
        let pretending = filter(Security::Insecure, true).unwrap();
        assert_eq!(x86(&pretending, 182), libc::SECCOMP_RET_ERRNO, "chown");
        assert_eq!(x86(&pretending, 21), ALLOWED, "mount");
    }

    #[test]
    fn a_single_user_pretends_to_change_owners() {
        for security in [Security::Sandbox, Security::Insecure] {
            let filter = filter(security, true).unwrap();
            assert_eq!(answer(&filter, libc::SYS_fchownat, 0), libc::SECCOMP_RET_ERRNO);
        }
        let insecure = filter(Security::Insecure, true).unwrap();
        assert_eq!(answer(&insecure, libc::SYS_mount, 0), ALLOWED);
        assert!(filter(Security::Insecure, false).is_none());
    }
}
