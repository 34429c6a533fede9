//! Where archives are written: standard output, or a file that appears only when it is complete.

use std::{
    fs,
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

use super::{Dest, ExportError, staged::Staged};

/// Size of the buffer before an archive's file, in bytes.
const BUFFER: usize = 256 << 10;

/// Writes one archive.
pub(crate) struct Sink;

impl Sink {
    /// Calls `fill` with a writer for `dest`. A file gets its name at the end; pipes and devices are written to as they are.
    pub(crate) fn write<T>(
        dest: &Dest,
        fill: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
    ) -> Result<T, ExportError> {
        let path = match dest {
            Dest::Stdout => {
                let stdout = io::stdout();
                if stdout.is_terminal() {
                    return Err(ExportError::Terminal);
                }
                let mut out = BufWriter::with_capacity(BUFFER, stdout.lock());
                let value = fill(&mut out)?;
                out.flush().map_err(ExportError::write("standard output"))?;
                return Ok(value);
            }
            Dest::Path(path) => path,
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(ExportError::IsFolder(path.clone())),
            Ok(metadata) if !metadata.is_file() => {
                let file = fs::File::options().write(true).open(path);
                let file = file.map_err(ExportError::write(path))?;
                let mut out = BufWriter::with_capacity(BUFFER, file);
                let value = fill(&mut out)?;
                out.flush().map_err(ExportError::write(path))?;
                Ok(value)
            }
            _ => write_file(path, fill),
        }
    }
}

/// Makes a file that gets its name when `fill` is done.
pub(super) fn write_file<T>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let staged = Staged::new(parent).map_err(ExportError::write(path))?;
    let mut out = BufWriter::with_capacity(BUFFER, staged.file());
    let value = fill(&mut out)?;
    out.flush().map_err(ExportError::write(path))?;
    drop(out);
    staged.put(path).map_err(ExportError::write(path))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_output_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("out.tar");
        fs::write(&path, "old").expect("write");
        let dest = Dest::Path(path.clone());
        let failed = Sink::write(&dest, |out| {
            out.write_all(b"half").expect("write");
            Err::<(), _>(ExportError::OnePlatformOnly)
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("read"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        let written =
            Sink::write(&dest, |out| out.write_all(b"new").map_err(ExportError::write("x")));
        written.expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }
}
