//! Checks of words once their variables are known.

use rbc_ir::pattern::PatternMatcher;

use super::{Linter, Rule};
use crate::{
    go_format,
    instruction::{Command, CommandLine, Instruction},
    path,
    syntax::{Span, Word},
};

impl Linter {
    /// A variable of a stage that nothing sets or declares. `known` are those that are set,
    /// `declared` those that an ARG names.
    pub fn undefined_variable<'a>(
        &mut self,
        instruction: &Instruction,
        word: &Word,
        name: &str,
        known: impl Iterator<Item = &'a str>,
        declared: impl Iterator<Item = &'a str>,
    ) {
        if matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE") {
            return;
        }
        let near = self.nearest(name, known);
        let hint = near.map_or(String::new(), |near| format!(" (did you mean ${near}?)"));
        let help = match (near, self.nearest(name, declared)) {
            (Some(near), _) => format!("write ${near}"),
            (None, Some(near)) => format!("did you mean ${near}, which has no value yet?"),
            (None, None) => format!("declare it in this stage: `ARG {name}`, or set it with ENV"),
        };
        self.report(
            Rule::UndefinedVar,
            instruction,
            place_of(name, word),
            format!("Usage of undefined variable '${name}'{hint}"),
            help,
        );
    }

    /// Names of variables that look like they hold a secret.
    pub fn secret_name(&mut self, instruction: &Instruction, keyword: &str, name: &str, at: Span) {
        const DENIED: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const ALLOWED: [&str; 3] = ["public", "file", "version"];
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&DENIED) && !has(&ALLOWED) {
            self.report(
                Rule::SecretsUsedInArgOrEnv,
                instruction,
                at,
                format!(
                    "Do not use ARG or ENV instructions for sensitive data ({keyword} {})",
                    go_format::quoted(name)
                ),
                "mount it where it is needed: `RUN --mount=type=secret,id=…`",
            );
        }
    }

    /// CMD and ENTRYPOINT in shell form where the stage sets no SHELL.
    pub fn shell_form(&mut self, instruction: &Instruction, command: &CommandLine) {
        let CommandLine::Shell(text) = command else { return };
        let keyword = &instruction.keyword.text;
        self.report(
            Rule::JsonArgsRecommended,
            instruction,
            if text.span.start == text.span.end { instruction.keyword.span } else { text.span },
            format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related \
                 to OS signals"
            ),
            json_form(keyword, &text.text),
        );
    }

    /// A port of EXPOSE that says more than a port.
    pub fn exposed(&mut self, instruction: &Instruction, word: &Word, port: &str) {
        let (mapping, protocol) = port.rsplit_once('/').unwrap_or((port, ""));
        if protocol != protocol.to_lowercase() {
            self.report(
                Rule::ExposeProtoCasing,
                instruction,
                word.span,
                format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
                format!("write {mapping}/{}", protocol.to_lowercase()),
            );
        }
        if let Some((host, container)) = mapping.rsplit_once(':')
            && !matches!(host, "" | ":")
        {
            let (slash, protocol) = if protocol.is_empty() { ("", "") } else { ("/", protocol) };
            self.report(
                Rule::ExposeInvalidFormat,
                instruction,
                word.span,
                format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, \
                     found '{port}'"
                ),
                format!("write {container}{slash}{protocol}; ports are mapped when it is run"),
            );
        }
    }

    /// A source of COPY or ADD, expanded, that the ignore file hides. The root counts as hidden
    /// only if all of it is.
    pub fn ignored_source(&mut self, instruction: &Instruction, word: &Word, source: &str) {
        let Some(ignore) = &self.ignore else { return };
        let source = path::clean(source);
        let is_root = matches!(source.as_str(), "." | "/");
        let hidden =
            if is_root { ignore.hides_all } else { ignore.matcher.matches_or_parent(&source) };
        if !hidden {
            return;
        }
        let by = ignore.patterns.iter().position(|pattern| {
            let alone = PatternMatcher::new(std::slice::from_ref(pattern));
            is_root || alone.is_ok_and(|alone| alone.matches_or_parent(&source))
        });
        let help = match by {
            Some(index) => {
                let pattern = &ignore.patterns[index];
                let place = ignore
                    .lines
                    .get(index)
                    .map_or(String::new(), |line| format!(" in line {line} of {}", ignore.file));
                format!("the pattern {pattern:?}{place} hides it: change it, or do not copy")
            }
            None => "change the ignore file, or do not copy it".to_owned(),
        };
        let keyword = if matches!(instruction.command, Command::Add(_)) { "Add" } else { "Copy" };
        self.report(
            Rule::CopyIgnoredFile,
            instruction,
            word.span,
            format!(
                "Attempting to {keyword} file {} that is excluded by .dockerignore",
                go_format::quoted(&source)
            ),
            help,
        );
    }

    /// An instruction of which only the last of a stage counts: `earlier` is lost to `by`.
    pub fn repeated(&mut self, earlier: &Instruction, by: &Instruction) {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last \
             one will be used",
            by.keyword.text
        );
        let help = "remove this one".to_owned();
        let rule = Rule::MultipleInstructionsDisallowed;
        self.add(rule, &by.comments, &earlier.source, earlier.span, message, help);
    }

    /// A first WORKDIR that depends on where the base image stands.
    pub fn relative_workdir(&mut self, instruction: &Instruction, word: &Word, dir: &str) {
        self.report(
            Rule::WorkdirRelativePath,
            instruction,
            word.span,
            format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                go_format::quoted(dir)
            ),
            format!("write an absolute path, for example /{dir}"),
        );
    }
}

/// Where a word names a variable; all of the word if that cannot be told.
pub(super) fn place_of(name: &str, word: &Word) -> Span {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    for (at, _) in word.text.match_indices('$') {
        let rest = &word.text[at + 1..];
        let (brace, rest) = match rest.strip_prefix('{') {
            Some(rest) => (1, rest),
            None => (0, rest),
        };
        if let Some(behind) = rest.strip_prefix(name)
            && !behind.starts_with(is_name)
        {
            let end = at + 1 + brace + name.len();
            let close = usize::from(brace == 1 && behind.starts_with('}'));
            return word.part(at..end + close);
        }
    }
    word.span
}

/// The JSON form of a command line, if that is but a list of words.
fn json_form(keyword: &str, command: &str) -> String {
    let needs_shell = command.is_empty()
        || command.len() > 200
        || command
            .contains(['$', '"', '\'', '`', '\\', '|', '&', ';', '<', '>', '(', '*', '?', '~']);
    if needs_shell {
        return format!("write `{keyword} [\"program\", \"argument\"]`");
    }
    let words: Vec<String> = command.split_whitespace().map(|word| format!("{word:?}")).collect();
    format!("write `{keyword} [{}]`", words.join(", "))
}
