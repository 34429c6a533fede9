//! Platforms: operating system, architecture and variant (OCI image-index, "platform").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a step runs on or an image is made for, in Go's names (`linux`, `amd64`, `arm64`, `v8`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Operating system, for example `linux`.
    pub os: String,
    /// Architecture in Go's spelling, for example `amd64`.
    pub architecture: String,
    /// Variant of the architecture, for example `v7` of `arm`; empty if there is none.
    pub variant: String,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a platform: want OS/ARCH or OS/ARCH/VARIANT, for example linux/arm64")]
pub struct PlatformParseError(String);

impl Platform {
    /// A platform from its parts, normalised as containerd does it (`x86_64` is `amd64`,
    /// `aarch64` is `arm64` whose only variant `v8` is left out, `arm` means `arm/v7`).
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7" | "v7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (a, v) => (a, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Whether a part of a platform may contain `byte`.
    pub(crate) fn is_legal_byte(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
    }

    /// The platform that this program was built for, which is that of the machine it runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }
}

impl FromStr for Platform {
    type Err = PlatformParseError;

    /// Parses `OS/ARCH[/VARIANT]`; `OS` alone or `ARCH` alone mean the host's other half.
    fn from_str(text: &str) -> Result<Self, PlatformParseError> {
        let wrong = || PlatformParseError(text.chars().take(80).collect());
        let legal = |part: &&str| !part.is_empty() && part.bytes().all(Self::is_legal_byte);
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(legal) {
            return Err(wrong());
        }
        let host = Self::host();
        match parts[..] {
            ["local"] => Ok(host),
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                Ok(Self::new(os, &host.architecture, &host.variant))
            }
            [arch] => {
                let known = Self::new("linux", arch, "");
                let names = [
                    "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips64le", "mips64",
                    "riscv64", "s390x", "loong64", "wasm",
                ];
                names.contains(&known.architecture.as_str()).then_some(known).ok_or_else(wrong)
            }
            [os, arch] => Ok(Self::new(os, arch, "")),
            [os, arch, variant] => Ok(Self::new(os, arch, variant)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("arm64", "linux/arm64"),
            ("riscv64", "linux/riscv64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want, "{text}");
        }
        assert_eq!("local".parse(), Ok(Platform::host()));
        let linux: Platform = "linux".parse().unwrap();
        assert_eq!((linux.os, linux.architecture), ("linux".into(), Platform::host().architecture));
    }

    #[test]
    fn other_texts_are_no_platform() {
        for wrong in ["", "/", "linux/", "/amd64", "a/b/c/d", "linux/a b", "nonsense", "linux/é"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        assert_eq!(
            "linux/".parse::<Platform>().unwrap_err().to_string(),
            "\"linux/\" is not a platform: want OS/ARCH or OS/ARCH/VARIANT, for example linux/arm64"
        );
    }
}
