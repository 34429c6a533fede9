use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    process::Command,
};

use rbc_ir::Digest;
use rbc_runtime::layer::apply_tar;
use serde_json::Value;

use super::*;

/// The blobs and other files of the archive that `make` writes for `programs`.
fn made(programs: &[&str]) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("base.tar");
    let programs: Vec<String> = programs.iter().map(ToString::to_string).collect();
    make(&programs, &path, "docker.io/rbc/base:latest").unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(File::open(&path).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
    }
    (fs::read(path).unwrap(), files)
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
    let bytes = &files[&format!("blobs/sha256/{}", digest.hex())];
    assert_eq!(Digest::of(bytes), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

fn layer_of(files: &BTreeMap<String, Vec<u8>>) -> &[u8] {
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let manifest: Value = serde_json::from_slice(blob(files, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(blob(files, &manifest["config"])).unwrap();
    let layer = blob(files, &manifest["layers"][0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], Digest::of(layer).to_string());
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["sh"]));
    layer
}

/// Runs `command` in the image as root of `dir`: really root, or in a user namespace.
fn run_in(dir: &Path, command: &str) -> String {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let enter: &[&str] = if is_root { &["chroot"] } else { &["unshare", "-r", "chroot"] };
    let output = Command::new(find(enter[0]).unwrap())
        .args(&enter[1..])
        .arg(dir)
        .args(["/bin/sh", "-c", command])
        .env_clear()
        .env("PATH", IMAGE_PATH)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_same_programs_give_the_same_bytes() {
    assert!(made(&[]).0 == made(&[]).0);
}

#[test]
fn the_image_runs() {
    let (_, files) = made(&[]);
    let temp = tempfile::tempdir().unwrap();
    apply_tar(layer_of(&files), temp.path()).unwrap();
    let script = "set -e; echo b a | tr ' ' '\\n' | sort > /tmp/x; cat /tmp/x; \
                  ls -d /tmp /home; stat -c '%a %U %Y' /root /var/tmp; \
                  echo 1 | gzip | gzip -d; tar cf /tmp/t /etc && tar tf /tmp/t | grep passwd; \
                  id -un; uname; find /tmp -name x | xargs wc -l";
    insta::assert_snapshot!(run_in(temp.path(), script), @r"
    a
    b
    /home
    /tmp
    700 root 318211200
    1777 root 318211200
    1
    etc/passwd
    root
    Linux
    2 /tmp/x
    ");
}

#[test]
fn a_program_has_the_names_that_it_has_here() {
    let (_, files) = made(&["cat"]);
    let temp = tempfile::tempdir().unwrap();
    apply_tar(layer_of(&files), temp.path()).unwrap();
    for name in ["/bin/cat", "/usr/bin/cat"].map(Path::new).into_iter().filter(|p| is_program(p)) {
        let command = format!("{} /etc/group", name.display());
        assert_eq!(run_in(temp.path(), &command), GROUP);
    }
    for dir in MERGED_DIRS {
        assert_eq!(
            fs::read_link(temp.path().join(&dir[1..])).ok(),
            fs::read_link(dir).ok(),
            "{dir}"
        );
    }
}

#[test]
fn only_what_is_named_and_the_shell_are_taken() {
    let (_, files) = made(&["cat"]);
    let temp = tempfile::tempdir().unwrap();
    apply_tar(layer_of(&files), temp.path()).unwrap();
    let out =
        run_in(temp.path(), "command -v cat; command -v tar || echo none; exec cat /etc/group");
    assert_eq!(out, format!("{}\nnone\n{GROUP}", find("cat").unwrap().display()));
}

#[test]
fn scripts_bring_their_interpreter() {
    let temp = tempfile::tempdir().unwrap();
    let script = temp.path().join("greet");
    fs::write(&script, "#!/usr/bin/env cat\nhello\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    let (_, files) = made(&[script.to_str().unwrap()]);
    let root = tempfile::tempdir().unwrap();
    apply_tar(layer_of(&files), root.path()).unwrap();
    assert_eq!(run_in(root.path(), "greet"), "#!/usr/bin/env cat\nhello\n");
}

#[test]
fn a_named_program_must_exist() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |program: &str| {
        let archive = temp.path().join("base.tar");
        let error = make(&[program.to_owned()], &archive, "a").unwrap_err().to_string();
        assert!(!archive.exists());
        error
    };
    assert_eq!(refused("no-such-tool"), "program \"no-such-tool\" is not on this machine's PATH");
    assert_eq!(refused("/etc/passwd"), "/etc/passwd is not a program of this machine");
}

#[test]
fn env_starts_the_first_word_that_is_a_program() {
    for (argument, want) in [
        ("python3", Some("python3")),
        ("-S python3 -u", Some("python3")),
        ("-i A=1 sh", Some("sh")),
        ("", None),
    ] {
        assert_eq!(env_program(argument), want);
    }
}
