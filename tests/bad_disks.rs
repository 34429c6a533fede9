//! A state folder on a disk that is full or cannot be written to: clear errors, no damage, and what
//! only looks works. Needs root for the disks.

mod support;

use std::{fs, io::Write, path::PathBuf, process::Command};

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
        disk.rbc(&format!("build -t {name} {name}")).fails(1, says);
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
    for command in ["build c", "prune -f", "fsck", "rmi busybox"] {
        disk.rbc(command).fails(1, "Read-only file system");
    }
    disk.remount("rw");
    // Without processes there is no log; the file alone has to do.
    disk.rbc("ps").ok();
    disk.remount("ro");
    assert!(disk.rbc("images").ok().stdout.contains("busybox"));
}
