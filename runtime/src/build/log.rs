//! The whole output of a step on disk, and its last lines at hand for the error message.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::store::{Result, StoreError};

/// Bytes of the end of a log that an error message may show.
const TAIL: usize = 4096;

/// Takes a step's output.
pub(super) struct StepLog {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    tail: VecDeque<u8>,
}

impl StepLog {
    /// A log that makes its file at the first output: most steps print nothing.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State { file: None, tail: VecDeque::new() }) }
    }

    /// Adds output.
    pub(super) fn write(&self, data: &[u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tail.extend(&data[data.len().saturating_sub(TAIL)..]);
        let excess = state.tail.len().saturating_sub(TAIL);
        state.tail.drain(..excess);
        if state.file.is_none() {
            if let Some(dir) = self.path.parent() {
                std::fs::create_dir_all(dir).map_err(StoreError::io("cannot create", dir))?;
            }
            let file =
                File::create(&self.path).map_err(StoreError::io("cannot create", &self.path))?;
            state.file = Some(file);
        }
        match &mut state.file {
            Some(file) => file.write_all(data).map_err(StoreError::io("cannot write", &self.path)),
            None => Ok(()),
        }
    }

    /// Where the log is; nothing is there if the step printed nothing.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines, at most `count`.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = state.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|l| (*l).to_owned()).collect()
    }
}
