//! Reading and writing the JSON of an image config.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{ContainerConfig, Healthcheck, History, ImageConfig};
use crate::Platform;

/// The fields as Docker, BuildKit and the OCI image-spec name them, in the order in which BuildKit
/// writes them: sorted here, in the order of its types below.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    architecture: Option<String>,
    #[serde(skip_serializing_if = "nothing")]
    author: Option<String>,
    config: Option<Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    history: Option<Vec<Line>>,
    os: Option<String>,
    #[serde(rename = "os.version", skip_serializing_if = "nothing")]
    os_version: Option<String>,
    rootfs: Option<RootFs>,
    #[serde(skip_serializing_if = "nothing")]
    variant: Option<String>,
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
    #[serde(skip_serializing_if = "none_in_list")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "none_in_list")]
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
    args_escaped: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Check>,
    #[serde(skip_serializing_if = "none_in_list")]
    on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "none_in_list")]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(json: &str) -> String {
        let (image, platform) = read(json.as_bytes()).unwrap();
        String::from_utf8(write(&image, &platform, "2024-01-02T03:04:05Z", &["sha256:x".into()]))
            .unwrap()
    }

    /// As `docker build` of old wrote it: with nulls and fields of the container it ran.
    #[test]
    fn configs_of_the_old_builder_are_read() {
        let json = r##"{
            "architecture": "amd64",
            "config": {
                "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false,
                "Env": ["PATH=/usr/bin"], "Cmd": ["/bin/sh", "-c", "#(nop) "],
                "ArgsEscaped": true, "Image": "sha256:1", "Volumes": null, "WorkingDir": "",
                "Entrypoint": null, "OnBuild": null, "Labels": null
            },
            "container": "4f", "container_config": {"Cmd": null}, "docker_version": "1.12",
            "created": "2016-01-01T00:00:00.000000001Z",
            "history": [{"created": "2016-01-01T00:00:00Z", "created_by": "/bin/sh",
                "empty_layer": true}],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": ["sha256:2"]}
        }"##;
        let (image, platform) = read(json.as_bytes()).unwrap();
        assert_eq!(platform.to_string(), "linux/amd64");
        assert_eq!(image.config.entrypoint, None);
        assert!(image.config.volumes.is_empty() && image.config.args_escaped);
        assert_eq!(image.history[0].created, "2016-01-01T00:00:00Z");
    }

    #[test]
    fn little_and_null_are_enough() {
        for json in ["{}", r#"{"config": null, "history": null, "rootfs": null, "os": null}"#] {
            let (image, platform) = read(json.as_bytes()).unwrap();
            assert_eq!((image, platform.os.as_str()), (ImageConfig::default(), "linux"));
        }
        for json in ["", "[]x", "null,", r#"{"config": {"Env": "A=b"}}"#] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn fields_are_written_in_buildkits_order() {
        let json = r#"{"os":"linux","architecture":"arm","variant":"v7","author":"me",
            "config":{"Shell":["/bin/bash","-c"],"OnBuild":["RUN x"],
            "Healthcheck":{"Retries":3,"Test":["CMD","true"],"Interval":1000},
            "StopSignal":"INT","Labels":{"z":"1","a":"2"},"WorkingDir":"/w",
            "Volumes":{"/v2":{},"/v1":{}},"Cmd":[],"Entrypoint":["/e"],"Env":["B=1","A=2"],
            "ExposedPorts":{"80/tcp":{},"443/tcp":{}},"User":"u","ArgsEscaped":true},
            "history":[{"empty_layer":true,"comment":"c","created_by":"RUN x"},
            {"created":"2020-01-01T00:00:00Z","empty_layer":false}]}"#;
        insta::assert_snapshot!(round_trip(json), @r#"{"architecture":"arm","author":"me","config":{"User":"u","ExposedPorts":{"443/tcp":{},"80/tcp":{}},"Env":["B=1","A=2"],"Entrypoint":["/e"],"Volumes":{"/v1":{},"/v2":{}},"WorkingDir":"/w","Labels":{"a":"2","z":"1"},"StopSignal":"INT","ArgsEscaped":true,"Healthcheck":{"Test":["CMD","true"],"Interval":1000,"Retries":3},"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"]},"created":"2024-01-02T03:04:05Z","history":[{"created":"2024-01-02T03:04:05Z","created_by":"RUN x","comment":"c","empty_layer":true},{"created":"2020-01-01T00:00:00Z"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:x"]},"variant":"v7"}"#);
        assert_eq!(round_trip(&round_trip(json)), round_trip(json));
    }
}
