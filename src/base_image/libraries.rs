//! The shared libraries of a program. The loader that the program names is asked for them: it
//! alone knows its search path, its cache and the program's own RUNPATH.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::tree::Tree;

/// Where loaders look without being told; the loader's own folder comes on top.
const DEFAULT_DIRS: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// Where glibc's loader finds libraries in other folders.
const CACHE: &str = "/etc/ld.so.cache";

/// glibc before 2.34 opens this one only when a user is looked up in `/etc/passwd`.
const NSS_FILES: &str = "libnss_files.so.2";

/// Adds `loader` and the libraries that it maps for `program`.
pub fn add(tree: &mut Tree, loader: &Path, program: &Path) -> anyhow::Result<()> {
    let real_loader = tree
        .add(loader)
        .with_context(|| format!("the loader of {} is missing", program.display()))?;
    // What the caller's own environment preloads or adds to the search is not in the image.
    let output = Command::new(loader)
        .arg("--list")
        .arg(program)
        .env_clear()
        .output()
        .with_context(|| format!("cannot start {}", loader.display()))?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let libraries = parse(&listing, program)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("cannot list the libraries of {}: {}", program.display(), reason.trim());
    }
    let home = real_loader.parent().unwrap_or(Path::new("/"));
    for library in libraries {
        let real = tree.add(&library)?;
        let known =
            |dir: &Path| dir == home || DEFAULT_DIRS.iter().any(|known| dir == Path::new(known));
        let found = [library.parent(), real.parent()].into_iter().flatten().any(known);
        if !found && Path::new(CACHE).exists() {
            tree.add(Path::new(CACHE))?;
        }
    }
    let nss = home.join(NSS_FILES);
    if nss.exists() {
        tree.add(&nss)?;
    }
    Ok(())
}

/// Reads a loader's list: lines of `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`. What has no path
/// is made by the kernel (`linux-vdso.so.1`).
fn parse(listing: &str, program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place == "not found" {
            bail!("{}: shared library {name} is not on this machine", program.display());
        }
        let path = place.rsplit_once(" (0x").map_or(place, |(path, _)| path);
        if path.starts_with('/') {
            libraries.push(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_loaders_print() {
        let glibc = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                     \tlibselinux.so.1 => /lib/x86_64-linux-gnu/libselinux.so.1 (0x00007f63)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f64)\n";
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x7f1)\n\
                    \tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f1)\n\
                    \tlibz.so.1 => /opt/a b (0x1)/libz.so.1 (0x7f2)\n";
        for (listing, want) in [
            (glibc, &["/lib/x86_64-linux-gnu/libselinux.so.1", "/lib64/ld-linux-x86-64.so.2"][..]),
            (
                musl,
                &[
                    "/lib/ld-musl-x86_64.so.1",
                    "/lib/ld-musl-x86_64.so.1",
                    "/opt/a b (0x1)/libz.so.1",
                ],
            ),
            ("\tstatically linked\n", &[]),
            ("", &[]),
        ] {
            let want: Vec<PathBuf> = want.iter().map(PathBuf::from).collect();
            assert_eq!(parse(listing, Path::new("/bin/x")).unwrap(), want);
        }
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibx.so.1 => not found\n", Path::new("/bin/x")).unwrap_err();
        assert_eq!(error.to_string(), "/bin/x: shared library libx.so.1 is not on this machine");
    }
}
