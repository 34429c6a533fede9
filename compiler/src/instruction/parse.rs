//! Raw instructions to typed ones.

use std::collections::HashMap;

use rbc_ir::{Network, Security};

use super::{
    Add, ArgDeclaration, Command, Copy, Device, From, InlineFile, Instruction, Onbuild, Run,
    Transfer,
    flags::{
        Flags,
        Kind::{List, Switch, Text},
    },
    healthcheck::healthcheck,
    line::Line,
    mount,
};
use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    suggest,
    syntax::{self, Dockerfile, Heredoc, RawInstruction, SourceFile, Word, opening},
};

/// All instructions in upper case.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Gives each instruction of a file its meaning. A wrong one does not hide the next: the error holds
/// a message for each.
pub fn parse(file: &Dockerfile) -> Result<Vec<Instruction>, Diagnostics> {
    let mut messages = Diagnostics::new();
    let mut instructions = Vec::with_capacity(file.instructions.len());
    for raw in &file.instructions {
        match instruction(raw, file) {
            Ok(instruction) => instructions.push(instruction),
            Err(message) => messages.push(message),
        }
    }
    messages.or_ok(instructions)
}

/// Reads a trigger of a base image's config ([`Onbuild::expression`]). `name` says in messages where
/// it is from. Errors: those of any instruction, more than one of them, and triggers that are not
/// allowed.
pub fn parse_trigger(name: &str, expression: &str) -> Result<Instruction, Diagnostics> {
    let file = syntax::parse(SourceFile::new(name, expression))?;
    if let Some(second) = file.instructions.get(1) {
        let message = "an ONBUILD trigger should be a single instruction";
        let message = Diagnostic::error("bad-trigger", message);
        return Err(message.at(&file.source, second.keyword.span).into());
    }
    let mut instructions = parse(&file)?;
    match instructions.pop() {
        Some(Instruction { command: Command::From(_) | Command::Onbuild(_), keyword, .. }) => {
            let message = format!("{} isn't allowed as an ONBUILD trigger", keyword.text);
            let message = Diagnostic::error("bad-trigger", message);
            Err(message.at(&file.source, keyword.span).into())
        }
        Some(instruction) => Ok(instruction),
        None => Err(Diagnostic::error("bad-trigger", "an ONBUILD trigger is empty").into()),
    }
}

fn instruction(raw: &RawInstruction, file: &Dockerfile) -> Result<Instruction, Diagnostic> {
    let line = Line::new(raw, &file.source, file.escape);
    Ok(Instruction {
        command: command(&line, &raw.heredocs)?,
        keyword: raw.keyword.clone(),
        code: raw.text.as_str().trim().to_owned(),
        span: raw.span,
        comments: raw.comments.clone(),
        source: file.source.clone(),
        escape: file.escape,
    })
}

fn command(line: &Line<'_>, heredocs: &[Heredoc]) -> Result<Command, Diagnostic> {
    let no_flags = || Flags::read(line, &[]).map(drop);
    let arguments = line.parts.arguments.clone();
    Ok(match line.keyword().as_str() {
        "ADD" => Command::Add(add(line, heredocs)?),
        // BuildKit does not look at flags of ARG and STOPSIGNAL.
        "ARG" => Command::Arg(arg(line)?),
        "CMD" => {
            no_flags()?;
            Command::Cmd(line.command_line(arguments)?)
        }
        "COPY" => Command::Copy(copy(line, heredocs)?),
        "ENTRYPOINT" => {
            no_flags()?;
            Command::Entrypoint(line.command_line(arguments)?)
        }
        "ENV" => {
            no_flags()?;
            Command::Env(line.pairs()?)
        }
        "EXPOSE" => {
            let mut ports = at_least_one(line, line.plain_words())?;
            no_flags()?;
            ports.sort_by(|a, b| a.text.cmp(&b.text));
            Command::Expose(ports)
        }
        "FROM" => Command::From(from(line)?),
        "HEALTHCHECK" => Command::Healthcheck(healthcheck(line)?),
        "LABEL" => {
            no_flags()?;
            Command::Label(line.pairs()?)
        }
        "MAINTAINER" => {
            let author = line.one()?;
            no_flags()?;
            Command::Maintainer(author)
        }
        "ONBUILD" => Command::Onbuild(onbuild(line, heredocs)?),
        "RUN" => Command::Run(run(line, heredocs)?),
        "SHELL" => {
            no_flags()?;
            Command::Shell(shell(line)?)
        }
        "STOPSIGNAL" => Command::StopSignal(line.one()?),
        "USER" => {
            let user = line.one()?;
            no_flags()?;
            Command::User(user)
        }
        "VOLUME" => {
            let volumes = at_least_one(line, line.json_or_words()?)?;
            no_flags()?;
            Command::Volume(
                volumes.into_iter().map(|word| volume(line, word)).collect::<Result<_, _>>()?,
            )
        }
        "WORKDIR" => {
            let path = line.one()?;
            no_flags()?;
            Command::Workdir(path)
        }
        _ => return Err(unknown(line)),
    })
}

fn unknown(line: &Line<'_>) -> Diagnostic {
    let range = line.parts.keyword.clone();
    if range.is_empty() {
        let message = "a continuation line without an instruction";
        return line.error("unknown-instruction", message, range);
    }
    let shown: String = line.text[range.clone()].chars().take(80).collect();
    let message = line.error("unknown-instruction", format!("unknown instruction: {shown}"), range);
    match suggest::nearest(&shown, KEYWORDS) {
        Some(near) => message.help(format!("did you mean {near}?")),
        None => message.help(
            "each line starts with an instruction, such as RUN; end a line with \
                              the escape character to continue it on the next",
        ),
    }
}

fn at_least_one(line: &Line<'_>, words: Vec<Word>) -> Result<Vec<Word>, Diagnostic> {
    if words.is_empty() { Err(line.none_given()) } else { Ok(words) }
}

fn arg(line: &Line<'_>) -> Result<Vec<ArgDeclaration>, Diagnostic> {
    let declarations = at_least_one(line, line.quoted_words())?.into_iter().map(|word| {
        let Some(equals) = word.text.find('=') else {
            return Ok(ArgDeclaration { name: word, default: None });
        };
        if equals == 0 {
            let message = line.error_at("blank-name", "ARG names can not be blank", word.span);
            return Err(message.label("no name before ="));
        }
        let part = |start, end| Word::new(&word.text[start..end], word.part(start..end));
        Ok(ArgDeclaration {
            name: part(0, equals),
            default: Some(part(equals + 1, word.text.len())),
        })
    });
    declarations.collect()
}

fn from(line: &Line<'_>) -> Result<From, Diagnostic> {
    let words = line.plain_words();
    let name = match words.as_slice() {
        [_] => None,
        [_, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
            Some(stage_name(line, name)?)
        }
        _ => {
            let message = "FROM requires either one or three arguments";
            return Err(line
                .arguments_error("from-arguments", message)
                .help("write `FROM IMAGE` or `FROM IMAGE AS NAME`"));
        }
    };
    let flags = Flags::read(line, &[("platform", Text)])?;
    let mut words = words.into_iter();
    let Some(base) = words.next() else { return Err(line.none_given()) };
    Ok(From { base, platform: flags.non_empty("platform"), name })
}

fn stage_name(line: &Line<'_>, written: &Word) -> Result<Word, Diagnostic> {
    let name = written.text.to_lowercase();
    let legal = |char: char| {
        char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '_' | '.')
    };
    if name.starts_with(|char: char| char.is_ascii_lowercase()) && name.chars().all(legal) {
        return Ok(Word::new(name, written.span));
    }
    let message = format!("invalid name for build stage: {:?}", written.text);
    Err(line.error_at("stage-name", message, written.span).help(
        "a stage's name starts with a letter and holds letters, digits, hyphens, underscores and \
         dots",
    ))
}

fn run(line: &Line<'_>, heredocs: &[Heredoc]) -> Result<Run, Diagnostic> {
    let known = [("mount", List), ("network", Text), ("security", Text), ("device", List)];
    let flags = Flags::read(line, &known)?;
    let command = line.command_line(line.parts.arguments.clone())?;
    let mounts = flags.list("mount");
    for mount in &mounts {
        mount::mount_from(&mount.text)
            .map_err(|error| line.error_at("bad-mount", error.to_string(), error.place(mount)))?;
    }
    let network = match flags.text("network") {
        None => Network::Default,
        Some(value) => match value.text.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => {
                let message = format!("invalid network mode {other:?}");
                let message = line.error_at("bad-network", message, value.span);
                return Err(message.help("use default, none or host"));
            }
        },
    };
    let security = match flags.text("security") {
        None => Security::Sandbox,
        Some(value) => match value.text.as_str() {
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            other => {
                let message = format!("security {other:?} is not valid");
                let message = line.error_at("bad-security", message, value.span);
                return Err(message.help("use sandbox or insecure"));
            }
        },
    };
    let devices = flags.list("device").into_iter().map(|value| {
        let (name, required) = mount::parse_device(&value.text)
            .map_err(|error| line.error_at("bad-device", error.to_string(), value.span))?;
        Ok(Device { name, required, span: value.span })
    });
    let devices = devices.collect::<Result<_, _>>()?;
    Ok(Run { command, heredocs: heredocs.to_vec(), mounts, network, security, devices })
}

fn add(line: &Line<'_>, heredocs: &[Heredoc]) -> Result<Add, Diagnostic> {
    let words = sources_and_dest(line)?;
    let known = [
        ("chown", Text),
        ("chmod", Text),
        ("link", Switch),
        ("keep-git-dir", Switch),
        ("checksum", Text),
        ("unpack", Switch),
        ("exclude", List),
    ];
    let flags = Flags::read(line, &known)?;
    Ok(Add {
        transfer: transfer(line, words, heredocs, &flags)?,
        checksum: flags.non_empty("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

fn copy(line: &Line<'_>, heredocs: &[Heredoc]) -> Result<Copy, Diagnostic> {
    let words = sources_and_dest(line)?;
    let known = [
        ("chown", Text),
        ("from", Text),
        ("chmod", Text),
        ("link", Switch),
        ("exclude", List),
        ("parents", Switch),
    ];
    let flags = Flags::read(line, &known)?;
    Ok(Copy {
        transfer: transfer(line, words, heredocs, &flags)?,
        from: flags.non_empty("from"),
        parents: flags.switch("parents") == Some(true),
    })
}

/// The words of COPY and ADD: at least a source and the destination.
fn sources_and_dest(line: &Line<'_>) -> Result<Vec<Word>, Diagnostic> {
    let words = line.json_or_words()?;
    if words.len() >= 2 {
        return Ok(words);
    }
    let keyword = line.keyword();
    let message = if words.is_empty() {
        format!("{keyword} requires at least two arguments")
    } else {
        format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination \
             could not be determined"
        )
    };
    Err(line
        .arguments_error("missing-destination", message)
        .help(format!("write `{keyword} SOURCE… DESTINATION`")))
}

fn transfer(
    line: &Line<'_>,
    mut words: Vec<Word>,
    heredocs: &[Heredoc],
    flags: &Flags,
) -> Result<Transfer, Diagnostic> {
    let Some(dest) = words.pop() else { return Err(line.none_given()) };
    if opening(&dest.text).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", line.keyword());
        return Err(line.error_at("heredoc-destination", message, dest.span));
    }
    // Of two heredocs with one name, BuildKit takes the last for both.
    let bodies: HashMap<&str, &Heredoc> =
        heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc)).collect();
    let (mut sources, mut inline) = (Vec::new(), Vec::new());
    for word in words {
        let Some(opening) = opening(&word.text) else {
            sources.push(word);
            continue;
        };
        let content = bodies.get(opening.name.as_str()).map_or_else(
            || Word::new("", word.span),
            |body| {
                let body = Heredoc { chomp: opening.chomp, ..(*body).clone() };
                Word::new(body.chomped(), body.span)
            },
        );
        let name = Word::new(opening.name, word.span);
        inline.push(InlineFile { name, content, expand: opening.expand });
    }
    Ok(Transfer {
        sources,
        inline,
        dest,
        chown: flags.non_empty("chown"),
        chmod: flags.non_empty("chmod"),
        link: flags.switch("link") == Some(true),
        exclude: flags.list("exclude"),
    })
}

fn volume(line: &Line<'_>, word: Word) -> Result<Word, Diagnostic> {
    let path = word.text.trim();
    if path.is_empty() {
        let message = "VOLUME specified can not be an empty string";
        return Err(line.error_at("empty-volume", message, word.span));
    }
    Ok(Word::new(path, word.span))
}

fn shell(line: &Line<'_>) -> Result<Vec<Word>, Diagnostic> {
    if !line.has_arguments() {
        return Err(line.none_given());
    }
    match line.json(line.parts.arguments.clone())? {
        Some(words) => at_least_one(line, words),
        None => Err(line
            .arguments_error("shell-not-json", "SHELL requires the arguments to be in JSON form")
            .help("for example `SHELL [\"/bin/bash\", \"-c\"]`")),
    }
}

fn onbuild(line: &Line<'_>, heredocs: &[Heredoc]) -> Result<Onbuild, Diagnostic> {
    if !line.has_arguments() {
        return Err(line.none_given());
    }
    let trigger = line.trigger();
    check_form(&trigger)?;
    Flags::read(line, &[])?;
    let keyword = line.word(trigger.parts.keyword.clone());
    let fault = |message: String| {
        Err(line.error_at("bad-trigger", message, keyword.span).label("this instruction"))
    };
    match trigger.keyword().as_str() {
        "ONBUILD" => return fault("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        name @ ("MAINTAINER" | "FROM") => {
            return fault(format!("{name} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let is_space = |char: char| matches!(char, ' ' | '\t' | '\r' | '\n' | '\u{c}');
    let rest = &line.text[line.parts.keyword.end..];
    let mut expression = rest.trim_start_matches(is_space).to_owned();
    for heredoc in heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(Onbuild { expression, keyword })
}

/// Checks as much of a trigger as BuildKit checks before it fires: the form of its arguments.
fn check_form(trigger: &Line<'_>) -> Result<(), Diagnostic> {
    let arguments = trigger.parts.arguments.clone();
    match trigger.keyword().as_str() {
        "ENV" | "LABEL" => trigger.pairs_or_blank().map(drop),
        "ADD" | "COPY" | "VOLUME" | "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => {
            trigger.json(arguments).map(drop)
        }
        _ => Ok(()),
    }
}
