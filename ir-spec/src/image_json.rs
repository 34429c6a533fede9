//! Reading and writing the JSON of an image config.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{ContainerConfig, Healthcheck, History, ImageConfig};
use crate::Platform;

/// The fields as Docker, BuildKit and the OCI image-spec name them.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    author: Option<String>,
    architecture: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    variant: Option<String>,
    os: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "nothing")]
    os_version: Option<String>,
    config: Option<Config>,
    rootfs: Option<RootFs>,
    history: Option<Vec<Line>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    #[serde(skip_serializing_if = "nothing")]
    user: Option<String>,
    #[serde(skip_serializing_if = "none_in_map")]
    exposed_ports: Option<IndexMap<String, Empty>>,
    #[serde(skip_serializing_if = "none_in_list")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "none_in_map")]
    volumes: Option<IndexMap<String, Empty>>,
    #[serde(skip_serializing_if = "nothing")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "none_in_map")]
    labels: Option<IndexMap<String, String>>,
    #[serde(skip_serializing_if = "nothing")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args_escaped: Option<bool>,
    #[serde(skip_serializing_if = "none_in_list")]
    on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Empty {}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Check {
    #[serde(skip_serializing_if = "none_in_list")]
    test: Option<Vec<String>>,
    #[serde(skip_serializing_if = "zero")]
    interval: Option<i64>,
    #[serde(skip_serializing_if = "zero")]
    timeout: Option<i64>,
    #[serde(skip_serializing_if = "zero")]
    start_period: Option<i64>,
    #[serde(skip_serializing_if = "zero")]
    start_interval: Option<i64>,
    #[serde(skip_serializing_if = "zero")]
    retries: Option<i64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct RootFs {
    r#type: Option<String>,
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Line {
    #[serde(skip_serializing_if = "nothing")]
    created: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    author: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "is_not_true")]
    empty_layer: Option<bool>,
}

fn nothing(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(String::is_empty)
}

fn none_in_list<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn none_in_map<V>(map: &Option<IndexMap<String, V>>) -> bool {
    map.as_ref().is_none_or(IndexMap::is_empty)
}

fn zero(number: &Option<i64>) -> bool {
    number.unwrap_or(0) == 0
}

fn is_not_true(flag: &Option<bool>) -> bool {
    *flag != Some(true)
}

pub(super) fn read(json: &[u8]) -> Result<(ImageConfig, Platform), serde_json::Error> {
    let document: Document = serde_json::from_slice(json)?;
    let config = document.config.unwrap_or_default();
    let keys = |map: Option<IndexMap<String, Empty>>| map.unwrap_or_default().into_keys().collect();
    let platform = Platform::new(
        document.os.as_deref().unwrap_or("linux"),
        document.architecture.as_deref().unwrap_or_default(),
        document.variant.as_deref().unwrap_or_default(),
    );
    let image = ImageConfig {
        author: document.author.unwrap_or_default(),
        os_version: document.os_version.unwrap_or_default(),
        config: ContainerConfig {
            user: config.user.unwrap_or_default(),
            exposed_ports: keys(config.exposed_ports),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            volumes: keys(config.volumes),
            working_dir: config.working_dir.unwrap_or_default(),
            labels: config.labels.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            healthcheck: config.healthcheck.map(|check| Healthcheck {
                test: check.test.unwrap_or_default(),
                interval: check.interval.unwrap_or_default(),
                timeout: check.timeout.unwrap_or_default(),
                start_period: check.start_period.unwrap_or_default(),
                start_interval: check.start_interval.unwrap_or_default(),
                retries: check.retries.unwrap_or_default(),
            }),
            on_build: config.on_build.unwrap_or_default(),
            shell: config.shell,
            args_escaped: config.args_escaped.unwrap_or_default(),
        },
        history: document
            .history
            .unwrap_or_default()
            .into_iter()
            .map(|line| History {
                created: line.created.unwrap_or_default(),
                created_by: line.created_by.unwrap_or_default(),
                author: line.author.unwrap_or_default(),
                comment: line.comment.unwrap_or_default(),
                empty_layer: line.empty_layer.unwrap_or_default(),
            })
            .collect(),
    };
    Ok((image, platform))
}

pub(super) fn write(
    image: &ImageConfig,
    platform: &Platform,
    created: &str,
    diff_ids: &[String],
) -> Vec<u8> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        Some(names.into_iter().map(|name| (name, Empty {})).collect())
    };
    let config = &image.config;
    let mut labels = config.labels.clone();
    labels.sort_keys();
    let document = Document {
        created: Some(created.to_owned()),
        author: Some(image.author.clone()),
        architecture: Some(platform.architecture.clone()),
        variant: Some(platform.variant.clone()),
        os: Some(platform.os.clone()),
        os_version: Some(image.os_version.clone()),
        config: Some(Config {
            user: Some(config.user.clone()),
            exposed_ports: sorted(&config.exposed_ports),
            env: Some(config.env.clone()),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            volumes: sorted(&config.volumes),
            working_dir: Some(config.working_dir.clone()),
            labels: Some(labels),
            stop_signal: Some(config.stop_signal.clone()),
            healthcheck: config.healthcheck.as_ref().map(|check| Check {
                test: Some(check.test.clone()),
                interval: Some(check.interval),
                timeout: Some(check.timeout),
                start_period: Some(check.start_period),
                start_interval: Some(check.start_interval),
                retries: Some(check.retries),
            }),
            args_escaped: config.args_escaped.then_some(true),
            on_build: Some(config.on_build.clone()),
            shell: config.shell.clone(),
        }),
        rootfs: Some(RootFs {
            r#type: Some("layers".to_owned()),
            diff_ids: Some(diff_ids.to_vec()),
        }),
        history: Some(
            image
                .history
                .iter()
                .map(|line| Line {
                    created: Some(
                        if line.created.is_empty() { created } else { &line.created }.to_owned(),
                    ),
                    created_by: Some(line.created_by.clone()),
                    author: Some(line.author.clone()),
                    comment: Some(line.comment.clone()),
                    empty_layer: Some(line.empty_layer),
                })
                .collect(),
        ),
    };
    serde_json::to_vec(&document).expect("a document of strings and numbers serialises")
}
