//! A token service for docker-registry (distribution's token protocol): anybody may pull from
//! `public/`, the user of [`registry`](super::registry) may do everything.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::{
    listener::Listener,
    need,
    registry::{PASSWORD, USER},
};

const ISSUER: &str = "rbc test";
const SERVICE: &str = "test registry";
/// The refresh token that a login gives.
const REFRESH: &str = "long-lived";

pub struct TokenServer {
    dir: Arc<tempfile::TempDir>,
    log: Arc<Mutex<Vec<String>>>,
    listener: Listener,
}

impl TokenServer {
    pub fn start() -> Self {
        need("openssl", "openssl");
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"])
            .args(["/CN=tokens", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(status.status.success());
        let log = Arc::default();
        let listener = {
            let (log, dir) = (Arc::clone(&log), Arc::clone(&dir));
            Listener::start(move |stream| {
                // A client that goes away is its own business.
                let _ = serve(stream, dir.path().to_owned(), &log);
            })
        };
        Self { dir, log, listener }
    }

    /// Lines for docker-registry's configuration.
    pub fn registry_config(&self) -> String {
        format!(
            "auth:\n  token:\n    realm: http://{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n\
             \x20   rootcertbundle: {}\n",
            self.listener.address,
            self.dir.path().join("cert.pem").display()
        )
    }

    /// The scopes that were asked for so far, each with who asked.
    pub fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, dir: PathBuf, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap_or(0);
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let target = first.split(' ').nth(1).unwrap_or_default();
    let query = match first.starts_with("POST") {
        true => String::from_utf8_lossy(&body).into_owned(),
        false => target.split_once('?').map_or(String::new(), |(_, query)| query.to_owned()),
    };
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), unescape(value)))
        .collect();
    let value = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let basic = format!("Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes(), STANDARD));
    let who = match (value("refresh_token"), &authorization) {
        (Some(token), _) => (token == REFRESH).then_some("token"),
        (None, Some(given)) => (*given == basic).then_some("password"),
        (None, None) => Some("nobody"),
    };
    let scopes: Vec<&str> = pairs
        .iter()
        .filter(|(key, _)| key == "scope")
        .flat_map(|(_, value)| value.split(' '))
        .filter(|scope| !scope.is_empty())
        .collect();
    log.lock().unwrap().push(format!("{} {}", who.unwrap_or("stranger"), scopes.join(" ")));
    let mut stream = stream;
    let Some(who) = who.filter(|_| value("service") == Some(SERVICE)) else {
        let text = r#"{"errors":[{"code":"UNAUTHORIZED","message":"unknown user"}]}"#;
        let length = text.len();
        return write!(
            stream,
            "HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
        );
    };
    let access: Vec<_> = scopes.iter().filter_map(|scope| granted(scope, who)).collect();
    let token = sign(&dir, &access);
    let mut answer = json!({ "token": token, "access_token": token, "expires_in": 300 });
    if value("offline_token") == Some("true") {
        answer["refresh_token"] = REFRESH.into();
    }
    let text = answer.to_string();
    let length = text.len();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}")
}

/// What somebody gets of a scope.
fn granted(scope: &str, who: &str) -> Option<serde_json::Value> {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let actions: Vec<&str> = actions
        .split(',')
        .filter(|action| who != "nobody" || (name.starts_with("public/") && *action == "pull"))
        .collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

/// A JSON web token, signed by openssl.
fn sign(dir: &std::path::Path, access: &[serde_json::Value]) -> String {
    let pem = fs::read_to_string(dir.join("cert.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let head = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": "", "jti": "1",
        "iat": now, "nbf": now - 60, "exp": now + 300, "access": access,
    });
    let encode = |json: &serde_json::Value| base64(json.to_string().as_bytes(), URL);
    let text = format!("{}.{}", encode(&head), encode(&claims));
    let file = tempfile::NamedTempFile::new_in(dir).unwrap();
    fs::write(file.path(), &text).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", "key.pem"])
        .arg(file.path())
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    format!("{text}.{}", base64(&output.stdout, URL))
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The alphabet for addresses, which goes without padding.
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(data: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::new();
    for chunk in data.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            out.push(char::from(alphabet[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    while std::ptr::eq(alphabet, STANDARD) && !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'%', [a, b, after @ ..]) => {
                let hex = [*a, *b];
                let hex = std::str::from_utf8(&hex).unwrap_or("3f");
                bytes.push(u8::from_str_radix(hex, 16).unwrap_or(b'?'));
                rest = after;
                continue;
            }
            (byte, _) => bytes.push(byte),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
