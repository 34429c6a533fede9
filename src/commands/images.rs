//! The local image store: `load`, `save`, `images`, `tag`, `rmi`, `base-image`.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, bail};
use rbc_runtime::{
    export::Dest,
    image::{self, ImageRow, Reference, Source},
    store::Store,
    upkeep::show_bytes,
};

use super::{Failure, Outcome, plain::print_table};
use crate::{
    base_image,
    cli::{
        BaseImageArgs, ImagesArgs, ListFormat, LoadArgs, RmiArgs, SaveArgs, SaveFormat, TagArgs,
    },
};

pub fn load(store: &Store, args: &LoadArgs) -> Outcome {
    let mut stdin = io::stdin();
    let source = match &args.input {
        Some(path) if path.as_os_str() != "-" => Source::Path(path.clone()),
        _ if stdin.is_terminal() => {
            return Err(Failure::Usage("name an archive with --input, or pipe one in".to_owned()));
        }
        _ => Source::Stream(&mut stdin),
    };
    let mut out = io::stdout().lock();
    for image in image::load(store, source)? {
        if image.names.is_empty() {
            writeln!(out, "Loaded image ID: {}", image.digest)?;
        }
        for name in &image.names {
            if args.quiet {
                writeln!(out, "{}", name.familiar())?;
            } else {
                writeln!(out, "Loaded image: {}", name.familiar())?;
            }
        }
    }
    Ok(())
}

pub fn save(store: &Store, args: &SaveArgs) -> Outcome {
    let dest = match &args.output {
        Some(path) if path.as_os_str() != "-" => Dest::Path(path.clone()),
        _ if io::stdout().is_terminal() => {
            return Err(Failure::Usage(
                "the archive is binary, and standard output is a terminal: use -o FILE".to_owned(),
            ));
        }
        _ => Dest::Stdout,
    };
    let format = match args.format {
        SaveFormat::DockerArchive => image::SaveFormat::DockerArchive,
        SaveFormat::Oci => image::SaveFormat::Oci,
    };
    Ok(image::save(store, &args.images, format, &dest)?)
}

pub fn list(store: &Store, args: &ImagesArgs) -> Outcome {
    let rows = image::list(store)?;
    let mut out = io::stdout().lock();
    if args.quiet {
        for row in &rows {
            writeln!(out, "{}", row.id.map_or_else(|| "-".to_owned(), |id| id.short()))?;
        }
        return Ok(());
    }
    if args.format == ListFormat::Json {
        for row in &rows {
            let line = serde_json::json!({
                "repository": row.repository,
                "tag": row.tag,
                "digest": row.digest.to_string(),
                "id": row.id.map(|id| id.to_string()),
                "created": row.created,
                "size": row.size,
                "platforms": row.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
            });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let cells = |row: &ImageRow| {
        let none = || "<none>".to_owned();
        [
            row.repository.clone().unwrap_or_else(none),
            row.tag.clone().unwrap_or_else(none),
            row.id.map_or_else(none, |id| id.short()),
            row.created.split('T').next().unwrap_or_default().to_owned(),
            show_bytes(row.size),
        ]
    };
    let mut table = vec![["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned)];
    table.extend(rows.iter().map(cells));
    Ok(print_table(&mut out, &table)?)
}

pub fn tag(store: &Store, args: &TagArgs) -> Outcome {
    let name: Reference = args.name.parse()?;
    Ok(image::tag(store, &args.image, &name)?)
}

pub fn remove(store: &Store, args: &RmiArgs) -> Outcome {
    let mut out = io::stdout().lock();
    let mut failed = Vec::new();
    for name in &args.images {
        match image::remove(store, name) {
            Ok(removed) => {
                for name in &removed.untagged {
                    writeln!(out, "Untagged: {name}")?;
                }
                for digest in &removed.deleted {
                    writeln!(out, "Deleted: {digest}")?;
                }
            }
            Err(image::ImageError::NoSuchImage { .. }) if args.force => {}
            Err(error) => failed.push(error.to_string()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("\nerror: ")).into()) }
}

pub fn make_base(store: &Store, args: &BaseImageArgs) -> Outcome {
    let name: Reference = args.tag.parse()?;
    let work = store.tmp_dir()?;
    let archive = work.path().join("base.tar");
    base_image::make(&args.programs, &archive, &name.to_string())?;
    let loaded = image::load(store, Source::Path(archive)).context("cannot load the image")?;
    match loaded.as_slice() {
        [image] => writeln!(io::stdout(), "Loaded image: {} ({})", name.familiar(), image.digest)?,
        _ => bail_one(loaded.len())?,
    }
    Ok(())
}

fn bail_one(found: usize) -> anyhow::Result<()> {
    bail!("the archive that was made holds {found} images instead of one")
}
