//! `rbc cache`: takes the cache along, as a tar, an OCI layout or a registry image.

use std::io::{self, Write};

use rbc_runtime::{
    export::{Dest, Origins, Packaging},
    image,
    registry::{Client, Patience, Stop},
    store::Store,
    travel::{self, Contents, ExportPlace, FromPlace, Gathered, Mounts, PackOptions, Travelled},
};

use super::{
    Failure, Outcome,
    caches::{self, Place},
    report,
};
use crate::{
    cli::{CacheExportArgs, CacheImportArgs},
    registries, render, signals,
};

/// The name of an exported cache in its layout.
const TAG: &str = "latest";

pub fn export(store: &Store, args: &CacheExportArgs) -> Outcome {
    let stop = signals::stop_on_them()?;
    let contents = if args.mount.is_empty() {
        let mounts = if args.no_mounts { Mounts::none() } else { Mounts::All };
        Contents { results: travel::of_store(store)?, mounts }
    } else {
        Contents { results: Gathered::default(), mounts: Mounts::Named(args.mount.clone()) }
    };
    let options = PackOptions {
        compression: None,
        epoch: None,
        origins: origins(store)?,
        imports: None,
        stop: stop.clone(),
    };
    let packed = travel::pack(store, &contents, &options)?;
    if !packed.left_out.is_empty() {
        report::tell(&format!(
            "warning: {} results are left out, since the base image that they stand on is not in \
             the store any more: pull it to take them along",
            packed.left_out.len()
        ));
    }
    let client = registries::client(stop.clone())?;
    let (file, folder);
    let place = match &args.output {
        ExportPlace::Tar(path) => {
            file = path.clone().map_or(Dest::Stdout, Dest::Path);
            Place::Layout { dest: &file, packaging: Packaging::Tar, tag: TAG }
        }
        ExportPlace::Folder(path) => {
            folder = Dest::Path(path.clone());
            Place::Layout { dest: &folder, packaging: Packaging::Folder, tag: TAG }
        }
        ExportPlace::Registry(reference) => Place::Registry { client: &client, reference },
    };
    let sink = render::sink(args.progress, args.quiet, None);
    let written = caches::write(store, &packed, None, place, (1, &*sink, &stop));
    sink.finish();
    caches::outcome(written)?;
    if !args.quiet {
        report::tell(&format!(
            "exported {}, {}",
            results(packed.results),
            mount_count(packed.mounts)
        ));
    }
    Ok(())
}

/// The blobs of all base images that are in the store.
fn origins(store: &Store) -> Result<Origins, Failure> {
    let manifests = image::manifests(store)?;
    let whole: Vec<_> =
        manifests.into_iter().filter(|digest| image::layers_of(store, digest).is_ok()).collect();
    Ok(Origins::of_manifests(store, &whole)?)
}

pub fn import(store: &Store, args: &CacheImportArgs) -> Outcome {
    let client: Client = match &args.source.place {
        FromPlace::Registry(reference) if args.source.insecure => registries::client_for(
            Stop::default(),
            &[reference.domain().to_owned()],
            Patience::Long,
        )?,
        _ => registries::client(Stop::default())?,
    };
    let travelled = Travelled::open(store, &client, &args.source)?;
    let mounts = match args.no_mounts {
        true => Vec::new(),
        false => travel::import_mounts(store, &travelled, &args.mount, &Stop::default())?,
    };
    let sink = render::sink(args.progress, args.quiet, None);
    let done = match args.mount.is_empty() {
        true => travel::import_all(store, travelled, &*sink),
        false => Ok(travel::Imported::default()),
    };
    sink.finish();
    let done = done?;
    if !args.quiet {
        for id in &mounts {
            writeln!(io::stdout(), "{id}")?;
        }
        let known = match done.known {
            0 => String::new(),
            known => format!(" ({known} more were there)"),
        };
        report::tell(&format!(
            "imported {}{known}, {}",
            results(done.results),
            mount_count(mounts.len())
        ));
    }
    if done.lost > 0 {
        return Err(Failure::Told(format!("error: {} could not be imported", results(done.lost))));
    }
    Ok(())
}

fn results(count: usize) -> String {
    format!("{count} result{}", if count == 1 { "" } else { "s" })
}

fn mount_count(count: usize) -> String {
    format!("{count} cache mount{}", if count == 1 { "" } else { "s" })
}
