//! `rbc login` and `rbc logout`.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::Context;
use rbc_runtime::{
    image::Reference,
    registry::{CredentialFile, CredentialFiles, Kept, Secret, Stop},
};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{Failure, Outcome, report};
use crate::{
    cli::{LoginArgs, LogoutArgs},
    registries,
};

/// No password or token is longer.
const MAX_PASSWORD: u64 = 64 << 10;

pub fn login(args: &LoginArgs) -> Outcome {
    let scope = scope(&args.registry)?;
    let domain = scope.split('/').next().unwrap_or(&scope);
    if args.password.is_some() {
        report::tell(
            "warning: a password on the command line is seen by other users of this machine: \
             use --password-stdin",
        );
    }
    let user = match (&args.username, args.password_stdin) {
        (Some(user), _) => user.clone(),
        (None, true) => {
            return Err(Failure::Usage("--password-stdin needs --username".to_owned()));
        }
        (None, false) => ask("Username: ", Echo::Yes)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => password_from_stdin()?,
        None => ask("Password: ", Echo::No)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::Usage("user name and password must not be empty".to_owned()));
    }
    if user.contains(':') {
        return Err(Failure::Usage("a user name cannot hold a colon".to_owned()));
    }
    let file = match &args.authfile {
        Some(path) => CredentialFile::by_name(path.clone()),
        None => CredentialFiles::for_login()?,
    };
    let client = registries::client(Stop::default())?;
    let secret = client.log_in(domain, &Secret::Password { user, password })?;
    match file.keep(&scope, &secret)? {
        Kept::ByHelper(program) => report::tell(&format!("{program} keeps the credentials")),
        Kept::InFile => report::tell(&format!(
            "warning: the credentials are in {} without encryption: a credential helper would \
             keep them better",
            file.path().display()
        )),
    }
    writeln!(io::stdout(), "Login Succeeded")?;
    Ok(())
}

pub fn logout(args: &LogoutArgs) -> Outcome {
    let files = match &args.authfile {
        Some(path) => CredentialFiles::only(path.clone()),
        None => CredentialFiles::from_environment(),
    };
    let mut known = false;
    for file in files.files() {
        let scopes = if args.all { file.scopes()? } else { vec![scope(&args.registry)?] };
        for scope in scopes {
            if file.forget(&scope)? {
                known = true;
                let path = file.path().display();
                writeln!(io::stdout(), "Removed the credentials for {scope} from {path}")?;
            }
        }
    }
    if !known {
        let what = if args.all { "any registry" } else { &args.registry };
        writeln!(io::stdout(), "Not logged in to {what}")?;
    }
    Ok(())
}

/// The registry or folder that was named, without what people copy along from a browser.
fn scope(text: &str) -> Result<String, Failure> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let bare = match bare {
        "index.docker.io" | "index.docker.io/v1" | "registry-1.docker.io" | "" => "docker.io",
        other => other,
    };
    let wrong = || Failure::Usage(format!("{text:?} is no registry: want HOST[:PORT][/FOLDER]"));
    let inside: Reference = format!("{bare}/x").parse().map_err(|_| wrong())?;
    let own = format!("{}/", inside.domain());
    // A first part that is no host name would be a folder on Docker Hub.
    if !format!("{bare}/").starts_with(&own) {
        return Err(wrong());
    }
    Ok(bare.to_owned())
}

fn password_from_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_PASSWORD)
        .read_to_end(&mut bytes)
        .context("cannot read the password")?;
    let text = String::from_utf8(bytes).context("the password is no text")?;
    // One line end belongs to the tool that wrote it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Whether what is typed is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Yes,
    No,
}

fn ask(prompt: &str, echo: Echo) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage(
            "standard input is no terminal: give --username and --password-stdin".to_owned(),
        ));
    }
    let mut stderr = io::stderr();
    stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush())?;
    let before = tcgetattr(&stdin).context("cannot ask the terminal")?;
    if echo == Echo::No {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent)
            .context("cannot silence the terminal")?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if echo == Echo::No {
        tcsetattr(&stdin, OptionalActions::Now, &before).context("cannot restore the terminal")?;
        report::tell("");
    }
    read.context("cannot read what was typed")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_recognised() {
        let read = |text| scope(text).unwrap_or_else(|_| "wrong".to_owned());
        for (text, want) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io/", "ghcr.io"),
            ("localhost:5000/team/app", "localhost:5000/team/app"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
            ("team", "wrong"),
            ("a b", "wrong"),
            ("ghcr.io/Team", "wrong"),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
