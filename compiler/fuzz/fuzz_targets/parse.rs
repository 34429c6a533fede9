//! Any bytes as a Dockerfile: no panic, and what is read prints back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbc_compiler::{
    instruction,
    syntax::{self, SourceFile},
};

fuzz_target!(|bytes: &[u8]| {
    match syntax::parse(SourceFile::new("Dockerfile", bytes)) {
        Ok(file) => {
            assert_eq!(file.to_string(), file.source.text());
            if let Err(errors) = instruction::parse(&file) {
                assert!(!errors.to_string().is_empty());
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
