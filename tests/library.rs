//! The crates as libraries: their examples work together and with the program, and their main types
//! can be shared between threads.

mod support;

use std::{
    error::Error,
    path::Path,
    process::{Command, Stdio},
    sync::Once,
};

use support::{Bench, Run};

/// Runs an example of a crate in the folder of the bench.
fn example(bench: &Bench, name: &str, args: &[&str]) -> Run {
    static BUILT: Once = Once::new();
    let folder = Path::new(env!("CARGO_BIN_EXE_rbc")).parent().unwrap().join("examples");
    // `cargo test --workspace` builds them before any test runs, `cargo test --test library` does not.
    BUILT.call_once(|| {
        if !folder.join("run_graph").exists() {
            let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "-q", "--workspace", "--examples", "--manifest-path", manifest]);
            assert!(cargo.status().expect("cargo starts").success());
        }
    });
    Command::new(folder.join(name))
        .args(args)
        .current_dir(bench.path("."))
        .env("RBC_ROOT", bench.root())
        .stdin(Stdio::null())
        .output()
        .expect("the example starts")
        .into()
}

#[test]
fn a_dockerfile_is_compiled_and_the_graph_is_run() {
    let bench = Bench::new();
    let dockerfile = "FROM scratch\nCOPY <<EOF /motd\nwritten by a test\nEOF\n";
    bench.write("Dockerfile", dockerfile);
    let compiled = example(&bench, "compile", &["Dockerfile"]).ok();
    bench.write("graph.bin", &compiled.stdout_bytes);
    bench.rbc("inspect graph.bin").ok();

    let ran = example(&bench, "run_graph", &["graph.bin", "out"]).ok();
    assert_eq!(ran.stdout, "2 steps ran, 0 were cached\n");
    assert_eq!(bench.read("out/motd"), "written by a test\n");
    // The program finds what the example left in the state folder.
    bench.rbc("run graph.bin -o again --progress plain").ok();
    assert_eq!(bench.read("again/motd"), "written by a test\n");

    bench.write("Dockerfile", "FROM scratch\nCPOY a /\n");
    let wrong = example(&bench, "compile", &["Dockerfile"]);
    wrong.fails(1, "Dockerfile:2");
}

#[test]
fn a_graph_is_built_without_a_dockerfile() {
    let bench = Bench::new();
    let shown = example(&bench, "build_graph", &["graph.bin"]).ok().stdout;
    assert!(shown.contains("write /hosts: 1 inputs, same in both"), "{shown}");
    assert!(shown.contains("write /motd: 1 inputs, differs"), "{shown}");
    bench.rbc("run graph.bin -o out").ok();
    assert_eq!(bench.read("out/motd"), "hello from a graph\n");
}

#[test]
fn events_are_watched() {
    let bench = Bench::new();
    let shown = example(&bench, "watch_events", &[]).ok().stdout;
    let began = shown.lines().filter(|line| line.contains(" began: write /")).count();
    let cached = shown.lines().filter(|line| line.contains(" was cached: write /")).count();
    assert_eq!((began, cached), (2, 2), "{shown}");
}

#[test]
fn main_types_are_shared_between_threads_and_errors_go_anywhere() {
    fn shared<T: Send + Sync>() {}
    fn error<E: Error + Send + Sync + 'static>() {}

    shared::<rbc_ir::Graph>();
    shared::<rbc_ir::GraphBuilder>();
    shared::<rbc_ir::ImageConfig>();
    shared::<rbc_compiler::Compiled>();
    shared::<rbc_compiler::CompileOptions>();
    shared::<rbc_compiler::syntax::SourceFile>();
    shared::<rbc_runtime::build::BuildOptions<'_>>();
    shared::<rbc_runtime::build::Built>();
    shared::<rbc_runtime::build::Contexts>();
    shared::<rbc_runtime::history::Journal>();
    shared::<rbc_runtime::progress::Event<'_>>();
    shared::<rbc_runtime::registry::Client>();
    shared::<rbc_runtime::sandbox::Cancel>();
    shared::<rbc_runtime::store::Store>();
    shared::<rbc_runtime::tree::LayerStack>();

    error::<rbc_ir::BuilderError>();
    error::<rbc_ir::CodecError>();
    error::<rbc_ir::DigestParseError>();
    error::<rbc_ir::GraphError>();
    error::<rbc_ir::JsonError>();
    error::<rbc_ir::PlatformParseError>();
    error::<rbc_ir::pattern::BadPattern>();
    error::<rbc_compiler::ResolveError>();
    error::<rbc_compiler::diagnostic::Diagnostics>();
    error::<rbc_compiler::git_ref::GitRefError>();
    error::<rbc_compiler::ignore::IgnoreError>();
    error::<rbc_compiler::instruction::DurationError>();
    error::<rbc_compiler::instruction::OptionError>();
    error::<rbc_compiler::instruction::ValueError>();
    error::<rbc_compiler::reference::ReferenceError>();
    error::<rbc_compiler::shellword::ExpandError>();
    error::<rbc_runtime::archive::ArchiveError>();
    error::<rbc_runtime::attest::PackageError>();
    error::<rbc_runtime::build::BuildError>();
    error::<rbc_runtime::build::ContextError>();
    error::<rbc_runtime::export::ExportError>();
    error::<rbc_runtime::export::OutputSpecError>();
    error::<rbc_runtime::fileop::FileOpError>();
    error::<rbc_runtime::history::HistoryError>();
    error::<rbc_runtime::image::ImageError>();
    error::<rbc_runtime::image::ReferenceError>();
    error::<rbc_runtime::layer::LayerError>();
    error::<rbc_runtime::registry::CredentialError>();
    error::<rbc_runtime::registry::RegistryError>();
    error::<rbc_runtime::registry::SettingsError>();
    error::<rbc_runtime::sandbox::SandboxError>();
    error::<rbc_runtime::sandbox::SetupError>();
    error::<rbc_runtime::source::git::GitError>();
    error::<rbc_runtime::source::http::HttpError>();
    error::<rbc_runtime::store::StoreError>();
    error::<rbc_runtime::travel::CacheSpecError>();
    error::<rbc_runtime::travel::TravelError>();
    error::<rbc_runtime::tree::TreeError>();
}
