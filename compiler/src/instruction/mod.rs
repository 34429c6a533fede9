//! Typed instructions: the meaning of each raw instruction, its words not yet expanded.
//!
//! Second step of the compiler, between [`crate::syntax`] and the stages. What is checked here is
//! what BuildKit's `frontend/dockerfile/instructions` checks before any variable is known; what
//! depends on expanded values is checked later, with the `parse_` functions of this module.

mod duration;
mod flags;
mod healthcheck;
mod line;
mod mount;
mod option_error;
mod parse;
mod places;
mod value;

use std::sync::Arc;

use rbc_ir::{Healthcheck, Network, Security};

pub use self::{
    duration::DurationError,
    mount::{MountOptions, MountType},
    option_error::OptionError,
    parse::{parse, parse_trigger},
    value::ValueError,
};
pub(crate) use self::{
    mount::{mount_from, parse_mount},
    value::{check_signal, parse_chmod, parse_expose, parse_owner},
};
use crate::syntax::{Comment, Heredoc, SourceFile, Span, Word};

/// An instruction with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub command: Command,
    /// The keyword as written.
    pub keyword: Word,
    /// The instruction as history shows it: continuations joined, no space around it, heredoc
    /// bodies left out (they are in the command).
    pub code: String,
    /// All lines of it.
    pub span: Span,
    /// The comments right above it.
    pub comments: Vec<Comment>,
    /// The file it is from.
    pub source: Arc<SourceFile>,
    /// The escape character of that file.
    pub escape: char,
}

/// The instructions of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Copies files, downloads or unpacked archives.
    Add(Add),
    /// Declares build arguments.
    Arg(Vec<ArgDeclaration>),
    /// The default command.
    Cmd(CommandLine),
    /// Copies files.
    Copy(Copy),
    /// The default program.
    Entrypoint(CommandLine),
    /// Environment variables.
    Env(Vec<KeyValue>),
    /// Ports, unexpanded, in BuildKit's order (sorted as text).
    Expose(Vec<Word>),
    /// Starts a stage.
    From(From),
    /// How to see whether a container is well. `test` holds `NONE` alone, or `CMD` and words, or
    /// `CMD-SHELL` and one command line.
    Healthcheck(Healthcheck),
    /// Labels.
    Label(Vec<KeyValue>),
    /// The author (deprecated).
    Maintainer(Word),
    /// A trigger for images built on this one.
    Onbuild(Onbuild),
    /// Runs a command.
    Run(Run),
    /// The shell of the shell form.
    Shell(Vec<Word>),
    /// The signal that stops a container.
    StopSignal(Word),
    /// `USER[:GROUP]`.
    User(Word),
    /// Mount points.
    Volume(Vec<Word>),
    /// The working directory.
    Workdir(Word),
}

/// `NAME=value` or `NAME value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The name, still quoted.
    pub key: Word,
    /// The value, still quoted.
    pub value: Word,
    /// Whether it is the old form without `=`.
    pub legacy: bool,
}

/// One variable of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name, still quoted.
    pub name: Word,
    /// The default, still quoted.
    pub default: Option<Word>,
}

/// A command line of RUN, CMD and ENTRYPOINT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// A JSON array: words that are run as they are.
    Exec(Vec<Word>),
    /// One text for the shell; may be empty.
    Shell(Word),
}

/// FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The image or stage.
    pub base: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// The stage's name, in lower case, with the place of the written name.
    pub name: Option<Word>,
}

/// RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: CommandLine,
    /// Heredocs that it opens.
    pub heredocs: Vec<Heredoc>,
    /// The values of `--mount`, for `parse_mount` once variables are known; `mount_from` was
    /// already checked.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// A value of `RUN --device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name of the (CDI) device.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is written.
    pub span: Span,
}

/// A source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// The file's name: the heredoc's delimiter.
    pub name: Word,
    /// Content, leading tabs already cut for `<<-`.
    pub content: Word,
    /// Whether variables are expanded in the content (with quotes kept).
    pub expand: bool,
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Paths (or addresses), unexpanded, in order.
    pub sources: Vec<Word>,
    /// Files whose content is in the Dockerfile.
    pub inline: Vec<InlineFile>,
    /// Destination, unexpanded.
    pub dest: Word,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--exclude` patterns; never expanded.
    pub exclude: Vec<Word>,
}

/// COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--from`; takes no variables.
    pub from: Option<Word>,
    /// `--parents`.
    pub parents: bool,
}

/// ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

/// ONBUILD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as the image config keeps it: the instruction's text, then heredoc bodies with
    /// their end lines. [`parse_trigger`] reads it back.
    pub expression: String,
    /// The trigger's keyword.
    pub keyword: Word,
}
