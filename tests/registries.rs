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
    token_server::TokenServer,
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

/// A certificate authority, a certificate for 127.0.0.1 and one for a client, made by openssl.
struct Certificates {
    authority: std::path::PathBuf,
    server: (std::path::PathBuf, std::path::PathBuf),
    client: (std::path::PathBuf, std::path::PathBuf),
}

fn certificates(bench: &Bench) -> Certificates {
    support::need("openssl", "openssl");
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(bench.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
    );
    bench.write("server.ext", "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
    bench.write("client.ext", "extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n");
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile {name}.ext -out {name}.crt"
        ));
    }
    let pair = |name: &str| (bench.path(format!("{name}.crt")), bench.path(format!("{name}.key")));
    Certificates { authority: bench.path("ca.crt"), server: pair("server"), client: pair("client") }
}

#[test]
fn certificates_are_taken_from_the_settings_and_from_certs_d() {
    let bench = Bench::with_busybox();
    let made = certificates(&bench);
    let registry = Registry::with(&RegistryOptions {
        passwords: true,
        tls: Some(made.server.clone()),
        client_authority: Some(made.authority.clone()),
        ..Default::default()
    });
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo ok > /ok\n");
    let login = format!("login -u {USER} -p {PASSWORD} {host}");
    bench.rbc(&login).fails(1, "certificate");
    // The authority alone lets us see the registry, not the registry us.
    let authority = format!("[registry.\"{host}\"]\nca = \"../../ca.crt\"\n");
    bench.write("config/rbc/config.toml", &authority);
    bench.rbc(&login).fails(1, "cannot reach");
    let pair = "keypair = { cert = \"../../client.crt\", key = \"../../client.key\" }\n";
    bench.write("config/rbc/config.toml", format!("{authority}{pair}"));
    bench.rbc(&login).ok();
    bench.rbc(&format!("build -t {host}/app:1 --push c")).ok();
    // Podman's folders do as well.
    fs::remove_file(bench.path("config/rbc/config.toml")).unwrap();
    bench.rbc(&format!("pull {host}/app:1")).fails(1, "certificate");
    let folder = format!("config/containers/certs.d/{host}");
    for (from, to) in
        [(&made.authority, "ca.crt"), (&made.client.0, "me.cert"), (&made.client.1, "me.key")]
    {
        bench.write(&format!("{folder}/{to}"), fs::read(from).unwrap());
    }
    bench.rbc(&format!("pull {host}/app:1")).ok();
    bench.write("config/rbc/config.toml", format!("[registry.\"{host}\"]\nca = \"none.crt\"\n"));
    bench.rbc(&format!("pull {host}/app:1")).fails(1, "config/rbc/none.crt: No such file");
}

#[test]
fn an_insecure_registry_need_not_prove_who_it_is() {
    let bench = Bench::with_busybox();
    let made = certificates(&bench);
    let registry =
        Registry::with(&RegistryOptions { tls: Some(made.server), ..Default::default() });
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo ok > /ok\n");
    let push = format!("build -t {host}/app:1 --push c");
    bench.rbc(&push).fails(1, "certificate");
    bench.rbc(&format!("build -o type=registry,name={host}/app:1,registry.insecure=true c")).ok();
    bench.write(
        "config/containers/registries.conf",
        format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"),
    );
    bench.rbc(&push).ok();
}

#[test]
fn mirrors_are_asked_first() {
    let bench = Bench::new();
    let (mirror, origin) = (Registry::start(), Registry::start());
    let archive = bench.path("busybox.tar");
    image::busybox().write_oci(&archive, "busybox:latest");
    mirror.push(&archive, "cache/lib/busybox:1");
    origin.push(&archive, "lib/busybox:2");
    let from = |tag: &str| {
        bench.write("c/Dockerfile", format!("FROM {}/lib/busybox:{tag}\n", origin.host));
        bench.rbc("build --no-cache c")
    };
    from("1").fails(1, "not found");
    bench.write(
        "config/rbc/config.toml",
        format!(
            "[registry.\"{}\"]\nmirrors = [\"127.0.0.1:1\", \"{}/cache\"]\n",
            origin.host, mirror.host
        ),
    );
    from("1").ok();
    // What no mirror has comes from the registry.
    from("2").ok();
    from("3").fails(1, "not found");
    let other = bench.write("config/rbc/config.toml", "").path("registries.conf");
    fs::write(
        &other,
        format!(
            "[[registry]]\nprefix = \"{}/lib\"\nlocation = \"{}/cache/lib\"\n\
             [[registry]]\nprefix = \"{}/bad\"\nblocked = true\n",
            origin.host, mirror.host, origin.host
        ),
    )
    .unwrap();
    let with_conf = |arguments: &str| {
        let mut command = bench.command();
        command.args(arguments.split(' ')).env("CONTAINERS_REGISTRIES_CONF", &other);
        Run::from(command.output().unwrap())
    };
    with_conf(&format!("pull {}/lib/busybox:1", origin.host)).ok();
    with_conf(&format!("pull {}/lib/busybox:2", origin.host)).fails(1, "not found");
    with_conf(&format!("pull {}/bad/busybox:2", origin.host))
        .fails(1, "registries.conf blocks its registry");
}

#[test]
fn a_mistake_in_the_config_file_is_shown() {
    let bench = Bench::new();
    bench.write("config/rbc/config.toml", "[registry.\"h.example\"]\nmirrrors = []\n");
    let run = bench.rbc("pull h.example/x").fails(1, "config/rbc/config.toml:2:1");
    assert!(run.stderr.contains("did you mean \"mirrors\"?"), "{}", run.stderr);
    let mut command = bench.command();
    command.args(["pull", "h.example/x"]).env("RBC_CONFIG", bench.path("none.toml"));
    Run::from(command.output().unwrap()).fails(1, "cannot read the config file");
}

#[test]
fn tokens_are_fetched_for_what_is_done() {
    let bench = Bench::with_busybox();
    let tokens = TokenServer::start();
    let options = RegistryOptions { more: tokens.registry_config(), ..Default::default() };
    let registry = Registry::with(&options);
    let host = &registry.host;
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo ok > /ok\n");
    let push = |name: &str| bench.rbc(&format!("build -t {host}/{name} --push c"));
    push("team/app:1").fails(1, &format!("needs authentication (`rbc login {host}`)"));
    bench
        .rbc(&format!("login -u {USER} -p wrong {host}"))
        .fails(1, "to user \"user\": unknown user");
    bench.rbc(&format!("login -u {USER} -p {PASSWORD} {host}")).ok();
    // The password was exchanged for a token, as Docker does.
    let kept = bench.read("docker/config.json");
    assert!(kept.contains("\"identitytoken\": \"long-lived\""), "{kept}");
    push("team/app:1").ok();
    // Both repositories are named when a blob is to go from one to the other.
    push("public/app:1").ok();
    let asked = tokens.asked();
    let both = "token repository:public/app:pull,push repository:team/app:pull";
    assert!(asked.iter().any(|line| line == both), "{asked:#?}");
    // One token for a scope serves all blobs.
    let once = "token repository:team/app:pull,push";
    assert_eq!(asked.iter().filter(|line| *line == once).count(), 1, "{asked:#?}");
    bench.rbc(&format!("logout {host}")).ok();
    let stranger = Bench::new();
    stranger.rbc(&format!("pull {host}/public/app:1")).ok();
    stranger.rbc(&format!("pull {host}/team/app:1")).fails(1, "access denied");
    // A token that is no good any more is told.
    let entry = format!(r#"{{"auths":{{"{host}":{{"identitytoken":"old"}}}}}}"#);
    stranger.write("docker/config.json", entry);
    stranger.rbc(&format!("pull {host}/team/app:1")).fails(1, "to the owner of a token (");
}
