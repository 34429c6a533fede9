//! The packages that an image's files tell of: databases of package managers, what Python and
//! Node.js packages carry with them, what Go and Rust programs were linked from, and lock files.
//!
//! All of it is written by strangers: what cannot be read is left out, never trusted with memory or
//! depth.

mod apk;
mod dpkg;
mod language;
mod lock;
mod program;
mod rpm;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::purl_part;
use crate::tree::{Entries, Entry, Kind, LastLink, SourceTree, TreeError, resolve};

/// Largest database that is read, in bytes.
const MAX_DATABASE: u64 = 256 << 20;
/// Largest description of one package that is read, in bytes.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// Largest lock file that is read, in bytes.
const MAX_LOCK: u64 = 32 << 20;

/// Whose package it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ecosystem {
    /// Debian and its kin.
    Dpkg,
    /// Alpine and its kin.
    Apk,
    /// Fedora, SUSE and their kin.
    Rpm,
    /// Python.
    Python,
    /// Node.js.
    Node,
    /// Go.
    Go,
    /// Rust.
    Cargo,
}

impl Ecosystem {
    /// The type in package URLs.
    pub(super) fn purl_type(self) -> &'static str {
        match self {
            Self::Dpkg => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Python => "pypi",
            Self::Node => "npm",
            Self::Go => "golang",
            Self::Cargo => "cargo",
        }
    }
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Whose it is.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// Its version, with everything that belongs to it (epoch, release).
    pub version: String,
    /// Its architecture; empty where it has none.
    pub architecture: String,
    /// Who made the package; may be empty.
    pub supplier: String,
    /// What it says of its licence; may be empty.
    pub license: String,
    /// The file that tells of it, without a leading slash.
    pub found_in: String,
}

/// What `/etc/os-release` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// `debian`; empty if it is not said.
    pub id: String,
    /// `12`; empty if it is not said.
    pub version: String,
}

/// Why packages cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The files cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A database is of a kind that cannot be read here.
    #[error(
        "/{path}: rbc cannot read this kind of rpm database, so the bill of materials would lack \
         its packages; convert it with `rpmdb --rebuilddb` of a current rpm, or build without --sbom"
    )]
    OldRpm {
        /// The database.
        path: String,
    },
}

impl Package {
    /// Its package URL (github.com/package-url/purl-spec).
    pub(super) fn purl(&self, distribution: &Distribution) -> String {
        let kind = self.ecosystem.purl_type();
        let is_system = matches!(self.ecosystem, Ecosystem::Dpkg | Ecosystem::Apk | Ecosystem::Rpm);
        // Names of Go modules are folders all the way, those of Node packages may have a scope.
        let split = match self.ecosystem {
            Ecosystem::Go => self.name.rsplit_once('/'),
            Ecosystem::Node => self.name.split_once('/'),
            _ => None,
        };
        let namespace = match (is_system, split) {
            (true, _) if !distribution.id.is_empty() => format!("{}/", purl_part(&distribution.id)),
            (false, Some((scope, _))) => {
                let folders: Vec<String> = scope.split('/').map(purl_part).collect();
                format!("{}/", folders.join("/"))
            }
            _ => String::new(),
        };
        let name = split.map_or(self.name.as_str(), |(_, name)| name);
        let mut facts = Vec::new();
        if !self.architecture.is_empty() {
            facts.push(format!("arch={}", purl_part(&self.architecture)));
        }
        if is_system && !distribution.id.is_empty() {
            let distro = format!("{}-{}", distribution.id, distribution.version);
            facts.push(format!("distro={}", purl_part(distro.trim_end_matches('-'))));
        }
        let facts = match facts.is_empty() {
            true => String::new(),
            false => format!("?{}", facts.join("&")),
        };
        format!("pkg:{kind}/{namespace}{}@{}{facts}", purl_part(name), purl_part(&self.version))
    }
}

/// All packages of a tree, sorted, and the distribution that they belong to.
///
/// # Errors
/// If files cannot be read, or a database is there that cannot be understood: a bill that lacks
/// packages would be worse than none.
pub fn packages(tree: &dyn SourceTree) -> Result<(Vec<Package>, Distribution), PackageError> {
    let mut found = BTreeSet::new();
    dpkg::add(tree, &mut found)?;
    apk::add(tree, &mut found)?;
    rpm::add(tree, &mut found)?;
    language::add(tree, &mut found)?;
    Ok((found.into_iter().collect(), distribution(tree)?))
}

fn distribution(tree: &dyn SourceTree) -> Result<Distribution, TreeError> {
    let mut out = Distribution::default();
    for path in ["etc/os-release", "usr/lib/os-release"] {
        let Some(text) = read_text(tree, Path::new(path), MAX_DESCRIPTION)? else { continue };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            match key.trim() {
                "ID" => out.id = value,
                "VERSION_ID" => out.version = value,
                _ => {}
            }
        }
        break;
    }
    Ok(out)
}

/// The regular file that a path leads to, through symlinks if need be.
fn find_file(tree: &dyn SourceTree, path: &Path) -> Result<Option<(PathBuf, Entry)>, TreeError> {
    let place = match resolve(tree, path, LastLink::Follow) {
        Err(TreeError::LinkLoop(_) | TreeError::NotADirectory(_)) => return Ok(None),
        other => other?,
    };
    let entry = match tree.lookup(&place) {
        Err(TreeError::NotADirectory(_)) => None,
        other => other?,
    };
    Ok(entry.filter(|entry| entry.kind == Kind::File).map(|entry| (place, entry)))
}

/// The text of a file, if it is there and not larger than `limit`. Other bytes than UTF-8 are
/// replaced.
fn read_text(tree: &dyn SourceTree, path: &Path, limit: u64) -> Result<Option<String>, TreeError> {
    let Some((place, entry)) = find_file(tree, path)? else { return Ok(None) };
    if entry.size > limit {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    tree.open(&place, &entry)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| TreeError::io(&place, error))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The entries of a folder that a path leads to; none if there is no such folder.
fn list(tree: &dyn SourceTree, path: &Path) -> Result<Entries, TreeError> {
    let place = match resolve(tree, path, LastLink::Follow) {
        Err(TreeError::LinkLoop(_) | TreeError::NotADirectory(_)) => return Ok(Entries::default()),
        other => other?,
    };
    match tree.lookup(&place) {
        Ok(Some(entry)) if entry.is_dir() => tree.read_dir(&place),
        Ok(_) | Err(TreeError::NotADirectory(_)) => Ok(Entries::default()),
        Err(error) => Err(error),
    }
}

/// A path of a tree as text.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether a name ends so.
fn ends_with(name: &OsStr, end: &str) -> bool {
    name.as_bytes().ends_with(end.as_bytes())
}
