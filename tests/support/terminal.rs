//! A terminal of its own for a test: a shell in tmux, keys that are typed, and what is on the screen.

use std::{
    cell::Cell,
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Bench, need};

/// Long enough for any machine; nothing waits for it that works.
const LIMIT: Duration = Duration::from_secs(60);

/// A screen with a shell. It is gone when dropped.
pub struct Terminal<'a> {
    bench: &'a Bench,
    /// How many commands were run.
    commands: Cell<usize>,
}

impl<'a> Terminal<'a> {
    /// A screen in which `rbc` is the program that is tested.
    pub fn open(bench: &'a Bench, columns: u16, rows: u16) -> Self {
        need("tmux", "tmux");
        let terminal = Self { bench, commands: Cell::new(0) };
        let size = [columns.to_string(), rows.to_string()];
        let start = ["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], "sh"];
        terminal.tmux(&start);
        terminal.enter("PS1='$ '; clear");
        terminal.until("the prompt", |screen| screen == "$");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let rbc = env!("CARGO_BIN_EXE_rbc");
        let bin = std::path::Path::new(rbc).parent().expect("a folder");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        // As Bench::command, whose rbc is not the one that tmux starts.
        let output = Command::new("tmux")
            .args(["-u", "-S"])
            .arg(self.bench.path("tmux"))
            .args(arguments)
            .current_dir(self.bench.path("."))
            .env("RBC_ROOT", self.bench.root())
            .env("XDG_CONFIG_HOME", self.bench.path("config"))
            .env("DOCKER_CONFIG", self.bench.path("docker"))
            .env("PATH", path)
            .env("LC_ALL", "C.UTF-8")
            .env("ENV", "")
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .env_remove("BUILDKIT_PROGRESS")
            .output()
            .expect("tmux starts");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Types a line.
    pub fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.key("Enter");
    }

    /// Presses a key, in tmux's names.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Gives the screen another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.capture(&[])
    }

    /// The screen with its colours, as escape sequences.
    pub fn coloured(&self) -> String {
        self.capture(&["-e"])
    }

    /// The screen and all that was scrolled out of it.
    pub fn everything(&self) -> String {
        self.capture(&["-S", "-"])
    }

    fn capture(&self, how: &[&str]) -> String {
        let output = self.tmux(&[&["capture-pane", "-p"], how].concat());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The title that programs gave the window.
    pub fn title(&self) -> String {
        let output = self.tmux(&["display-message", "-p", "#{pane_title}"]);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Types a command on an empty screen, waits until it has ended, and gives the screen.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        let number = self.commands.get() + 1;
        self.commands.set(number);
        // What is typed is not what is printed, so the one is not taken for the other.
        self.enter(&format!("clear; {command}; echo end-of-$(({number}))"));
        let end = format!("\nend-of-{number}\n$");
        let screen = self.until(&end, |screen| screen.ends_with(&end));
        screen.strip_suffix(&end).unwrap_or(&screen).to_owned()
    }

    /// Waits until all is so with the screen, and gives it.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(begin.elapsed() < LIMIT, "waited for {what:?}, but the screen is:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a text is on the screen, and gives it.
    #[track_caller]
    pub fn wait(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Waits until the shell asks for the next command, and gives the screen.
    #[track_caller]
    pub fn prompt(&self) -> String {
        self.until("the prompt", |screen| screen.trim_end().ends_with("\n$"))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ =
            Command::new("tmux").arg("-S").arg(self.bench.path("tmux")).arg("kill-server").output();
    }
}
