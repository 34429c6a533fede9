//! Trying again: how long to wait, and when to give up.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::RegistryError;

/// How often in a row a request may fail before its failure is final.
const ATTEMPTS: u32 = 6;
/// Wait before the second attempt; doubled for each later one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait of our own choice.
const LONGEST_OWN_WAIT: Duration = Duration::from_secs(15);
/// Longest wait that a registry's `Retry-After` is followed for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Longest wait that a mirror's `Retry-After` is followed for.
const LONGEST_WAIT_FOR_MIRROR: Duration = Duration::from_secs(5);
/// How soon a stop is noticed while waiting.
const POLL: Duration = Duration::from_millis(50);

/// Tells whether the user wants everything to end.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Ends when `asked` gives true; it is called often and from several threads.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(asked)))
    }

    /// Whether to end.
    pub fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }

    /// Whether it can be asked for at all.
    pub(super) fn may_come(&self) -> bool {
        self.0.is_some()
    }

    /// An error if it is time to end.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        if self.is_asked() { Err(RegistryError::Stopped) } else { Ok(()) }
    }
}

/// How long a host is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// There is nobody else to ask.
    #[default]
    Long,
    /// Another place has the same, as with a mirror, or it is good to know but not needed.
    Short,
}

impl Patience {
    fn attempts(self) -> u32 {
        match self {
            Self::Long => ATTEMPTS,
            Self::Short => 2,
        }
    }

    fn longest_wait(self) -> Duration {
        match self {
            Self::Long => LONGEST_WAIT,
            Self::Short => LONGEST_WAIT_FOR_MIRROR,
        }
    }
}

/// Counts failures in a row and waits between attempts.
pub(super) struct Backoff<'a> {
    stop: &'a Stop,
    patience: Patience,
    failures: u32,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(stop: &'a Stop, patience: Patience) -> Self {
        Self { stop, patience, failures: 0 }
    }

    /// Something went well, so earlier failures do not count any more.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before another attempt.
    ///
    /// # Errors
    /// `error` itself if it is final, or [`RegistryError::Stopped`].
    pub(super) fn wait_after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        // A stop breaks connections off, which is no failure of theirs.
        self.stop.check()?;
        self.failures += 1;
        if !error.is_temporary() || self.failures >= self.patience.attempts() {
            return Err(error);
        }
        let own = FIRST_WAIT.saturating_mul(1 << (self.failures - 1)).min(LONGEST_OWN_WAIT);
        let wait = match error.retry_after() {
            Some(asked) if asked > self.patience.longest_wait() => return Err(error),
            Some(asked) => asked,
            None => jittered(own),
        };
        let until = Instant::now() + wait;
        loop {
            self.stop.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(POLL));
        }
    }
}

/// Runs an attempt again, after a growing wait, as long as its failure may pass.
pub(super) fn retry<T>(
    stop: &Stop,
    attempt: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    retry_with(stop, Patience::Long, attempt)
}

/// The same with a patience.
pub(super) fn retry_with<T>(
    stop: &Stop,
    patience: Patience,
    mut attempt: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut backoff = Backoff::new(stop, patience);
    loop {
        stop.check()?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => backoff.wait_after(error)?,
        }
    }
}

/// Between half and all of a wait, so that many clients that failed together do not come back
/// together.
fn jittered(wait: Duration) -> Duration {
    // The standard library's hasher is seeded from the system's randomness.
    let random = RandomState::new().build_hasher().finish() as u32;
    wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Value of `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let format = &time::format_description::well_known::Rfc2822;
    let date = SystemTime::from(time::OffsetDateTime::parse(value, format).ok()?);
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after: Option<Duration>) -> RegistryError {
        RegistryError::Status {
            what: "a".to_owned(),
            host: "h".to_owned(),
            status: "503".to_owned(),
            message: String::new(),
            retry_after,
            temporary: true,
        }
    }

    #[test]
    fn only_passing_failures_are_retried() {
        let mut calls = 0;
        let result: Result<(), _> = retry(&Stop::default(), || {
            calls += 1;
            Err(RegistryError::NotFound { what: "a".to_owned(), message: String::new() })
        });
        assert_eq!((result.expect_err("fails").to_string(), calls), ("a: not found".to_owned(), 1));
        let mut calls = 0;
        let result = retry(&Stop::default(), || {
            calls += 1;
            if calls < 3 { Err(busy(Some(Duration::ZERO))) } else { Ok(calls) }
        });
        assert_eq!(result.expect("works in the end"), 3);
        let mut calls = 0;
        let result: Result<(), _> = retry(&Stop::default(), || {
            calls += 1;
            Err(busy(Some(Duration::ZERO)))
        });
        assert!(result.is_err());
        assert_eq!(calls, ATTEMPTS);
        let mut calls = 0;
        let result: Result<(), _> = retry_with(&Stop::default(), Patience::Short, || {
            calls += 1;
            Err(busy(Some(Duration::ZERO)))
        });
        assert!(result.is_err());
        assert_eq!(calls, 2, "a mirror is not insisted on");
    }

    #[test]
    fn waits_end_when_the_user_stops() {
        let begin = Instant::now();
        let stop = Stop::when(move || begin.elapsed() > Duration::from_millis(1));
        let result: Result<(), _> = retry(&stop, || Err(busy(Some(LONGEST_WAIT))));
        assert!(matches!(result, Err(RegistryError::Stopped)));
        let result: Result<(), _> =
            retry(&Stop::default(), || Err(busy(Some(LONGEST_WAIT + Duration::from_secs(1)))));
        assert!(matches!(result, Err(RegistryError::Status { .. })), "too long to wait for");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        let read = |value| retry_after(value, now).map(|d| d.as_secs());
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(10));
        assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
    }

    #[test]
    fn waits_differ_within_bounds() {
        let waits: Vec<Duration> = (0..50).map(|_| jittered(FIRST_WAIT)).collect();
        assert!(waits.iter().all(|wait| *wait >= FIRST_WAIT / 2 && *wait <= FIRST_WAIT));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
