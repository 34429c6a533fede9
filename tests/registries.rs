//! Registries with passwords and certificates: Debian's docker-registry on loopback.

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use support::{
    Bench, Run, image,
    registry::{PASSWORD, Registry, RegistryOptions, USER},
};

/// A registry that wants a password, with `lib/busybox:1` in it.
fn guarded(bench: &Bench) -> Registry {
    let registry = Registry::with(&RegistryOptions { passwords: true, ..Default::default() });
    let archive = bench.path("busybox.tar");
    image::busybox().write_oci(&archive, "busybox:latest");
    registry.push(&archive, "lib/busybox:1");
    bench.write(
        "c/Dockerfile",
        format!("FROM {}/lib/busybox:1\nRUN echo ok > /ok\n", registry.host),
    );
    registry
}

fn with_input(command: &mut Command, input: &str) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Run::from(child.wait_with_output().unwrap())
}

#[test]
fn login_opens_a_registry_and_logout_closes_it() {
    let bench = Bench::new();
    let registry = guarded(&bench);
    let host = &registry.host;
    let hint = format!("needs authentication (`rbc login {host}`)");
    bench.rbc("build c").fails(1, &hint);

    let login = format!("login -u {USER} --password-stdin {host}");
    let login = |password: &str| {
        with_input(bench.command().args(login.split_whitespace()), &format!("{password}\n"))
    };
    bench.write("docker/config.json", r#"{"detachKeys": "ctrl-e,e"}"#);
    let before = bench.read("docker/config.json");
    login("wrong").fails(1, &format!("access denied by {host} to user \"user\""));
    assert_eq!(bench.read("docker/config.json"), before);
    let run = login(PASSWORD).ok();
    assert_eq!(run.stdout, "Login Succeeded\n");
    assert!(run.stderr.contains("docker/config.json without encryption"), "{}", run.stderr);
    let kept = bench.read("docker/config.json");
    assert!(kept.contains("\"detachKeys\": \"ctrl-e,e\"") && kept.contains(host), "{kept}");
    let mode = fs::metadata(bench.path("docker/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bench.rbc("build c").ok();

    let out = bench.rbc(&format!("logout {host}")).ok().stdout;
    assert!(out.starts_with(&format!("Removed the credentials for {host} from ")), "{out}");
    assert_eq!(
        bench.rbc(&format!("logout {host}")).ok().stdout,
        format!("Not logged in to {host}\n")
    );
    bench.rbc("build --pull --no-cache c").fails(1, &hint);
}

#[test]
fn a_wrong_login_call_is_told() {
    let bench = Bench::new();
    bench.rbc("login -u a -p b --password-stdin").fails(2, "cannot be used with");
    bench.rbc("login --password-stdin x.example").fails(2, "--password-stdin needs --username");
    bench.rbc("login x.example").fails(2, "standard input is no terminal");
    bench.rbc("login -u a -p b team").fails(2, "\"team\" is no registry");
    let run = bench.rbc("login -u a -p b 127.0.0.1:1").fails(1, "cannot reach 127.0.0.1:1");
    assert!(run.stderr.contains("warning: a password on the command line"), "{}", run.stderr);
}

#[test]
fn credential_helpers_keep_and_give_passwords() {
    let bench = Bench::new();
    let registry = guarded(&bench);
    let kept = bench.path("kept");
    let helper = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {0};;\nget) test -f {0} && cat {0} || \
         {{ echo 'credentials not found in native keychain'; exit 1; }};;\nerase) rm {0};;\nesac\n",
        kept.display()
    );
    bench.write("bin/docker-credential-test", helper);
    let program = bench.path("bin/docker-credential-test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    bench.write("docker/config.json", r#"{"credsStore":"test"}"#);
    let path = format!("{}:{}", bench.path("bin").display(), std::env::var("PATH").unwrap());
    let rbc = |arguments: &str| {
        Run::from(bench.command().args(arguments.split(' ')).env("PATH", &path).output().unwrap())
    };
    rbc("build c").fails(1, "needs authentication");
    let run = rbc(&format!("login -u {USER} -p {PASSWORD} {}", registry.host)).ok();
    assert!(run.stderr.contains("docker-credential-test keeps the credentials"), "{}", run.stderr);
    assert_eq!(bench.read("docker/config.json"), r#"{"credsStore":"test"}"#);
    rbc("build c").ok();
    rbc(&format!("logout {}", registry.host)).ok();
    assert!(!kept.exists());
}

#[test]
fn podmans_file_may_hold_a_password_for_one_repository() {
    let bench = Bench::new();
    let registry = guarded(&bench);
    // user:secret
    let auth = "dXNlcjpzZWNyZXQ=";
    let entry =
        |scope: &str| format!(r#"{{"auths":{{"{}/{scope}":{{"auth":"{auth}"}}}}}}"#, registry.host);
    bench.write("auth.json", entry("other"));
    let build = || {
        let mut command = bench.command();
        command.args(["build", "c"]).env("REGISTRY_AUTH_FILE", bench.path("auth.json"));
        Run::from(command.output().unwrap())
    };
    build().fails(1, "needs authentication");
    bench.write("auth.json", entry("lib"));
    build().ok();
    bench.write("auth.json", "{\n  oops");
    bench.write("d/Dockerfile", format!("FROM {}/lib/busybox:2\n", registry.host));
    let mut command = bench.command();
    command.args(["build", "d"]).env("REGISTRY_AUTH_FILE", bench.path("auth.json"));
    Run::from(command.output().unwrap()).fails(1, "auth.json: key must be a string at line 2");
}
