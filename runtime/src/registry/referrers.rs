//! The list of what refers to an image, for registries that keep none themselves.
//!
//! A manifest with a `subject` speaks about another one. A registry that knows such manifests says so
//! when it stores one; in any other one the list is an index under a tag that is named after the
//! subject, and whoever pushes keeps it (distribution-spec, "Pushing Manifests with Subject").

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::{
    Body,
    http::{HeaderName, Response},
};

use super::{RegistryError, pull::get_manifest, push::Pusher, transport::header_text};
use crate::image::{Descriptor, media_type};

/// Header by which a registry tells that it lists referrers itself.
const SUBJECT_HEADER: &str = "oci-subject";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
}

/// Adds a manifest that has been stored to the list of its subject, if it has one and the registry
/// does not do so; `answer` is what the registry said when it stored the manifest.
pub(super) fn note(
    pusher: &Pusher<'_>,
    descriptor: &Descriptor,
    manifest: &[u8],
    answer: &Response<Body>,
) -> Result<(), RegistryError> {
    let Ok(Referrer { subject: Some(subject), artifact_type }) = serde_json::from_slice(manifest)
    else {
        return Ok(());
    };
    if header_text(answer.headers(), HeaderName::from_static(SUBJECT_HEADER)).is_some() {
        return Ok(());
    }
    let tag = subject.digest.to_string().replace(':', "-");
    let mut list = match get_manifest(
        pusher.client,
        pusher.endpoint,
        &format!("manifests/{tag}"),
        pusher.what,
    ) {
        Ok((bytes, _)) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Err(RegistryError::NotFound { .. }) => Value::Null,
        Err(error) => return Err(error),
    };
    if !list["manifests"].is_array() {
        list = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [] });
    }
    let mut entry = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    });
    if let Some(kind) = artifact_type {
        entry["artifactType"] = kind.into();
    }
    let Some(entries) = list["manifests"].as_array_mut() else { return Ok(()) };
    if entries.iter().any(|other| other["digest"] == entry["digest"]) {
        return Ok(());
    }
    entries.push(entry);
    let bytes = list.to_string().into_bytes();
    pusher.put(&Descriptor::of(media_type::INDEX, &bytes), &bytes, &tag).map(drop)
}
