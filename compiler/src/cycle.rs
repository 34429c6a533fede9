//! Stages must not copy from each other in a circle, whether a target needs them or not.

use crate::{
    diagnostic::Diagnostic,
    instruction::Command,
    stage::{Stages, Step},
};

/// How far a stage has been looked at.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

impl Stages {
    /// Fails if stages copy from each other in a circle. Depth first, with a stack of its own since
    /// stages may be chained deeper than the program's stack reaches.
    pub(crate) fn check_cycles(&self) -> Result<(), Diagnostic> {
        let mut marks = vec![Mark::New; self.list.len()];
        for root in 0..self.list.len() {
            if marks[root] != Mark::New {
                continue;
            }
            marks[root] = Mark::Open;
            let mut stack = vec![(root, self.list[root].dependencies())];
            while let Some((stage, dependencies)) = stack.last_mut() {
                let stage = *stage;
                match dependencies.next() {
                    None => {
                        marks[stage] = Mark::Done;
                        stack.pop();
                    }
                    Some((next, step)) => match marks[next] {
                        Mark::Done => {}
                        Mark::New => {
                            marks[next] = Mark::Open;
                            stack.push((next, self.list[next].dependencies()));
                        }
                        Mark::Open => {
                            let from = stack.iter().position(|(id, _)| *id == next).unwrap_or(0);
                            let circle: Vec<&str> = stack[from..]
                                .iter()
                                .map(|(id, _)| *id)
                                .chain([next])
                                .map(|id| self.list[id].label.as_str())
                                .collect();
                            return Err(circular(&self.list[root].label, step, &circle));
                        }
                    },
                }
            }
        }
        Ok(())
    }
}

fn circular(label: &str, step: &Step, circle: &[&str]) -> Diagnostic {
    let place = match &step.instruction.command {
        Command::Copy(copy) => copy.from.as_ref().map(|from| from.span),
        _ => None,
    };
    let shown = if circle.len() > 12 { "…".to_owned() } else { circle.join(" needs ") };
    Diagnostic::error("circular-stages", format!("circular dependency detected on stage: {label}"))
        .at(&step.instruction.source, place.unwrap_or(step.instruction.span))
        .note(shown)
        .help("a stage can only use files of stages before it")
}
