//! `rbc fmt`: Dockerfiles in one layout.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use rbc_compiler::{fmt, syntax::SourceFile};

use super::{Failure, Outcome, report};
use crate::{cli::FmtArgs, inputs};

/// Formats each file; one that cannot be read does not keep the others from it.
pub fn fmt(args: &FmtArgs) -> Outcome {
    let mut told = Vec::new();
    let mut differ = false;
    for path in &args.files {
        match one(path, args.check) {
            Ok(Layout::Canonical) => {}
            Ok(Layout::Differs) => differ = true,
            Err(Failure::Failed(error)) => told.push(format!("error: {error:#}")),
            Err(Failure::Told(text)) => told.push(text),
            Err(other) => return Err(other),
        }
    }
    if !told.is_empty() {
        return Err(Failure::Told(told.join("\n\n")));
    }
    if differ {
        return Err(Failure::Negative);
    }
    Ok(())
}

/// What `--check` found.
enum Layout {
    /// Nothing to do, or it is done.
    Canonical,
    /// The file is not formatted, and its name was printed.
    Differs,
}

fn one(path: &Path, only_check: bool) -> Result<Layout, Failure> {
    let is_stdin = path == Path::new("-");
    let (name, bytes) = if is_stdin {
        ("<standard input>".to_owned(), inputs::read_stdin()?)
    } else {
        (path.display().to_string(), inputs::read_dockerfile(path)?)
    };
    let source = Arc::new(SourceFile::new(name.clone(), bytes));
    let formatted = fmt::format(&source).map_err(|errors| report::diagnostics(&errors))?;
    let differs = formatted != source.text();
    if only_check {
        if differs {
            writeln!(io::stdout().lock(), "{name}")?;
        }
        return Ok(if differs { Layout::Differs } else { Layout::Canonical });
    }
    if is_stdin {
        let mut out = io::stdout().lock();
        out.write_all(formatted.as_bytes()).and_then(|()| out.flush()).context("cannot write")?;
    } else if differs {
        replace(path, &formatted)?;
    }
    Ok(Layout::Canonical)
}

/// Writes a file anew: whoever reads it sees the old text or the new one. Of a symlink the target is
/// replaced, and the mode stays.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let real: PathBuf = fs::canonicalize(path).with_context(failed)?;
    let folder = real.parent().unwrap_or(Path::new("/"));
    let mode = fs::metadata(&real).with_context(failed)?.permissions();
    let mut new =
        tempfile::Builder::new().prefix(".rbc-fmt-").tempfile_in(folder).with_context(failed)?;
    new.write_all(text.as_bytes()).with_context(failed)?;
    new.as_file().set_permissions(mode).with_context(failed)?;
    new.as_file().sync_all().with_context(failed)?;
    new.persist(&real).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn args(file: &Path, check: bool) -> FmtArgs {
        FmtArgs { check, files: vec![file.to_owned()] }
    }

    #[test]
    fn files_are_replaced_with_their_mode_and_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Dockerfile");
        let link = folder.path().join("link");
        fs::write(&file, "from   a\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("Dockerfile", &link).unwrap();

        assert!(fmt(&args(&link, true)).is_err(), "not formatted yet");
        assert_eq!(fs::read_to_string(&file).unwrap(), "from   a\n");
        fmt(&args(&link, false)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "FROM a\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        fmt(&args(&link, true)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_file_with_errors_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Dockerfile");
        fs::write(&file, "from   a\nrunn x\n").unwrap();
        let Err(Failure::Told(text)) = fmt(&args(&file, false)) else { panic!("accepted") };
        assert!(text.contains("did you mean RUN?"), "{text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "from   a\nrunn x\n");
    }
}
