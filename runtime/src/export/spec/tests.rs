use super::*;

fn shown(spec: &str) -> String {
    match OutputSpec::parse(spec) {
        Ok(o) => {
            let names: Vec<String> = o.names.iter().map(Reference::familiar).collect();
            format!(
                "{:?} {:?} {names:?} {:?} {:?}{}",
                o.kind,
                o.dest,
                o.recipe.packing,
                o.media_types,
                if o.push == Push::No { String::new() } else { format!(" {:?}", o.push) }
            )
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn values_are_read() {
    let lines = [
        "out",
        "-",
        "",
        "type=local,dest=out",
        "type=local",
        "type=oci",
        "type=oci,dest=-",
        "type=docker",
        "type=docker,dest=a.tar",
        "type=tar,dest=x",
        "dest=x,type=oci",
        "type=image,\"name=a,b:1\",compression=zstd",
        "type=oci,dest=a,oci-mediatypes=false",
        "type=oci,compression=lz4",
        "type=oci,nokey",
        "type=oci,tar=false",
        "type=oci,tar=x",
        "type=what",
        "type=oci,what=1",
        "type=image,push=true",
        "type=registry",
        "type=registry,push=false",
        "type=image,push=true,push-by-digest=true",
        "type=oci,dest=x,push=true",
        "type=oci,\"dest=a",
        "type=image,name=A",
        "a,b",
    ]
    .map(|spec| format!("{spec:<40} -> {}", shown(spec)));
    insta::assert_snapshot!(lines.join("\n"), @r#"
    out                                      -> Local Path("out") [] Gzip Oci
    -                                        -> Tar Stdout [] Gzip Oci
                                             -> output "": it is empty; give a folder or type=…
    type=local,dest=out                      -> Local Path("out") [] Gzip Oci
    type=local                               -> output "type=local": dest is missing
    type=oci                                 -> Image(Oci) Stdout [] Gzip Oci
    type=oci,dest=-                          -> Image(Oci) Stdout [] Gzip Oci
    type=docker                              -> Image(Store) Stdout [] Gzip Oci
    type=docker,dest=a.tar                   -> Image(Docker) Path("a.tar") [] Gzip Docker
    type=tar,dest=x                          -> Tar Path("x") [] Gzip Oci
    dest=x,type=oci                          -> Image(Oci) Path("x") [] Gzip Oci
    type=image,"name=a,b:1",compression=zstd -> Image(Store) Stdout ["a:latest", "b:1"] Zstd Oci
    type=oci,dest=a,oci-mediatypes=false     -> Image(Oci) Path("a") [] Gzip Docker
    type=oci,compression=lz4                 -> output "type=oci,compression=lz4": compression is "lz4", want gzip, zstd or uncompressed
    type=oci,nokey                           -> output "type=oci,nokey": want key=value, not "nokey"
    type=oci,tar=false                       -> output "type=oci,tar=false": tar=false needs dest=DIR
    type=oci,tar=x                           -> output "type=oci,tar=x": tar is "x", want true or false
    type=what                                -> output "type=what": type is "what", want oci, docker, image, registry, tar, local or cacheonly
    type=oci,what=1                          -> output "type=oci,what=1": unknown key "what"
    type=image,push=true                     -> Image(Store) Stdout [] Gzip Oci ByName
    type=registry                            -> Image(Store) Stdout [] Gzip Oci ByName
    type=registry,push=false                 -> Image(Store) Stdout [] Gzip Oci
    type=image,push=true,push-by-digest=true -> Image(Store) Stdout [] Gzip Oci ByDigest
    type=oci,dest=x,push=true                -> output "type=oci,dest=x,push=true": only type=image and type=registry can be pushed
    type=oci,"dest=a                         -> output "type=oci,\"dest=a": a quotation mark is missing
    type=image,name=A                        -> output "type=image,name=A": invalid reference format: "A": repository name (library/A) must be lowercase
    a,b                                      -> output "a,b": want key=value, not "a"
    "#);
}

#[test]
fn annotations_are_put_where_they_belong() {
    let spec = OutputSpec::parse(
        "type=oci,annotation.org.Example=A b,annotation-index.x=1,annotation-index-descriptor.y=2,\
         annotation[linux/arm64].z=3,annotation-manifest-descriptor[linux/arm64].z=4",
    )
    .expect("parse");
    let arm = "linux/arm64".parse().expect("platform");
    let shown = |place, platform| {
        let pairs = spec.annotations_of(place, platform).unwrap_or_default();
        pairs.into_iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>()
    };
    assert_eq!(shown(AnnotationPlace::Manifest, None), "org.Example=A b ");
    assert_eq!(shown(AnnotationPlace::Manifest, Some(&arm)), "org.Example=A b z=3 ");
    assert_eq!(shown(AnnotationPlace::ManifestDescriptor, Some(&arm)), "z=4 ");
    assert_eq!(shown(AnnotationPlace::Index, None), "x=1 ");
    assert_eq!(shown(AnnotationPlace::IndexDescriptor, None), "y=2 ");
    let wrong = ["annotation-layer.x=1", "annotation.=1", "annotation[linux/.x=1"];
    for field in wrong {
        assert!(OutputSpec::parse(&format!("type=oci,{field}")).is_err(), "{field}");
    }
}

#[test]
fn every_option_of_buildx_is_understood() {
    for fields in [
        "type=image,name=a,push=false,unpack=true,store=true,name-canonical=true",
        "type=image,dangling-name-prefix=a,danging-name-empty-only=true,prefer-nondist-layers=true",
        "type=oci,dest=x,compression=zstd,compression-level=22,force-compression=true",
        "type=oci,dest=x,compression-level=0,rewrite-timestamp=true,oci-artifact=false",
        "type=docker,dest=x,tar=true,oci-mediatypes=true",
        "type=local,dest=x,platform-split=true,attestation-prefix=a.",
        "type=tar,dest=x,attestation-prefix=a.",
        "type=cacheonly",
    ] {
        OutputSpec::parse(fields).expect(fields);
    }
    for (fields, want) in [
        ("type=oci,compression-level=10", "0 to 9 for gzip"),
        ("type=oci,compression-level=23,compression=zstd", "0 to 22 for zstd"),
        ("type=oci,compression-level=-1", "0 to 9 for gzip"),
        ("type=oci,oci-mediatypes=false,oci-artifact=true", "needs oci-mediatypes=true"),
        ("type=local,dest=x,attestation-prefix=a/b", "the beginning of a file name"),
    ] {
        let error = OutputSpec::parse(fields).expect_err(fields).to_string();
        assert!(error.contains(want), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_value_is_answered(spec in "\\PC{0,60}") {
        let _ = OutputSpec::parse(&spec);
    }
}
