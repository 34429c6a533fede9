//! Sending one blob: not if it is there, mounted from another repository if it is known there, and
//! in a session that goes on where it broke off (distribution-spec, "Push").

use ureq::http::{HeaderName, Method, StatusCode, Uri, header};

use super::{
    Client, Progress, RegistryError,
    client::Call,
    hosts::Endpoint,
    retry::{Backoff, Patience, retry},
    token::Scope,
    transport::{Answer, Payload, header_text, host_of, resolve, same_origin},
};
use crate::{
    image::{Descriptor, ImageError},
    store::Store,
};

/// A blob up to this size goes in one request.
const SMALL: u64 = 256 << 10;
/// Smallest piece that a registry which refuses larger ones is offered.
const SMALLEST_CHUNK: u64 = 1 << 20;
/// How often a session that the registry has lost is begun again.
const SESSIONS: usize = 6;

/// What it took to get a blob into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Existing,
    /// The registry took it from another repository of its own.
    Mounted {
        /// That repository.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

/// Sends blobs to one repository.
pub(super) struct Uploader<'a> {
    pub(super) client: &'a Client,
    pub(super) store: &'a Store,
    pub(super) endpoint: &'a Endpoint,
    /// What errors are about.
    pub(super) what: &'a str,
}

/// An upload that the registry has begun.
struct Session {
    location: Uri,
    /// Bytes that the registry has.
    offset: u64,
    /// Largest piece to send at once.
    chunk: u64,
}

/// How an attempt to send a blob ended.
enum Attempt {
    Done,
    /// The registry does not know the session any more.
    Lost,
}

impl Uploader<'_> {
    /// Gets a blob into the repository.
    pub(super) fn send(
        &self,
        blob: &Descriptor,
        progress: Progress<'_>,
    ) -> Result<Sent, RegistryError> {
        if self.exists(blob)? {
            progress(blob, blob.size);
            return Ok(Sent::Existing);
        }
        let places = self.store.blob_places(&blob.digest, &self.endpoint.domain);
        let places = places.map_err(|source| self.image(source.into()))?;
        let other = places.into_iter().find(|place| *place != self.endpoint.repository);
        let mut session = match other {
            None => self.begin()?,
            Some(from) => match self.mount(blob, &from)? {
                None => {
                    progress(blob, blob.size);
                    return Ok(Sent::Mounted { from });
                }
                Some(session) => session,
            },
        };
        for _ in 0..SESSIONS {
            if let Attempt::Done = self.run(&mut session, blob, progress)? {
                return Ok(Sent::Uploaded);
            }
            // The answer to the last request may have been lost, and with it the session's end.
            if self.exists(blob)? {
                return Ok(Sent::Uploaded);
            }
            session = self.begin()?;
        }
        Err(RegistryError::Protocol {
            what: self.what.to_owned(),
            reason: format!("{} loses every upload that is begun", self.endpoint.host),
        })
    }

    fn exists(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        retry(&self.client.stop, || {
            let path = format!("blobs/{}", blob.digest);
            let url = self.client.url(self.endpoint, &path, self.what)?;
            let answer = self.call(Method::HEAD, url.clone(), &[], Payload::Nothing)?;
            if answer.response.status() == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            // A registry that names the place of a blob has it, even if that place answers only
            // those who want all of it.
            let is_refusal = matches!(answer.response.status().as_u16(), 400 | 403 | 405 | 501);
            if is_refusal && !same_origin(&url, &answer.url) {
                return Ok(true);
            }
            self.client.expect_success(self.endpoint, answer, self.what).map(|_| true)
        })
    }

    /// Asks the registry to take the blob from another repository. If it does not, it has begun an
    /// upload instead.
    fn mount(&self, blob: &Descriptor, from: &str) -> Result<Option<Session>, RegistryError> {
        let path = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
        let scopes = [Scope::push(&self.endpoint.repository), Scope::pull(from)];
        let asked = retry(&self.client.stop, || {
            let url = self.client.url(self.endpoint, &path, self.what)?;
            let answer = self.client.call(Call {
                endpoint: self.endpoint,
                scopes: &scopes,
                method: Method::POST,
                url,
                headers: &[],
                payload: Payload::Nothing,
                what: self.what,
            })?;
            if answer.response.status() == StatusCode::CREATED {
                return Ok(None);
            }
            self.session(answer).map(Some)
        });
        match asked {
            // We may not read there, or it is gone.
            Err(RegistryError::Denied(_) | RegistryError::NotFound { .. }) => {
                self.begin().map(Some)
            }
            other => other,
        }
    }

    fn begin(&self) -> Result<Session, RegistryError> {
        retry(&self.client.stop, || {
            let url = self.client.url(self.endpoint, "blobs/uploads/", self.what)?;
            self.session(self.call(Method::POST, url, &[], Payload::Nothing)?)
        })
    }

    /// The session that an answer to POST speaks of.
    fn session(&self, answer: Answer) -> Result<Session, RegistryError> {
        let base = answer.url.clone();
        let response = self.client.expect_success(self.endpoint, answer, self.what)?;
        let location = header_text(response.headers(), header::LOCATION)
            .and_then(|location| resolve(&base, location))
            .ok_or_else(|| RegistryError::Protocol {
                what: self.what.to_owned(),
                reason: format!("{} begins an upload without saying where", host_of(&base)),
            })?;
        Ok(Session { location, offset: 0, chunk: u64::MAX })
    }

    /// Sends what the registry does not have yet and closes the session.
    fn run(
        &self,
        session: &mut Session,
        blob: &Descriptor,
        progress: Progress<'_>,
    ) -> Result<Attempt, RegistryError> {
        let mut backoff = Backoff::new(&self.client.stop, Patience::Long);
        let small = blob.size <= SMALL;
        while !small && session.offset < blob.size {
            self.client.stop.check()?;
            let before = session.offset;
            let error = match self.patch(session, blob, progress) {
                Ok(()) => None,
                Err(RegistryError::NotFound { .. }) => return Ok(Attempt::Lost),
                Err(error) => Some(error),
            };
            let mut has_waited = false;
            if let Some(error) = error {
                let length = (blob.size - before).min(session.chunk);
                match &error {
                    RegistryError::Status { status, .. }
                        if status.starts_with("413") && length > SMALLEST_CHUNK =>
                    {
                        session.chunk = (length / 4).max(SMALLEST_CHUNK);
                    }
                    // It has another idea of what it has.
                    RegistryError::Status { status, .. } if status.starts_with("416") => {}
                    _ => {
                        backoff.wait_after(error)?;
                        has_waited = true;
                    }
                }
                match retry(&self.client.stop, || self.ask_offset(session, blob))? {
                    Some(offset) => session.offset = offset,
                    None => return Ok(Attempt::Lost),
                }
            }
            if session.offset > before {
                backoff.progressed();
            } else if !has_waited {
                // A registry that keeps nothing must not be tried for ever.
                backoff.wait_after(RegistryError::Broken {
                    what: self.what.to_owned(),
                    host: self.endpoint.host.clone(),
                    reason: format!("it keeps {before} of {} bytes", blob.size),
                })?;
            }
            progress(blob, session.offset);
        }
        loop {
            match self.close(session, blob, small, progress) {
                Ok(()) => return Ok(Attempt::Done),
                Err(RegistryError::NotFound { .. }) => return Ok(Attempt::Lost),
                Err(error) if small => {
                    // What became of the bytes is not worth asking.
                    backoff.wait_after(error)?;
                    return Ok(Attempt::Lost);
                }
                Err(error) => backoff.wait_after(error)?,
            }
        }
    }

    /// Sends one piece and learns where the next one goes.
    fn patch(
        &self,
        session: &mut Session,
        blob: &Descriptor,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let from = session.offset;
        let length = (blob.size - from).min(session.chunk);
        let end = from + length;
        let mut headers = vec![(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
        // All of it in one piece goes without a range, which some registries want of pieces only.
        if length < blob.size {
            headers.push((header::CONTENT_RANGE, format!("{from}-{}", end - 1)));
        }
        let answer = self.body(
            Method::PATCH,
            session.location.clone(),
            &headers,
            blob,
            from,
            length,
            progress,
        )?;
        let base = answer.url.clone();
        let response = self.client.expect_success(self.endpoint, answer, self.what)?;
        if let Some(next) = header_text(response.headers(), header::LOCATION)
            && let Some(next) = resolve(&base, next)
        {
            session.location = next;
        }
        session.offset = match header_text(response.headers(), header::RANGE).and_then(stored) {
            // One byte and none look the same.
            Some(0 | 1) if end == 1 => 1,
            Some(stored) => stored.min(end),
            None => end,
        };
        Ok(())
    }

    /// How much the registry has of a session. `None` if it does not know the session.
    fn ask_offset(
        &self,
        session: &mut Session,
        blob: &Descriptor,
    ) -> Result<Option<u64>, RegistryError> {
        let answer = self.call(Method::GET, session.location.clone(), &[], Payload::Nothing)?;
        let base = answer.url.clone();
        if matches!(answer.response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let response = self.client.expect_success(self.endpoint, answer, self.what)?;
        if let Some(next) = header_text(response.headers(), header::LOCATION)
            && let Some(next) = resolve(&base, next)
        {
            session.location = next;
        }
        let range = header_text(response.headers(), header::RANGE);
        Ok(Some(range.and_then(stored).unwrap_or(0).min(blob.size)))
    }

    /// Tells the registry that this was all, or sends all of a small blob with it.
    fn close(
        &self,
        session: &Session,
        blob: &Descriptor,
        with_content: bool,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let text = session.location.to_string();
        let url = super::auth::with_query(&text, &format!("digest={}", blob.digest));
        let url: Uri = url.parse().map_err(|_| RegistryError::Protocol {
            what: self.what.to_owned(),
            reason: format!("{} gives an address that is none", self.endpoint.host),
        })?;
        let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
        let length = if with_content { blob.size } else { 0 };
        let answer = self.body(Method::PUT, url, &headers, blob, 0, length, progress)?;
        self.client.expect_success(self.endpoint, answer, self.what).map(drop)
    }

    #[allow(clippy::too_many_arguments, reason = "a request and the part of the blob in it")]
    fn body(
        &self,
        method: Method,
        url: Uri,
        headers: &[(HeaderName, String)],
        blob: &Descriptor,
        from: u64,
        length: u64,
        progress: Progress<'_>,
    ) -> Result<Answer, RegistryError> {
        if length == 0 {
            return self.call(method, url, headers, Payload::Bytes(b""));
        }
        if !self.store.blobs().has(&blob.digest) {
            return Err(self.image(ImageError::MissingBlob { digest: blob.digest }));
        }
        let path = self.store.blobs().path(&blob.digest);
        let sent = std::sync::atomic::AtomicU64::new(from);
        let tell = |more: u64| {
            let before = sent.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
            progress(blob, before + more);
        };
        self.call(method, url, headers, Payload::Part { path: &path, from, length, sent: &tell })
    }

    fn call(
        &self,
        method: Method,
        url: Uri,
        headers: &[(HeaderName, String)],
        payload: Payload<'_>,
    ) -> Result<Answer, RegistryError> {
        self.client.call(Call {
            endpoint: self.endpoint,
            scopes: &[Scope::push(&self.endpoint.repository)],
            method,
            url,
            headers,
            payload,
            what: self.what,
        })
    }

    fn image(&self, source: ImageError) -> RegistryError {
        RegistryError::Image { what: self.what.to_owned(), source: Box::new(source) }
    }
}

/// How many bytes a `Range` of an upload stands for: `0-99` is a hundred. The protocol cannot tell
/// one byte from none; it is taken for none.
fn stored(range: &str) -> Option<u64> {
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let (first, last) = range.split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads_are_read() {
        let cases = [
            ("0-0", Some(0)),
            ("0-1", Some(2)),
            ("bytes=0-99", Some(100)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0--1", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(stored(text), want, "{text}");
        }
    }
}
