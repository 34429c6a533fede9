//! The config file: `config.toml` of the user and of the machine.
//!
//! Read by the commands that need it, never by the runtime, which gets the settings as values. The
//! README lists the keys.

mod table;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rbc_compiler::diagnostic::Diagnostic;
use rbc_runtime::registry::{HostSettings, Mirror, Registries};

use crate::{cli::values, commands::Failure};
use table::{Document, Item, Table};

/// The file of the whole machine.
const SYSTEM: &str = "/etc/rbc/config.toml";

/// What the config files say.
#[derive(Clone, Debug, Default)]
pub struct Config {
    registries: Vec<Registry>,
    /// `[state] max-size`, in bytes.
    state_max_size: Option<u64>,
}

/// `[registry."NAME"]`.
#[derive(Clone, Debug, Default)]
struct Registry {
    name: String,
    mirrors: Option<Vec<Mirror>>,
    /// Hosts of mirrors that were given as `http://…`.
    plain_mirrors: Vec<String>,
    http: Option<bool>,
    insecure: Option<bool>,
    authorities: Option<Vec<PathBuf>>,
    keypair: Option<(PathBuf, PathBuf)>,
}

impl Config {
    /// Reads the file that `RBC_CONFIG` names; without it, that of the machine and that of the user,
    /// whose settings go first.
    pub fn load() -> Result<Self, Failure> {
        let variable = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let mut config = Self::default();
        if let Some(path) = variable("RBC_CONFIG") {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read the config file {}", path.display()))?;
            config.add(&path, &text)?;
            return Ok(config);
        }
        let user = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        let user = user.map(|dir| dir.join("rbc/config.toml"));
        for path in std::iter::once(PathBuf::from(SYSTEM)).chain(user) {
            match std::fs::read_to_string(&path) {
                Ok(text) => config.add(&path, &text)?,
                Err(e) if is_not_for_us(e.kind()) => {}
                Err(error) => {
                    let what = format!("cannot read the config file {}", path.display());
                    return Err(anyhow::Error::new(error).context(what).into());
                }
            }
        }
        Ok(config)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        self.read(path, text).map_err(Failure::diagnostic)
    }

    fn read(&mut self, path: &Path, text: &str) -> Result<(), Diagnostic> {
        let root = Document::new(path, text).parse()?;
        root.only(&["registry", "state"])?;
        if let Some(state) = root.get("state") {
            let state = state.table()?;
            state.only(&["max-size"])?;
            if let Some(item) = state.get("max-size") {
                let size = values::size(&item.text()?).map_err(|error| item.wrong(&error))?;
                self.state_max_size = Some(size);
            }
        }
        let Some(registries) = root.get("registry") else { return Ok(()) };
        let folder = path.parent().unwrap_or(Path::new(""));
        let all = registries.table()?;
        for (name, span, item) in all.entries() {
            let is_host = Mirror::parse(&name).is_some_and(|place| place.folder.is_empty());
            if !is_host {
                let error = all.wrong_at(span, &format!("{name:?} is not HOST[:PORT]"));
                return Err(error.help("write the name in quotes: [registry.\"example.org\"]"));
            }
            let new = Registry::read(&name, &item.table()?, folder)?;
            match self.registries.iter_mut().find(|known| known.name == name) {
                Some(known) => known.replace_by(new),
                None => self.registries.push(new),
            }
        }
        Ok(())
    }

    /// The most bytes that the state folder may take.
    pub fn state_max_size(&self) -> Option<u64> {
        self.state_max_size
    }

    /// What the files say of registries, in the runtime's form.
    pub fn registries(&self) -> Registries {
        let mut out = Registries::default();
        for registry in &self.registries {
            for host in &registry.plain_mirrors {
                if !self.registries.iter().any(|other| other.name == *host) {
                    let settings = HostSettings { plain_http: true, ..HostSettings::default() };
                    out.set(host, settings);
                }
            }
            out.set_mirrors(&registry.name, registry.mirrors.clone().unwrap_or_default());
            let settings = HostSettings {
                plain_http: registry.http.unwrap_or(false),
                insecure: registry.insecure.unwrap_or(false),
                authorities: registry.authorities.clone().unwrap_or_default(),
                client_certificate: registry.keypair.clone(),
            };
            if settings != HostSettings::default() {
                out.set(&registry.name, settings);
            }
        }
        out
    }
}

/// Whether a file that nobody named need not be read: it is not there, or belongs to somebody else,
/// as the home folder does after `sudo -u`.
fn is_not_for_us(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied)
}

impl Registry {
    fn read(name: &str, table: &Table<'_>, folder: &Path) -> Result<Self, Diagnostic> {
        table.only(&["mirrors", "http", "insecure", "ca", "keypair"])?;
        let mut out = Self { name: name.to_owned(), ..Self::default() };
        if let Some(mirrors) = table.get("mirrors") {
            let mut list = Vec::new();
            for item in mirrors.list() {
                let text = item.text()?;
                let (scheme, place) = text.split_once("://").unwrap_or(("https", &text));
                let mirror = Mirror::parse(place)
                    .filter(|_| matches!(scheme, "https" | "http"))
                    .ok_or_else(|| item.wrong("want HOST[:PORT][/FOLDER]"))?;
                if scheme == "http" {
                    out.plain_mirrors.push(mirror.host.clone());
                }
                list.push(mirror);
            }
            out.mirrors = Some(list);
        }
        out.http = table.get("http").map(|item| item.flag()).transpose()?;
        out.insecure = table.get("insecure").map(|item| item.flag()).transpose()?;
        let path = |item: Item<'_>| Ok::<_, Diagnostic>(folder.join(item.text()?));
        if let Some(files) = table.get("ca") {
            out.authorities = Some(files.list().into_iter().map(path).collect::<Result<_, _>>()?);
        }
        if let Some(pairs) = table.get("keypair") {
            let pairs = pairs.list();
            let [pair] = pairs.as_slice() else {
                let at = pairs.get(1).or(pairs.first());
                return Err(at.map_or_else(
                    || Diagnostic::error("config", format!("keypair of {name:?} is empty")),
                    |item| item.wrong("want one keypair"),
                ));
            };
            let both = pair.table()?;
            both.only(&["cert", "key"])?;
            let (Some(cert), Some(key)) = (both.get("cert"), both.get("key")) else {
                return Err(pair.wrong("want cert and key"));
            };
            out.keypair = Some((path(cert)?, path(key)?));
        }
        Ok(out)
    }

    /// Takes what another file says.
    fn replace_by(&mut self, other: Self) {
        if other.mirrors.is_some() {
            self.mirrors = other.mirrors;
            self.plain_mirrors = other.plain_mirrors;
        }
        self.http = other.http.or(self.http);
        self.insecure = other.insecure.or(self.insecure);
        self.authorities = other.authorities.or_else(|| self.authorities.take());
        self.keypair = other.keypair.or_else(|| self.keypair.take());
    }
}

#[cfg(test)]
mod tests {
    use rbc_compiler::diagnostic::Style;

    use super::*;

    fn error(text: &str) -> String {
        let mut config = Config::default();
        let error = config.read(Path::new("config.toml"), text).expect_err("wrong");
        error.render(Style::Plain)
    }

    #[test]
    fn later_files_replace_single_settings() {
        let mut config = Config::default();
        let read = |config: &mut Config, path: &str, text: &str| {
            config
                .read(Path::new(path), text)
                .unwrap_or_else(|e| panic!("{}", e.render(Style::Plain)));
        };
        read(
            &mut config,
            "/etc/rbc/config.toml",
            "[registry.\"docker.io\"]\nmirrors = [\"m.example\", \"http://n.example:80/hub\"]\n\
             [registry.\"h:5000\"]\nca = \"ca.pem\"\ninsecure = true\n\
             keypair = { cert = \"c.pem\", key = \"/k.pem\" }\n",
        );
        read(&mut config, "/u/config.toml", "[registry.\"h:5000\"]\ninsecure = false\n");
        let lines: Vec<String> = config.registries.iter().map(|r| format!("{r:?}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        Registry { name: "docker.io", mirrors: Some([Mirror { host: "m.example", folder: "", serves: All }, Mirror { host: "n.example:80", folder: "hub", serves: All }]), plain_mirrors: ["n.example:80"], http: None, insecure: None, authorities: None, keypair: None }
        Registry { name: "h:5000", mirrors: None, plain_mirrors: [], http: None, insecure: Some(false), authorities: Some(["/etc/rbc/ca.pem"]), keypair: Some(("/etc/rbc/c.pem", "/k.pem")) }
        "#);
    }

    #[test]
    fn errors_show_the_place_and_what_may_be_meant() {
        let texts = [
            "[registries.\"docker.io\"]\n",
            "[registry.\"docker.io\"]\nmirors = [\"a.b\"]\n",
            "[registry.docker.io]\nmirrors = [\"a.b\"]\n",
            "[registry.\"docker.io\"]\nmirrors = [\"a.b\", \"x y\"]\n",
            "[registry.\"docker.io\"]\ninsecure = \"yes\"\n",
            "[registry.\"h.x\"]\n[[registry.\"h.x\".keypair]]\ncert = \"a\"\n",
            "[registry.\"h.x\"\n",
        ];
        insta::assert_snapshot!(texts.map(error).join("\n"), @r#"
        error[config]: unknown key "registries"
         --> config.toml:1:2
          |
        1 | [registries."docker.io"]
          |  ^^^^^^^^^^
          |
          = help: known are registry, state
        error[config]: unknown key "mirors"
         --> config.toml:2:1
          |
        2 | mirors = ["a.b"]
          | ^^^^^^
          |
          = help: did you mean "mirrors"?
        error[config]: "docker" is not HOST[:PORT]
         --> config.toml:1:11
          |
        1 | [registry.docker.io]
          |           ^^^^^^
          |
          = help: write the name in quotes: [registry."example.org"]
        error[config]: want HOST[:PORT][/FOLDER]
         --> config.toml:2:19
          |
        2 | mirrors = ["a.b", "x y"]
          |                   ^^^^^
        error[config]: want true or false
         --> config.toml:2:12
          |
        2 | insecure = "yes"
          |            ^^^^^
        error[config]: want cert and key
         --> config.toml:2:1
          |
        2 | [[registry."h.x".keypair]]
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^
        error[config]: unclosed table, expected `]`
         --> config.toml:1:16
          |
        1 | [registry."h.x"
          |                ^
        "#);
    }
}
