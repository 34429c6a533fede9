//! One buffer a thread for reading files piece by piece.
//!
//! Trees have many small files. A new buffer for each would cost more to clear than the file costs
//! to read.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
};

/// Length of the buffer in bytes.
pub(crate) const LENGTH: usize = 128 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends this thread's buffer, whose content is left from earlier. One lent a second time within
/// `work` is a new one.
pub(crate) fn with<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(LENGTH, 0);
            work(&mut buffer)
        }
        Err(_) => work(&mut vec![0; LENGTH]),
    })
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
