//! The image config that a target ends in (OCI image-spec, config.md, with Docker's additions).
//!
//! It is carried in the graph without `rootfs`, which only the runtime knows. Field order is that
//! of Docker's and BuildKit's JSON.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::Platform;

/// An image config without its `rootfs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Who made the image (`MAINTAINER`); empty if unknown.
    pub author: String,
    /// Operating system version (Windows only); empty if unknown.
    pub os_version: String,
    /// What containers of this image run with.
    pub config: ContainerConfig,
    /// How the image came to be: one entry for each instruction, the base image's first.
    pub history: Vec<History>,
}

/// The `config` object of an image config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// `USER`.
    pub user: String,
    /// `EXPOSE`, as `PORT/PROTOCOL`, sorted when written.
    pub exposed_ports: Vec<String>,
    /// `ENV` as `NAME=value`, in order.
    pub env: Vec<String>,
    /// `ENTRYPOINT`; `None` is unset, an empty list is an explicit reset.
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`; `None` is unset, an empty list is an explicit reset.
    pub cmd: Option<Vec<String>>,
    /// `VOLUME`, sorted when written.
    pub volumes: Vec<String>,
    /// `WORKDIR`.
    pub working_dir: String,
    /// `LABEL`.
    pub labels: IndexMap<String, String>,
    /// `STOPSIGNAL`; empty if unset.
    pub stop_signal: String,
    /// `HEALTHCHECK`.
    pub healthcheck: Option<Healthcheck>,
    /// `ONBUILD` triggers as text.
    pub on_build: Vec<String>,
    /// `SHELL`; `None` is the default.
    pub shell: Option<Vec<String>>,
    /// Whether the command is already escaped (a Docker field that BuildKit sets for Linux too).
    pub args_escaped: bool,
}

/// `HEALTHCHECK`. Times are in nanoseconds; 0 means inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Time between checks.
    pub interval: i64,
    /// Time after which a check has failed.
    pub timeout: i64,
    /// Time in which failures do not count.
    pub start_period: i64,
    /// Time between checks during the start period.
    pub start_interval: i64,
    /// Failures in a row after which the container is unhealthy.
    pub retries: i64,
}

/// One line of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// RFC 3339 time; empty if unknown. Empty in a new entry means the image's own time.
    pub created: String,
    /// The command, as `docker history` shows it.
    pub created_by: String,
    /// Who made it; empty if unknown.
    pub author: String,
    /// A remark, such as `buildkit.dockerfile.v0`; empty if none.
    pub comment: String,
    /// Whether it added no layer.
    pub empty_layer: bool,
}

impl ImageConfig {
    /// The fields of an image config's JSON that rbc understands. Unknown ones are passed over, as
    /// BuildKit does. The platform comes back beside it.
    pub fn from_json(json: &[u8]) -> Result<(Self, Platform), serde_json::Error> {
        json::read(json)
    }

    /// The complete image config as JSON in Docker's field order: `rootfs` is made from
    /// `diff_ids` (OCI notation, base first), `created` is the RFC 3339 time of the image and of
    /// every history entry without one.
    pub fn to_json(&self, platform: &Platform, created: &str, diff_ids: &[String]) -> Vec<u8> {
        json::write(self, platform, created, diff_ids)
    }
}

#[path = "image_json.rs"]
mod json;
