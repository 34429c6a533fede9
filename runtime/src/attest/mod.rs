//! Attestations: statements about an image that travel with it.
//!
//! [`provenance`] says from the pinned graph how an image came about, [`sbom`] lists the packages
//! found in its files. Both are predicates of in-toto statements; [`crate::export`] attaches them as
//! BuildKit does (docs.docker.com, "Image attestation storage"): a manifest of its own in the index
//! beside the image that it is about. Neither holds the time of the build, so an image with
//! attestations is as reproducible as one without.

mod packages;
mod provenance;
mod spdx;
mod statement;

pub use packages::{Distribution, Ecosystem, Package, PackageError, packages};
pub use provenance::{Detail, ProvenanceOptions, provenance};
pub use spdx::sbom;
pub use statement::AttestationForm;
pub(crate) use statement::{ABOUT, Attestation, MAX_STATEMENT, statement};

/// Predicate type of SLSA provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// Predicate type of SPDX documents.
pub const SPDX: &str = "https://spdx.dev/Document";

/// What a statement says about an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// What kind it is: [`PROVENANCE`] or [`SPDX`].
    pub kind: &'static str,
    /// What it says.
    pub content: serde_json::Value,
}

/// Percent-encodes a part of a package URL (package-url specification, "Character encoding").
fn purl_part(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An image as a package URL: `pkg:docker/HOST/NAME@TAG?platform=…`.
fn image_purl(reference: &crate::image::Reference, platform: &rbc_ir::Platform) -> String {
    let name = reference.familiar_name();
    let name: Vec<String> = name.split('/').map(purl_part).collect();
    let version = reference.tag().map(|tag| format!("@{}", purl_part(tag))).unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("digest={digest}&")).unwrap_or_default();
    let platform = purl_part(&platform.to_string());
    format!("pkg:docker/{}{version}?{digest}platform={platform}", name.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let purl = |name: &str| {
            image_purl(&name.parse().expect("name"), &"linux/arm/v7".parse().expect("platform"))
        };
        assert_eq!(purl("alpine:3"), "pkg:docker/alpine@3?platform=linux%2Farm%2Fv7");
        assert_eq!(
            purl("h.example:5000/a/b"),
            "pkg:docker/h.example%3A5000/a/b@latest?platform=linux%2Farm%2Fv7"
        );
    }
}
