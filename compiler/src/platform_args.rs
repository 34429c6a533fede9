//! Build arguments that exist without being declared: those that describe the platforms, and the
//! proxies.

use indexmap::IndexMap;
use rbc_ir::Platform;

/// The proxy variables that reach every RUN without ARG (Dockerfile reference, "Predefined ARGs"),
/// in lower case; the upper-case forms are known as well.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// Names that a build argument may have although no ARG declares it.
const KNOWN: [&str; 12] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "SOURCE_DATE_EPOCH",
];

/// The global scope before the first ARG: platforms and the target's name. Build arguments of the
/// same names win.
pub(crate) fn globals(
    build: &Platform,
    target: &Platform,
    target_stage: &str,
    overrides: &IndexMap<String, String>,
) -> IndexMap<String, String> {
    let stage = if target_stage.is_empty() { "default" } else { target_stage };
    [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), overrides.get(name).cloned().unwrap_or(value)))
    .collect()
}

/// The proxy environment of all steps, in both cases, from the build arguments.
pub(crate) fn proxy_environment(build_args: &IndexMap<String, String>) -> Vec<String> {
    let mut environment = Vec::new();
    for name in PROXIES {
        // Like BuildKit, which goes through the arguments in order of name: the last one wins.
        let given = build_args.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.max_by_key(|(key, _)| key.as_str()) {
            environment.push(format!("{}={value}", name.to_ascii_uppercase()));
            environment.push(format!("{name}={value}"));
        }
    }
    environment
}

/// Whether a build argument has a meaning of its own and so needs no ARG.
pub(crate) fn is_predefined(name: &str) -> bool {
    KNOWN.contains(&name)
        || name.starts_with("BUILDKIT_")
        || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_arguments_override_the_platform() {
        let host = Platform::new("linux", "amd64", "");
        let given = IndexMap::from([("TARGETARCH".to_owned(), "riscv64".to_owned())]);
        let scope = globals(&host, &Platform::new("linux", "arm", "v7"), "", &given);
        assert_eq!(scope["TARGETPLATFORM"], "linux/arm/v7");
        assert_eq!(scope["TARGETARCH"], "riscv64");
        assert_eq!(scope["BUILDARCH"], "amd64");
        assert_eq!(scope["TARGETSTAGE"], "default");
    }

    #[test]
    fn proxies_come_in_both_cases() {
        let given = IndexMap::from([
            ("HTTP_PROXY".to_owned(), "a".to_owned()),
            ("http_proxy".to_owned(), "b".to_owned()),
        ]);
        assert_eq!(proxy_environment(&given), ["HTTP_PROXY=b", "http_proxy=b"]);
        assert!(is_predefined("No_Proxy"));
        assert!(!is_predefined("Z"));
    }
}
