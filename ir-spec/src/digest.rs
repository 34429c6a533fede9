//! SHA-256 digests in the OCI notation `sha256:<64 hex digits>`.
//!
//! rbc knows one algorithm. A digest in any other is refused where it is parsed, so that what is
//! stored under a digest can always be checked against it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// A SHA-256 digest (OCI image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest that rbc can use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a digest: want \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct DigestParseError(String);

impl Digest {
    /// Wraps a raw SHA-256 value.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(sha2::Sha256::digest(data).into())
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        out
    }

    /// The first 12 hexadecimal digits, as Docker shortens identifiers for people.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// Parses 64 lower-case hexadecimal digits without the algorithm.
    pub fn from_hex(hex: &str) -> Result<Self, DigestParseError> {
        let wrong = || DigestParseError(hex.chars().take(80).collect());
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let mut value = 0;
            for digit in pair {
                let nibble = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong()),
                };
                value = value << 4 | nibble;
            }
            *byte = value;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, DigestParseError> {
        text.strip_prefix("sha256:")
            .and_then(|hex| Self::from_hex(hex).ok())
            .ok_or_else(|| DigestParseError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As text in JSON, as 32 raw bytes in binary encodings.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Builds a digest from parts. Each variable-length part is preceded by its length, so that no two
/// sequences of parts give the same input to the hash.
#[derive(Clone)]
pub struct Hasher {
    sha: sha2::Sha256,
    /// What is not hashed yet. Many small parts are hashed much faster together.
    pending: Vec<u8>,
}

/// As many bytes are collected before they are hashed.
const MAX_PENDING: usize = 4096;

impl Hasher {
    /// A hasher for one purpose; `domain` keeps digests of different purposes apart.
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self { sha: sha2::Sha256::new(), pending: Vec::new() };
        hasher.part(domain.as_bytes());
        hasher
    }

    /// Adds a part of any length.
    pub fn part(&mut self, data: &[u8]) -> &mut Self {
        self.number(data.len() as u64).add(data)
    }

    /// Adds as one part what the pieces make together.
    pub fn part_of(&mut self, pieces: &[&[u8]]) -> &mut Self {
        self.number(pieces.iter().map(|piece| piece.len() as u64).sum());
        pieces.iter().fold(self, |hasher, piece| hasher.add(piece))
    }

    /// Adds a number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.add(&value.to_le_bytes())
    }

    /// Adds another digest.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.add(&digest.0)
    }

    /// The digest of all parts.
    pub fn finish(mut self) -> Digest {
        self.sha.update(&self.pending);
        Digest(self.sha.finalize().into())
    }

    fn add(&mut self, data: &[u8]) -> &mut Self {
        if self.pending.len() + data.len() > MAX_PENDING {
            self.sha.update(&self.pending);
            self.pending.clear();
        }
        if data.len() > MAX_PENDING {
            self.sha.update(data);
        } else {
            self.pending.extend_from_slice(data);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_bytes_are_the_same_digest() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(Digest::from_bytes(*digest.as_bytes()), digest);
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("{EMPTY:?}"));
        assert_eq!(serde_json::from_str::<Digest>(&format!("{EMPTY:?}")).unwrap(), digest);
    }

    #[test]
    fn other_texts_are_no_digest() {
        let hex = &EMPTY[7..];
        for wrong in [
            "",
            "sha256:",
            hex,
            &EMPTY.to_uppercase(),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("{EMPTY}0"),
            &EMPTY[..70],
            &format!("sha512:{hex}"),
            &format!("sha256:{}é", &hex[2..]),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert_eq!(
            "latest".parse::<Digest>().unwrap_err().to_string(),
            "\"latest\" is not a digest: want \"sha256:\" and 64 lower-case hexadecimal digits"
        );
    }

    #[test]
    fn parts_do_not_run_together() {
        let digest = |parts: &[&[u8]]| {
            let mut hasher = Hasher::new("test");
            for part in parts {
                hasher.part(part);
            }
            hasher.finish()
        };
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"", b"a"]), digest(&[b"a"]));
        assert_ne!(Hasher::new("a").finish(), Hasher::new("b").finish());
        // The definition: length as 64 bits, then the bytes; numbers and digests as they are.
        let mut hasher = Hasher::new("d");
        hasher.part(b"xy").number(258).digest(&Digest::of(b""));
        let empty = Digest::of(b"");
        let plain =
            [&b"\x01\0\0\0\0\0\0\0d\x02\0\0\0\0\0\0\0xy\x02\x01\0\0\0\0\0\0"[..], empty.as_bytes()];
        assert_eq!(hasher.finish(), Digest::of(&plain.concat()));
    }
}
