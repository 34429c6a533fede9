//! A small assembler for seccomp filters (`seccomp(2)`).
//!
//! The kernel translates a filter anew for every step and takes time for each instruction. So calls
//! next to each other that have the same answer are one range, and the ranges are searched as a binary
//! tree: about a sixth of a list of comparisons, and nine of them at most for a call.

use std::collections::BTreeMap;

/// One instruction of classic BPF, as the kernel takes it.
pub(super) type Instruction = libc::sock_filter;

/// What a filter answers to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The call is made.
    Allow,
    /// The call is not made and fails with this error number; with 0 it succeeds.
    Errno(u16),
    /// The call is made if its first argument meets the condition, and fails otherwise.
    AllowIf(Condition, u16),
}

/// A condition on the lower half of an argument, which is all that the kernel looks at in the calls
/// that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// None of these bits is set.
    NoneOf(u32),
    /// It is not this value.
    Not(u32),
    /// It is one of these values (at most 200).
    Among(&'static [u32]),
}

/// That of this program.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
/// That of this program.
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;
/// That of this program.
#[cfg(target_arch = "riscv64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00f3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("the system calls of this architecture are not known");

// Offsets in `struct seccomp_data`; the architectures above are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const SKIP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The answers to the calls of one architecture, by its number in `linux/audit.h`.
pub(super) struct Table {
    pub architecture: u32,
    pub rules: BTreeMap<u32, Answer>,
}

/// The filter that gives the answers of the tables to the calls with those numbers, and `otherwise` to
/// all others. A call in the manner of an architecture that has no table gets `foreign`, an answer of
/// the kernel.
pub(super) fn compile(tables: &[Table], otherwise: Answer, foreign: u32) -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, ARCH)];
    for Table { architecture, rules } in tables {
        let search = search(&ranges(rules, otherwise));
        program.push(jump(EQUAL, *architecture, 1, 0));
        // Over the next instruction and the search.
        program.push(instruction(SKIP, search.len() as u32 + 1));
        program.push(instruction(LOAD, NUMBER));
        program.extend(search);
    }
    program.push(instruction(RETURN, foreign));
    program
}

/// The first number of each range, lowest first, and its answer.
fn ranges(rules: &BTreeMap<u32, Answer>, otherwise: Answer) -> Vec<(u32, Answer)> {
    let mut ranges = vec![(0, otherwise)];
    let mut add = |first: u32, answer: Answer| match ranges.last_mut() {
        Some((start, last)) if *start == first => *last = answer,
        Some((_, last)) if *last == answer => {}
        _ => ranges.push((first, answer)),
    };
    for (&number, &answer) in rules {
        add(number, answer);
        add(number + 1, otherwise);
    }
    // Where one is overwritten by an answer like that of the range before it, both are one.
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// Looks up the number that is loaded.
fn search(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    let (lower, upper) = match ranges {
        [] => return Vec::new(),
        [(_, answer)] => return give(*answer),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let first = upper[0].0;
    let (below, above) = (search(lower), search(upper));
    let mut program = match u8::try_from(below.len()) {
        Ok(length) => vec![jump(AT_LEAST, first, length, 0)],
        // Conditional jumps do not reach that far.
        Err(_) => vec![jump(AT_LEAST, first, 0, 1), instruction(SKIP, below.len() as u32)],
    };
    program.extend(below);
    program.extend(above);
    program
}

/// Gives an answer.
fn give(answer: Answer) -> Vec<Instruction> {
    let allow = instruction(RETURN, libc::SECCOMP_RET_ALLOW);
    let fail = |errno| instruction(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(errno));
    let load = instruction(LOAD, FIRST_ARGUMENT);
    match answer {
        Answer::Allow => vec![allow],
        Answer::Errno(errno) => vec![fail(errno)],
        Answer::AllowIf(Condition::NoneOf(bits), errno) => {
            vec![load, jump(ANY_BIT, bits, 1, 0), allow, fail(errno)]
        }
        Answer::AllowIf(Condition::Not(value), errno) => {
            vec![load, jump(EQUAL, value, 1, 0), allow, fail(errno)]
        }
        Answer::AllowIf(Condition::Among(values), errno) => {
            let mut program = vec![load];
            for (index, value) in values.iter().enumerate() {
                // Over the comparisons that are left and the failure.
                let rest = values.len() - 1 - index;
                program.push(jump(EQUAL, *value, rest as u8 + 1, 0));
            }
            program.extend([fail(errno), allow]);
            program
        }
    }
}

fn instruction(code: u32, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

/// A comparison with `k` after which so many instructions are skipped if it holds, or if not.
fn jump(code: u32, k: u32, holds: u8, fails: u8) -> Instruction {
    Instruction { code: code as u16, jt: holds, jf: fails, k }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel would make of a call with this first argument.
    pub(in crate::sandbox) fn run(program: &[Instruction], number: u32, argument: u64) -> u32 {
        run_as(ARCHITECTURE, program, number, argument)
    }

    /// The same of a call in the manner of any architecture.
    pub(in crate::sandbox) fn run_as(
        arch: u32,
        program: &[Instruction],
        number: u32,
        argument: u64,
    ) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                LOAD => {
                    loaded = match k {
                        NUMBER => number,
                        ARCH => arch,
                        FIRST_ARGUMENT => argument as u32,
                        other => panic!("nothing is at {other}"),
                    }
                }
                EQUAL => branch(loaded == k),
                AT_LEAST => branch(loaded >= k),
                ANY_BIT => branch(loaded & k != 0),
                SKIP => at += k as usize,
                RETURN => return k,
                other => panic!("no such instruction: {other}"),
            }
        }
    }

    fn answers() -> impl Strategy<Value = Answer> {
        prop_oneof![
            3 => Just(Answer::Allow),
            2 => (0u16..4).prop_map(Answer::Errno),
            1 => (0u32..8).prop_map(|bits| Answer::AllowIf(Condition::NoneOf(bits), 1)),
            1 => (0u32..8).prop_map(|value| Answer::AllowIf(Condition::Not(value), 2)),
            1 => Just(Answer::AllowIf(Condition::Among(&[1, 4, 6]), 3)),
        ]
    }

    fn expected(answer: Answer, argument: u32) -> u32 {
        let (holds, errno) = match answer {
            Answer::Allow => (true, 0),
            Answer::Errno(errno) => (false, errno),
            Answer::AllowIf(Condition::NoneOf(bits), errno) => (argument & bits == 0, errno),
            Answer::AllowIf(Condition::Not(value), errno) => (argument != value, errno),
            Answer::AllowIf(Condition::Among(values), errno) => (values.contains(&argument), errno),
        };
        if holds { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_ERRNO | u32::from(errno) }
    }

    proptest! {
        #[test]
        fn every_call_gets_its_answer(
            rules in proptest::collection::btree_map(0u32..600, answers(), 0..400),
            others in proptest::collection::btree_map(0u32..600, answers(), 0..400),
            otherwise in answers(),
            argument in 0u32..8,
        ) {
            let tables = [(ARCHITECTURE, rules), (7, others)]
                .map(|(architecture, rules)| Table { architecture, rules });
            let program = compile(&tables, otherwise, libc::SECCOMP_RET_TRAP);
            prop_assert!(program.len() <= 4096, "the kernel takes no more");
            for Table { architecture, rules } in &tables {
                for number in (0..602).chain([0x4000_0000, u32::MAX]) {
                    let answer = *rules.get(&number).unwrap_or(&otherwise);
                    let got = run_as(*architecture, &program, number, u64::from(argument) | 1 << 33);
                    prop_assert_eq!(got, expected(answer, argument), "{}: {:?}", number, answer);
                }
            }
            prop_assert_eq!(run_as(9, &program, 0, 0), libc::SECCOMP_RET_TRAP);
        }
    }
}
