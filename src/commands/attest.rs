//! What a build states about its images: `--provenance`, `--sbom`, `--attest`.

use rbc_ir::Graph;
use rbc_runtime::{
    attest::{self, Predicate, ProvenanceOptions},
    export::{self, Target},
    image::Reference,
    store::Store,
    tree::LayerStack,
};

use super::Failure;
use crate::cli::{Attest, BuildFlags};

/// What was asked for.
pub struct Attestations {
    provenance: Option<ProvenanceOptions>,
    sbom: bool,
}

impl Attestations {
    /// The options' own names go before `--attest`.
    pub fn of(flags: &BuildFlags) -> Self {
        let mut out = Self { provenance: None, sbom: false };
        for attest in &flags.attest {
            match attest {
                Attest::Provenance(spec) => out.provenance.clone_from(&spec.0),
                Attest::Sbom(wanted) => out.sbom = *wanted,
            }
        }
        if let Some(spec) = &flags.provenance {
            out.provenance.clone_from(&spec.0);
        }
        out.sbom = flags.sbom.unwrap_or(out.sbom);
        out
    }

    /// Whether anything is stated at all.
    pub fn are_wanted(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }

    /// What is stated about each target.
    pub fn predicates(
        &self,
        store: &Store,
        graph: &Graph,
        targets: &[Target],
        names: &[Reference],
    ) -> Result<Vec<Vec<Predicate>>, Failure> {
        let created = export::created(graph.meta.source_date_epoch)?;
        let name = names.first().map(Reference::familiar).unwrap_or_default();
        let mut out = Vec::with_capacity(targets.len());
        for (built, target) in targets.iter().zip(&graph.targets) {
            let mut predicates = Vec::new();
            if self.sbom {
                let dirs = built.layers.iter().map(|id| store.layer_dir(id)).collect();
                let (packages, distribution) = attest::packages(&LayerStack::new(dirs))?;
                predicates.push(attest::sbom(&name, &created, &packages, &distribution));
            }
            if let Some(options) = &self.provenance {
                predicates.push(attest::provenance(graph, target, options));
            }
            out.push(predicates);
        }
        Ok(out)
    }
}
