//! Images with a compiler, made of Debian's packages.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{
    image::{Image, Maker},
    need,
};

/// A path without links on the way.
fn real(path: &str) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    path.into_os_string().into_string().expect("a UTF-8 path")
}

/// What a program needs to start, by its own loader's account.
fn shared_libraries(program: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

/// Go's compiler, linker and library, with a GOPATH that holds golang.org/x/net.
pub fn golang() -> Image {
    need("go", "golang-go");
    let root = Command::new("go").args(["env", "GOROOT"]).output().expect("go runs");
    let root = String::from_utf8(root.stdout).expect("a path").trim().to_owned();
    let mut maker = Maker::new()
        .busybox()
        .dir("/usr", 0o755)
        .dir("/usr/local", 0o755)
        .dir("/usr/local/go", 0o755)
        .host(&real(&format!("{root}/bin")), "/usr/local/go/bin")
        .host(&real(&format!("{root}/src")), "/usr/local/go/src")
        .host(&real(&format!("{root}/VERSION")), "/usr/local/go/VERSION")
        .dir("/usr/local/go/pkg", 0o755)
        .host(&real(&format!("{root}/pkg/tool")), "/usr/local/go/pkg/tool")
        .host(&real(&format!("{root}/pkg/include")), "/usr/local/go/pkg/include");
    for dir in ["/go", "/go/src", "/go/src/golang.org", "/go/src/golang.org/x"] {
        maker = maker.dir(dir, 0o755);
    }
    let library = real("/usr/share/gocode/src/golang.org/x/net");
    maker = maker.host(&library, "/go/src/golang.org/x/net");
    for library in shared_libraries(&format!("{root}/bin/go")) {
        maker = maker.host(&real(&library), &library);
    }
    maker
        .env("GOROOT=/usr/local/go")
        .env("GOPATH=/go")
        .env("GO111MODULE=off")
        .env("PATH=/usr/local/go/bin:/bin:/usr/bin")
        .finish()
}

/// The C compiler with what a static program needs that includes no more than `headers`.
pub fn c_compiler(headers: &[&str]) -> Image {
    need("gcc", "gcc");
    let told = |arguments: &[&str]| {
        let output = Command::new("gcc").args(arguments).output().expect("gcc runs");
        assert!(output.status.success(), "gcc {arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mut files =
        BTreeSet::from(["/usr/bin/gcc", "/usr/bin/as", "/usr/bin/ld"].map(str::to_owned));
    for program in ["cc1", "collect2", "lto-wrapper"] {
        files.insert(told(&[&format!("-print-prog-name={program}")]).trim().to_owned());
    }
    for library in [
        "crt1.o",
        "crti.o",
        "crtn.o",
        "crtbeginT.o",
        "crtend.o",
        "libc.a",
        "libgcc.a",
        "libgcc_eh.a",
        "liblto_plugin.so",
    ] {
        let path = told(&[&format!("-print-file-name={library}")]).trim().to_owned();
        assert!(Path::new(&path).is_absolute(), "{library}: install Debian's package libc6-dev");
        files.insert(real(&path));
    }
    let programs: Vec<String> = files.iter().map(|path| real(path)).collect();
    for program in programs.iter().filter(|path| !path.ends_with(".o") && !path.ends_with(".a")) {
        files.extend(shared_libraries(program));
    }
    for header in headers {
        let rule = told(&["-O2", "-M", "-include", header, "-x", "c", "/dev/null"]);
        let named = rule.split_whitespace().filter(|word| word.ends_with(".h"));
        files.extend(named.map(str::to_owned));
    }
    let mut maker = Maker::new().busybox();
    let mut folders = BTreeSet::from(["/bin", "/etc", "/root", "/tmp"].map(str::to_owned));
    for file in files {
        // As the program is called, whatever links lead to it.
        let file = plain(&file);
        let parents: Vec<&Path> = Path::new(&file).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| *parent != Path::new("/")) {
            let parent = parent.to_str().expect("UTF-8");
            if folders.insert(parent.to_owned()) {
                maker = maker.dir(parent, 0o755);
            }
        }
        maker = maker.host(&real(&file), &file);
    }
    maker.env("PATH=/bin:/usr/bin").finish()
}

/// A path without `..`, links left as they are.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match part {
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
