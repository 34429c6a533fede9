//! SLSA provenance (slsa.dev/spec/v1.0/provenance) of what a graph builds.
//!
//! Everything from outside is pinned in the graph, so its sources are the resolved dependencies and
//! the graph alone says all that provenance can say.

use std::collections::BTreeSet;

use rbc_ir::{Digest, Graph, ImageLocation, MountKind, Op, Source, Target};
use serde_json::{Map, Value, json};

use super::{PROVENANCE, Predicate, image_purl, purl_part};
use crate::image::Reference;

/// What the other fields of rbc's provenance mean.
const BUILD_TYPE: &str = "urn:rbc:build-graph:v1";

/// Who built it, if nobody says: SLSA wants a URI in any case.
const BUILDER: &str = "urn:rbc:unnamed-builder";

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// What the image depends on. Nothing of it can be secret.
    #[default]
    Min,
    /// The Dockerfile and the whole graph too, with the values of build arguments.
    Max,
}

/// What is said beside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// How much is told.
    pub detail: Detail,
    /// Who built it, as a URI; may be empty.
    pub builder: String,
}

/// What is known of how one target of a graph is made.
pub fn provenance(graph: &Graph, target: &Target, options: &ProvenanceOptions) -> Predicate {
    let needed = needed(graph, target);
    let mut facts = Facts::default();
    for digest in &needed {
        if let Some(node) = graph.nodes.get(digest) {
            facts.add(&node.op, node.platform.as_ref().unwrap_or(&target.platform));
        }
    }
    let mut parameters = Map::new();
    let ids = |ids: &BTreeSet<String>| ids.iter().map(|id| json!({ "id": id })).collect::<Value>();
    if options.detail == Detail::Max {
        parameters.insert("secrets".to_owned(), ids(&facts.secrets));
        parameters.insert("ssh".to_owned(), ids(&facts.ssh));
    }
    let locals = facts.contexts.iter().map(|name| json!({ "name": name }));
    parameters.insert("locals".to_owned(), locals.collect());
    let mut external = Map::new();
    if let Some(file) = graph.meta.files.first() {
        let digest = Digest::of(file.text.as_bytes());
        let source = json!({ "path": file.name, "digest": { "sha256": digest.hex() } });
        external.insert("configSource".to_owned(), source);
    }
    external.insert("parameters".to_owned(), parameters.into());
    external.insert("target".to_owned(), json!({ "name": target.name, "digest": target.digest() }));
    if options.detail == Detail::Max {
        let files = graph.meta.files.iter();
        let files = files.map(|file| json!({ "name": file.name, "text": file.text }));
        external.insert("files".to_owned(), files.collect());
        // A graph that cannot be shown as JSON is none.
        let shown = serde_json::from_str(&graph.to_json()).unwrap_or(Value::Null);
        external.insert("graph".to_owned(), shown);
    }
    let is_hermetic = facts.commands_with_network == 0;
    let content = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external,
            "internalParameters": { "environment": { "platform": target.platform.to_string() } },
            "resolvedDependencies": facts.dependencies,
        },
        "runDetails": {
            "builder": {
                "id": if options.builder.is_empty() { BUILDER } else { &options.builder },
                "version": { "rbc": env!("CARGO_PKG_VERSION") },
            },
            "metadata": {
                "invocationId": target.digest().to_string(),
                "buildkit_hermetic": is_hermetic,
                "buildkit_completeness": {
                    "request": options.detail == Detail::Max,
                    // Folders of the user's machine are known by their content, not by a place.
                    "resolvedDependencies": is_hermetic && facts.contexts.is_empty(),
                },
            },
        },
    });
    Predicate { kind: PROVENANCE, content }
}

/// The nodes that a target is made of, in the graph's order.
fn needed(graph: &Graph, target: &Target) -> Vec<Digest> {
    let mut wanted: BTreeSet<Digest> = target.root.iter().map(|root| root.node).collect();
    // Each node stands behind its inputs, so one pass from the end finds all.
    for (digest, node) in graph.nodes.iter().rev() {
        if wanted.contains(digest) {
            wanted.extend(node.inputs.iter().map(|input| input.node));
        }
    }
    graph.nodes.keys().filter(|digest| wanted.contains(*digest)).copied().collect()
}

#[derive(Default)]
struct Facts {
    dependencies: Vec<Value>,
    contexts: BTreeSet<String>,
    secrets: BTreeSet<String>,
    ssh: BTreeSet<String>,
    commands_with_network: usize,
}

impl Facts {
    fn add(&mut self, op: &Op, platform: &rbc_ir::Platform) {
        match op {
            Op::Source(Source::Image(image)) => {
                let uri = match (&image.location, image.reference.parse::<Reference>()) {
                    (ImageLocation::StoreOrRegistry, Ok(name)) => image_purl(&name, platform),
                    _ => format!(
                        "pkg:oci/{}?platform={}",
                        purl_part(&image.reference),
                        purl_part(&platform.to_string())
                    ),
                };
                self.depend(&uri, "sha256", &image.manifest.hex());
            }
            Op::Source(Source::Git(git)) => {
                let uri = match git.reference.as_str() {
                    "" => git.url.clone(),
                    reference => format!("{}#{reference}", git.url),
                };
                let kind = if git.commit.len() == 64 { "sha256" } else { "sha1" };
                self.depend(&without_password(&uri), kind, &git.commit);
            }
            Op::Source(Source::Http(file)) => {
                self.depend(&without_password(&file.url), "sha256", &file.checksum.hex());
            }
            Op::Source(Source::Context(context)) => {
                let name = if context.name.is_empty() { "context" } else { &context.name };
                self.contexts.insert(name.to_owned());
            }
            Op::Exec(exec) => {
                if exec.network != rbc_ir::Network::None {
                    self.commands_with_network += 1;
                }
                for mount in &exec.mounts {
                    match &mount.kind {
                        MountKind::Secret { id, .. } => self.secrets.insert(id.clone()),
                        MountKind::Ssh { id, .. } => self.ssh.insert(id.clone()),
                        _ => false,
                    };
                }
                self.secrets.extend(exec.secret_env.iter().map(|secret| secret.id.clone()));
            }
            _ => {}
        }
    }

    fn depend(&mut self, uri: &str, kind: &str, digest: &str) {
        let mut digests = Map::new();
        digests.insert(kind.to_owned(), digest.into());
        let dependency = json!({ "uri": uri, "digest": digests });
        if !self.dependencies.contains(&dependency) {
            self.dependencies.push(dependency);
        }
    }
}

/// An address without the user and password that may be in it.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        // The user of ssh is part of the address and no secret.
        Some((user, _)) if scheme == "ssh" && !user.contains(':') => url.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_passwords() {
        for (url, want) in [
            ("https://u:p@h/x", "https://h/x"),
            ("https://token@h/x@y", "https://h/x@y"),
            ("https://h/x?a=b@c", "https://h/x?a=b@c"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_password(url), want);
        }
    }
}
