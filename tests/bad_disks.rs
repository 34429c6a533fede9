//! A state folder on a disk that is full or cannot be written to: clear errors, no damage, and what
//! only looks works. Needs root for the disks.

mod support;

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use support::{Bench, Run};

/// A bench whose state folder is a disk of its own.
struct Disk {
    bench: Bench,
    state: PathBuf,
}

impl Disk {
    fn of(size: &str) -> Self {
        let bench = Bench::new();
        let state = bench.root();
        fs::create_dir(&state).expect("a new folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &state);
        let disk = Self { bench, state };
        disk.bench.load(&support::image::busybox(), "busybox:latest");
        disk
    }

    fn remount(&self, how: &str) {
        mount(&["-o", &format!("remount,{how}")], &self.state);
    }

    /// Takes all of the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.state.join("filler");
        let mut file = fs::File::create(&path).expect("a new file");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    fn rbc(&self, arguments: &str) -> Run {
        self.bench.rbc(arguments)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.state).status();
    }
}

#[track_caller]
fn mount(arguments: &[&str], place: &PathBuf) {
    let status = Command::new("mount").args(arguments).arg(place).status().expect("mount");
    assert!(status.success(), "this test mounts disks: run it as root");
}

#[test]
fn what_does_not_fit_fails_without_damage() {
    let disk = Disk::of("9m");
    disk.bench.write("run/Dockerfile", "FROM busybox\nRUN head -c 20000000 /dev/zero > /big\n");
    disk.bench.write("copy/Dockerfile", "FROM busybox\nCOPY big /\n");
    disk.bench.write("copy/big", vec![1; 20_000_000]);
    disk.bench
        .write("export/Dockerfile", "FROM busybox\nRUN head -c 3500000 /dev/urandom > /big\n");
    disk.bench.write("small/Dockerfile", "FROM busybox\nRUN echo small > /small\n");
    for (name, says) in [
        ("run", "is full"),
        ("copy", "No space left on device"),
        ("export", "No space left on device"),
    ] {
        let failed = disk.rbc(&format!("build -t {name} {name}")).fails(1, says);
        assert!(failed.stderr.contains("`rbc prune` removes"), "{}", failed.stderr);
        disk.rbc("fsck --check").ok();
        disk.rbc("build -q -t small small").ok();
    }
}

#[test]
fn a_full_disk_can_be_looked_at_and_pruned() {
    let disk = Disk::of("12m");
    disk.bench.write("c/Dockerfile", "FROM busybox\nRUN head -c 2000000 /dev/urandom > /f\n");
    disk.rbc("build -q -o out c").ok();
    disk.bench.write("d/Dockerfile", "FROM busybox\nRUN echo more > /more\n");
    let filler = disk.fill();
    assert!(disk.rbc("images").ok().stdout.contains("busybox"));
    disk.rbc("ps").ok();
    disk.rbc("du").ok();
    let failed = disk.rbc("build -t app d");
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
    disk.rbc("fsck --check").ok();
    let pruned = disk.rbc("prune --all --force").ok();
    assert!(pruned.stdout.contains("Freed: "), "{}", pruned.stdout);
    disk.rbc("fsck --check").ok();
    disk.rbc("build -q -t app d").ok();
    fs::remove_file(filler).expect("the filler");
    disk.rbc("build -q -t app c").ok();
}

#[test]
fn a_read_only_disk_can_be_looked_at() {
    let disk = Disk::of("16m");
    disk.bench.write("c/Dockerfile", "FROM busybox\nRUN echo made > /made; sleep 30\n");
    // A killed process leaves a log of changes beside the index.
    let mut build = disk.bench.command().args(["build", "-q", "c"]).spawn().expect("rbc starts");
    while fs::read_dir(disk.state.join("layers")).map_or(0, Iterator::count) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(build.try_wait().expect("a child").is_none(), "the build ended early");
    }
    build.kill().expect("killed");
    build.wait().expect("ended");
    disk.remount("ro");
    assert!(disk.rbc("images").ok().stdout.contains("busybox"));
    assert!(disk.rbc("du").ok().stdout.contains("image-layer"));
    disk.rbc("ps").ok();
    disk.rbc("history").ok();
    disk.rbc("fsck --check").ok();
    disk.rbc("save -o saved.tar busybox").ok();
    for command in ["build c", "prune -f", "fsck", "rmi busybox", "load -i saved.tar", "pull x"] {
        let failed = disk.rbc(command).fails(1, "Read-only file system");
        assert!(failed.stderr.contains("help: the disk may only be read"), "{}", failed.stderr);
    }
    disk.rbc("prune --all --dry-run").ok();
    disk.remount("rw");
    // Without processes there is no log; the file alone has to do.
    disk.rbc("ps").ok();
    disk.remount("ro");
    assert!(disk.rbc("images").ok().stdout.contains("busybox"));
}

/// The disk is filled up to what is left, from nothing to what a small build needs.
#[test]
fn however_little_is_left_nothing_is_damaged() {
    let disk = Disk::of("16m");
    disk.bench.write("c/Dockerfile", "FROM busybox\nRUN echo made > /made\nCOPY Dockerfile /\n");
    disk.rbc("save -o saved.tar busybox").ok();
    disk.rbc("build -q -t kept c").ok();
    let cache = disk.bench.path("cache.tar").display().to_string();
    disk.rbc(&format!("cache export -o {cache}")).ok();
    for left in [0, 4, 12, 40, 150, 500, 2500] {
        let filler = disk.fill();
        let file = fs::File::options().write(true).open(&filler).expect("the filler");
        let size = file.metadata().expect("its size").len();
        file.set_len(size - (left << 10)).expect("cut");
        drop(file);
        for command in [
            "build -q -t new c",
            "build -q --no-cache -t new c",
            "load -i saved.tar",
            "tag busybox other",
            &format!("cache import {cache}"),
            "build -q -o type=oci,dest=out.tar,compression=zstd c",
            "rmi --force new",
        ] {
            let run = disk.rbc(command);
            assert!(!run.stderr.contains("panicked"), "{left}k: {command}: {}", run.stderr);
            if run.code != Some(0) {
                assert_eq!(run.code, Some(1), "{left}k: {command}: {}", run.stderr);
                let named = ["No space left", "no space left", "is full"];
                let is_named = named.iter().any(|text| run.stderr.contains(text));
                assert!(is_named, "{left}k: {command}: {}", run.stderr);
                assert!(run.stderr.contains("rbc prune"), "{left}k: {command}: {}", run.stderr);
            }
            disk.rbc("fsck --check").ok();
        }
        disk.rbc("prune --all --force").ok();
        fs::remove_file(filler).expect("the filler");
        disk.rbc("build -q -t kept c").ok();
    }
    let check = disk.rbc("fsck --format json").ok();
    assert!(check.stdout.contains(r#""bad":[]"#), "{}", check.stdout);
}

#[test]
fn a_folder_of_somebody_else_is_told_and_not_touched() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo made > /made\n");
    bench.rbc("build -q -t app c").ok();
    // The way to the folder is open to all.
    for folder in [bench.path(""), bench.root()] {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder, mode).expect("permissions");
    }
    let program = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a folder that all may read");
    let rbc = program.path().join("rbc");
    fs::copy(env!("CARGO_BIN_EXE_rbc"), &rbc).expect("a copy that all may run");
    let as_other = |arguments: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1234", "--regid=1234", "--clear-groups"]).arg(&rbc);
        command.args(arguments.split_whitespace()).current_dir(bench.path(""));
        command.env("RBC_ROOT", bench.root()).env("HOME", "/nonexistent").env("NO_COLOR", "1");
        Run::from(command.output().expect("setpriv"))
    };
    for arguments in ["build c", "prune -f", "rmi app", "fsck"] {
        let failed = as_other(arguments).fails(1, "Permission denied");
        assert!(failed.stderr.contains("belongs to another user"), "{}", failed.stderr);
    }
    assert!(as_other("images").ok().stdout.contains("app"));
    bench.rbc("fsck --check").ok();
}
