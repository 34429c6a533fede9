//! What an instruction means, without where it is written: for comparing two layouts of it.

use super::{Command, CommandLine, Instruction, Transfer};
use crate::syntax::{Heredoc, Span, Word};

impl Instruction {
    /// Whether two instructions say the same, wherever they stand.
    pub fn means_the_same(&self, other: &Self) -> bool {
        without_places(&self.command) == without_places(&other.command)
    }
}

/// The command with all places set to nowhere.
fn without_places(command: &Command) -> Command {
    let mut command = command.clone();
    match &mut command {
        Command::Add(add) => {
            transfer(&mut add.transfer);
            words(&mut add.checksum);
        }
        Command::Arg(declarations) => {
            for declaration in declarations {
                word(&mut declaration.name);
                words(&mut declaration.default);
            }
        }
        Command::Cmd(line) | Command::Entrypoint(line) => command_line(line),
        Command::Copy(copy) => {
            transfer(&mut copy.transfer);
            words(&mut copy.from);
        }
        Command::Env(pairs) | Command::Label(pairs) => {
            for pair in pairs {
                word(&mut pair.key);
                word(&mut pair.value);
            }
        }
        Command::From(from) => {
            word(&mut from.base);
            words(&mut from.platform);
            words(&mut from.name);
        }
        Command::Expose(list) | Command::Shell(list) | Command::Volume(list) => words(list),
        Command::Maintainer(one)
        | Command::StopSignal(one)
        | Command::User(one)
        | Command::Workdir(one) => word(one),
        Command::Onbuild(trigger) => word(&mut trigger.keyword),
        Command::Run(run) => {
            command_line(&mut run.command);
            words(&mut run.mounts);
            run.heredocs.iter_mut().for_each(heredoc);
            run.devices.iter_mut().for_each(|device| device.span = Span::default());
        }
        // Nothing in it has a place.
        Command::Healthcheck(_) => {}
    }
    command
}

fn word(word: &mut Word) {
    word.span = Span::default();
}

fn words<'a>(words: impl IntoIterator<Item = &'a mut Word>) {
    words.into_iter().for_each(word);
}

fn heredoc(heredoc: &mut Heredoc) {
    heredoc.span = Span::default();
}

fn command_line(line: &mut CommandLine) {
    match line {
        CommandLine::Exec(list) => words(list),
        CommandLine::Shell(text) => word(text),
    }
}

fn transfer(transfer: &mut Transfer) {
    words(&mut transfer.sources);
    for file in &mut transfer.inline {
        word(&mut file.name);
        word(&mut file.content);
    }
    word(&mut transfer.dest);
    words(&mut transfer.chown);
    words(&mut transfer.chmod);
    words(&mut transfer.exclude);
}
