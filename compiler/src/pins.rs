//! Remembers what the resolver answered within one compilation, so that the same question has the
//! same answer for every platform and is asked once.

use std::collections::HashMap;

use rbc_ir::{Digest, Selection};

use crate::resolver::{GitRequest, HttpRequest, ResolveError, ResolvedHttp, Resolver};

/// The answers so far.
pub(crate) struct Pins<'a> {
    /// Who answers.
    pub resolver: &'a dyn Resolver,
    contexts: HashMap<(String, Selection), Digest>,
    commits: HashMap<GitRequest, String>,
    downloads: HashMap<HttpRequest, ResolvedHttp>,
}

impl<'a> Pins<'a> {
    /// None yet.
    pub fn new(resolver: &'a dyn Resolver) -> Self {
        Self {
            resolver,
            contexts: HashMap::new(),
            commits: HashMap::new(),
            downloads: HashMap::new(),
        }
    }

    /// See [`Resolver::context_digest`].
    pub fn context(&mut self, name: &str, selection: &Selection) -> Result<Digest, ResolveError> {
        let question = (name.to_owned(), selection.clone());
        if let Some(known) = self.contexts.get(&question) {
            return Ok(*known);
        }
        let answer = self.resolver.context_digest(name, selection)?;
        self.contexts.insert(question, answer);
        Ok(answer)
    }

    /// See [`Resolver::git`].
    pub fn commit(&mut self, request: &GitRequest) -> Result<String, ResolveError> {
        if let Some(known) = self.commits.get(request) {
            return Ok(known.clone());
        }
        let answer = self.resolver.git(request)?;
        self.commits.insert(request.clone(), answer.clone());
        Ok(answer)
    }

    /// See [`Resolver::http`].
    pub fn download(&mut self, request: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        if let Some(known) = self.downloads.get(request) {
            return Ok(known.clone());
        }
        let answer = self.resolver.http(request)?;
        self.downloads.insert(request.clone(), answer.clone());
        Ok(answer)
    }
}
