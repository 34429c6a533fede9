//! What is stated about images: provenance and bills of materials, as BuildKit attaches them.

mod support;

use std::{fs, process::Command};

use serde_json::Value;
use support::{Bench, need};

/// A folder layout written by `-o type=oci,tar=false`.
struct Layout(std::path::PathBuf);

impl Layout {
    fn blob(&self, digest: &Value) -> Value {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        serde_json::from_slice(&fs::read(self.0.join("blobs/sha256").join(hex)).unwrap()).unwrap()
    }

    /// The image's index.
    fn index(&self) -> Value {
        let list: Value =
            serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap();
        self.blob(&list["manifests"][0]["digest"])
    }

    /// The statements about the image at a place in the index, by their predicate types.
    fn statements(&self, about: usize) -> Vec<(String, Value)> {
        let index = self.index();
        let image = &index["manifests"][about]["digest"];
        let entry = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["annotations"]["vnd.docker.reference.digest"] == *image)
            .unwrap();
        assert_eq!(entry["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(entry["platform"], serde_json::json!({"architecture":"unknown","os":"unknown"}));
        let manifest = self.blob(&entry["digest"]);
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
        assert_eq!(manifest["subject"]["digest"], *image);
        assert_eq!(manifest["subject"]["size"], index["manifests"][about]["size"]);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(self.blob(&manifest["config"]["digest"]), serde_json::json!({}));
        layers
            .iter()
            .map(|layer| {
                assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
                let kind = layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap();
                let statement = self.blob(&layer["digest"]);
                assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
                assert_eq!(statement["predicateType"], kind);
                assert_eq!(
                    format!(
                        "sha256:{}",
                        statement["subject"][0]["digest"]["sha256"].as_str().unwrap()
                    ),
                    image.as_str().unwrap()
                );
                (kind.to_owned(), statement)
            })
            .collect()
    }
}

fn build(bench: &Bench, options: &str) -> Layout {
    let _ = fs::remove_dir_all(bench.path("out"));
    bench.rbc(&format!("build {options} -o type=oci,tar=false,dest=out c")).ok();
    Layout(bench.path("out"))
}

#[test]
fn provenance_names_what_the_image_depends_on() {
    let bench = Bench::with_busybox();
    bench.write("f", "x").write("c/f", "content").write(
        "c/Dockerfile",
        "FROM busybox AS unused\nRUN echo unused\n\
         FROM busybox\nARG WORD=hush\nCOPY f /f\n\
         RUN --mount=type=secret,id=key,required=false echo $WORD > /g\n",
    );
    let layout = build(&bench, "-t h.example/app:1 --provenance=true");
    let statements = layout.statements(0);
    let [(kind, statement)] = statements.as_slice() else { panic!("{statements:?}") };
    assert_eq!(kind, "https://slsa.dev/provenance/v1");
    assert_eq!(
        statement["subject"][0]["name"],
        format!("pkg:docker/h.example/app@1?platform=linux%2F{}", go_architecture())
    );
    let definition = &statement["predicate"]["buildDefinition"];
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), 1, "{dependencies:?}");
    assert!(dependencies[0]["uri"].as_str().unwrap().starts_with("pkg:docker/busybox@latest?"));
    assert_eq!(definition["externalParameters"]["parameters"]["locals"][0]["name"], "context");
    let text = statement.to_string();
    assert!(!text.contains("hush") && !text.contains("\"key\""), "{text}");

    let layout = build(&bench, "--attest type=provenance,mode=max,builder-id=https://ci.example/1");
    let (_, statement) = layout.statements(0).remove(0);
    let external = &statement["predicate"]["buildDefinition"]["externalParameters"];
    assert_eq!(external["files"][0]["text"], bench.read("c/Dockerfile"));
    assert_eq!(external["parameters"]["secrets"][0]["id"], "key");
    assert_eq!(statement["predicate"]["runDetails"]["builder"]["id"], "https://ci.example/1");
    // The statement says nothing of when it was made.
    let first = layout.index();
    let again = build(&bench, "--provenance=mode=max,builder-id=https://ci.example/1").index();
    assert_eq!(first, again);
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[test]
fn a_bill_of_materials_lists_packages() {
    let bench = Bench::new();
    bench
        .write("c/os-release", "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n")
        .write(
            "c/status",
            "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.15-2+b2\n\n\
             Package: removed\nStatus: deinstall ok config-files\nVersion: 1\n",
        )
        .write("c/METADATA", "Name: Requests\nVersion: 2.31.0\nLicense: Apache 2.0\n\nText\n")
        .write("c/package.json", r#"{"name":"@scope/tool","version":"1.0.0"}"#)
        .write(
            "c/package-lock.json",
            r#"{"packages":{"node_modules/@scope/tool":{"version":"1.0.0"},
                "node_modules/other":{"version":"2.0.0"}}}"#,
        )
        .write("c/Cargo.lock", "[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n")
        .write("c/go.mod", "module x\nrequire example.org/m v1.2.3\n")
        .write("c/requirements.txt", "requests==2.31.0\nidna==3.4\n")
        .write(
            "c/Dockerfile",
            "FROM scratch\nCOPY os-release /usr/lib/os-release\nCOPY status /var/lib/dpkg/status\n\
             COPY METADATA /usr/lib/python3/requests-2.31.0.dist-info/METADATA\n\
             COPY package.json /app/node_modules/@scope/tool/package.json\n\
             COPY package.json package-lock.json Cargo.lock go.mod requirements.txt /app/\n",
        );
    let layout = build(&bench, "--sbom=true --provenance=true");
    let kinds: Vec<String> = layout.statements(0).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["https://spdx.dev/Document", "https://slsa.dev/provenance/v1"]);
    let document = &layout.statements(0)[0].1["predicate"];
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    let purls: Vec<&str> = document["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(
        purls,
        [
            "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12",
            "pkg:pypi/idna@3.4",
            "pkg:pypi/requests@2.31.0",
            "pkg:npm/%40scope/tool@1.0.0",
            "pkg:npm/other@2.0.0",
            "pkg:golang/example.org/m@v1.2.3",
            "pkg:cargo/serde@1.0.1",
        ]
    );
    let contained = document["relationships"].as_array().unwrap().len();
    assert_eq!(contained, 1 + purls.len());
}

#[test]
fn attested_images_are_taken_by_other_tools() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo hello > /motd\n");
    bench
        .rbc("build -t h.example/app:1 --provenance=true --sbom=true -o type=oci,dest=app.tar c")
        .ok();
    need("skopeo", "skopeo");
    let skopeo = |arguments: &str| {
        let output = Command::new("skopeo")
            .arg("--insecure-policy")
            .args(arguments.split(' '))
            .current_dir(bench.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let inspected: Value =
        serde_json::from_slice(&skopeo("inspect oci-archive:app.tar:1")).unwrap();
    assert_eq!(inspected["Os"], "linux");
    skopeo("copy --all oci-archive:app.tar:1 oci:copy");
    // rbc itself finds the image beside the statements, and keeps them.
    let other = Bench::new();
    fs::copy(bench.path("app.tar"), other.path("app.tar")).unwrap();
    other.rbc("load --input app.tar").ok();
    other.write("d/Dockerfile", "FROM h.example/app:1\nRUN test -s /motd\n");
    other.rbc("build d").ok();
    other.rbc("save --format oci -o again.tar h.example/app:1").ok();
    let listed = |path: std::path::PathBuf| {
        let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .filter(|name| name.starts_with("blobs/sha256/") && name.len() > 20)
            .collect();
        names
    };
    assert_eq!(listed(other.path("again.tar")), listed(bench.path("app.tar")));
}

#[test]
fn attestations_need_an_output_that_can_hold_them() {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", "FROM busybox\nRUN true\n");
    let run = bench
        .rbc("build --provenance=true -o type=docker,dest=x.tar c")
        .fails(1, "type=docker cannot hold attestations");
    // It is told before anything runs.
    assert_eq!(run.done(), 0, "{}", run.stderr);
    bench
        .rbc("build --provenance=true -o type=oci,dest=x.tar,oci-mediatypes=false c")
        .fails(1, "oci-mediatypes=false cannot hold attestations");
    bench.rbc("build --sbom=maybe c").fails(2, "want true or false");
    bench.rbc("build --provenance=mode=all c").fails(2, "mode=min or mode=max");
    bench.rbc("build --provenance=version=v0.2 c").fails(2, "version=v1 only");
    bench.rbc("build --provenance=false --sbom=false -o type=docker,dest=x.tar c").ok();
}

#[test]
fn files_get_statements_beside_them() {
    let bench = Bench::new();
    bench.write("c/Dockerfile", "FROM scratch\nCOPY f /d/f\n").write("c/f", "content\n");
    bench.rbc("build --sbom --provenance -o type=local,dest=out,attestation-prefix=my. c").ok();
    assert_eq!(bench.read("out/d/f"), "content\n");
    for (file, kind) in [
        ("my.provenance.json", "https://slsa.dev/provenance/v1"),
        ("my.sbom.spdx.json", "https://spdx.dev/Document"),
    ] {
        let statement: Value = serde_json::from_str(&bench.read(&format!("out/{file}"))).unwrap();
        assert_eq!(statement["predicateType"], kind);
        let digest = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";
        let subject = serde_json::json!([{"name": "d/f", "digest": {"sha256": digest}}]);
        assert_eq!(statement["subject"], subject);
    }
    bench.rbc("build --provenance -o type=tar,dest=out.tar c").ok();
    let mut archive = tar::Archive::new(fs::File::open(bench.path("out.tar")).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["d/", "d/f", "provenance.json"]);
}

#[test]
fn registries_list_statements_by_their_subject() {
    let bench = Bench::with_busybox();
    let registry = support::registry::Registry::start();
    let name = format!("{}/app:1", registry.host);
    bench.write("c/Dockerfile", "FROM busybox\nRUN echo hello > /motd\n");
    // The layers of the local store get compressed, so the statements must be about another image.
    bench.rbc(&format!("build -t {name} --provenance c")).ok();
    bench.rbc(&format!("push {name}")).ok();
    need("skopeo", "skopeo");
    let raw = |reference: &str| -> Value {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{}/app{reference}", registry.host))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let index = raw(":1");
    let image = index["manifests"][0]["digest"].as_str().unwrap();
    let about = &index["manifests"][1];
    assert_eq!(about["annotations"]["vnd.docker.reference.digest"], image);
    let manifest = raw(&format!("@{}", about["digest"].as_str().unwrap()));
    assert_eq!(manifest["subject"]["digest"], image);
    let list = raw(&format!(":{}", image.replace(':', "-")));
    assert_eq!(list["manifests"][0]["digest"], about["digest"]);
    assert_eq!(list["manifests"][0]["artifactType"], manifest["artifactType"]);
    // The statement itself speaks of what was pushed.
    let hex = manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let blobs = registry.data().join("docker/registry/v2/blobs/sha256");
    let blob = blobs.join(&hex[..2]).join(&hex).join("data");
    let statement: Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    let subject = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
    assert_eq!(format!("sha256:{subject}"), image);
    // Pushed again, it is not listed twice.
    bench.rbc(&format!("push {name}")).ok();
    assert_eq!(raw(&format!(":{}", image.replace(':', "-"))), list);
}
