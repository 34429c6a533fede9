//! A proxy on loopback in front of a registry that does to each request what a test wants.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::listener::Listener;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// An answer of the proxy's own, with further header lines.
    Status(u16, &'static str),
    /// The answer ends after so many bytes of its body.
    CutAnswer(usize),
    /// The answer ends after so many bytes of its body, as if this were all of it.
    Truncate(usize),
    /// The byte at this place of the answer's body is another one.
    Corrupt(usize),
    /// The connection ends after so many bytes of the request's body.
    CutRequest(usize),
}

/// Decides about a request by its number, from 0, and its first line.
type Plan = dyn Fn(usize, &str) -> Fault + Send + Sync;

pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    log: Arc<Mutex<Vec<String>>>,
    _listener: Listener,
}

impl Proxy {
    /// A proxy in front of `upstream`.
    pub fn start(
        upstream: &str,
        plan: impl Fn(usize, &str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let (log, upstream) = (Arc::clone(&log), upstream.to_owned());
            let number = AtomicUsize::new(0);
            Listener::start_parallel(move |stream| {
                // Broken connections are the purpose of this.
                let _ = serve(stream, &upstream, &plan, &number, &log);
            })
        };
        Self { host: listener.address.to_string(), log, _listener: listener }
    }

    /// The first lines of the requests so far, each with what was done to it and its range.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// One connection carries one request: the other side is told to close it.
fn serve(
    mut client: TcpStream,
    upstream: &str,
    plan: &Plan,
    number: &AtomicUsize,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let Some((head, rest)) = read_head(&mut client)? else { return Ok(()) };
    let line = head.lines().next().unwrap_or_default().to_owned();
    let fault = plan(number.fetch_add(1, Ordering::SeqCst), &line);
    let range = head.lines().find(|line| {
        let name = line.split(':').next().unwrap_or_default();
        name.eq_ignore_ascii_case("range") || name.eq_ignore_ascii_case("content-range")
    });
    log.lock().unwrap().push(format!("{line} {fault:?} {}", range.unwrap_or_default()));
    if let Fault::Status(status, more) = fault {
        drain_request(&mut client, &head, rest.len())?;
        return write!(
            client,
            "HTTP/1.1 {status} Fault\r\nConnection: close\r\nContent-Length: 0\r\n{more}\r\n"
        );
    }
    let mut server = TcpStream::connect(upstream)?;
    let (first, others) = head.split_once("\r\n").unwrap_or((&head, ""));
    server.write_all(format!("{first}\r\nConnection: close\r\n{others}").as_bytes())?;
    let up = {
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let limit = match fault {
            Fault::CutRequest(limit) => limit as u64,
            _ => u64::MAX,
        };
        let is_cut = matches!(fault, Fault::CutRequest(_));
        std::thread::spawn(move || {
            let mut body = rest.as_slice().chain(&mut from).take(limit);
            let copied = io::copy(&mut body, &mut to);
            if is_cut && copied.is_ok_and(|n| n == limit) {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            }
        })
    };
    let Some((head, rest)) = read_head(&mut server)? else {
        let _ = client.shutdown(Shutdown::Both);
        return Ok(());
    };
    let mut body = rest.as_slice().chain(&mut server);
    match fault {
        Fault::CutAnswer(limit) => {
            client.write_all(head.as_bytes())?;
            io::copy(&mut body.take(limit as u64), &mut client)?;
        }
        Fault::Truncate(limit) => {
            let length = |line: &&str| !line.to_ascii_lowercase().starts_with("content-length:");
            let head: Vec<&str> = head.split("\r\n").filter(length).collect();
            let head = head.join("\r\n");
            let head = head.trim_end();
            write!(client, "{head}\r\nContent-Length: {limit}\r\n\r\n")?;
            io::copy(&mut body.take(limit as u64), &mut client)?;
        }
        Fault::Corrupt(at) => {
            client.write_all(head.as_bytes())?;
            let mut all = Vec::new();
            body.read_to_end(&mut all)?;
            if let Some(byte) = all.get_mut(at) {
                *byte ^= 0x55;
            }
            client.write_all(&all)?;
        }
        _ => {
            client.write_all(head.as_bytes())?;
            io::copy(&mut body, &mut client)?;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

/// The head of a message with its empty line, and what came behind it. `None` at the end.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Reads the rest of a request, so that the answer is not lost with the connection.
fn drain_request(client: &mut TcpStream, head: &str, known: usize) -> io::Result<()> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let left = length.unwrap_or(0).saturating_sub(known as u64);
    io::copy(&mut client.take(left), &mut io::sink())?;
    Ok(())
}
