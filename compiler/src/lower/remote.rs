//! The sources of ADD that are elsewhere: git repositories and files of the web.

use rbc_ir::{CopyAction, Digest, GitSource, HttpSource, Input, Op, Source};

use super::{
    Current, Lowering,
    copy::{AddOptions, Plan},
    inputs::Inputs,
};
use crate::{
    diagnostic::Diagnostic,
    git_ref::{self, GitRef},
    path,
    resolver::{GitRequest, HttpRequest},
    syntax::Word,
};

/// Permission bits of a downloaded file (Dockerfile reference, ADD).
const DOWNLOAD_MODE: u32 = 0o600;

impl Lowering<'_, '_> {
    /// Git repositories and files of the web.
    pub(super) fn remote_sources(
        &mut self,
        plan: &Plan<'_>,
        current: &Current<'_>,
        inputs: &mut Inputs,
        actions: &mut Vec<(usize, CopyAction)>,
    ) -> Result<(), Diagnostic> {
        for (place, (source, word)) in plan.sources.iter().enumerate() {
            if let Some(git) = git_ref::parse(source) {
                let git = git.map_err(|e| plan.fail("bad-address", e.to_string(), word))?;
                let Some(add) = &plan.add else {
                    let wrong = "source can't be a git ref for COPY";
                    return Err(plan.fail("remote-copy", wrong, word).help("use ADD"));
                };
                let node = self.git(plan, current, add, git, word)?;
                let input = inputs.push(node);
                actions.push((place, plan.action(input, String::new())));
            } else if git_ref::is_http_file(source) {
                let Some(add) = &plan.add else {
                    let wrong = "source can't be a URL for COPY";
                    return Err(plan.fail("remote-copy", wrong, word).help("use ADD"));
                };
                let (node, filename) = self.http(plan, current, add, source, word)?;
                let input = inputs.push(node);
                let unpack = add.unpack.unwrap_or(false);
                actions.push((place, CopyAction { unpack, ..plan.action(input, filename) }));
            }
        }
        Ok(())
    }

    fn git(
        &mut self,
        plan: &Plan<'_>,
        current: &Current<'_>,
        add: &AddOptions,
        git: GitRef,
        word: &Word,
    ) -> Result<Input, Diagnostic> {
        let keep_git_dir = match (add.keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                let wrong = "inconsistent keep-git-dir configuration";
                return Err(plan.fail("bad-address", wrong, word));
            }
            (flag, query) => flag.or(query).unwrap_or(false),
        };
        let checksum = match (&add.checksum, git.checksum) {
            (Some((flag, _)), Some(query)) if *flag != query => {
                let wrong = format!("checksum mismatch {flag:?} != {query:?}");
                return Err(plan.fail("bad-address", wrong, word));
            }
            (flag, query) => query.or_else(|| flag.as_ref().map(|(text, _)| text.clone())),
        };
        let request =
            GitRequest { url: git.remote.clone(), reference: git.reference.clone(), checksum };
        let commit = self.pins.commit(&request).map_err(|error| plan.unresolved(error, word))?;
        let source = Source::Git(GitSource {
            url: git.remote,
            reference: git.reference,
            commit,
            subdir: git.subdir,
            keep_git_dir,
            submodules: git.submodules.unwrap_or(true),
        });
        let meta = self.meta(current, plan.instruction, plan.name.clone());
        self.add(Op::Source(source), Vec::new(), None, meta)
    }

    fn http(
        &mut self,
        plan: &Plan<'_>,
        current: &Current<'_>,
        add: &AddOptions,
        url: &str,
        word: &Word,
    ) -> Result<(Input, String), Diagnostic> {
        let checksum = match &add.checksum {
            Some((text, span)) => Some(text.parse::<Digest>().map_err(|error| {
                Diagnostic::error("bad-checksum", format!("invalid checksum: {error}"))
                    .at(&plan.instruction.source, *span)
            })?),
            None => None,
        };
        let request = HttpRequest { url: url.to_owned(), checksum };
        let found = self.pins.download(&request).map_err(|error| plan.unresolved(error, word))?;
        let filename = file_name(url);
        let source = Source::Http(HttpSource {
            url: url.to_owned(),
            checksum: found.checksum,
            filename: filename.clone(),
            mode: DOWNLOAD_MODE,
            mtime: found.mtime,
        });
        let meta = self.meta(current, plan.instruction, plan.name.clone());
        Ok((self.add(Op::Source(source), Vec::new(), None, meta)?, filename))
    }
}

/// Checks that `--checksum` has one remote source to check.
pub(super) fn check_checksum(plan: &Plan<'_>) -> Result<(), Diagnostic> {
    let Some((_, span)) = plan.add.as_ref().and_then(|add| add.checksum.as_ref()) else {
        return Ok(());
    };
    let fail = |message: &str| {
        Err(Diagnostic::error("bad-checksum", message).at(&plan.instruction.source, *span))
    };
    match &plan.sources[..] {
        [(source, _)] if git_ref::is_http_file(source) || git_ref::parse(source).is_some() => {
            Ok(())
        }
        [_] => fail("checksum requires HTTP(S) or Git sources"),
        _ => fail("checksum can't be specified for multiple sources"),
    }
}

/// The name that a download gets: the last part of the address's path.
fn file_name(url: &str) -> String {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = after_scheme.find(['?', '#']).unwrap_or(after_scheme.len());
    let path = after_scheme[..end].split_once('/').map_or("", |(_, path)| path);
    match path::base(path) {
        "." | "/" | ".." => "__unnamed__".to_owned(),
        name => git_ref::decode(name).replace('/', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_named_by_the_address() {
        for (url, want) in [
            ("https://h/a/b.tgz?x=1", "b.tgz"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2Fb", "a_b"),
        ] {
            assert_eq!(file_name(url), want, "{url}");
        }
    }
}
