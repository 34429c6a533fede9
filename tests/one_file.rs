//! One changed file of many: the others are linked to the layer that the same COPY made before, and
//! none of that shows in the image.

mod support;

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    thread::sleep,
    time::Duration,
};

use support::{Bench, output::Oci};

const FILES: usize = 100;

/// Two stages with a copy from the context and one from the other stage.
const TWO_COPIES: &str = "FROM busybox AS build
COPY src /app
FROM busybox
COPY --from=build /app /final
";

fn bench() -> Bench {
    let bench = Bench::with_busybox();
    bench.write("c/Dockerfile", TWO_COPIES);
    for n in 0..FILES {
        bench.write(&format!("c/src/d{}/f{n}", n % 3), format!("file {n:03}"));
    }
    // A file that was changed just now is not trusted to be what was read.
    sleep(Duration::from_millis(150));
    bench
}

/// Builds, and checks the image against that of a build without a cache.
fn build_and_compare(bench: &Bench, what: &str) {
    bench.rbc("build -o type=oci,dest=warm.tar c").ok();
    let cold = Bench::with_busybox();
    cold.rbc(&format!("build -o type=oci,dest=cold.tar {}", bench.path("c").display())).ok();
    let (warm, cold) = (Oci::read(&bench.path("warm.tar")), Oci::read(&cold.path("cold.tar")));
    assert_eq!(warm.manifest, cold.manifest, "{what}");
}

/// The inodes of all files in folders of this name of all layers, and how many names they have.
fn inodes(bench: &Bench, folder: &str) -> (HashSet<u64>, usize) {
    let (mut inodes, mut names) = (HashSet::new(), 0);
    for layer in fs::read_dir(bench.root().join("layers")).expect("layers").flatten() {
        let Ok(folders) = fs::read_dir(layer.path().join(folder)) else { continue };
        for folder in folders.flatten() {
            for file in fs::read_dir(folder.path()).expect("folder").flatten() {
                inodes.insert(file.metadata().expect("facts").ino());
                names += 1;
            }
        }
    }
    (inodes, names)
}

#[test]
fn only_what_changed_is_new() {
    let bench = bench();
    build_and_compare(&bench, "first");
    bench.write("c/src/d0/f0", "changed!");
    build_and_compare(&bench, "one file changed");
    let (app, names) = inodes(&bench, "app");
    assert_eq!((app.len(), names), (FILES + 1, 2 * FILES), "the first copy");
    let (all, names) = inodes(&bench, "final");
    assert_eq!(names, 2 * FILES);
    assert_eq!(all, app, "the second copy only links");
}

#[test]
fn every_change_of_a_file_counts() {
    let bench = bench();
    build_and_compare(&bench, "first");
    let path = bench.path("c/src/d1/f1");
    let old = fs::metadata(&path).and_then(|facts| facts.modified()).expect("mtime");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    build_and_compare(&bench, "mode");

    bench.write("c/src/d1/f1", "file 999");
    let times = fs::FileTimes::new().set_modified(old);
    fs::File::options().write(true).open(&path).and_then(|f| f.set_times(times)).expect("times");
    build_and_compare(&bench, "content, with size and mtime as before");

    let other = bench.path("c/src/d2/f2");
    fs::rename(&path, &other).expect("rename");
    build_and_compare(&bench, "renamed over another");

    fs::remove_file(bench.path("c/src/d0/f3")).expect("remove");
    fs::hard_link(bench.path("c/src/d0/f6"), bench.path("c/src/d0/f3")).expect("link");
    build_and_compare(&bench, "became two names of one file");

    fs::remove_file(bench.path("c/src/d0/f3")).expect("remove");
    fs::copy(bench.path("c/src/d0/f6"), bench.path("c/src/d0/f3")).expect("copy");
    // Neither times nor names of one file count for the cache: something else has to change.
    bench.write("c/src/d1/f4", "changed");
    build_and_compare(&bench, "two files again");
}

#[test]
fn other_owners_are_other_files() {
    let bench = bench();
    bench.rbc("build c").ok();
    let dockerfile = TWO_COPIES.replace("COPY src", "COPY --chown=5:6 src");
    bench.write("c/Dockerfile", dockerfile);
    build_and_compare(&bench, "owners");
    let owners: BTreeSet<u32> = fs::read_dir(bench.root().join("layers"))
        .expect("layers")
        .flatten()
        .filter_map(|layer| fs::metadata(layer.path().join("app/d0/f0")).ok())
        .map(|facts| facts.uid())
        .collect();
    assert_eq!(owners, BTreeSet::from([0, 5]));
}
