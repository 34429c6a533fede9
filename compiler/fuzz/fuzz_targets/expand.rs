//! Any text as a word, under all rules: no panic, and errors point into the word.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use rbc_compiler::shellword::{Escapes, Expander, Quotes, Unset};

fuzz_target!(|word: &str| {
    let variables = HashMap::from([
        ("A".to_owned(), "a/b c.d".to_owned()),
        ("B".to_owned(), String::new()),
    ]);
    let keep = Expander {
        quotes: Quotes::Keep,
        escapes: Escapes::Keep,
        unset: Unset::Keep,
        ..Expander::new('\\')
    };
    for rules in [Expander::new('\\'), Expander::new('`'), Expander::for_heredoc(), keep] {
        if let Err(error) = rules.expand(word, &variables) {
            assert!(error.range.start <= error.range.end && error.range.end <= word.len());
        }
    }
});
