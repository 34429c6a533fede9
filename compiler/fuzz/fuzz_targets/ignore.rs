//! Any bytes as a .dockerignore and any path: no panic, and both ways to match agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbc_compiler::ignore;
use rbc_ir::pattern::{ParentMatch, PatternMatcher};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (file, path) = input;
    let Ok(patterns) = ignore::read(&file) else { return };
    assert!(patterns.iter().all(|pattern| !pattern.text.is_empty() && pattern.line > 0));
    let texts: Vec<_> = patterns.into_iter().map(|pattern| pattern.text).collect();
    let Ok(matcher) = PatternMatcher::new(&texts) else { return };
    matcher.may_except_below(&path);
    let (matched, _) = matcher.matches_below(&path, &ParentMatch::default());
    assert_eq!(matched, matcher.matches_or_parent_bytes(&path));
});
