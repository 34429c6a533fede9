//! The values of `--chmod`: octal, or symbolic as chmod(1) takes them.

use rbc_ir::ModeChange;

use super::FileOpError;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const ANY_EXECUTE: u32 = 0o111;

/// How permission bits change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// They stay.
    Keep,
    /// All get these.
    Set(u32),
    /// Steps one after the other.
    Steps(Vec<Step>),
}

/// One operator of a symbolic mode with what it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    operator: Operator,
    /// The bits of those who are named.
    who: u32,
    /// The bits that are named, for everyone.
    bits: u32,
    /// `X`: execute for folders and for what anybody may execute.
    execute_if_sensible: bool,
    /// `u`, `g` or `o` on the right: how far to shift the mode to get at their bits.
    copy_from: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Assign,
}

/// Whether a mode is that of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Folder,
    Other,
}

impl Change {
    pub fn new(mode: Option<&ModeChange>) -> Result<Self, FileOpError> {
        match mode {
            None => Ok(Self::Keep),
            Some(ModeChange::Octal(mode)) => Ok(Self::Set(mode & 0o7777)),
            Some(ModeChange::Symbolic(text)) => {
                parse(text).map(Self::Steps).ok_or_else(|| FileOpError::BadMode(text.clone()))
            }
        }
    }

    /// The mode of the folders that a copy makes above its destination.
    pub fn new_dir(&self) -> u32 {
        match self {
            Self::Set(mode) => mode & 0o777,
            Self::Keep | Self::Steps(_) => 0o755,
        }
    }

    /// The mode that a file with the bits `mode` gets.
    pub fn apply(&self, mode: u32, of: Of) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(mode) => *mode,
            Self::Steps(steps) => steps.iter().fold(mode, |now, step| step.apply(mode, now, of)),
        }
    }
}

impl Step {
    fn apply(&self, original: u32, now: u32, of: Of) -> u32 {
        let mut bits = self.bits;
        if self.execute_if_sensible && (of == Of::Folder || original & ANY_EXECUTE != 0) {
            bits |= ANY_EXECUTE;
        }
        if let Some(shift) = self.copy_from {
            let three = now >> shift & 0o7;
            bits |= three << 6 | three << 3 | three;
        }
        bits &= self.who;
        match self.operator {
            Operator::Add => now | bits,
            Operator::Remove => now & !bits,
            Operator::Assign => now & !self.who | bits,
        }
    }
}

/// Reads clauses such as `u=rwX,go-w`.
fn parse(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for clause in text.split(',') {
        let end = clause.find(['+', '-', '='])?;
        let (names, mut rest) = clause.split_at(end);
        let mut who = 0;
        for name in names.chars() {
            who |= match name {
                'u' => SETUID | 0o700,
                'g' => SETGID | 0o070,
                'o' => 0o007,
                'a' => SETUID | SETGID | 0o777,
                _ => return None,
            };
        }
        // Nobody named means everybody; the others alone have no set-id or sticky bit.
        let everybody = who == 0;
        let special = everybody || who & !0o007 != 0;
        if everybody {
            who = SETUID | SETGID | 0o777;
        }
        while let Some(sign) = rest.chars().next() {
            let operator = match sign {
                '+' => Operator::Add,
                '-' => Operator::Remove,
                '=' => Operator::Assign,
                _ => return None,
            };
            rest = &rest[1..];
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let mut step =
                Step { operator, who, bits: 0, execute_if_sensible: false, copy_from: None };
            for permission in rest[..end].chars() {
                match permission {
                    'r' => step.bits |= 0o444,
                    'w' => step.bits |= 0o222,
                    'x' => step.bits |= ANY_EXECUTE,
                    'X' => step.execute_if_sensible = true,
                    's' if special => step.bits |= SETUID | SETGID,
                    't' if special => {
                        step.who |= STICKY;
                        step.bits |= STICKY;
                    }
                    's' | 't' => {}
                    'u' => step.copy_from = Some(6),
                    'g' => step.copy_from = Some(3),
                    'o' => step.copy_from = Some(0),
                    _ => return None,
                }
            }
            rest = &rest[end..];
            steps.push(step);
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(mode: u32, of: Of, text: &str) -> String {
        let change = Change::new(Some(&ModeChange::Symbolic(text.into())));
        change.map_or_else(
            |error| error.to_string(),
            |change| format!("{:04o}", change.apply(mode, of)),
        )
    }

    #[test]
    fn symbolic_modes_change_bits_as_chmod_does() {
        for (text, mode, of, want) in [
            ("u=rw,go=r", 0o755, Of::Other, "0644"),
            ("+x", 0o644, Of::Other, "0755"),
            ("go-rwx", 0o755, Of::Folder, "0700"),
            ("a=rX", 0o644, Of::Other, "0444"),
            ("a=rX", 0o755, Of::Folder, "0555"),
            ("a=rX", 0o700, Of::Other, "0555"),
            ("u+s,g=u", 0o755, Of::Other, "4775"),
            ("u=rw", 0o4755, Of::Other, "0655"),
            ("+t", 0o777, Of::Folder, "1777"),
            ("o+s", 0o755, Of::Other, "0755"),
            ("u+w-x", 0o555, Of::Other, "0655"),
            ("go=", 0o777, Of::Other, "0700"),
            ("o=g,g=", 0o750, Of::Other, "0705"),
            ("u-X", 0o700, Of::Other, "0600"),
        ] {
            assert_eq!(changed(mode, of, text), want, "{text} of {mode:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_named() {
        for text in ["rwx", "u", "z+r", "u+q", "", "u+r,"] {
            assert!(
                changed(0, Of::Other, text)
                    .starts_with(&format!("invalid chmod parameter: '{text}'")),
                "{text}"
            );
        }
    }

    #[test]
    fn only_octal_modes_are_for_made_parents() {
        let new_dir = |mode: Option<ModeChange>| {
            Change::new(mode.as_ref()).map_or(0, |change| change.new_dir())
        };
        assert_eq!(new_dir(Some(ModeChange::Octal(0o4700))), 0o700);
        assert_eq!(new_dir(Some(ModeChange::Symbolic("go=".into()))), 0o755);
        assert_eq!(new_dir(None), 0o755);
    }
}
