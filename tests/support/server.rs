//! A small HTTP server on the loopback interface whose answers a test sets.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::listener::Listener;

/// An answer to GET.
#[derive(Clone, Default)]
pub struct Answer {
    /// 200 if left at 0.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// How many bytes of the body are kept back although they were announced.
    pub withheld: usize,
    /// How many requests are answered with 503 first.
    pub failures: u32,
}

impl Answer {
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    /// Where the files of other paths are.
    folder: Option<PathBuf>,
    /// Path of every request, with ` 304` behind it if nothing was sent.
    log: Vec<String>,
}

/// A running server; it ends when dropped.
pub struct Server {
    state: Arc<Mutex<State>>,
    listener: Listener,
}

impl Server {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = {
            let state = Arc::clone(&state);
            Listener::start(move |stream| {
                // A client that goes away is its own business.
                let _ = serve(stream, &state);
            })
        };
        Self { state, listener }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.address)
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Serves the files of a folder on all paths without an answer of their own.
    pub fn set_folder(&self, folder: &Path) {
        self.state.lock().unwrap().folder = Some(folder.to_owned());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    lines.by_ref().take(8192).read_line(&mut first)?;
    let mut etag = None;
    loop {
        let mut line = String::new();
        lines.by_ref().take(8192).read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => {
                etag = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = state.lock().unwrap();
    let plain = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let file = state.folder.as_ref().and_then(|folder| std::fs::read(folder.join(plain)).ok());
    let mut answer = match state.answers.get_mut(&path) {
        None if file.is_some() => Answer::body(file.unwrap_or_default()),
        None => Answer { status: 404, ..Answer::body("no such file") },
        Some(answer) if answer.failures > 0 => {
            answer.failures -= 1;
            Answer { status: 503, ..Answer::default() }
        }
        Some(answer) => answer.clone(),
    };
    let known = etag.is_some()
        && answer.headers.iter().any(|(n, v)| *n == "ETag" && Some(v) == etag.as_ref());
    if known {
        answer = Answer { status: 304, ..Answer::default() };
    }
    state.log.push(if known { format!("{path} 304") } else { path });
    drop(state);
    let status = if answer.status == 0 { 200 } else { answer.status };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} Answer\r\nConnection: close\r\n")?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", answer.body.len())?;
    stream.write_all(&answer.body[..answer.body.len() - answer.withheld])?;
    stream.flush()
}
