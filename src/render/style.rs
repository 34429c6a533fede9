//! Colours and signs, as far as the terminal has them and the user wants them.

use std::env;

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Plain,
    Strong,
    /// Less important than the rest.
    Soft,
    Active,
    Good,
    Bad,
    Warning,
}

/// How to draw.
#[derive(Clone, Copy)]
pub struct Style {
    pub colours: bool,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
}

/// Signs that tell states apart without colours.
pub struct Signs {
    pub done: &'static str,
    pub cached: &'static str,
    pub failed: &'static str,
    pub stopped: &'static str,
    pub question: &'static str,
    pub warning: &'static str,
    pub path: &'static str,
    /// Before what a step prints.
    pub bar: &'static str,
}

const UNICODE: Signs = Signs {
    done: "✔",
    cached: "=",
    failed: "✖",
    stopped: "■",
    question: "?",
    warning: "!",
    path: "▸",
    bar: "│",
};
const ASCII: Signs = Signs {
    done: "+",
    cached: "=",
    failed: "x",
    stopped: "-",
    question: "?",
    warning: "!",
    path: ">",
    bar: "|",
};

/// Whether the user wants no colours: `NO_COLOR` (no-color.org), or a terminal without any.
pub fn no_colours() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb()
}

/// Whether the terminal can do nothing but print.
pub fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl Style {
    /// As the environment says.
    pub fn of_environment() -> Self {
        // The first that is set to something counts (locale(7)).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        Self { colours: !no_colours(), unicode }
    }

    pub fn signs(self) -> &'static Signs {
        if self.unicode { &UNICODE } else { &ASCII }
    }

    /// A sign that turns while something runs.
    pub fn turning(self, turn: usize) -> &'static str {
        const DOTS: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const STROKES: [&str; 4] = ["-", "\\", "|", "/"];
        if self.unicode { DOTS[turn % DOTS.len()] } else { STROKES[turn % STROKES.len()] }
    }

    pub fn paint(self, look: Look, text: &str) -> String {
        let code = match look {
            _ if !self.colours => return text.to_owned(),
            Look::Plain => return text.to_owned(),
            Look::Strong => "1",
            Look::Soft => "2",
            Look::Active => "36",
            Look::Good => "32",
            Look::Bad => "1;31",
            Look::Warning => "33",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
