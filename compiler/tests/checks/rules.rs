//! Each rule finds what it is about, and only that.

use std::sync::Arc;

use rbc_compiler::{
    Checked, CompileOptions, GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError,
    ResolvedHttp, ResolvedImage, Resolver, check, compile, syntax::SourceFile,
};
use rbc_ir::{Digest, ImageConfig, Platform, Selection};

/// Images by name: `foreign` is for another platform, `nosuch` does not exist.
pub struct Images;

impl Resolver for Images {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        if request.reference.contains("nosuch") {
            return Err(ResolveError::new("not found"));
        }
        let foreign = request.reference.contains("foreign");
        let platform =
            if foreign { Platform::new("linux", "s390x", "") } else { request.platform.clone() };
        Ok(ResolvedImage {
            reference: request.reference.clone(),
            manifest: Digest::of(request.reference.as_bytes()),
            platform,
            config: ImageConfig::default(),
        })
    }

    fn named_context(&self, name: &str) -> Result<NamedContext, ResolveError> {
        Err(ResolveError::new(format!("no context {name}")))
    }

    fn context_digest(&self, _: &str, _: &Selection) -> Result<Digest, ResolveError> {
        Ok(Digest::of(b"context"))
    }

    fn git(&self, _: &GitRequest) -> Result<String, ResolveError> {
        Err(ResolveError::new("no network"))
    }

    fn http(&self, _: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        Err(ResolveError::new("no network"))
    }
}

pub fn options() -> CompileOptions {
    CompileOptions {
        host_platform: Some(Platform::new("linux", "amd64", "")),
        ..CompileOptions::default()
    }
}

pub fn checked(text: &str, options: &CompileOptions) -> Checked {
    check(&Arc::new(SourceFile::new("Dockerfile", text)), options, &Images)
}

/// Names of the rules that find something, in the order of the text, and `error` if it cannot be
/// built.
fn found(text: &str, options: &CompileOptions) -> String {
    let checked = checked(text, options);
    let mut names: Vec<&str> = checked.findings.iter().map(|finding| finding.rule.name()).collect();
    if !checked.errors.is_empty() {
        names.push("error");
    }
    names.join(" ")
}

#[test]
fn rules_and_what_they_find() {
    for (text, rules) in [
        ("FROM a AS Base", "StageNameCasing"),
        ("FROM a AS base", ""),
        ("FROM a as base", "FromAsCasing"),
        ("FROM a As base", "FromAsCasing"),
        ("from a AS base", "FromAsCasing"),
        ("From a as base", "ConsistentInstructionCasing"),
        ("FROM as AS as", ""),
        ("FROM a\nRUN a \\\n\n  b", "NoEmptyContinuation"),
        ("FROM a\nRUN a \\\n#\n  b", ""),
        ("FROM a\nrun a", "ConsistentInstructionCasing"),
        ("from a\nrun a\nRUN b", "ConsistentInstructionCasing"),
        ("arg A\narg B\nFROM a", ""),
        ("FROM a AS b\nFROM b AS b", "DuplicateStageName"),
        ("FROM a AS scratch", "ReservedStageName"),
        ("FROM a AS context", "ReservedStageName"),
        ("FROM a\nCMD a", "JSONArgsRecommended"),
        ("FROM a\nENTRYPOINT a", "JSONArgsRecommended"),
        ("FROM a\nSHELL [\"x\"]\nCMD a", ""),
        ("FROM a\nCMD [\"a\"]", ""),
        ("FROM a\nMAINTAINER me", "MaintainerDeprecated"),
        ("FROM a:${T:-1}", "UndefinedArgInFrom"),
        ("ARG T=1\nFROM a:$T", ""),
        ("ARG T\nFROM a:${T:-1}", ""),
        ("FROM --platform=${P:-linux/amd64} a AS amd64", "UndefinedArgInFrom"),
        ("FROM a\nWORKDIR x\nWORKDIR y", "WorkdirRelativePath"),
        ("FROM a\nWORKDIR /x\nWORKDIR y", ""),
        ("FROM a\nLABEL x=$Y", "UndefinedVar"),
        ("FROM a\nARG Y\nLABEL x=$Y", ""),
        ("FROM a\nRUN echo $Y", ""),
        ("FROM a\nCOPY $Y /", "UndefinedVar"),
        ("FROM a\nLABEL x=${Y:-default}", "UndefinedVar"),
        ("FROM a\nENV Y=1\nLABEL x=$Y", ""),
        ("FROM a\nLABEL p=$PATH", ""),
        ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]", "MultipleInstructionsDisallowed"),
        ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE", "MultipleInstructionsDisallowed"),
        ("FROM a AS b\nCMD [\"a\"]\nFROM b\nCMD [\"b\"]", ""),
        ("FROM a\nENV A b", "LegacyKeyValueFormat"),
        ("FROM a\nLABEL a b", "LegacyKeyValueFormat"),
        ("FROM foreign", "InvalidBaseImagePlatform"),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform"),
        ("FROM --platform=$BUILDPLATFORM a", ""),
        ("FROM a\nARG API_KEY", "SecretsUsedInArgOrEnv"),
        ("FROM a\nENV Password=x", "SecretsUsedInArgOrEnv"),
        ("FROM a\nENV PUBLIC_KEY=x TOKEN_FILE=y MONKEY=z", ""),
        ("ARG T\nFROM a:$T", "InvalidDefaultArgInFrom error"),
        ("FROM --platform=linux/amd64 a", "FromPlatformFlagConstDisallowed"),
        ("FROM --platform=linux/amd64 a AS x-amd64", ""),
        ("# b does\nFROM a AS c", ""),
        ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing"),
        ("FROM a\nEXPOSE 80:80 1.2.3.4:90:90", "ExposeInvalidFormat ExposeInvalidFormat"),
        ("FROM a\nEXPOSE 1.2.3.4:80:80/TCP", "ExposeProtoCasing ExposeInvalidFormat"),
        ("FROM a\nEXPOSE 80/udp", ""),
        ("FROM a\nEXPOSE :80 ::81", ""),
        ("FROM a\nEXPOSE $PORT", ""),
        ("# check=skip=StageNeverUsed;error=true\nFROM a\nCMD b", "JSONArgsRecommended error"),
        // rbc's own.
        ("FROM a AS x\nFROM b", "StageNeverUsed"),
        ("FROM a\nFROM b", "StageNeverUsed"),
        ("# x is for the tests\nFROM a AS x\nFROM b", ""),
        ("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/x y", ""),
        ("FROM a AS x\nFROM b\nCOPY --from=0 /x /y", ""),
        ("FROM a\nENV U=http://me:pw@host/", "SecretValueInArgOrEnv"),
        ("FROM a\nENV U=http://me:$PW@host/ PW=x", "UndefinedVar"),
        (
            "FROM a AS x\nRUN --mount=type=cache,target=/c y\nFROM b\nCOPY --from=x / /\n\
             RUN --mount=type=cache,target=/c/ y",
            "CacheMountSharedByBases",
        ),
        (
            "FROM a AS x\nRUN --mount=type=cache,target=/c y\nFROM x\n\
             RUN --mount=type=cache,target=/c y",
            "",
        ),
        (
            "FROM a AS x\nRUN --mount=type=cache,target=/c,id=x y\nFROM b\nCOPY --from=x / /\n\
             RUN --mount=type=cache,target=/c y",
            "",
        ),
        ("FROM a\nCOPY . .\nRUN npm ci", "ContextCopiedBeforeInstall"),
        ("FROM a\nADD ./ /x/\nRUN <<E\napk add gcc\nE", "ContextCopiedBeforeInstall"),
        ("FROM a\nCOPY package.json .\nRUN npm ci\nCOPY . .", ""),
        ("FROM a\nCOPY . .\nRUN make", ""),
        ("FROM a\nCOPY . .\nRUN --mount=type=cache,target=/root/.npm npm ci", ""),
        ("FROM a AS b\nCOPY --from=c . .\nRUN npm ci", ""),
        // What cannot be built is told of together with the findings before it.
        ("FROM a AS Base\nENV", "error"),
        ("FROM a AS Base\nCOPY --chmod=x a b", "StageNameCasing error"),
        ("FROM nosuch", ""),
    ] {
        assert_eq!(found(text, &options()), rules, "{text}");
    }
}

#[test]
fn settings_of_the_checks() {
    let text = "FROM a AS Base\nMAINTAINER me";
    for (check, rules) in [
        ("", "StageNameCasing MaintainerDeprecated"),
        ("skip=StageNameCasing", "MaintainerDeprecated"),
        ("skip=StageNameCasing,MaintainerDeprecated", ""),
        ("error=true; skip=all", ""),
        ("skip", "error"),
    ] {
        let directive = format!("# check={check}\n{text}");
        assert_eq!(found(&directive, &options()), rules, "{check}");
        let mut options = options();
        options.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), check.to_owned());
        let other = format!("# check=skip=all\n{text}");
        assert_eq!(found(&other, &options), rules, "{check}");
    }
    let comment = "FROM a\n# check=skip=UndefinedVar\nLABEL x=$Y\nLABEL x=$Z";
    assert_eq!(found(comment, &options()), "UndefinedVar");
    let description = "# check=experimental=all\nARG T=1\n# not it\nFROM a:$T AS x";
    assert_eq!(found(description, &options()), "InvalidDefinitionDescription");
}

#[test]
fn hidden_files() {
    let found = |ignore: &[&str], copy: &str| {
        let mut options = options();
        options.context.ignore = ignore.iter().map(|&pattern| pattern.to_owned()).collect();
        found(&format!("FROM a\n{copy}"), &options)
    };
    assert_eq!(found(&["*.txt"], "COPY ./a.txt /"), "CopyIgnoredFile");
    assert_eq!(found(&["docs"], "ADD docs/x /"), "CopyIgnoredFile");
    assert_eq!(found(&["*.txt", "!a.txt"], "COPY a.txt /"), "", "exceptions are hard to judge");
    assert_eq!(found(&["*.txt"], "COPY . /"), "");
    assert_eq!(found(&["*"], "COPY . /"), "CopyIgnoredFile");
    assert_eq!(found(&["*.txt"], "COPY --from=b a.txt /"), "");
}

#[test]
fn checks_fail_a_build_only_if_asked() {
    let fails = |text: &str| {
        let source = Arc::new(SourceFile::new("Dockerfile", text));
        compile(&source, &options(), &Images).err().map(|errors| errors.to_string())
    };
    assert_eq!(fails("FROM a AS Base\nMAINTAINER me"), None);
    let error = fails("# check=error=true\nFROM a AS Base\nMAINTAINER me").unwrap();
    assert!(
        error.contains("lint violation found for rules: MaintainerDeprecated, StageNameCasing"),
        "{error}"
    );
    // Docker builds it, so rbc does.
    assert_eq!(fails("# check=error=true\nFROM a AS x\nFROM b"), None);
    assert!(fails("# check=error=true;experimental=all\nFROM a AS x\nFROM b").is_some());
}

#[test]
fn every_finding_has_a_place_and_a_suggestion() {
    let text = "from a AS Base\nMAINTAINER me\nARG A_TOKEN=http://a:b@c\nENV a b\nWORKDIR x\n\
                CMD a\nCMD a\nEXPOSE 1/TCP\nLABEL a=$b \\\n\n c=d\nCOPY . .\nRUN npm ci\n\
                FROM --platform=linux/amd64 foreign AS context";
    let checked = checked(text, &options());
    assert!(checked.findings.len() > 15, "{}", checked.findings.len());
    for finding in checked.findings {
        let place = finding.diagnostic.location.expect("a place");
        assert!(place.span.end <= text.len() && place.span.start < text.len());
        assert!(!finding.diagnostic.help.is_empty(), "{}", finding.rule.name());
    }
}

#[test]
fn variables_differ_in_letter_case() {
    let text = "FROM a\nENV http_proxy=x HTTP_PROXY=y\nLABEL a=$https_proxy b=$Path\n";
    let checked = checked(text, &options());
    let messages: Vec<&str> =
        checked.findings.iter().map(|finding| finding.diagnostic.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "Usage of undefined variable '$https_proxy' (did you mean $http_proxy?)",
            "Usage of undefined variable '$Path'"
        ]
    );
}

#[test]
fn lines_are_those_of_the_whole_instruction() {
    let text = "FROM a\nENV A=1 \\\n  B_KEY=2\nRUN <<E x \\\n\n  y\nbody\nE\nCMD \\\n  z\n";
    let checked = checked(text, &options());
    let lines: Vec<_> = checked
        .findings
        .iter()
        .map(|finding| {
            let place = finding.diagnostic.location.as_ref().expect("a place");
            (finding.rule.name(), finding.lines.clone(), place.source.line(place.span.start))
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("SecretsUsedInArgOrEnv", 2..=3, 3),
            ("NoEmptyContinuation", 6..=6, 5),
            ("JSONArgsRecommended", 9..=10, 10)
        ]
    );
}
