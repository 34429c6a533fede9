//! The old builder pattern: `create`, `cp`, `ps`, `rm`. A container is an image under a name, to
//! copy files from; nothing runs in it.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{anyhow, bail};
use rbc_ir::{CopyAction, FileAction, FileOp, Platform};
use rbc_runtime::{
    export::{self, Dest},
    fileop, image,
    store::{ContainerRecord, LayerId, Store},
    tree::{LayerStack, SourceTree},
};

use super::{Failure, Outcome};
use crate::cli::{CpArgs, CreateArgs, RmArgs};

pub fn create(store: &Store, args: &CreateArgs) -> Outcome {
    let digest = image::find(store, &args.image)?;
    let root = image::describe(store, &digest)?;
    let found = image::resolve(store, &root, &Platform::host(), &args.image)?;
    // 256 bits of nothing but chance, as docker's ids are.
    let id = [LayerId::unique(), LayerId::unique()].map(|part| part.to_string()).concat();
    let name = match &args.name {
        Some(name) if is_container_name(name) => name.clone(),
        Some(name) => {
            return Err(Failure::Usage(format!(
                "invalid container name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        None => id[..12].to_owned(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let container = ContainerRecord {
        name: name.clone(),
        id: id.clone(),
        image: args.image.clone(),
        manifest: found.descriptor.digest,
        created: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    };
    if !store.add_container(&container)? {
        let message = format!("the name {name:?} is taken by another container: rbc rm {name}");
        return Err(anyhow!(message).into());
    }
    writeln!(io::stdout(), "{id}")?;
    Ok(())
}

fn is_container_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.len() > 1
}

/// The container with a name, an id or the beginning of one.
fn find(store: &Store, text: &str) -> anyhow::Result<Option<ContainerRecord>> {
    let all = store.containers()?;
    if let Some(named) = all.iter().find(|c| c.name == text || c.id == text) {
        return Ok(Some(named.clone()));
    }
    let mut like = all.into_iter().filter(|c| !text.is_empty() && c.id.starts_with(text));
    match (like.next(), like.next()) {
        (Some(_), Some(_)) => bail!("{text:?} is the beginning of several container ids"),
        (found, _) => Ok(found),
    }
}

pub fn list(store: &Store) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{:14}{:30}NAME", "CONTAINER ID", "IMAGE")?;
    for container in store.containers()? {
        writeln!(out, "{:14}{:30}{}", &container.id[..12], container.image, container.name)?;
    }
    Ok(())
}

pub fn remove(store: &Store, args: &RmArgs) -> Outcome {
    let mut missing = Vec::new();
    for name in &args.containers {
        match find(store, name)? {
            Some(container) => {
                store.remove_container(&container.name)?;
                writeln!(io::stdout(), "{name}")?;
            }
            None if args.force => {}
            None => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("no such container: {}", missing.join(", ")).into())
}

pub fn copy(store: &Store, args: &CpArgs) -> Outcome {
    let Some((name, source)) = args.source.split_once(':').filter(|(name, _)| !name.contains('/'))
    else {
        return Err(Failure::Usage(format!(
            "{:?}: want CONTAINER:PATH; copying into a container is not supported",
            args.source
        )));
    };
    let container = find(store, name)?.ok_or_else(|| anyhow!("no such container: {name}"))?;
    let layers = image::unpack(store, &container.manifest)?;
    let tree = LayerStack::new(layers.iter().map(|id| store.layer_dir(id)).collect());
    let work = store.tmp_dir()?;
    let picked = work.path().join("picked");
    std::fs::create_dir(&picked)?;
    let to_stdout = args.dest.as_os_str() == "-";
    let (folder, name) = place(source, &args.dest, to_stdout)?;
    pick(&tree, source, &name, args, &picked)?;
    let picked = LayerStack::new(vec![picked]);
    let dest = if to_stdout { Dest::Stdout } else { Dest::Path(folder) };
    Ok(export::export_files(picked, &dest)?)
}

/// The folder that is written to, and the path in it; the empty path for the content of a folder.
fn place(source: &str, dest: &Path, to_stdout: bool) -> anyhow::Result<(PathBuf, String)> {
    let contents = source == "." || source.ends_with("/.");
    let trimmed = source.trim_end_matches("/.").trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default().to_owned();
    if to_stdout {
        return Ok((PathBuf::new(), base));
    }
    if dest.is_dir() {
        return Ok((dest.to_owned(), if contents { String::new() } else { base }));
    }
    let slash = dest.as_os_str().as_encoded_bytes().ends_with(b"/");
    let parent = dest.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if slash || !parent.is_dir() {
        bail!("there is no folder {}", if slash { dest } else { parent }.display());
    }
    match dest.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok((parent.to_owned(), name.to_owned())),
        None => bail!("{} is no name for a file", dest.display()),
    }
}

/// Takes `source` out of the container's tree, to the path `name` of the empty folder `picked`.
fn pick(
    tree: &LayerStack,
    source: &str,
    name: &str,
    args: &CpArgs,
    picked: &Path,
) -> anyhow::Result<()> {
    let op = FileOp {
        actions: vec![FileAction::Copy(CopyAction {
            input: 1,
            source: format!("/{}", source.trim_start_matches('/')),
            dest: format!("/{name}"),
            owner: None,
            mode: None,
            wildcard: false,
            follow_symlinks: args.follow_link,
            unpack: false,
            parents: false,
            exclude: Vec::new(),
            allow_missing: false,
        })],
    };
    let empty = LayerStack::new(Vec::new());
    let inputs = [Some(&empty as &dyn SourceTree), Some(tree)];
    fileop::run(&op, &empty, &inputs, picked, &fileop::FileOpOptions::default())?;
    Ok(())
}
