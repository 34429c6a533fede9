//! What a step sees, may do and leaves behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rbc_ir::{ExtraHost, Network, Security, Ulimit};
use rbc_runtime::sandbox::{
    self, Access, Cancel, Exit, HostMount, HostSource, Keeper, SandboxError, Step,
};

use crate::harness::{Base, Test, exec, names, run, try_run};

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub const TESTS: &[Test] = &[$((stringify!($name), $name)),*]; };
}

tests![
    output_and_exit_code,
    large_binary_output,
    signals_are_told,
    standard_input_is_empty,
    changes_land_in_the_upper,
    nothing_is_left_of_mount_points,
    nothing_is_left_on_an_empty_root,
    deleted_mount_points_stay_deleted,
    linked_mount_points,
    root_keeps_its_mode,
    capabilities_and_seccomp,
    insecure,
    programs_of_32_bits,
    proc_is_masked,
    devices,
    network_none,
    names_of_hosts,
    users,
    environment,
    working_directory,
    limits_and_umask,
    background_processes_end,
    bind_mounts,
    layer_mounts,
    memory_mounts,
    nested_mounts,
    missing_programs,
    many_layers,
    long_paths,
    many_threads,
    cancelling,
    killed_parent_leaves_nothing,
    pretended_owners,
    bench_true,
];

fn output_and_exit_code(base: &Base) {
    let ran = run(&base.step("echo out; echo err >&2; exit 7"));
    assert_eq!((ran.exit.code(), ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
}

fn large_binary_output(base: &Base) {
    let step = base.step("head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait");
    let ran = run(&step);
    assert_eq!((ran.stdout.len(), ran.stderr.len()), (3_000_000, 3_000_000));
}

fn signals_are_told(base: &Base) {
    // Pid 1 is immune to its own signals, except those that the kernel forces.
    let ran = run(&base.step("ulimit -t 1; while :; do :; done"));
    assert!(matches!(ran.exit, Exit::Signal(libc::SIGKILL | libc::SIGXCPU)), "{ran:?}");
    assert!(ran.exit.code() > 128);
}

fn standard_input_is_empty(base: &Base) {
    let out = base.sh("cat; echo end; ls -l /proc/self/fd");
    let open: Vec<&str> = out.lines().filter(|l| l.contains(" -> ")).collect();
    // The shell and ls may hold further files of the step's own.
    assert!(out.starts_with("end\n") && open[0].ends_with(" 0 -> /dev/null"), "{out}");
    assert_eq!(out.matches("pipe:").count(), 2, "{out}");
}

fn changes_land_in_the_upper(base: &Base) {
    let step = base.step("echo 1 > /f; mkdir -p /d/e; rm /etc/group; chmod 700 /tmp");
    assert!(run(&step).exit.success());
    assert_eq!(names(&step.upper), ["d", "etc", "f", "tmp"]);
    assert_eq!(fs::read(step.upper.join("f")).unwrap(), b"1\n");
    let whiteout = fs::symlink_metadata(step.upper.join("etc/group")).unwrap();
    assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
    assert!(base.layer().join("etc/group").exists());
}

fn nothing_is_left_of_mount_points(base: &Base) {
    let before = fs::metadata(base.layer().join("etc")).unwrap();
    let mut step = base.step("touch -d 2001-01-01 /seen; stat -c '%Y %a' /etc");
    step.mounts = vec![
        file_mount("/run/secrets/tok", b"s3cret"),
        mount("/deep/down/cache", HostSource::Path(base.fresh()), Access::ReadWrite),
        mount("/t", HostSource::Tmpfs { size: 0 }, Access::ReadWrite),
        file_mount("/etc/app/key", b"k"),
    ];
    let ran = run(&step);
    assert_eq!(names(&step.upper), ["seen"], "{}", ran.stderr);
    // The step sees its /etc as the layer has it.
    assert_eq!(ran.stdout, format!("{} 755\n", before.mtime()));
    let after = fs::metadata(base.layer().join("etc")).unwrap();
    assert_eq!(before.mtime_nsec(), after.mtime_nsec());
}

fn nothing_is_left_on_an_empty_root(base: &Base) {
    let mut step = base.step("");
    step.lowers.clear();
    step.mounts = vec![mount(
        "/busybox",
        HostSource::Path(base.layer().join("bin/busybox")),
        Access::ReadOnly,
    )];
    step.exec = exec(&["/busybox", "ls", "/"]);
    let ran = run(&step);
    assert_eq!(ran.stdout, "busybox\ndev\netc\nproc\nsys\n");
    assert_eq!(names(&step.upper), [""; 0]);
}

fn deleted_mount_points_stay_deleted(base: &Base) {
    let first = base.step("rm -r /etc; mkdir /etc; rm -r /tmp");
    assert!(run(&first).exit.success());
    let mut second = base.step("cat /etc/hosts | wc -l; ls /etc; cat /tmp/x");
    second.lowers.push(first.upper.clone());
    second.mounts.push(file_mount("/tmp/x", b"secret\n"));
    let ran = run(&second);
    assert_eq!(ran.stdout, "2\nhosts\nresolv.conf\nsecret\n");
    assert_eq!(names(&second.upper), [""; 0]);
}

fn linked_mount_points(base: &Base) {
    let layer = base.fresh();
    fs::create_dir_all(layer.join("var")).unwrap();
    fs::create_dir_all(layer.join("etc")).unwrap();
    symlink("/run", layer.join("var/run")).unwrap();
    symlink("../run/resolve/stub.conf", layer.join("etc/resolv.conf")).unwrap();
    let mut step = base.step("cat /run/tok; ls /run; echo x > /run/mine");
    step.lowers.push(layer);
    step.mounts.push(file_mount("/var/run/tok", b"tok\n"));
    let ran = run(&step);
    assert_eq!(ran.stdout, "tok\nresolve\ntok\n", "{}", ran.stderr);
    assert_eq!(names(&step.upper), ["run"]);
    assert_eq!(names(&step.upper.join("run")), ["mine"]);
}

fn root_keeps_its_mode(base: &Base) {
    let layer = base.fresh();
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o555)).unwrap();
    let mut step = base.step("stat -c %a /");
    step.lowers.push(layer);
    assert_eq!(run(&step).stdout, "555\n");
}

fn capabilities_and_seccomp(base: &Base) {
    let script = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | tr '\\t' ' '";
    let expected = "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\n\
         CapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\n\
         NoNewPrivs: 0\nSeccomp: 2\n";
    assert_eq!(base.sh(script), expected);
    let denied = "mount -t tmpfs none /tmp 2>/dev/null || echo denied";
    assert_eq!(base.sh(denied), "denied\n");
    if !sandbox::is_rootless() {
        assert_eq!(base.sh("mknod /n c 1 3 && stat -c %t:%T /n"), "1:3\n");
        let mut step = base.step(script);
        step.exec.user = "mail".to_owned();
        let lines = run(&step).stdout;
        assert!(lines.contains("CapEff: 0000000000000000\nCapBnd: 00000000a80425fb"));
    }
}

fn insecure(base: &Base) {
    let mut step = base.step(
        "mount -t tmpfs none /tmp && echo mounted; grep -E '^(CapEff|CapBnd)' /proc/self/status",
    );
    step.exec.security = Security::Insecure;
    let ran = run(&step);
    let mut lines = ran.stdout.lines();
    assert_eq!(lines.next(), Some("mounted"), "{}", ran.stderr);
    let caps: Vec<&str> = lines.filter_map(|l| l.split('\t').nth(1)).collect();
    assert_eq!(caps[0], caps[1]);
    let held = u64::from_str_radix(caps[0], 16).unwrap();
    // CAP_SYS_ADMIN is number 21.
    assert_ne!(held & (1 << 21), 0);
}

fn proc_is_masked(base: &Base) {
    let script = "cat /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware | grep -v : | grep -c .; \
        (echo x > /proc/sysrq-trigger) 2>/dev/null || echo ro; \
        (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null || echo ro; \
        mkdir /sys/fs/x 2>/dev/null || echo ro; echo $$";
    assert_eq!(base.sh(script), "0\n0\nro\nro\nro\n1\n");
}

fn devices(base: &Base) {
    let listed = base.sh("ls /dev | grep -v -x -E 'core|mqueue' | tr '\\n' ' '");
    assert_eq!(
        listed,
        "fd full null otel-grpc.sock ptmx pts random shm stderr stdin stdout tty urandom zero "
    );
    let used = base.sh("echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo y > /dev/shm/f; \
         cat /dev/shm/f; echo z > /dev/stdout; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2");
    assert_eq!(used, "4\ny\nz\n65536\n");
    let mut step = base.step("df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2");
    step.exec.shm_size = 128 << 20;
    assert_eq!(run(&step).stdout, "131072\n");
}

fn network_none(base: &Base) {
    let mut step = base.step("ls /sys/class/net; ip -o addr show lo | grep -c 127.0.0.1");
    step.exec.network = Network::None;
    let ran = run(&step);
    assert!(ran.stdout.ends_with("1\n"), "{ran:?}");
    assert!(ran.stdout.starts_with("lo\n"), "{ran:?}");
}

fn names_of_hosts(base: &Base) {
    let mut step =
        base.step("hostname; grep -E 'localhost|somehost' /etc/hosts | wc -l; echo x > /etc/hosts");
    step.exec.extra_hosts =
        vec![ExtraHost { host: "somehost".to_owned(), ip: "10.1.2.3".to_owned() }];
    let ran = run(&step);
    assert_eq!(ran.stdout, "buildkitsandbox\n3\n");
    assert_ne!(ran.exit.code(), 0, "hosts is read-only");
    step.upper = base.fresh();
    step.work = base.fresh();
    step.exec.hostname = "other".to_owned();
    assert_eq!(run(&step).stdout, "other\n3\n");
}

fn users(base: &Base) {
    let as_user = |user: &str| {
        let mut step = base.step("echo $(id -u):$(id -g):$(id -G) $HOME");
        step.exec.user = user.to_owned();
        try_run(&step)
    };
    let error = as_user("ghost").unwrap_err().to_string();
    assert_eq!(error, "unable to find user ghost: no matching entries in passwd file");
    assert_eq!(as_user("").unwrap().stdout, "0:0:0 /root\n");
    if sandbox::single_uid() {
        let error = as_user("mail").unwrap_err().to_string();
        assert!(error.starts_with("run as group 8 (only root exists here"), "{error}");
        return;
    }
    assert_eq!(as_user("mail").unwrap().stdout, "8:8:8 777 /var/mail\n");
    assert_eq!(as_user("1234:567").unwrap().stdout, "1234:567:567 /\n");
    assert_eq!(as_user("8:root").unwrap().stdout, "8:0:0 /var/mail\n");
}

fn environment(base: &Base) {
    let mut step = base.step("echo $A $B $HOME; env | grep -c .");
    step.exec.env = vec!["PATH=/bin".into(), "A=1".into(), "HOME=/h".into()];
    step.extra_env = vec!["B=secret".into(), "A=2".into()];
    assert_eq!(run(&step).stdout.lines().next(), Some("2 secret /h"));
}

fn working_directory(base: &Base) {
    let mut step = base.step("pwd");
    step.exec.cwd = "/made/here".to_owned();
    assert_eq!(run(&step).stdout, "/made/here\n");
    let made = fs::metadata(step.upper.join("made/here")).unwrap();
    assert_eq!(made.mode() & 0o7777, 0o755);
    if !sandbox::single_uid() {
        let mut step = base.step("touch f; stat -c %u:%g . f");
        step.exec.cwd = "/home".to_owned();
        step.exec.user = "mail".to_owned();
        assert_eq!(run(&step).stdout, "8:8\n8:8\n");
    }
}

fn limits_and_umask(base: &Base) {
    let mut step = base.step("ulimit -n; umask");
    step.exec.ulimits = vec![ulimit("nofile", 512)];
    assert_eq!(run(&step).stdout, "512\n0022\n");
    let mut step = base.step("true");
    step.exec.ulimits = vec![ulimit("nosuch", 1)];
    let error = try_run(&step).unwrap_err().to_string();
    assert_eq!(error, "ulimit nosuch: no such limit");
}

fn ulimit(name: &str, value: i64) -> Ulimit {
    Ulimit { name: name.to_owned(), soft: value, hard: value }
}

fn background_processes_end(base: &Base) {
    let started = Instant::now();
    assert_eq!(base.sh("sleep 1000 & echo started"), "started\n");
    assert!(started.elapsed() < Duration::from_secs(60));
}

fn mount(target: &str, source: HostSource, access: Access) -> HostMount {
    HostMount { target: target.to_owned(), source, access }
}

fn file_mount(target: &str, data: &[u8]) -> HostMount {
    let source = HostSource::File { data: data.to_vec(), mode: 0o400, uid: 0, gid: 0 };
    mount(target, source, Access::ReadWrite)
}

fn bind_mounts(base: &Base) {
    let dir = base.fresh();
    fs::write(dir.join("a"), "ctx\n").unwrap();
    let source = || HostSource::Path(dir.clone());
    let (out, upper) = base.sh_with(
        mount("/src", source(), Access::ReadOnly),
        "cat /src/a; touch /src/new 2>/dev/null || echo readonly",
    );
    assert_eq!(out, "ctx\nreadonly\n");
    assert_eq!(names(&upper), [""; 0]);
    base.sh_with(mount("/src", source(), Access::ReadWrite), "echo b > /src/b");
    assert_eq!(names(&dir), ["a", "b"]);
    let file = HostSource::Path(dir.join("a"));
    let (out, _) = base.sh_with(mount("/w/in.txt", file, Access::ReadOnly), "cat /w/in.txt");
    assert_eq!(out, "ctx\n");
}

fn layer_mounts(base: &Base) {
    let (lower, upper) = (base.fresh(), base.fresh());
    for (dir, name) in [(&lower, "one"), (&upper, "two")] {
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub").join(name), name).unwrap();
    }
    symlink("/sub", upper.join("link")).unwrap();
    let source = |path: &str, lowers: &[&PathBuf]| HostSource::Layers {
        lowers: lowers.iter().map(|l| (*l).clone()).collect(),
        path: path.to_owned(),
    };
    let both = || source("/link", &[&lower, &upper]);
    let (out, _) = base.sh_with(
        mount("/m", both(), Access::ReadOnly),
        "ls /m; touch /m/x 2>/dev/null || echo readonly",
    );
    assert_eq!(out, "one\ntwo\nreadonly\n");
    let (out, left) =
        base.sh_with(mount("/m", both(), Access::ReadWrite), "echo x > /m/x; rm /m/one; ls /m");
    assert_eq!(out, "two\nx\n");
    assert_eq!(names(&left), [""; 0]);
    assert_eq!(names(&lower.join("sub")), ["one"]);
    let (out, _) =
        base.sh_with(mount("/m", source("/sub/one", &[&lower]), Access::ReadOnly), "cat /m");
    assert_eq!(out, "one");
    let mut step = base.step("true");
    step.mounts = vec![mount("/m", source("/../nothing", &[&lower]), Access::ReadOnly)];
    let error = try_run(&step).unwrap_err().to_string();
    assert_eq!(error, "mount /m: \"/../nothing\": not found");
}

fn memory_mounts(base: &Base) {
    let tmpfs = HostSource::Tmpfs { size: 1 << 20 };
    let (out, upper) = base.sh_with(
        mount("/t", tmpfs, Access::ReadWrite),
        "echo x > /t/f; ls /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2",
    );
    assert_eq!(out, "f\n1024\n");
    assert_eq!(names(&upper), [""; 0]);
    let owner = if sandbox::single_uid() { 0 } else { 3 };
    let secret =
        HostSource::File { data: b"s3cret\0\xff".to_vec(), mode: 0o440, uid: owner, gid: owner };
    let (out, _) = base.sh_with(
        mount("/run/secrets/tok", secret, Access::ReadWrite),
        "wc -c < /run/secrets/tok; stat -c '%a %u %g' /run/secrets/tok",
    );
    assert_eq!(out, format!("8\n440 {owner} {owner}\n"));
}

fn nested_mounts(base: &Base) {
    let cache = base.fresh();
    let mut step = base.step("cat /c/deep/tok; ls /c");
    // Given in the wrong order on purpose.
    step.mounts = vec![
        file_mount("/c/deep/tok", b"tok\n"),
        mount("/c", HostSource::Path(cache), Access::ReadWrite),
    ];
    let ran = run(&step);
    assert_eq!(ran.stdout, "tok\ndeep\n", "{}", ran.stderr);
    assert_eq!(names(&step.upper), [""; 0]);
}

/// A program for x86 of 32 bits that ends with 7.
#[rustfmt::skip]
const EXIT_7: &[u8] = &[
    // ELF header: 32 bits, little-endian, executable, 386, entry, program headers at 52.
    0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 4, 8, 52, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 52, 0, 32, 0, 1, 0, 40, 0, 0, 0, 0, 0,
    // Loads all of it at 0x8048000.
    1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 4, 8, 0, 0x80, 4, 8,
    96, 0, 0, 0, 96, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
    // mov eax, 1 (exit); mov ebx, 7; int 0x80
    0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80,
];

fn programs_of_32_bits(base: &Base) {
    let layer = base.fresh();
    let program = layer.join("exit-7");
    fs::write(&program, EXIT_7).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let outside = Command::new(&program).status();
    if !outside.is_ok_and(|status| status.code() == Some(7)) {
        println!("skipped: this machine does not run programs of 32-bit x86");
        return;
    }
    let mut step = base.step("");
    step.lowers.push(layer);
    step.exec.args = vec!["/exit-7".to_owned()];
    assert_eq!(run(&step).exit, Exit::Code(7));
    step = Step { upper: base.fresh(), work: base.fresh(), ..step };
    step.exec.security = Security::Insecure;
    assert_eq!(run(&step).exit, Exit::Code(7));
}

fn missing_programs(base: &Base) {
    let message = |lowers: Vec<PathBuf>, args: &[&str]| {
        let mut step = base.step("");
        step.lowers = lowers;
        step.exec.args = args.iter().map(|a| (*a).to_owned()).collect();
        try_run(&step).unwrap_err().to_string()
    };
    let layer = base.fresh();
    fs::write(layer.join("text"), "no program").unwrap();
    fs::write(layer.join("script"), "#!/no/interpreter\n").unwrap();
    fs::write(layer.join("plain"), "").unwrap();
    for (name, mode) in [("text", 0o755), ("script", 0o755), ("plain", 0o644)] {
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(
        message(vec![base.layer()], &["nosuchprog", "x"]),
        "exec: \"nosuchprog\": executable file not found in $PATH"
    );
    assert_eq!(
        message(vec![], &["/bin/sh", "-c", "true"]),
        "exec: \"/bin/sh\": stat /bin/sh: no such file or directory"
    );
    assert_eq!(message(vec![layer.clone()], &["/text"]), "exec: \"/text\": exec format error");
    assert_eq!(
        message(vec![layer.clone()], &["/script"]),
        "exec: \"/script\": stat /script: no such file or directory"
    );
    assert_eq!(message(vec![layer], &["/plain"]), "exec: \"/plain\": permission denied");
}

fn many_layers(base: &Base) {
    let mut step = base.step("ls / | grep -c file-");
    for number in 0..125 {
        let layer = base.fresh();
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
        step.lowers.push(layer);
    }
    assert_eq!(run(&step).stdout, "125\n");
}

fn long_paths(base: &Base) {
    let deep = base.fresh().join("x".repeat(200)).join("y".repeat(200));
    let mut step = base.step("echo 1 > /f");
    for (dir, slot) in [("upper", &mut step.upper), ("work", &mut step.work)] {
        *slot = deep.join(dir);
        fs::create_dir_all(&*slot).unwrap();
    }
    assert!(run(&step).exit.success());
    assert_eq!(names(&step.upper), ["f"]);
}

fn many_threads(base: &Base) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..20 {
                    let out = base.sh(&format!("echo {thread} {round}"));
                    assert_eq!(out, format!("{thread} {round}\n"));
                }
            });
        }
    });
}

fn cancelling(base: &Base) {
    let cancel = Cancel::new().unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let seen = Arc::new(AtomicBool::new(false));
        let (step, marker) = (base.step("echo up; sleep 1000 & sleep 1000"), Arc::clone(&seen));
        let handle = cancel.clone();
        let running = scope.spawn(move || {
            let mut output = |_, _: &[u8]| marker.store(true, Ordering::Release);
            sandbox::run(&step, &Keeper::new(), &mut output, &handle)
        });
        while !seen.load(Ordering::Acquire) && !running.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        let result = running.join().unwrap();
        assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
    });
    assert!(cancel.is_cancelled());
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// The process that `killed_parent_leaves_nothing` kills while it runs a step.
pub fn victim(dir: &Path) -> ! {
    sandbox::enter().expect("namespaces");
    let [upper, work, shared] = ["upper", "work", "shared"].map(|name| dir.join(name));
    for path in [&upper, &work, &shared] {
        fs::create_dir(path).expect("make a directory");
    }
    // Who changes the user is not killed with the parent any more.
    let last = match sandbox::single_uid() {
        true => "sleep 98765",
        false => "exec su -s /bin/sh -c 'sleep 98765' mail",
    };
    let step = Step {
        lowers: vec![dir.join("base")],
        upper,
        work,
        shared,
        exec: exec(&["/bin/sh", "-c", &format!("sleep 98765 & echo up > /up; {last}")]),
        mounts: Vec::new(),
        extra_env: Vec::new(),
        cgroups: Vec::new(),
    };
    let ran = try_run(&step);
    panic!("the step ended: {ran:?}")
}

fn killed_parent_leaves_nothing(base: &Base) {
    let dir = base.fresh();
    symlink(base.layer(), dir.join("base")).unwrap();
    let mut victim = Command::new("/proc/self/exe").arg("victim").arg(&dir).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !dir.join("upper/up").exists() {
        assert!(Instant::now() < deadline, "the step did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The keeper, and a runner that waits for the next step.
    let keeper = format!("rbc-step\0{}\0", victim.id());
    while running(&keeper).len() != 2 {
        assert!(Instant::now() < deadline, "there are {:?}", running(&keeper));
        std::thread::sleep(Duration::from_millis(5));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    let left = || [running("sleep\098765\0"), running(&keeper)].concat();
    while !left().is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", left());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*dir.to_string_lossy()));
}

/// The pids of the processes with this command line.
fn running(command: &str) -> Vec<String> {
    let has = |pid: &String| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == command.as_bytes())
    };
    names(Path::new("/proc")).into_iter().filter(has).collect()
}

fn pretended_owners(base: &Base) {
    let script = "echo > /f && chown 3:4 /f && stat -c %u:%g /f";
    let expected = if sandbox::single_uid() { "0:0\n" } else { "3:4\n" };
    assert_eq!(base.sh(script), expected);
}

/// Prints what a step costs beyond its command (`cargo test --test sandbox -- --ignored`).
fn bench_true(base: &Base) {
    let steps: Vec<Step> = (0..50).map(|_| base.step("true")).collect();
    run(&base.step("true"));
    let started = Instant::now();
    for mut step in steps {
        step.exec.args = vec!["/bin/true".to_owned()];
        assert!(run(&step).exit.success());
    }
    println!("{:?} per step", started.elapsed() / 50);
}
