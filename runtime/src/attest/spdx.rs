//! A bill of materials in SPDX 2.3 (spdx.github.io/spdx-spec/v2.3), JSON form.

use rbc_ir::Digest;
use serde_json::{Value, json};

use super::{Distribution, Package, Predicate, SPDX};

/// What every element here leaves open.
const UNKNOWN: &str = "NOASSERTION";

/// The bill of an image that holds `packages`. `name` is the image's, `created` its time in RFC
/// 3339.
pub fn sbom(
    name: &str,
    created: &str,
    packages: &[Package],
    distribution: &Distribution,
) -> Predicate {
    let elements: Vec<Value> =
        packages.iter().map(|package| element(package, distribution)).collect();
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-Image",
    })];
    relations.extend(elements.iter().map(|element| {
        json!({
            "spdxElementId": "SPDXRef-Image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": element["SPDXID"],
        })
    }));
    let name = if name.is_empty() { "image" } else { name };
    let mut all = vec![json!({
        "name": name,
        "SPDXID": "SPDXRef-Image",
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "CONTAINER",
    })];
    all.extend(elements);
    let mut content = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": "",
        "creationInfo": {
            "created": created,
            "creators": [concat!("Tool: rbc-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": all,
        "relationships": relations,
    });
    // Two documents have one name only if they say the same.
    let digest = Digest::of(content.to_string().as_bytes());
    content["documentNamespace"] = format!("urn:rbc:spdx:{}", digest.hex()).into();
    Predicate { kind: SPDX, content }
}

fn element(package: &Package, distribution: &Distribution) -> Value {
    let purl = package.purl(distribution);
    // Letters, digits, dots and dashes are all that an identifier may have.
    let digest = Digest::of(format!("{purl}\n{}", package.found_in).as_bytes());
    let word: String = package
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let mut element = json!({
        "name": package.name,
        "SPDXID": format!("SPDXRef-Package-{}-{word}-{}", package.ecosystem.purl_type(), digest.short()),
        "versionInfo": package.version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        // A declared licence must be an SPDX expression, which the databases do not promise.
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "sourceInfo": format!("found in /{}", package.found_in),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }],
    });
    if !package.supplier.is_empty() {
        element["supplier"] = format!("Organization: {}", package.supplier).into();
    }
    if !package.license.is_empty() {
        element["licenseComments"] = format!("The package says: {}", package.license).into();
    }
    element
}
