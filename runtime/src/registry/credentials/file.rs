//! One credential file: Docker's `config.json` or Podman's `auth.json`
//! (containers-auth.json(5)).
//!
//! Looking up understands both dialects. Changing keeps every field that is not ours, since
//! Docker's file is its whole configuration.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{CredentialError, Credentials, Secret, helper::Helper, malformed};

/// The key of Docker Hub in Docker's files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Docker Hub's name.
const HUB: &str = "docker.io";

/// A credential file, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    path: PathBuf,
    dialect: Dialect,
    /// Whether a file that may not be read is passed over.
    lenient: bool,
}

/// Whose keys a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Docker Hub has a key of its own; no keys for single repositories.
    Docker,
    Podman,
}

/// What is read of a file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// Base 64 of `user:password`.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What became of a secret that was to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is in the file, readable by whoever can read the file.
    InFile,
    /// A helper with this name has it.
    ByHelper(String),
}

impl CredentialFile {
    /// Docker's `config.json`.
    pub fn docker(path: PathBuf) -> Self {
        Self { path, dialect: Dialect::Docker, lenient: false }
    }

    /// Podman's `auth.json`.
    pub fn podman(path: PathBuf) -> Self {
        Self { path, dialect: Dialect::Podman, lenient: false }
    }

    /// Docker's if it is called `config.json`, else Podman's.
    pub fn by_name(path: PathBuf) -> Self {
        match path.file_name() {
            Some(name) if name == "config.json" => Self::docker(path),
            _ => Self::podman(path),
        }
    }

    /// The same file, passed over if it may not be read.
    pub(super) fn unreadable_is_absent(self) -> Self {
        Self { lenient: true, ..self }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file, or a helper that it names, has for a repository. See
    /// [`CredentialFiles::find`](super::CredentialFiles::find).
    pub(super) fn find(
        &self,
        domain: &str,
        path: &str,
    ) -> Result<Option<Credentials>, CredentialError> {
        let content = match self.read()? {
            Some(bytes) => {
                serde_json::from_slice::<Content>(&bytes).map_err(|e| malformed(&self.path, e))?
            }
            None => return Ok(None),
        };
        let wanted = scopes(domain, path);
        if let Some((key, helper)) = nearest(&content.cred_helpers, &wanted)
            && !helper.is_empty()
        {
            // The program knows a server under the name that it was stored with.
            return self.ask(helper, &[key, &self.server_key(domain)]);
        }
        if let Some(helper) = content.creds_store.filter(|helper| !helper.is_empty())
            && let Some(found) = self.ask(&helper, &[&self.server_key(domain), domain])?
        {
            return Ok(Some(found));
        }
        let Some((key, entry)) = nearest(&content.auths, &wanted) else { return Ok(None) };
        let Some(secret) = entry.secret(&self.path, key)? else { return Ok(None) };
        Ok(Some(Credentials { secret, origin: self.path.display().to_string() }))
    }

    fn ask(&self, helper: &str, servers: &[&str]) -> Result<Option<Credentials>, CredentialError> {
        let helper = Helper { name: helper, named_in: &self.path };
        let mut asked: Vec<&str> = Vec::new();
        for server in servers {
            if asked.contains(server) {
                continue;
            }
            if let Some(secret) = helper.get(server)? {
                return Ok(Some(Credentials { secret, origin: helper.program() }));
            }
            asked.push(server);
        }
        Ok(None)
    }

    /// Keeps a secret for `scope`, a registry or, in Podman's files, a repository of one. It goes
    /// to the helper that the file names for the registry, if any.
    ///
    /// # Errors
    /// If the file cannot be read or written; it is then as it was.
    pub fn keep(&self, scope: &str, secret: &Secret) -> Result<Kept, CredentialError> {
        let domain = domain_of(scope);
        if let Some(name) = self.helper_for(domain)? {
            let helper = Helper { name: &name, named_in: &self.path };
            helper.store(&self.server_key(domain), secret)?;
            return Ok(Kept::ByHelper(helper.program()));
        }
        let mut entry = Map::new();
        let mut put = |key: &str, value: String| entry.insert(key.to_owned(), value.into());
        match secret {
            Secret::Password { user, password } => {
                put("auth", STANDARD.encode(format!("{user}:{password}")));
            }
            Secret::IdentityToken(token) => {
                // Docker takes an entry without `auth` for an empty one.
                put("auth", STANDARD.encode("00000000-0000-0000-0000-000000000000:"));
                put("identitytoken", token.clone());
            }
            Secret::RegistryToken(token) => {
                put("registrytoken", token.clone());
            }
        }
        self.change(|document| {
            let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
            if auths.is_null() {
                *auths = Value::Object(Map::new());
            }
            let Value::Object(auths) = auths else { return Err("auths is no object") };
            let key = self.key_for(auths, scope);
            auths.insert(key, Value::Object(entry));
            Ok(true)
        })?;
        Ok(Kept::InFile)
    }

    /// Forgets what there is for `scope`; tells whether there was anything.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn forget(&self, scope: &str) -> Result<bool, CredentialError> {
        let domain = domain_of(scope);
        let mut known = false;
        if let Some(name) = self.helper_for(domain)? {
            let helper = Helper { name: &name, named_in: &self.path };
            known = helper.erase(&self.server_key(domain))?;
        }
        if self.read()?.is_none() {
            return Ok(known);
        }
        let changed = self.change(|document| {
            let Some(Value::Object(auths)) = document.get_mut("auths") else { return Ok(false) };
            let before = auths.len();
            auths.retain(|key, _| plain_key(key) != scope);
            Ok(auths.len() < before)
        })?;
        Ok(known || changed)
    }

    /// The registries and repositories that the file itself has something for.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn scopes(&self) -> Result<Vec<String>, CredentialError> {
        let Some(bytes) = self.read()? else { return Ok(Vec::new()) };
        let content: Content =
            serde_json::from_slice(&bytes).map_err(|e| malformed(&self.path, e))?;
        Ok(content.auths.unwrap_or_default().keys().map(|key| plain_key(key)).collect())
    }

    fn helper_for(&self, domain: &str) -> Result<Option<String>, CredentialError> {
        let Some(bytes) = self.read()? else { return Ok(None) };
        let content: Content =
            serde_json::from_slice(&bytes).map_err(|e| malformed(&self.path, e))?;
        let own = nearest(&content.cred_helpers, &[domain.to_owned()]).map(|(_, h)| h.clone());
        Ok(own.or(content.creds_store).filter(|helper| !helper.is_empty()))
    }

    /// The key that an entry for `scope` has, or gets.
    fn key_for(&self, auths: &Map<String, Value>, scope: &str) -> String {
        let own = if scope == HUB { self.server_key(scope) } else { scope.to_owned() };
        if auths.contains_key(&own) {
            return own;
        }
        auths.keys().find(|key| plain_key(key) == scope).cloned().unwrap_or(own)
    }

    /// What a registry is called as a server.
    fn server_key(&self, domain: &str) -> String {
        match (domain, self.dialect) {
            (HUB, Dialect::Docker) => HUB_KEY.to_owned(),
            _ => domain.to_owned(),
        }
    }

    fn read(&self) -> Result<Option<Vec<u8>>, CredentialError> {
        match fs::read(&self.path) {
            // An empty file is how some tools begin one.
            Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) if self.lenient && e.kind() == ErrorKind::PermissionDenied => Ok(None),
            Err(source) => {
                Err(CredentialError::Io { doing: "read", path: self.path.clone(), source })
            }
        }
    }

    /// Reads, changes and replaces the file, with other writers kept out meanwhile. `change` tells
    /// whether it has changed anything, or what is wrong with the file.
    fn change(
        &self,
        change: impl FnOnce(&mut Map<String, Value>) -> Result<bool, &'static str>,
    ) -> Result<bool, CredentialError> {
        let failed =
            |source| CredentialError::Io { doing: "write", path: self.path.clone(), source };
        // A link stays a link: what it points to is replaced.
        let place = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = place.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(failed)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let lock = File::open(folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut document: Map<String, Value> = match self.read()? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| malformed(&self.path, e))?,
            None => Map::new(),
        };
        if !change(&mut document).map_err(|reason| malformed(&self.path, reason))? {
            return Ok(false);
        }
        let mut staged = tempfile::Builder::new()
            .prefix(".rbc-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(failed)?;
        serde_json::to_writer_pretty(&mut staged, &document).map_err(|e| failed(e.into()))?;
        staged.write_all(b"\n").map_err(failed)?;
        staged.persist(&place).map_err(|e| failed(e.error))?;
        Ok(true)
    }
}

impl Entry {
    /// `None` for an entry that only says that a helper has the secret.
    fn secret(&self, path: &Path, key: &str) -> Result<Option<Secret>, CredentialError> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Secret::RegistryToken(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Secret::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok((!user.is_empty()).then_some(Secret::Password { user, password }));
        }
        let wrong = || malformed(path, format!("auth of {key:?} is not user:password in base 64"));
        let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| wrong())?;
        // Some writers pad with zero bytes.
        let text = String::from_utf8(bytes).map_err(|_| wrong())?;
        let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or_else(wrong)?;
        Ok(Some(Secret::Password { user: user.to_owned(), password: password.to_owned() }))
    }
}

/// What may stand for a repository in a file, most special first: `h/a/b`, `h/a`, `h`.
fn scopes(domain: &str, path: &str) -> Vec<String> {
    let mut name = format!("{domain}/{path}");
    let mut out = Vec::new();
    loop {
        out.push(name.trim_end_matches('/').to_owned());
        match name.rfind('/') {
            Some(at) => name.truncate(at),
            None => break,
        }
    }
    out.dedup();
    out
}

/// The most special entry for one of `wanted`; of two keys for the same thing the exact one.
fn nearest<'a, T>(
    map: &'a Option<BTreeMap<String, T>>,
    wanted: &[String],
) -> Option<(&'a str, &'a T)> {
    let map = map.as_ref()?;
    wanted.iter().find_map(|scope| {
        let exact = map.get_key_value(scope);
        let found = exact.or_else(|| map.iter().find(|(key, _)| plain_key(key) == *scope));
        found.map(|(key, value)| (key.as_str(), value))
    })
}

/// A key as a registry or repository: Docker's keys may be addresses (`https://host/v1/`).
fn plain_key(key: &str) -> String {
    let (bare, is_address) = match key.split_once("://") {
        Some((_, rest)) => (rest, true),
        None => (key, false),
    };
    let bare = bare.trim_end_matches('/');
    let bare = match bare.split_once('/') {
        Some((host, path)) if is_address || matches!(path, "v1" | "v2") => host,
        _ => bare,
    };
    match bare.split_once('/') {
        None => hub_name(bare).to_owned(),
        Some((host, path)) => format!("{}/{path}", hub_name(host)),
    }
}

fn hub_name(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    }
}

fn domain_of(scope: &str) -> &str {
    scope.split('/').next().unwrap_or(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> (tempfile::TempDir, CredentialFile) {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("config.json");
        fs::write(&path, json).expect("write");
        let file = CredentialFile::docker(path);
        (dir, file)
    }

    fn found(json: &str, domain: &str, path: &str) -> String {
        let (dir, file) = file(json);
        match file.find(domain, path) {
            Ok(None) => "none".to_owned(),
            Ok(Some(Credentials { secret: Secret::Password { user, password }, .. })) => {
                format!("{user} {password}")
            }
            Ok(Some(Credentials { secret: Secret::IdentityToken(token), .. })) => {
                format!("identity {token}")
            }
            Ok(Some(Credentials { secret: Secret::RegistryToken(token), .. })) => {
                format!("token {token}")
            }
            Err(error) => error.to_string().replace(&dir.path().display().to_string(), "DIR"),
        }
    }

    /// Base 64 of `a:b`, `c:d:e`.
    const AB: &str = r#"{"auth":"YTpi"}"#;
    const CD: &str = r#"{"auth":"YzpkOmU="}"#;

    #[test]
    fn the_most_special_entry_counts() {
        let json = format!(r#"{{"auths":{{"h":{AB},"h/team":{CD},"other:5000":{CD}}}}}"#);
        assert_eq!(found(&json, "h", "team/app"), "c d:e");
        assert_eq!(found(&json, "h", "team"), "c d:e");
        assert_eq!(found(&json, "h", "teams/app"), "a b");
        assert_eq!(found(&json, "other", "x"), "none");
        assert_eq!(found(&json, "other:5000", "x"), "c d:e");
    }

    #[test]
    fn keys_may_be_addresses() {
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "docker.io/v1/"]
        {
            let json = format!(r#"{{"auths":{{"{key}":{AB}}}}}"#);
            assert_eq!(found(&json, "docker.io", "library/alpine"), "a b", "{key}");
            assert_eq!(found(&json, "ghcr.io", "x"), "none", "{key}");
        }
        let json = format!(r#"{{"auths":{{"https://h:1/v2/":{AB}}}}}"#);
        assert_eq!(found(&json, "h:1", "x"), "a b");
    }

    #[test]
    fn all_kinds_of_entries_are_read() {
        let entry = |entry: &str| found(&format!(r#"{{"auths":{{"h":{entry}}}}}"#), "h", "x");
        assert_eq!(entry(r#"{"auth":"AAA=","identitytoken":"i"}"#), "identity i");
        assert_eq!(entry(r#"{"registrytoken":"r"}"#), "token r");
        assert_eq!(entry(r#"{"username":"u","password":"p"}"#), "u p");
        assert_eq!(entry("{}"), "none");
        let wrong = "cannot read the credentials in DIR/config.json: auth of \"h\" is not \
                     user:password in base 64";
        assert_eq!(entry(r#"{"auth":"%"}"#), wrong);
        assert_eq!(entry(r#"{"auth":"AAAA"}"#), wrong);
        let cut = found("{", "h", "x");
        assert!(cut.starts_with("cannot read the credentials in DIR/config.json: EOF"), "{cut}");
        assert_eq!(found("", "h", "x"), "none");
    }

    #[test]
    fn a_missing_helper_is_named() {
        assert_eq!(
            found(r#"{"credsStore":"no-such-helper"}"#, "h", "x"),
            "the credential helper docker-credential-no-such-helper, which DIR/config.json names, \
             is not in PATH"
        );
        assert_eq!(
            found(r#"{"credHelpers":{"h":"../x"}}"#, "h", "x"),
            "the credential helper docker-credential-../x, which DIR/config.json names, has a name \
             that no program can have"
        );
        assert_eq!(found(r#"{"credHelpers":{"h":"no-such-helper"}}"#, "i", "x"), "none");
    }

    #[test]
    fn changes_keep_what_is_not_ours() {
        let (_dir, file) = file(
            r#"{"z":{"b":1,"a":[2]},"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"}},"experimental":"on"}"#,
        );
        let secret = Secret::Password { user: "c".to_owned(), password: "d:e".to_owned() };
        assert_eq!(file.keep("docker.io", &secret).expect("kept"), Kept::InFile);
        assert_eq!(file.keep("h:5000", &secret).expect("kept"), Kept::InFile);
        insta::assert_snapshot!(fs::read_to_string(file.path()).expect("read"), @r#"
        {
          "z": {
            "b": 1,
            "a": [
              2
            ]
          },
          "auths": {
            "https://index.docker.io/v1/": {
              "auth": "YzpkOmU="
            },
            "h:5000": {
              "auth": "YzpkOmU="
            }
          },
          "experimental": "on"
        }
        "#);
        let mode = fs::metadata(file.path()).expect("facts").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(file.forget("docker.io").expect("forgotten"));
        assert!(!file.forget("docker.io").expect("nothing left"));
        assert_eq!(file.scopes().expect("read"), ["h:5000"]);
    }

    #[test]
    fn a_file_is_made_where_there_is_none() {
        let dir = tempfile::tempdir().expect("folder");
        let file = CredentialFile::podman(dir.path().join("new/auth.json"));
        assert!(!file.forget("h").expect("nothing there"));
        file.keep("docker.io", &Secret::IdentityToken("t".to_owned())).expect("kept");
        assert_eq!(file.scopes().expect("read"), ["docker.io"]);
        let found = file.find("docker.io", "x/y").expect("read").expect("there");
        assert_eq!(found.secret, Secret::IdentityToken("t".to_owned()));
        let mode = |path: &Path| fs::metadata(path).expect("facts").permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(file.path().parent().expect("folder")), 0o700);
    }

    proptest::proptest! {
        #[test]
        fn any_key_is_answered(key in "\\PC{0,40}") {
            let _ = plain_key(&key);
        }
    }
}
