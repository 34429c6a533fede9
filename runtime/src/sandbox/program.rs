//! Which file a command names: the search that `exec.LookPath` of Go's standard library makes,
//! with its messages.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::error::SetupError;

/// Where to look when the environment has no `PATH`.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the file to execute, in the present root and as the present user.
pub(super) fn find(name: &str, env: &[String]) -> Result<PathBuf, SetupError> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(errno) => Err(failure(name, name, errno)),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let file = Path::new(dir).join(name);
        if !name.is_empty() && executable(&file).is_ok() {
            return Ok(file);
        }
    }
    Err(SetupError::Program(format!("exec: \"{name}\": executable file not found in $PATH")))
}

fn executable(file: &Path) -> rustix::io::Result<()> {
    let status = stat(file)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)?;
    // The superuser passes the access check for any file with one x bit; none means no program.
    if status.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// What to say when the file `path` of the command `name` cannot be run.
pub(super) fn failure(name: &str, path: &str, errno: Errno) -> SetupError {
    let why = match errno {
        // The interpreter of a script or the loader of a binary is missing, or the file itself.
        Errno::NOENT => format!("stat {path}: no such file or directory"),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        errno => errno.to_string(),
    };
    SetupError::Program(format!("exec: \"{name}\": {why}"))
}

/// A C string of something the user wrote.
pub(super) fn c_string(text: impl AsRef<std::ffi::OsStr>) -> Result<CString, SetupError> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| {
        SetupError::Invalid(format!("{:?} holds a zero byte", text.as_ref().to_string_lossy()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_of_the_path_wins() {
        let dir = tempfile::tempdir().unwrap();
        for (sub, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
            let sub = dir.path().join(sub);
            std::fs::create_dir(&sub).unwrap();
            std::fs::write(sub.join("tool"), "").unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(sub.join("tool"), mode).unwrap();
        }
        let d = dir.path().display();
        let env = [format!("PATH={d}/a:{d}/b:{d}/c")];
        assert_eq!(find("tool", &env).unwrap(), dir.path().join("b/tool"));
        let plain = find(&format!("{d}/a/tool"), &env).unwrap_err();
        assert_eq!(plain.to_string(), format!("exec: \"{d}/a/tool\": permission denied"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let message = |name| find(name, &["PATH=/nowhere".into()]).unwrap_err().to_string();
        insta::assert_snapshot!(message("nosuchprog"), @r#"exec: "nosuchprog": executable file not found in $PATH"#);
        insta::assert_snapshot!(message("/no/sh"), @r#"exec: "/no/sh": stat /no/sh: no such file or directory"#);
        insta::assert_snapshot!(message("/"), @r#"exec: "/": is a directory"#);
    }
}
