//! Dockerfiles with random damage: the compiler may refuse them, it may not panic or hang.

use rbc_compiler::{CompileOptions, check, fmt, outline};

use crate::files::{Everything, compiled, dockerfiles, source};

/// A small generator (xorshift64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Pieces that mean something to the parser.
const PIECES: [&str; 32] = [
    "\\\n",
    "\n",
    "`",
    "\"",
    "'",
    "$",
    "${",
    "}",
    "${A:-",
    "${A/b/",
    "<<EOF",
    "<<-'E'",
    "\nEOF\n",
    "[\"",
    "\"]",
    "--from=",
    "--mount=type=cache,target=",
    "FROM ",
    " AS x\n",
    "ONBUILD ",
    "#",
    "# escape=`\n",
    "\0",
    "\u{feff}",
    "é",
    "=",
    ",",
    "--",
    "\r\n",
    "COPY . .\n",
    "*[",
    "../",
];

fn damage(text: &str, random: &mut Random, other: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(chars.len() + 1);
        match random.below(5) {
            0 => {
                let piece = PIECES[random.below(PIECES.len())];
                chars.splice(at..at, piece.chars());
            }
            1 => {
                let end = (at + random.below(12)).min(chars.len());
                chars.drain(at..end);
            }
            2 => {
                let end = (at + random.below(40)).min(chars.len());
                let again: Vec<char> = chars[at..end].to_vec();
                chars.splice(at..at, again);
            }
            3 => {
                let lines: Vec<&str> = other.lines().collect();
                let line = lines.get(random.below(lines.len())).copied().unwrap_or_default();
                chars.splice(at..at, format!("\n{line}\n").chars());
            }
            _ => chars.truncate(at),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn damaged_files_are_refused_or_compiled() {
    let files = dockerfiles();
    let mut random = Random(0x5eed_cafe_f00d_1234);
    let mut compiles = 0;
    for round in 0..2_500 {
        let text = &files[random.below(files.len())].1;
        let other = &files[random.below(files.len())].1;
        let text = damage(text, &mut random, other);
        match compiled(&text) {
            Ok(compiled) => {
                compiles += 1;
                compiled.graph.validate().unwrap_or_else(|e| panic!("{round}: {e}\n{text}"));
                let _ = compiled.warnings.to_string();
            }
            Err(errors) => assert!(errors.has_errors() && !errors.to_string().is_empty()),
        }
        let _ = fmt::format(&source(&text));
        let options = CompileOptions::default();
        let checked = check(&source(&text), &options, &Everything);
        for finding in &checked.findings {
            let place = finding.diagnostic.location.as_ref().expect("a place");
            assert!(place.span.start <= place.span.end, "{round}: {finding:?}\n{text}");
            assert!(place.span.end <= place.source.text().len(), "{round}: {finding:?}\n{text}");
            let _ = finding.diagnostic.to_string();
        }
        let _ = (outline::targets(&source(&text)), outline::outline(&source(&text), &options));
    }
    assert!(compiles > 300, "the damage leaves too little to compile: {compiles}");
}
