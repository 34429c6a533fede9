//! Any patterns on any path: matching ends without a panic, and both ways to match agree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rbc_ir::pattern::{Glob, ParentMatch, PatternMatcher};

fuzz_target!(|input: (Vec<String>, Vec<u8>)| {
    let (patterns, path) = input;
    for pattern in &patterns {
        if let Ok(glob) = Glob::new(pattern) {
            glob.matches(&path);
        }
    }
    let Ok(matcher) = PatternMatcher::new(&patterns) else { return };
    matcher.may_except_below(&path);
    let (matched, _) = matcher.matches_below(&path, &ParentMatch::default());
    assert_eq!(matched, matcher.matches_or_parent_bytes(&path));
});
